"""Branching airways and vessels that fill a lung (Tawhai, Pullan and Hunter 2000), with Murray's law for radii."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.testing.phantom_tubes import Points, Tubes

MURRAY_POWER = 1 / 2.6


@dataclass(frozen=True, slots=True)
class TreeRoot:
    """Where a tree enters its lung, and how thick it is there."""

    start: tuple[float, float, float]
    radius: float
    least_radius: float
    """Branches end where they would become thinner, mm."""


def grow_tree(root: TreeRoot, targets: Points) -> Tubes:
    """Return a tree from `root` that divides `targets` [n, 3] between its branches until each is reached.

    Each branch goes part of the way to the centre of its targets, then they are halved across their longest axis.
    """
    segments: list[tuple[NDArray[np.float64], NDArray[np.float64], float, float]] = []
    waiting = [(np.asarray(root.start, np.float64), targets.astype(np.float64), root.radius)]
    while waiting:
        start, mine, radius = waiting.pop()
        alone = len(mine) <= 1
        way = mine.mean(axis=0) - start
        end = start + (0.9 if alone else 0.42) * way
        here = root.radius * (len(mine) / len(targets)) ** MURRAY_POWER
        stop = root.least_radius * 0.6 if alone else max(here, root.least_radius * 0.6)
        segments.append((start, end, min(radius, here * 1.12), stop))
        if not alone and here > root.least_radius:
            waiting += [(end, half, here) for half in _halves(mine, end) if len(half)]
    rows = list(zip(*segments, strict=True))
    return Tubes.between(np.array(rows[0]), np.array(rows[1]), np.array(rows[2]), np.array(rows[3]))


def _halves(points: NDArray[np.float64], origin: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Cut the points as seen from `origin` at the median of their widest direction."""
    away = points - origin
    away /= np.linalg.norm(away, axis=1, keepdims=True) + 1e-6
    away -= away.mean(axis=0)
    _, vectors = np.linalg.eigh(away.T @ away)
    height = away @ vectors[:, -1]
    upper = height > np.median(height)
    return points[upper], points[~upper]


def beside(tree: Tubes, offset: tuple[float, float, float]) -> Tubes:
    """Return `tree` moved by `offset` mm for each mm of its radius: an artery runs beside its bronchus."""
    shift = np.asarray(offset, np.float32)
    return Tubes(
        tree.start + shift * tree.start_radius[:, None],
        tree.end + shift * tree.end_radius[:, None],
        tree.start_radius,
        tree.end_radius,
    )
