"""Figures with intervals: Dice, hits, and the bootstrap over patients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def dice(found: Mask, truth: Mask, counted: Mask) -> float:
    """Return the Dice coefficient over the pixels `counted`; 1 where both masks are empty there."""
    found, truth = found & counted, truth & counted
    total = int(found.sum() + truth.sum())
    return 2 * int((found & truth).sum()) / total if total else 1.0


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """Read as "0.61 (0.58 to 0.64, n = 312)"."""
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f}, n = {self.n})"


def bootstrap(values: Sequence[float], groups: Sequence[str], *, draws: int = 2000, seed: int = 0) -> Interval:
    """Return the mean of `values` and its 95 % interval from drawing whole groups (patients) with replacement."""
    if not values:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    names = sorted(set(groups))
    place = {name: number for number, name in enumerate(names)}
    sums, counts = np.zeros(len(names)), np.zeros(len(names))
    for value, group in zip(values, groups, strict=True):
        sums[place[group]] += value
        counts[place[group]] += 1
    drawn = np.random.default_rng(seed).integers(len(names), size=(draws, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(float(np.mean(values)), float(low), float(high), len(values))
