"""Nodules of the phantom: what is asked for, where they come to lie, and what is true of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from node.testing.phantom_anatomy import lung_distance
from node.testing.phantom_plane import Field, Plane, plane_at
from node.testing.phantom_tubes import Points, Tubes

NoduleKind = Literal["solid", "part_solid", "calcified"]
CORE_SHARE = 0.5
"""Diameter of the solid core of a part-solid nodule, as a share of the whole."""


@dataclass(frozen=True, slots=True)
class NoduleRequest:
    """A nodule to be placed. `density_hu` is that of the tissue, of the ground glass or of the chalk."""

    diameter_mm: float
    density_hu: float = 40.0
    kind: NoduleKind = "solid"


DEFAULT_NODULES = (
    NoduleRequest(20.0, 45.0),
    NoduleRequest(12.0, 40.0),
    NoduleRequest(10.0, -550.0, "part_solid"),
    NoduleRequest(8.0, 35.0),
    NoduleRequest(6.0, 40.0),
    NoduleRequest(6.0, 380.0, "calcified"),
    NoduleRequest(4.0, 40.0),
)


@dataclass(frozen=True, slots=True)
class PhantomNodule:
    """A nodule as it lies in the phantom: a sphere."""

    ordinal: int
    """1, 2, 3 ... in the order asked for."""
    diameter_mm: float
    density_hu: float
    kind: NoduleKind
    center_mm: tuple[float, float, float]
    """LPS mm."""

    @property
    def volume_ml(self) -> float:
        """Volume of the sphere."""
        return pi / 6 * self.diameter_mm**3 / 1000


def place_nodules(
    requests: Sequence[NoduleRequest], points: Points, crowd: Tubes, *, extent: tuple[float, float], fit_all: bool
) -> tuple[PhantomNodule, ...]:
    """Place each nodule at one of `points` (shuffled, inside the lungs), clear of tubes, pleura and other nodules.

    `extent` is the range of z in mm that slices cover. A nodule that does not fit is left out, or refused with
    ValueError where `fit_all`.
    """
    placed: list[PhantomNodule] = []
    for ordinal, request in enumerate(requests, 1):
        center = _clear_place(request.diameter_mm / 2, points, crowd, (extent, placed))
        if center is not None:
            placed.append(PhantomNodule(ordinal, request.diameter_mm, request.density_hu, request.kind, center))
        elif fit_all:
            raise ValueError(
                f"nodules: no clear place for {request.diameter_mm:g} mm between z {extent[0]:g} and {extent[1]:g} mm. "
                f"Remedy: more slices, fewer or smaller nodules."
            )
    return tuple(placed)


def _clear_place(
    radius: float, points: Points, crowd: Tubes, bounds: tuple[tuple[float, float], Sequence[PhantomNodule]]
) -> tuple[float, float, float] | None:
    """Return the first point with room on all sides, or that with the most room among those away from other nodules."""
    (low, high), placed = bounds
    fits = (points[:, 2] - radius > low) & (points[:, 2] + radius < high)
    for other in placed:
        apart = np.linalg.norm(points - np.asarray(other.center_mm, np.float32), axis=1)
        fits &= apart > radius + other.diameter_mm / 2 + 12
    found = points[fits][:400]
    if not len(found):
        return None
    room = np.minimum(crowd.clearance(found), _depth(found) - 2) - radius
    best = int(np.argmax(room > 2.0)) if (room > 2.0).any() else int(np.argmax(room))
    x, y, z = (round(float(value), 2) for value in found[best])
    return x, y, z


def _depth(points: Points) -> NDArray[np.float32]:
    """Return how far each point lies from the surface of the lung, as far as its own plane tells."""
    depths = np.empty(len(points), np.float32)
    for index, (x, y, z) in enumerate(points):
        around = plane_at(float(z), size=2, pixel=0.02, thickness=1.0)
        here = Plane(around.x + x, around.y + y, float(z), 1.0)
        depths[index] = -lung_distance(here)[0, 0]
    return depths


def nodule_coverage(
    nodule: PhantomNodule, plane: Plane, share: float = 1.0
) -> tuple[Field, tuple[slice, slice]] | None:
    """Return how much of each pixel the nodule (or its core, a `share` of the diameter) fills, and where."""
    radius = nodule.diameter_mm / 2 * share
    reach = radius + plane.edge
    x, y, z = nodule.center_mm
    if abs(plane.z - z) > reach + plane.thickness / 2:
        return None
    columns = slice(*(int(i) for i in np.searchsorted(plane.x, (x - reach, x + reach))))
    rows = slice(*(int(i) for i in np.searchsorted(plane.y, (y - reach, y + reach))))
    flat = ((plane.x[columns] - x) ** 2)[None, :] + ((plane.y[rows] - y) ** 2)[:, None]
    heights = plane.sample_heights()
    filled = [np.clip((radius - np.sqrt(flat + (height - z) ** 2)) / plane.edge + 0.5, 0, 1) for height in heights]
    return np.mean(filled, axis=0, dtype=np.float32), (rows, columns)
