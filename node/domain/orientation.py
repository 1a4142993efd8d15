"""Turning a volume to the axes that a model wants, and its answer back: permuted and flipped, never interpolated.

Axes are three letters, each the patient direction in which the index grows, for slice, row and column: L left, R right,
A toward the front, P toward the back, S toward the head, I toward the feet. "SPL" is an axial stack from the feet up.
The patient system is DICOM's (PS3.3 C.7.6.2.1.1): x grows to L, y to P, z to S, however the patient lay.
"""

from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from node.domain.geometry import Geometry
from node.domain.volume import Volume
from node.errors import GeometryRefusal

_LETTERS: Final = {"L": (0, 1.0), "R": (0, -1.0), "P": (1, 1.0), "A": (1, -1.0), "S": (2, 1.0), "I": (2, -1.0)}


@dataclass(frozen=True, slots=True)
class Reorientation:
    """Which source axis each target axis is, and whether it runs backwards. Exactly invertible."""

    axes: str
    permutation: tuple[int, int, int]
    """Target axis -> source axis."""
    flips: tuple[bool, bool, bool]
    """Target axis runs against its source axis."""
    oblique_deg: float
    """The largest angle between an axis of the volume and the patient axis that it stands for."""

    @property
    def keeps_slices(self) -> bool:
        """Tell whether slices of the target are slices of the source, perhaps in reverse order."""
        return self.permutation[0] == 0

    def forth(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a view of `array` [slice, row, column, ...] of the source grid on the target grid."""
        turned = array.transpose(*self.permutation, *range(3, array.ndim))
        return turned[self._steps()]

    def back(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a view of `array` [slice, row, column, ...] of the target grid on the source grid.

        The exact inverse of `forth`; a view with strides, so copy it where C order is needed.
        """
        inverse = [self.permutation.index(axis) for axis in range(3)]
        return array[self._steps()].transpose(*inverse, *range(3, array.ndim))

    def _steps(self) -> tuple[slice, slice, slice]:
        first, second, third = (slice(None, None, -1 if flip else 1) for flip in self.flips)
        return first, second, third


def reorientation_of(geometry: Geometry, axes: str) -> Reorientation:
    """Return how a volume on `geometry` turns to `axes`: the permutation with the smallest angles."""
    wanted = [_LETTERS[letter] for letter in axes]
    directions = np.array([geometry.slice_direction, geometry.row_direction, geometry.column_direction])
    cosines = np.array([[sign * directions[source][axis] for source in range(3)] for axis, sign in wanted])
    best = max(permutations(range(3)), key=lambda order: sum(abs(cosines[at, order[at]]) for at in range(3)))
    chosen = [float(cosines[at, best[at]]) for at in range(3)]
    worst = min(abs(cosine) for cosine in chosen)
    return Reorientation(
        axes=axes,
        permutation=(best[0], best[1], best[2]),
        flips=(chosen[0] < 0, chosen[1] < 0, chosen[2] < 0),
        oblique_deg=float(np.degrees(np.arccos(min(1.0, worst)))),
    )


def reorient(volume: Volume, axes: str, max_oblique_deg: float) -> tuple[Volume, Reorientation]:
    """Return `volume` turned to `axes`, without copying voxels, and the way back.

    Slope, intercept and sources follow the slices. Where the slice axis becomes another one, every new slice cuts all
    instances: sources are then empty, and the rescale must be the same in all of them.

    Raises:
        GeometryRefusal: the volume is more oblique than `max_oblique_deg`, or its slices have different rescales and
            the model wants another slice axis (one slope per slice could not say them exactly).
    """
    way = reorientation_of(volume.geometry, axes)
    require_turnable(way, max_oblique_deg, uniform_rescale=_uniform(volume.slope) and _uniform(volume.intercept))
    geometry = _turned(volume.geometry, way)
    order = slice(None, None, -1 if way.flips[0] else 1)
    turned = replace(
        volume,
        voxels=way.forth(volume.voxels),
        geometry=geometry,
        slope=volume.slope[order] if way.keeps_slices else np.full(geometry.shape[0], volume.slope[0]),
        intercept=volume.intercept[order] if way.keeps_slices else np.full(geometry.shape[0], volume.intercept[0]),
        sources=volume.sources[order] if way.keeps_slices else (),
    )
    return turned, way


def require_turnable(way: Reorientation, max_oblique_deg: float, *, uniform_rescale: bool) -> None:
    """Raise GeometryRefusal where a volume may not or cannot exactly be turned this way."""
    if way.oblique_deg > max_oblique_deg:
        raise GeometryRefusal(
            f"the volume is {way.oblique_deg:.1f} degrees oblique to the axes {way.axes}; "
            f"at most {max_oblique_deg:g} degrees are taken"
        )
    if not way.keeps_slices and not uniform_rescale:
        raise GeometryRefusal(
            f"Rescale Slope or Intercept differ between slices, and the axes {way.axes} turn slices into another axis: "
            f"the values could not be said exactly by one rescale per slice"
        )


def _uniform(values: NDArray[np.float32]) -> bool:
    return bool((values == values[0]).all())


def _turned(geometry: Geometry, way: Reorientation) -> Geometry:
    directions = (geometry.slice_direction, geometry.row_direction, geometry.column_direction)
    corner = np.zeros(3)
    turned = []
    for axis, flip in zip(way.permutation, way.flips, strict=True):
        direction = np.array(directions[axis])
        if flip:
            corner[axis] = geometry.shape[axis] - 1
            direction = 0.0 - direction
        turned.append((float(direction[0]), float(direction[1]), float(direction[2])))
    origin = geometry.to_patient(corner[None])[0]
    shape, spacing = geometry.shape, geometry.spacing
    first, second, third = way.permutation
    return Geometry(
        shape=(shape[first], shape[second], shape[third]),
        spacing=(spacing[first], spacing[second], spacing[third]),
        origin=(float(origin[0]), float(origin[1]), float(origin[2])),
        slice_direction=turned[0],
        row_direction=turned[1],
        column_direction=turned[2],
    )
