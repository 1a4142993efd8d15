"""Connected components of a voxel map and their size, without a full-volume mask per component."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

Bounds = tuple[slice, slice, slice]
_REACH = {6: 1, 18: 2, 26: 3}
_MANY_POINTS = 64


@dataclass(frozen=True, slots=True)
class Component:
    """One connected component: its bounding box on the grid and its voxels inside that box."""

    bounds: Bounds
    voxels: NDArray[np.bool_]
    """[slice, row, column] inside `bounds`."""
    count: int


def components(mask: NDArray[np.bool_], connectivity: int, least_voxels: int) -> tuple[list[Component], int]:
    """Find the components of a mask [slice, row, column].

    Args:
        mask: True where a voxel belongs to a finding.
        connectivity: 6, 18 or 26 neighbours.
        least_voxels: Smaller components are counted but not returned.

    Returns:
        The components, largest first, equal ones in the order of their first voxel in the grid; and how many there
        are with those that are too small.
    """
    box = bounding_box(mask)
    if box is None:
        return [], 0
    labels, total = ndimage.label(mask[box], ndimage.generate_binary_structure(3, _REACH[connectivity]))
    counts = np.zeros(total + 1, np.int64)
    for plane in labels:  # by slice: bincount would copy the whole volume as 64-bit
        counts += np.bincount(plane.ravel(), minlength=total + 1)
    places = ndimage.find_objects(labels)
    order = np.argsort(-counts[1:], kind="stable") + 1
    found = [
        Component(_shifted(places[index - 1], box), labels[places[index - 1]] == index, int(counts[index]))
        for index in order
        if counts[index] >= least_voxels
    ]
    return found, int(total)


def bounding_box(mask: NDArray[np.bool_]) -> Bounds | None:
    """Return the smallest box that holds every True voxel; None where there is none."""
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    if not slices.size:
        return None
    inside = mask[slices[0] : slices[-1] + 1]
    plane: NDArray[np.bool_] = np.logical_or.reduce(inside, axis=0)
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    return (
        slice(int(slices[0]), int(slices[-1]) + 1),
        slice(int(rows[0]), int(rows[-1]) + 1),
        slice(int(columns[0]), int(columns[-1]) + 1),
    )


def longest_in_plane_mm(voxels: NDArray[np.bool_], row_mm: float, column_mm: float) -> float:
    """Return the largest Feret diameter of a component in any one slice plane, in mm.

    Distances run between the outer corners of pixels, so a single pixel measures its diagonal. The plane is the
    acquired slice plane: axial in an axial series, else the plane in which the source was reconstructed.
    """
    longest = 0.0
    for corners in _plane_corners(voxels):
        points = corners * (row_mm, column_mm)
        if float(np.hypot(*np.ptp(points, axis=0))) > longest:
            longest = max(longest, _feret(points))
    return longest


def _plane_corners(voxels: NDArray[np.bool_]) -> Iterator[NDArray[np.float64]]:
    """Yield, per slice with voxels, the outer corners (row, column) of each row's first and last pixel."""
    for plane in voxels:
        rows = np.flatnonzero(plane.any(axis=1))
        if rows.size:
            first = plane[rows].argmax(axis=1)
            last = plane.shape[1] - plane[rows, ::-1].argmax(axis=1)
            yield np.column_stack(
                [np.concatenate([rows, rows + 1, rows, rows + 1]), np.concatenate([first, first, last, last])]
            ).astype(np.float64)


def _feret(points: NDArray[np.float64]) -> float:
    if len(points) > _MANY_POINTS:
        points = points[ConvexHull(points).vertices]
    return float(pdist(points).max())


def _shifted(place: Bounds, box: Bounds) -> Bounds:
    first, second, third = (
        slice(inner.start + outer.start, inner.stop + outer.start) for inner, outer in zip(place, box, strict=True)
    )
    return first, second, third
