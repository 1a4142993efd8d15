"""Scaling a volume by its own statistics, padding left out. Sums are FP64 and run slab by slab in a fixed order."""

from typing import Any

import tensorflow as tf

from inference.graph.by_slabs import folded
from inference.graph.percentiles import percentiles

_LEVELS = 65534
_UNCOUNTED = -32768
"""Steps between the least and the greatest value, and the code that no counted voxel has."""


def counted_voxels(image: Any, padding: Any) -> Any:
    """Return BOOL [slice, row, column]: is the stored value not `padding` (one integer)?"""
    return tf.cast(image, tf.int32) != tf.cast(tf.reshape(padding, ()), tf.int32)


def z_scored(values: Any, counted: Any) -> Any:
    """Shift and scale to mean 0 and standard deviation 1 over the counted voxels; the others become 0.

    Where the counted voxels are all equal, or there are none, everything becomes 0.

    Args:
        values: FP32 [slice, row, column].
        counted: BOOL of the same shape.
    """
    low, high, total, count = _survey(values, counted)
    mean = total / tf.maximum(count, 1)

    def add(start: Any, stop: Any, squares: Any) -> tuple[Any]:
        away = tf.cast(values[start:stop], tf.float64) - mean
        return (squares + tf.reduce_sum(tf.where(counted[start:stop], away * away, tf.zeros_like(away))),)

    (squares,) = folded(tf.shape(values)[0], add, (tf.constant(0, tf.float64),))
    deviation = tf.sqrt(squares / tf.maximum(count, 1))
    scale = tf.math.divide_no_nan(tf.ones_like(deviation), deviation)
    coarse = tf.cast(mean, tf.float32)
    fine = tf.cast(mean - tf.cast(coarse, tf.float64), tf.float32)
    scored = ((values - coarse) - fine) * tf.cast(scale, tf.float32)
    return tf.where(counted & (high > low), scored, tf.zeros_like(scored))


def scaled_to_range(values: Any, counted: Any) -> Any:
    """Scale least to 0 and greatest to 1 over the counted voxels; the others become 0.

    Where the counted voxels are all equal, or there are none, everything becomes 0.

    Args:
        values: FP32 [slice, row, column].
        counted: BOOL of the same shape.
    """
    low, high, _, _ = _survey(values, counted)
    ranged = high > low
    scaled = (values - low) / tf.where(ranged, high - low, tf.ones_like(low))
    return tf.where(counted & ranged, scaled, tf.zeros_like(scaled))


def quantiles(values: Any, counted: Any, wanted: tuple[float, ...]) -> Any:
    """Return quantiles of the counted voxels, FP32 [quantile], each right to 1/65534 of the range of their values.

    Where nothing is counted they are 0.

    Args:
        values: FP32 [slice, row, column].
        counted: BOOL of the same shape.
        wanted: Each 0..1, as of numpy.quantile.

    Raises:
        ValueError: a quantile lies outside 0..1.
    """
    low, high, _, count = _survey(values, counted)
    step = tf.where(high > low, (high - low) / _LEVELS, tf.ones_like(low))
    levels = tf.cast(tf.round((values - low) / step), tf.int32) - _LEVELS // 2
    codes = tf.cast(tf.where(counted, levels, _UNCOUNTED), tf.int16)
    ranks = percentiles(codes, [100 * quantile for quantile in wanted], padding=_UNCOUNTED)
    found = low + tf.cast(ranks + _LEVELS // 2, tf.float32) * step
    return tf.where(count > 0, found, tf.zeros_like(found))


def scaled_to_quantiles(values: Any, counted: Any, lower: float, upper: float) -> Any:
    """Scale two quantiles of the counted voxels to 0 and 1, values beyond them further on; the others become 0.

    Where the two are equal, everything becomes 0.

    Args:
        values: FP32 [slice, row, column].
        counted: BOOL of the same shape.
        lower: Quantile that becomes 0.
        upper: Quantile that becomes 1.

    Raises:
        ValueError: the quantiles do not rise within 0..1.
    """
    if not 0 <= lower < upper <= 1:
        raise ValueError(f"quantiles {lower:g} and {upper:g}: must rise within 0..1")
    low, high = tf.unstack(quantiles(values, counted, (lower, upper)))
    ranged = high > low
    scaled = (values - low) / tf.where(ranged, high - low, tf.ones_like(low))
    return tf.where(counted & ranged, scaled, tf.zeros_like(scaled))


def _survey(values: Any, counted: Any) -> tuple[Any, ...]:
    """Least and greatest value FP32, sum and count FP64; least above greatest where nothing is counted."""

    def add(start: Any, stop: Any, *state: Any) -> tuple[Any, ...]:
        low, high, total, count = state
        here, part = counted[start:stop], values[start:stop]
        least = tf.reduce_min(tf.where(here, part, tf.fill(tf.shape(part), tf.float32.max)))
        most = tf.reduce_max(tf.where(here, part, tf.fill(tf.shape(part), tf.float32.min)))
        held = tf.cast(tf.where(here, part, tf.zeros_like(part)), tf.float64)
        found = tf.reduce_sum(tf.cast(here, tf.float64))
        return tf.minimum(low, least), tf.maximum(high, most), total + tf.reduce_sum(held), count + found

    zero = tf.constant(0, tf.float64)
    return folded(tf.shape(values)[0], add, (tf.constant(tf.float32.max), tf.constant(tf.float32.min), zero, zero))
