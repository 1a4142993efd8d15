"""Crops of phantom chests, in the form of the LIDC crops: far lung, airways, vessels and ribs with a known truth.

The LIDC crops lie about nodules; these also lie where none is. The phantoms' seeds differ from those of the demo and
the tests, so that their nodules lie elsewhere and have other sizes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from node.testing.phantom import NODULE_BASE, RESCALE_INTERCEPT, NoduleRequest, PhantomVolume, phantom_volume
from training.datasets.lidc_crops import Crop

SEEDS = (101, 102, 103, 104, 105, 106)
_ALL_READERS = 4
_FLOOR_HU = -1024.0


def phantom_crops(
    seeds: Sequence[int] = SEEDS, *, slices: int = 90, per_phantom: int = 120, size: int = 128
) -> tuple[Crop, ...]:
    """Return crops about random points of lung, a third of them about nodules."""
    crops: list[Crop] = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        phantom = phantom_volume(slices=slices, seed=seed, nodules=_requests(rng), noise_hu=float(rng.uniform(8, 30)))
        for number, point in enumerate(_points(phantom.labels, per_phantom, rng)):
            crops.append(_crop(phantom, point, size, f"phantom-{seed}", number))
    return tuple(crops)


def _requests(rng: np.random.Generator) -> tuple[NoduleRequest, ...]:
    """Return nodules of 4 to 18 mm, a quarter of them part-solid."""
    solid = [NoduleRequest(float(rng.uniform(4, 18)), float(rng.uniform(-30, 90))) for _ in range(6)]
    faint = [NoduleRequest(float(rng.uniform(8, 16)), float(rng.uniform(-620, -450)), "part_solid") for _ in range(3)]
    chalk = [NoduleRequest(float(rng.uniform(4, 8)), float(rng.uniform(200, 600)), "calcified") for _ in range(2)]
    return (*solid, *faint, *chalk)


def _points(labels: NDArray[np.uint8], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return voxel indices [count, 3]: two thirds anywhere in the lungs, one third in nodules."""
    lung, nodule = np.argwhere(labels[:, ::4, ::4] > 0) * (1, 4, 4), np.argwhere(labels >= NODULE_BASE)
    about = count // 3
    return np.concatenate(
        (lung[rng.integers(len(lung), size=count - about)], nodule[rng.integers(len(nodule), size=about)])
    )


def _crop(phantom: PhantomVolume, point: NDArray[np.int64], size: int, patient: str, number: int) -> Crop:
    _, rows, columns = phantom.labels.shape
    row, column = (
        int(np.clip(at - size // 2, 0, most - size)) for at, most in zip(point[1:], (rows, columns), strict=True)
    )
    window = (int(point[0]), slice(row, row + size), slice(column, column + size))
    values = np.maximum(phantom.voxels[window].astype(np.float32) + RESCALE_INTERCEPT, _FLOOR_HU)
    pixels = np.rint((values - values.min()) * (255 / max(float(np.ptp(values)), 1))).astype(np.uint8)
    readers = np.where(phantom.labels[window] >= NODULE_BASE, _ALL_READERS, 0).astype(np.uint8)
    spacing = phantom.geometry.spacing[1]
    return Crop(f"{patient}-{number:03}", patient, "phantom", spacing, pixels, readers)
