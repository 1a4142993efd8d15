"""Binary morphology of every slice at once. Masks are FP32 0 or 1 [1, row, column, slice].

The slices stand where channels do, so that pooling runs along them without a gap.
"""

from typing import Any

import tensorflow as tf

_STEPS_BETWEEN_CHECKS = 4


def grown(mask: Any) -> Any:
    """Dilate by the four neighbours in the slice."""
    down = tf.nn.max_pool2d(mask, (3, 1), 1, "SAME")
    across = tf.nn.max_pool2d(mask, (1, 3), 1, "SAME")
    return tf.maximum(down, across)


def dilated(mask: Any, steps: int) -> Any:
    """Dilate by an octagon of radius `steps` pixels: crosses and squares in turn."""
    for step in range(steps):
        mask = grown(mask) if step % 2 == 0 else tf.nn.max_pool2d(mask, 3, 1, "SAME")
    return mask


def eroded(mask: Any, steps: int) -> Any:
    """Erode by an octagon of radius `steps` pixels; beyond the border everything counts as set."""
    return 1 - dilated(1 - mask, steps)


def opened(mask: Any, steps: int) -> Any:
    """Erode, then dilate: what is thinner than about twice `steps` pixels vanishes."""
    return dilated(eroded(mask, steps), steps)


def closed(mask: Any, steps: int) -> Any:
    """Dilate, then erode: bays narrower than about twice `steps` pixels fill."""
    return eroded(dilated(mask, steps), steps)


def grown_across(mask: Any) -> Any:
    """Dilate by the two neighbours above and below."""
    above = tf.pad(mask[..., 1:], ((0, 0), (0, 0), (0, 0), (0, 1)))
    below = tf.pad(mask[..., :-1], ((0, 0), (0, 0), (0, 0), (1, 0)))
    return tf.maximum(mask, tf.maximum(above, below))


def reconstructed(seed: Any, mask: Any, *, across_slices: bool = False) -> Any:
    """Return those parts of `mask` that hold a pixel of `seed` (geodesic reconstruction).

    Parts connect by four neighbours within a slice and, with `across_slices`, by the two above and below.
    """

    def step(now: Any, _changed: Any) -> tuple[Any, Any]:
        after = now
        for _ in range(_STEPS_BETWEEN_CHECKS):
            after = tf.minimum(grown(after), mask)
        if across_slices:
            after = tf.minimum(grown_across(after), mask)
        return after, tf.reduce_any(tf.not_equal(after, now))

    start = tf.minimum(seed, mask)
    result, _ = tf.while_loop(lambda _now, changed: changed, step, (start, tf.constant(value=True)))
    return result


def border_of(mask: Any) -> Any:
    """Return the outermost pixels of every slice of a mask."""
    inner = tf.pad(tf.ones_like(mask)[:, 1:-1, 1:-1, :], ((0, 0), (1, 1), (1, 1), (0, 0)))
    return mask * (1 - inner)


def filled(mask: Any) -> Any:
    """Fill the holes: background that does not reach the border of its slice."""
    background = 1 - mask
    return 1 - reconstructed(border_of(background), background)
