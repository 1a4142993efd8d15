"""A chest CT that belongs to nobody: voxels with known truth, and the same as DICOM files.

For demo, tests and benchmarks. Body, lungs, airways, branching vessels, heart and mediastinum, ribs, spine and table
are painted analytically with partial volume, texture and correlated noise; nodules have stated sizes and densities.
The same arguments give the same voxels, UIDs and files.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node.domain.geometry import Geometry
from node.testing.phantom_dicom import PhantomFiles
from node.testing.phantom_nodules import DEFAULT_NODULES, NoduleRequest, PhantomNodule, place_nodules
from node.testing.phantom_noise import Noise
from node.testing.phantom_organs import build_organs, lung_points
from node.testing.phantom_plan import RESCALE_INTERCEPT, PhantomPlan
from node.testing.phantom_plane import plane_at
from node.testing.phantom_render import LEFT_LUNG, NODULE_BASE, RIGHT_LUNG, Chest
from node.testing.phantom_tubes import Tubes

__all__ = [
    "DEFAULT_NODULES",
    "LEFT_LUNG",
    "NODULE_BASE",
    "RESCALE_INTERCEPT",
    "RIGHT_LUNG",
    "NoduleRequest",
    "PhantomNodule",
    "PhantomPlan",
    "PhantomTruth",
    "PhantomVolume",
    "phantom_volume",
    "write_phantom",
    "write_plan",
]

_THREADS = 2
Slice = tuple[NDArray[np.int16], NDArray[np.uint8]]
"""Stored values and truth labels [row, column]."""


@dataclass(frozen=True, slots=True)
class PhantomVolume:
    """Voxels and truth; HU = voxel + RESCALE_INTERCEPT."""

    voxels: NDArray[np.int16]
    """[slice, row, column] stored values."""
    labels: NDArray[np.uint8]
    """[slice, row, column]: 0, RIGHT_LUNG, LEFT_LUNG, or NODULE_BASE + ordinal; vessels inside a lung count as lung."""
    geometry: Geometry
    nodules: tuple[PhantomNodule, ...]

    @property
    def hounsfield(self) -> NDArray[np.float32]:
        """HU, float32 [slice, row, column]; made anew at each call."""
        return self.voxels.astype(np.float32) + np.float32(RESCALE_INTERCEPT)


@dataclass(frozen=True, slots=True)
class PhantomTruth:
    """What is true of the files that were written."""

    study_uid: str
    series_uid: str
    files: tuple[Path, ...]
    """In slice order, feet first; Instance Number 1 is at the head."""
    geometry: Geometry
    nodules: tuple[PhantomNodule, ...]
    labels: NDArray[np.uint8]
    """As PhantomVolume.labels."""


def phantom_volume(
    *,
    slices: int = 120,
    size: int = 512,
    slice_spacing_mm: float | None = None,
    seed: int = 1,
    nodules: Sequence[NoduleRequest] | None = None,
    noise_hu: float = 14.0,
) -> PhantomVolume:
    """Return the voxels of a phantom without DICOM around them; see PhantomPlan for the arguments.

    Raises:
        ValueError: an argument is out of range, or a nodule asked for has no room.
    """
    plan = PhantomPlan(slices, size, slice_spacing_mm, seed, _frozen(nodules), noise_hu)
    chest = _chest(plan)
    voxels, labels = np.empty(plan.geometry.shape, np.int16), np.empty(plan.geometry.shape, np.uint8)
    for index, (stored, truth) in enumerate(_painted(chest, plan)):
        voxels[index], labels[index] = stored, truth
    return PhantomVolume(voxels, labels, plan.geometry, chest.nodules)


def write_phantom(
    directory: Path,
    *,
    slices: int = 120,
    size: int = 512,
    slice_spacing_mm: float | None = None,
    seed: int = 1,
    nodules: Sequence[NoduleRequest] | None = None,
) -> PhantomTruth:
    """Write a phantom as one CT series of Part 10 files, Explicit VR Little Endian; see PhantomPlan for the arguments.

    Raises:
        ValueError: an argument is out of range, or a nodule asked for has no room.
        OSError: the directory cannot be written.
    """
    return write_plan(directory, PhantomPlan(slices, size, slice_spacing_mm, seed, _frozen(nodules)))


def write_plan(directory: Path, plan: PhantomPlan) -> PhantomTruth:
    """Write the phantom of `plan` into `directory`, which is made where it is missing."""
    directory.mkdir(parents=True, exist_ok=True)
    chest, writer = _chest(plan), PhantomFiles(plan, directory)
    labels = np.empty(plan.geometry.shape, np.uint8)
    files = []
    for index, (stored, truth) in enumerate(_painted(chest, plan)):
        labels[index] = truth
        files.append(writer.write(index, stored))
    return PhantomTruth(plan.uid("study"), plan.uid("series"), tuple(files), plan.geometry, chest.nodules, labels)


def _frozen(nodules: Sequence[NoduleRequest] | None) -> tuple[NoduleRequest, ...] | None:
    return None if nodules is None else tuple(nodules)


def _chest(plan: PhantomPlan) -> Chest:
    organs = build_organs(plan.seed)
    half = plan.spacing * plan.slices / 2
    points = np.concatenate(lung_points(np.random.default_rng([plan.seed, 4]), 5000))
    crowd = Tubes.joined([organs.blood, organs.airways]).grown(0.0, 1.1)
    placed = place_nodules(
        DEFAULT_NODULES if plan.nodules is None else plan.nodules,
        np.random.default_rng([plan.seed, 5]).permutation(points),
        crowd,
        extent=(-half, half),
        fit_all=plan.nodules is not None,
    )
    return Chest(organs, placed, Noise.of_seed(plan.seed, pixel=plan.geometry.spacing[2]), plan.noise_hu)


def _painted(chest: Chest, plan: PhantomPlan) -> Iterator[Slice]:
    """Yield the slices in order, painted by a few threads that stay only a little ahead."""
    with ThreadPoolExecutor(_THREADS) as painters:
        waiting = [painters.submit(_paint, chest, plan, index) for index in range(min(4, plan.slices))]
        for following in range(len(waiting), plan.slices + len(waiting)):
            if following < plan.slices:
                waiting.append(painters.submit(_paint, chest, plan, following))
            yield waiting.pop(0).result()


def _paint(chest: Chest, plan: PhantomPlan, index: int) -> Slice:
    _, pixel, _ = plan.geometry.spacing
    z = plan.geometry.origin[2] + index * plan.spacing
    image, labels = chest.slice_at(plane_at(z, size=plan.size, pixel=pixel, thickness=plan.spacing), index)
    return np.clip(np.rint(image - np.float32(RESCALE_INTERCEPT)), 0, 4095).astype(np.int16), labels
