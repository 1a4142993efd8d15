"""Tubes of the phantom: vessels, airways and bones as short tapering capsules, painted with partial volume."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from node.testing.phantom_plane import Field, Plane

Points = NDArray[np.float32]
"""[n, 3] LPS mm (x, y, z)."""
PIECE_MM = 6.0
_PATCHES = (12, 20, 32, 48, 64, 96, 128, 192, 256)


@dataclass(frozen=True, slots=True)
class Tubes:
    """`n` capsules; each tapers from its start to its end."""

    start: Points
    end: Points
    start_radius: NDArray[np.float32]
    end_radius: NDArray[np.float32]

    @classmethod
    def along(cls, points: Sequence[Sequence[float]], radii: Sequence[float]) -> Self:
        """Return the tube through `points` with the radius given at each, cut into pieces of at most PIECE_MM."""
        line = np.asarray(points, np.float64)
        return cls.between(line[:-1], line[1:], np.asarray(radii[:-1]), np.asarray(radii[1:]))

    @classmethod
    def between(
        cls,
        start: NDArray[np.float64],
        end: NDArray[np.float64],
        start_radius: NDArray[np.float64],
        end_radius: NDArray[np.float64],
    ) -> Self:
        """Return the segments from `start` to `end` [n, 3], cut into pieces of at most PIECE_MM."""
        cuts = np.maximum(1, np.ceil(np.linalg.norm(end - start, axis=1) / PIECE_MM)).astype(int)
        which = np.repeat(np.arange(len(cuts)), cuts)
        step = np.arange(len(which)) - np.repeat(np.cumsum(cuts) - cuts, cuts)
        low, high = (step / cuts[which])[:, None], ((step + 1) / cuts[which])[:, None]
        way, taper = (end - start)[which], (end_radius - start_radius)[which]
        return cls(
            (start[which] + low * way).astype(np.float32),
            (start[which] + high * way).astype(np.float32),
            (start_radius[which] + low[:, 0] * taper).astype(np.float32),
            (start_radius[which] + high[:, 0] * taper).astype(np.float32),
        )

    @classmethod
    def joined(cls, parts: Iterable[Self]) -> Self:
        """Return all capsules of `parts`."""
        found = list(parts)
        return cls(
            np.concatenate([part.start for part in found]),
            np.concatenate([part.end for part in found]),
            np.concatenate([part.start_radius for part in found]),
            np.concatenate([part.end_radius for part in found]),
        )

    def grown(self, by: float, least: float = 0.0) -> "Tubes":
        """Return the capsules with every radius changed by `by` mm; those that stay below `least` are left out."""
        keep = np.maximum(self.start_radius, self.end_radius) + by > least
        first, last = (np.maximum(radius[keep] + by, 0.0) for radius in (self.start_radius, self.end_radius))
        return Tubes(self.start[keep], self.end[keep], first.astype(np.float32), last.astype(np.float32))

    def crossing(self, plane: Plane) -> "Tubes":
        """Return the capsules that reach into the plane's slice."""
        reach = np.maximum(self.start_radius, self.end_radius) + plane.thickness / 2
        low = np.minimum(self.start[:, 2], self.end[:, 2]) - reach
        high = np.maximum(self.start[:, 2], self.end[:, 2]) + reach
        return self.only((low < plane.z) & (high > plane.z))

    def clearance(self, points: Points) -> NDArray[np.float32]:
        """Return the distance in mm from each of `points` to the nearest wall, measured at the capsules' middles."""
        middle = (self.start + self.end) / 2
        away = np.linalg.norm(points[:, None, :] - middle[None], axis=2)
        return np.asarray((away - np.maximum(self.start_radius, self.end_radius)).min(axis=1), np.float32)

    def only(self, keep: NDArray[np.bool_]) -> "Tubes":
        """Return the capsules that `keep` marks."""
        return Tubes(self.start[keep], self.end[keep], self.start_radius[keep], self.end_radius[keep])


def coverage(tubes: Tubes, plane: Plane) -> Field:
    """Return how much of each pixel of the slice the tubes fill, 0 to 1."""
    size, margin = len(plane.x), _PATCHES[-1]
    field = np.zeros((size + 2 * margin, size + 2 * margin), np.float32)
    found = tubes.crossing(plane)
    if len(found.start):
        first, extent = _boxes(found, plane)
        patch = np.asarray(_PATCHES)[np.minimum(np.searchsorted(_PATCHES, extent), len(_PATCHES) - 1)]
        seen = ((first > -margin) & (first < size)).all(axis=1)
        for side in np.unique(patch[seen]):
            chosen = seen & (patch == side)
            _paint_patches(field, found.only(chosen), first[chosen], (int(side), plane))
    return field[margin : margin + size, margin : margin + size]


def _boxes(tubes: Tubes, plane: Plane) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return first (column, row) of each capsule's box and the box's longer side, in pixels."""
    reach = (np.maximum(tubes.start_radius, tubes.end_radius) + plane.edge)[:, None]
    origin = np.array([plane.x[0], plane.y[0]])
    low = np.minimum(tubes.start[:, :2], tubes.end[:, :2]) - reach - origin
    high = np.maximum(tubes.start[:, :2], tubes.end[:, :2]) + reach - origin
    first = np.floor(low / plane.pixel).astype(np.int64)
    return first, (np.ceil(high / plane.pixel).astype(np.int64) - first).max(axis=1) + 1


def _paint_patches(field: Field, tubes: Tubes, first: NDArray[np.int64], patch: tuple[int, Plane]) -> None:
    side, plane = patch
    steps, pixel, margin = np.arange(side), np.float32(plane.pixel), _PATCHES[-1]
    x = (plane.x[0] + (first[:, 0, None] + steps) * pixel).astype(np.float32)
    y = (plane.y[0] + (first[:, 1, None] + steps) * pixel).astype(np.float32)
    heights = plane.sample_heights()
    filled = np.zeros((len(first), side, side), np.float32)
    for z in heights:
        filled += _filled(tubes, (x, y), np.float32(z), plane.edge)
    filled *= np.float32(1 / len(heights))
    for part, (column, row) in zip(filled, first + margin, strict=True):
        view = field[row : row + side, column : column + side]
        np.maximum(view, part, out=view)


def _filled(tubes: Tubes, grid: tuple[Field, Field], z: np.float32, edge: float) -> NDArray[np.float32]:
    """Return the part of each pixel that each capsule fills at height `z`: [capsule, row, column].

    The distance to a capsule is that to the nearest point `t` of its axis; everything but `t` is separable.
    """
    axis = tubes.end - tubes.start
    length2 = np.maximum((axis**2).sum(axis=1), np.float32(1e-6))[:, None, None]
    dx, dy, dz = grid[0] - tubes.start[:, :1], grid[1] - tubes.start[:, 1:2], (z - tubes.start[:, 2])[:, None]
    along = (dx * axis[:, :1])[:, None, :] + (dy * axis[:, 1:2] + dz * axis[:, 2:])[:, :, None]
    square = (dx**2)[:, None, :] + (dy**2 + dz**2)[:, :, None]
    t = np.clip(along / length2, 0, 1)
    square -= t * (2 * along - t * length2)
    taper = (tubes.end_radius - tubes.start_radius)[:, None, None]
    radius = tubes.start_radius[:, None, None] + t * taper
    inside = (radius - np.sqrt(np.maximum(square, 0))) * np.float32(1 / edge) + np.float32(0.5)
    thin = np.minimum(1, 2 * np.maximum(tubes.start_radius, tubes.end_radius) / np.float32(edge))
    return np.asarray(np.clip(inside, 0, 1) * thin[:, None, None], np.float32)
