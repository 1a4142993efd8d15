"""Scaling a volume by its own statistics, padding left out. Sums are FP64 and run slab by slab in a fixed order."""

from typing import Any

import tensorflow as tf

from inference.graph.by_slabs import folded


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
