"""Windows of PS3.3 C.11.2.1.2: rescaled values to 0..1 by a centre and a width."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def clipped(values: Any, low: float, high: float) -> Any:
    """Hold FP32 values of any shape to low..high; ValueError unless low < high."""
    if not low < high:
        raise ValueError(f"low {low:g}: must be less than high {high:g}")
    return tf.clip_by_value(values, low, high)


def linear(values: Any, center: float, width: float) -> Any:
    """Apply LINEAR (C.11.2.1.2.1) to FP32 values of any shape; width 1 is a threshold at `center` - 0.5.

    Raises:
        ValueError: the width is less than 1.
    """
    if width < 1:
        raise ValueError(f"width {width:g}: LINEAR takes 1 or more. Remedy: use linear_exact")
    return _ramp(values, center - 0.5, width - 1)


def linear_exact(values: Any, center: float, width: float) -> Any:
    """Apply LINEAR_EXACT (C.11.2.1.3.2) to FP32 values of any shape; ValueError unless the width is positive."""
    return _ramp(values, center, _positive(width))


def sigmoid(values: Any, center: float, width: float) -> Any:
    """Apply SIGMOID (C.11.2.1.3.1) to FP32 values of any shape; ValueError unless the width is positive."""
    return tf.sigmoid((values - center) * (4 / _positive(width)))


WINDOWS: dict[str, Callable[[Any, float, float], Any]] = {
    "LINEAR": linear,
    "LINEAR_EXACT": linear_exact,
    "SIGMOID": sigmoid,
}
"""By the terms of VOI LUT Function (0028,1056)."""


def _ramp(values: Any, center: float, width: float) -> Any:
    if width == 0:
        return tf.cast(values > center, tf.float32)
    return tf.clip_by_value((values - center) / width + 0.5, 0, 1)


def _positive(width: float) -> float:
    if width <= 0:
        raise ValueError(f"width {width:g}: must be greater than 0")
    return width
