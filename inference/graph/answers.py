"""From a network's answers to a model's: averaging over flips and networks, calibration, labels on the input grid.

What ends as an integer is held to be finite first: nobody can see a NaN in a label afterwards.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from inference.graph import by_slabs
from inference.graph.resampling import resampling

LABELS_MOST = 256


def flips_mean(
    network: Callable[[Any], Any], tiles: Any, flips: Sequence[Sequence[int]], *, spatial: bool = True
) -> Any:
    """Return the mean of a network's answers to the tiles and to each flip of them.

    Args:
        network: Its answers are FP32.
        tiles: FP32 [n, ..., channel].
        flips: Axes of each flip, e.g. ((2,), (3,), (2, 3)).
        spatial: The answers have the tiles' axes and are flipped back; False for scores.
    """
    total = network(tiles)
    for axes in flips:
        answer = network(tf.reverse(tiles, list(axes)))
        total += tf.reverse(answer, list(axes)) if spatial else answer
    return total / (len(flips) + 1)


def ensemble_mean(networks: Sequence[Callable[[Any], Any]], tiles: Any) -> Any:
    """Return the mean of the answers of several networks; ValueError where there is none."""
    if not networks:
        raise ValueError("networks: expected one or more, got none")
    total = networks[0](tiles)
    for network in networks[1:]:
        total += network(tiles)
    return total / len(networks)


def tempered(logits: Any, temperature: float) -> Any:
    """Return calibrated probabilities: the softmax over the last axis of `logits` / `temperature`.

    Raises:
        ValueError: the temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature {temperature:g}: must be greater than 0")
    return tf.nn.softmax(logits / temperature)


def finite(values: Any, what: str) -> Any:
    """Return `values` FP; the run fails, naming `what`, where one is NaN or infinite.

    An integer has no NaN: what is cast to one, or compared, must pass here before, or a failed network answers 0.
    """
    return tf.debugging.check_numerics(values, f"{what}: expected finite values, got NaN or infinity")


def labels(probabilities: Any) -> Any:
    """Return the class of the greatest probability UINT8 [...] of [..., class]; the first one wins a tie.

    The run fails where a probability is NaN or infinite.

    Raises:
        ValueError: there are more than 256 classes.
    """
    refuse_many_classes(probabilities.shape[-1])
    sound = finite(probabilities, "class probabilities")
    return tf.cast(tf.argmax(sound, axis=-1, output_type=tf.int32), tf.uint8)


def labels_on_grid(probabilities: Any, sizes: Any) -> Any:
    """Return the most probable class on another grid with the same borders, UINT8 [slice, row, column].

    Probabilities are resampled, not labels: linearly, averaged where the grid becomes coarser. This runs by slabs and
    holds the best class so far, so that no volume of probabilities on the new grid exists. The first one wins a tie.
    The run fails where a probability is NaN or infinite.

    Args:
        probabilities: FP32 [slice, row, column, class].
        sizes: INT32 [3].

    Raises:
        ValueError: there are more than 256 classes.
    """
    classes = refuse_many_classes(probabilities.shape[-1])
    plan = resampling(tf.shape(probabilities)[:3], sizes, antialias=True)
    sound = finite(probabilities, "class probabilities")

    def made(start: Any, stop: Any) -> Any:
        def body(rival: Any, best: Any, label: Any) -> tuple[Any, ...]:
            found = plan.slab(sound, start, stop, rival)
            better = found > best
            return rival + 1, tf.where(better, found, best), tf.where(better, tf.cast(rival, tf.uint8), label)

        first = plan.slab(sound, start, stop, 0)
        begin = (tf.constant(1), first, tf.zeros_like(first, tf.uint8))
        return tf.while_loop(lambda rival, *_: rival < classes, body, begin, parallel_iterations=1)[2]

    return by_slabs.mapped(plan.count, made, (None, None), dtype=tf.uint8)


def refuse_many_classes(classes: int) -> int:
    """Return the number of classes; ValueError where a label map of UINT8 does not hold them."""
    if classes > LABELS_MOST:
        raise ValueError(f"classes {classes}: a label map of UINT8 holds {LABELS_MOST}. Remedy: join classes")
    return classes
