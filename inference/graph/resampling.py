"""Separable resampling between grids that span the same borders: output o lies at (o + 0.5) * n_in / n_out - 0.5."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from inference.graph import by_slabs
from inference.graph.sampling import resampled as resampled_in_plane
from inference.graph.sampling import tent_matrix


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a resampling."""

    matrix: Any
    """FP32 [out, in]; rows sum to 1."""
    first: Any
    """INT32 [out]: where the inputs of each output begin."""
    beyond: Any
    """INT32 [out]: one past where they end."""


@dataclass(frozen=True, slots=True)
class Resampling:
    """From one grid [slice, row, column] to another."""

    slices: Axis
    rows: Axis
    columns: Axis

    @property
    def count(self) -> Any:
        """Slices of the result, INT32."""
        return tf.shape(self.slices.matrix)[0]

    def slab(self, volume: Any, start: Any, stop: Any, channel: Any = None) -> Any:
        """Return output slices start..stop-1, FP32.

        Args:
            volume: [slice, row, column] of any real type, or with a last axis of channels.
            start: First slice of the result.
            stop: One past its last.
            channel: Which one where there are channels.
        """
        low, high = self.slices.first[start], self.slices.beyond[stop - 1]
        part = volume[low:high] if channel is None else volume[low:high, ..., channel]
        across = tf.tensordot(self.slices.matrix[start:stop, low:high], tf.cast(part, tf.float32), 1)
        return resampled_in_plane(across, self.rows.matrix, self.columns.matrix)


def axis(count: Any, wanted: Any, *, antialias: bool) -> Axis:
    """Give the weights from `count` samples to `wanted`.

    Args:
        count: Samples there are, 1 or more.
        wanted: Samples to be, 1 or more.
        antialias: Average over n_in / n_out samples where that is more than 1; otherwise interpolate linearly.
    """
    ratio = tf.cast(count, tf.float64) / tf.cast(wanted, tf.float64)
    width = tf.maximum(ratio, 1) if antialias else tf.ones_like(ratio)
    centers = (tf.range(tf.cast(wanted, tf.float64), dtype=tf.float64) + 0.5) * ratio - 0.5
    there = tf.range(tf.cast(count, tf.float64), dtype=tf.float64)
    first = tf.maximum(tf.cast(tf.floor(centers - width), tf.int32), 0)
    beyond = tf.minimum(tf.cast(tf.math.ceil(centers + width), tf.int32) + 1, tf.cast(count, tf.int32))
    return Axis(tf.cast(tent_matrix(centers, there, width), tf.float32), first, beyond)


def resampling(before: Any, after: Any, *, antialias: bool) -> Resampling:
    """Give the weights from a grid of sizes `before` to one of sizes `after`, each three INT32."""
    return Resampling(*(axis(before[index], after[index], antialias=antialias) for index in range(3)))


def resampled(volume: Any, sizes: Any, *, antialias: bool = False) -> Any:
    """Return the volume FP32 on a grid of other sizes with the same borders, made slab by slab.

    Args:
        volume: [slice, row, column] of any real type.
        sizes: INT32 [3].
        antialias: As in `axis`.
    """
    plan = resampling(tf.shape(volume), sizes, antialias=antialias)
    return by_slabs.mapped(plan.count, lambda start, stop: plan.slab(volume, start, stop), (None, None))


def sizes_at(sizes: Any, spacing: Any, target: Sequence[float]) -> Any:
    """Return the sizes INT32 [3], each 1 or more, whose cells are nearest to `target` mm over the same borders.

    Args:
        sizes: INT32 [3].
        spacing: FP32 [3] in mm.
        target: Three spacings in mm.
    """
    lengths = tf.cast(sizes, tf.float32) * spacing
    return tf.maximum(tf.cast(tf.round(lengths / tf.constant(list(target), tf.float32)), tf.int32), 1)
