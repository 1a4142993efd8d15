"""Working through a volume a few slices at a time, so that what lies between needs memory for one slab only."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

SLAB_SLICES = 16


def folded(count: Any, step: Callable[..., tuple[Any, ...]], initial: tuple[Any, ...]) -> tuple[Any, ...]:
    """Carry a state through all slabs.

    Args:
        count: Slices of the volume, INT32.
        step: (start, stop, *state) -> the next state, of the same shapes.
        initial: State before the first slab.
    """

    def body(start: Any, *state: Any) -> tuple[Any, ...]:
        stop = tf.minimum(start + SLAB_SLICES, count)
        return (stop, *step(start, stop, *state))

    begin = (tf.constant(0), *initial)
    _, *state = tf.while_loop(lambda start, *_: start < count, body, begin, parallel_iterations=1)
    return tuple(state)


def mapped(count: Any, made: Callable[[Any, Any], Any], dtype: Any, slices: int = SLAB_SLICES) -> Any:
    """Return what `made(start, stop)` gives for every slab, joined along the first dimension.

    Args:
        count: Slices of the volume, INT32, 1 or more.
        made: Gives [stop - start, ...] of `dtype`.
        dtype: Of the result.
        slices: Of one slab at most.
    """
    slabs = (count + slices - 1) // slices
    pieces = tf.TensorArray(dtype, size=slabs, infer_shape=False)

    def body(index: Any, pieces: Any) -> tuple[Any, Any]:
        start = index * slices
        return index + 1, pieces.write(index, made(start, tf.minimum(start + slices, count)))

    _, pieces = tf.while_loop(lambda index, _: index < slabs, body, (tf.constant(0), pieces), parallel_iterations=1)
    return pieces.concat()
