"""Exact percentiles of 16-bit volumes by counting: no sort, and one pass with the memory of one slab."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import tensorflow as tf

from inference.graph.by_slabs import folded

VALUES = 1 << 16
Method = Literal["linear", "lower", "higher"]


def histogram(image: Any, padding: Any = None) -> Any:
    """Return how often each stored value stands in `image`, INT64 [65536], from the least value of its type on.

    Args:
        image: INT16 or UINT16 [slice, row, column].
        padding: Stored value that is not counted, one integer; None counts all.

    Raises:
        ValueError: the image has another type.
    """
    lowest = _lowest(image)

    def add(start: Any, stop: Any, counts: Any) -> tuple[Any]:
        codes = tf.reshape(tf.cast(image[start:stop], tf.int32) - lowest, (-1,))
        found = tf.raw_ops.Bincount(arr=codes, size=VALUES, weights=tf.zeros((0,), tf.int32))
        return (counts + tf.cast(found, tf.int64),)

    (counts,) = folded(tf.shape(image)[0], add, (tf.zeros((VALUES,), tf.int64),))
    if padding is None:
        return counts
    absent = tf.cast(tf.reshape(padding, ()), tf.int32) - lowest
    return tf.where(tf.range(VALUES) == absent, tf.zeros_like(counts), counts)


def percentiles(image: Any, percents: Sequence[float], method: Method = "linear", padding: Any = None) -> Any:
    """Return percentiles of the stored values, FP64 [percent], bit by bit those of numpy.percentile in float64.

    Args:
        image: INT16 or UINT16 [slice, row, column].
        percents: Each 0..100.
        method: Between two values: weighted, the lower or the higher one.
        padding: Stored value that is left out; None takes all. Where nothing is left the percentiles are 0.

    Raises:
        ValueError: the image has another type, or a percent lies outside 0..100.
    """
    outside = [percent for percent in percents if not 0 <= percent <= 100]
    if outside:
        raise ValueError(f"percent {outside[0]:g}: must lie in 0..100")
    below = tf.cumsum(histogram(image, padding))
    count = below[-1]
    rank = tf.cast(count - 1, tf.float64) * tf.constant([percent / 100 for percent in percents], tf.float64)
    found = _between(lambda whole: _at_rank(below, whole) + float(_lowest(image)), rank, method)
    return tf.where(count > 0, found, tf.zeros_like(found))


def _between(value_at: Callable[[Any], Any], rank: Any, method: Method) -> Any:
    lower, higher = value_at(tf.floor(rank)), value_at(tf.math.ceil(rank))
    if method != "linear":
        return lower if method == "lower" else higher
    part, step = rank - tf.floor(rank), higher - lower
    return tf.where(part >= 0.5, higher - step * (1 - part), lower + step * part)


def _at_rank(below: Any, rank: Any) -> Any:
    return tf.cast(tf.searchsorted(below, tf.cast(rank, tf.int64), side="right"), tf.float64)


def _lowest(image: Any) -> int:
    if image.dtype not in (tf.int16, tf.uint16):
        raise ValueError(f"image: expected INT16 or UINT16, got {image.dtype!r}. Remedy: count before rescaling")
    return int(tf.as_dtype(image.dtype).min)
