"""The crops of `lung_nodule_lidc`: 128 x 128 pixels about a nodule, and how many of four readers marked each pixel.

Each crop is 8-bit, min-max scaled by itself at the scan's own pixel spacing, which it does not store. Patients whose
scans are test studies are left out by name, even if they should appear in the folder.

LIDC-IDRI (The Cancer Imaging Archive, doi:10.7937/K9/TCIA.2015.LO9QL9SX), CC BY 3.0.
"""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

EXCLUDED_PATIENTS = frozenset({"LIDC-IDRI-0001", "LIDC-IDRI-0002", "LIDC-IDRI-0003"})
"""Their scans are test studies: never trained or validated on."""
CONSENSUS = 2
"""A pixel is nodule where at least this many readers marked it; fewer marks are neither nodule nor background."""
_PADDING_GAP = 16
"""Gray levels between the darkest value and the next that tell padding outside the reconstruction from air."""

Part = Literal["training", "validation", "test"]


class DatasetError(ValueError):
    """A data set is not what its description says; the message names file, value and remedy."""


@dataclass(frozen=True, slots=True)
class Crop:
    """One crop: `pixels` and `readers` are UINT8 [row, column] on one grid of `spacing_mm`."""

    name: str
    patient: str
    nodule: str
    spacing_mm: float
    pixels: NDArray[np.uint8]
    readers: NDArray[np.uint8]


def read_crops(directory: Path, spacing: Mapping[str, float]) -> tuple[Crop, ...]:
    """Read the unpacked set in the order of index.csv, without the excluded patients.

    Raises DatasetError naming the file when one is missing, has another size or a patient without spacing.
    """
    index = directory / "index.csv"
    if not index.is_file():
        raise DatasetError(f"{index}: no such file. Remedy: unpack lung_nodule_lidc and give its folder as --data.")
    with index.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["patient"] not in EXCLUDED_PATIENTS]
    missing = sorted({row["patient"] for row in rows} - set(spacing))
    if missing:
        raise DatasetError(f"{index}: no pixel spacing is known of {', '.join(missing)}. Remedy: drop their rows.")
    return tuple(_read_crop(directory, row, spacing[row["patient"]]) for row in rows)


def _read_crop(directory: Path, row: Mapping[str, str], spacing_mm: float) -> Crop:
    name = row["id"]
    pixels, readers = (_gray(directory / folder / f"{name}.png") for folder in ("images", "readers"))
    if pixels.shape != readers.shape:
        raise DatasetError(f"{directory}: {name}.png is {pixels.shape} in images and {readers.shape} in readers.")
    if readers.max() > 4:
        raise DatasetError(f"{directory / 'readers' / name}.png: {readers.max()} readers; there were four.")
    return Crop(name, row["patient"], row["nodule"], spacing_mm, without_padding(pixels), readers)


def _gray(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L"))
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read as an image: {error}. Remedy: unpack the set again.") from error


def without_padding(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lift padding (far below air, e.g. -2000 HU) to the darkest true value and stretch to 0..255 again.

    The graph clips stored values at -1024 HU before it cuts tiles, which does the same to a scan.
    """
    values = np.unique(pixels)
    if len(values) < 2 or values[1] - values[0] < _PADDING_GAP:
        return pixels
    lowest = float(values[1])
    lifted = np.maximum(pixels.astype(np.float32), lowest) - lowest
    return np.rint(lifted * (255 / max(float(values[-1]) - lowest, 1))).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Split:
    """Crops by part; no patient stands in two parts. `digest` names the split."""

    training: tuple[Crop, ...]
    validation: tuple[Crop, ...]
    test: tuple[Crop, ...]
    digest: str


def split_by_patient(crops: Sequence[Crop], *, seed: int, validation: float = 0.12, test: float = 0.15) -> Split:
    """Split by a seeded hash of the patient, so that adding a patient moves no other one."""
    parts: dict[Part, list[Crop]] = {"training": [], "validation": [], "test": []}
    for crop in crops:
        if crop.patient in EXCLUDED_PATIENTS:
            raise DatasetError(f"{crop.patient}: its scan is a test study. Remedy: leave it out.")
        draw = int.from_bytes(hashlib.sha256(f"{seed} {crop.patient}".encode()).digest()[:8]) / 2**64
        part: Part = "test" if draw < test else "validation" if draw < test + validation else "training"
        parts[part].append(crop)
    lines = sorted(f"{crop.name} {part}" for part, members in parts.items() for crop in members)
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return Split(tuple(parts["training"]), tuple(parts["validation"]), tuple(parts["test"]), digest)
