"""Outlines of a mask in image coordinates, as SCOORD wants them (PS3.3 C.18.6.1.2).

Coordinates are (column, row) with 0.0, 0.0 at the top left corner of the top left pixel, so a pixel's outline runs
along whole numbers and its centre lies at .5, .5.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Point = tuple[int, int]
# Moving with the inside on the right hand: along the top edge to the right, down, to the left along the bottom, up.
_RIGHT_TURN: dict[_Point, _Point] = {(1, 0): (0, 1), (0, 1): (-1, 0), (-1, 0): (0, -1), (0, -1): (1, 0)}


@dataclass(frozen=True, slots=True)
class Outline:
    """A closed outline and the area that it encloses, holes included."""

    points: NDArray[np.float64]
    """[n, 2] of (column, row); the first point is repeated last."""
    area: float
    """Pixels."""

    def shifted(self, columns: int, rows: int) -> "Outline":
        """Return the outline moved by whole pixels."""
        return Outline(self.points + np.array([columns, rows]), self.area)


def outlines(plane: NDArray[np.bool_], most_points: int) -> list[Outline]:
    """Trace the outer outlines of a mask plane [row, column].

    Args:
        plane: The mask; pixels that touch only at a corner are outlined apart, holes are not outlined.
        most_points: Longer outlines are thinned to this many points.

    Returns:
        The outer outlines, largest area first.
    """
    loops = [np.array(loop, np.float64) for loop in _loops(_edges(plane))]
    outer = sorted(((_area(loop), loop) for loop in loops), key=lambda pair: -pair[0])
    return [Outline(_closed(_thinned(_corners(loop), most_points - 1)), area) for area, loop in outer if area > 0]


def _edges(plane: NDArray[np.bool_]) -> dict[_Point, list[_Point]]:
    """Return the directed pixel edges between inside and outside: from a corner to the steps that leave it."""
    padded = np.pad(plane, 1)
    inside = padded[1:-1, 1:-1]
    leaving: dict[_Point, list[_Point]] = defaultdict(list)
    sides = (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (0, 1)),
        (padded[2:, 1:-1], (1, 1), (-1, 0)),
        (padded[1:-1, :-2], (0, 1), (0, -1)),
    )
    for neighbour, (column_shift, row_shift), step in sides:
        rows, columns = np.nonzero(inside & ~neighbour)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            leaving[column + column_shift, row + row_shift].append(step)
    return leaving


def _loops(leaving: dict[_Point, list[_Point]]) -> list[list[_Point]]:
    loops = []
    for start in sorted(leaving):
        while leaving[start]:
            loops.append(_follow(leaving, start))
    return loops


def _follow(leaving: dict[_Point, list[_Point]], start: _Point) -> list[_Point]:
    """Walk from `start` until the walk is back; where two edges leave a corner turn right, so diagonals stay apart."""
    step = leaving[start].pop()
    point, loop = start, [start]
    while True:
        point = (point[0] + step[0], point[1] + step[1])
        if point == start:
            return loop
        loop.append(point)
        choices = leaving[point]
        turn = _RIGHT_TURN[step]
        step = turn if turn in choices else choices[0]
        choices.remove(step)


def _area(loop: NDArray[np.float64]) -> float:
    """Signed area: positive for an outer outline, negative for a hole (row axis points down)."""
    x, y = loop[:, 0], loop[:, 1]
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2.0


def _corners(loop: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keep only the points where the outline turns."""
    before, after = loop - np.roll(loop, 1, axis=0), np.roll(loop, -1, axis=0) - loop
    turns: NDArray[np.bool_] = np.logical_or.reduce(before != after, axis=1)
    return loop[turns]


def _thinned(loop: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    if len(loop) <= most:
        return loop
    kept: NDArray[np.float64] = loop[np.linspace(0, len(loop) - 1, most).round().astype(np.intp)]
    return kept


def _closed(loop: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([loop, loop[:1]])
