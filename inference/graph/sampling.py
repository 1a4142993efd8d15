"""Sampling along one axis as a matrix: rows are the positions wanted, columns the samples that are there."""

from typing import Any

import tensorflow as tf


def pixel_positions(count: Any, spacing: Any) -> Any:
    """Return the centres of `count` pixels in mm from the centre of the first, FP32 [count]."""
    return tf.range(tf.cast(count, tf.float32)) * spacing


def tent_matrix(wanted: Any, there: Any, width: Any) -> Any:
    """Return weights FP32 [wanted, there] that fall linearly to 0 at distance `width`; each row sums to 1.

    With the samples' own spacing as `width` this is linear interpolation, with a wider one it averages. Positions
    beyond the samples take the outermost one.

    Args:
        wanted: Positions in mm [n].
        there: Sample positions in mm [m], ascending.
        width: Half base of the tent in mm.
    """
    inside = tf.clip_by_value(wanted, there[0], there[-1])
    weights = tf.maximum(1 - tf.abs(inside[:, None] - there[None, :]) / width, 0)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


def coarse_positions(count: Any, spacing: Any, target: float) -> tuple[Any, Any]:
    """Return positions in mm [n] and the step of a grid near `target` mm that spans `count` pixels evenly."""
    length = tf.cast(count, tf.float32) * spacing
    cells = tf.maximum(tf.round(length / target), 1)
    step = length / cells
    return (tf.range(cells) + 0.5) * step - spacing / 2, step


def resampled(slices: Any, rows: Any, columns: Any) -> Any:
    """Apply a matrix along rows and one along columns of FP32 [..., row, column].

    All leading axes become one: TensorFlow's oneDNN kernel writes beyond its memory where [n, 1, row, column] meets a
    matrix, and the process dies of it (seen with 2.21 on CPU).
    """
    there = tf.shape(slices)
    sheets = tf.reshape(slices, tf.concat((tf.reduce_prod(there[:-2])[None], there[-2:]), 0))
    made = tf.matmul(rows, tf.matmul(sheets, columns, transpose_b=True))
    wanted = tf.reshape(made, tf.concat((there[:-2], tf.shape(made)[-2:]), 0))
    return tf.ensure_shape(wanted, (*slices.shape[:-2], rows.shape[0], columns.shape[0]))
