"""Stored values to rescaled ones, slice by slice (PS3.3 C.11.1.1.2)."""

from typing import Any

import tensorflow as tf


def rescaled(image: Any, slope: Any, intercept: Any, floor: float) -> Any:
    """Return image * slope + intercept as FP32 [slice, row, column], lifted to at least `floor`.

    Args:
        image: Stored values [slice, row, column] of any integer or float type.
        slope: FP32 [slice].
        intercept: FP32 [slice].
        floor: Padding outside the reconstruction lies far below it and becomes it.
    """
    values = tf.cast(image, tf.float32) * slope[:, None, None] + intercept[:, None, None]
    return tf.maximum(values, floor)
