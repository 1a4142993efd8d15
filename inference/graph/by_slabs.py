"""Working through a volume a few slices at a time, so that what lies between needs memory for one slab only."""

from collections.abc import Callable, Sequence
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


def mapped(
    count: Any,
    made: Callable[[Any, Any], Any],
    shape: Sequence[int | None],
    *,
    dtype: Any = tf.float32,
    slices: int = SLAB_SLICES,
) -> Any:
    """Return what `made(start, stop)` gives for every slab, joined along the first dimension.

    Args:
        count: Slices of the volume, INT32, 1 or more.
        made: Gives [stop - start, *shape] of `dtype`.
        shape: What is known of the result behind its first dimension.
        dtype: Of the result.
        slices: Of one slab at most.
    """
    slabs = (count + slices - 1) // slices

    def body(index: Any, done: Any) -> tuple[Any, Any]:
        start = index * slices
        return index + 1, done.write(index, made(start, tf.minimum(start + slices, count)))

    begin = (tf.constant(0), pieces(slabs, dtype, shape))
    _, done = tf.while_loop(lambda index, _: index < slabs, body, begin, parallel_iterations=1)
    return tf.ensure_shape(done.concat(), (None, *shape))


def pieces(count: Any, dtype: Any, shape: Sequence[int | None]) -> Any:
    """Return an array of `count` tensors [any, *shape] to be written and joined."""
    return tf.TensorArray(dtype, size=count, infer_shape=False, element_shape=(None, *shape))
