"""Keeping only what is seen through several slices: grey opening along the slice axis."""

from typing import Any

import tensorflow as tf


def slices_spanning(length_mm: float, spacing: Any, slices: Any) -> Any:
    """Return how many slices are `length_mm` thick together: at least 1, at most all. INT32 scalar."""
    return tf.clip_by_value(tf.cast(tf.math.ceil(length_mm / spacing - 1e-3), tf.int32), 1, slices)


def persistent(volume: Any, count: Any) -> Any:
    """Open [slice, row, column] of any number type along the slices by `count` (INT32 scalar, 1..slices).

    A value stands where it is reached in `count` neighbouring slices that all lie in the volume: a bright spot in
    fewer slices vanishes, at the ends too.
    """
    slices = tf.shape(volume)[0]
    windows = slices - count + 1
    least = _extreme(tf.minimum, volume, count, windows)
    border = tf.zeros((count - 1, *tf.unstack(tf.shape(volume)[1:])), volume.dtype)
    return _extreme(tf.maximum, tf.concat((border, least, border), 0), count, slices)


def _extreme(operation: Any, volume: Any, count: Any, length: Any) -> Any:
    """Reduce `count` neighbouring slices to one by `operation`, from each of the first `length` slices on."""

    def body(shift: Any, result: Any) -> tuple[Any, Any]:
        return shift + 1, operation(result, volume[shift : shift + length])

    start = (tf.constant(1), volume[:length])
    shapes = (tf.TensorShape(()), tf.TensorShape((None, None, None)))
    return tf.while_loop(lambda shift, _: shift < count, body, start, shape_invariants=shapes)[1]
