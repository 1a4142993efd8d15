"""Labels on the input grid from probabilities that a network gives on its own grid a few slices at a time.

As `inference.graph.answers.labels_on_grid`, for grids of which the network saw only a part, and without ever holding
the probabilities of all slices: each piece is resampled and labelled as soon as the next slices are known.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from inference.graph import by_slabs
from inference.graph.answers import finite, refuse_many_classes
from inference.graph.fitting import Fit
from inference.graph.resampling import Axis, axis
from inference.graph.sampling import resampled as resampled_in_plane

_ROUNDING = 1e-5
"""Weights of an output voxel sum to 1 within this."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """Probabilities on that part of a grid that lies in a canvas, in pieces of whole slices, made one after another."""

    edges: Any
    """INT32 [piece + 1]: slice at which each begins; the first is 0, the last the number of slices."""
    made: Callable[[Any], Any]
    """INT32 index -> FP32 [class, slice, row, column]."""
    classes: int

    @property
    def count(self) -> Any:
        """Pieces, INT32."""
        return tf.shape(self.edges)[0] - 1


@dataclass(frozen=True, slots=True)
class _Held:
    """What is known of the probabilities: slices `begin` and on, FP32 [class, slice, row, column]."""

    begin: Any
    values: Any


@dataclass(frozen=True, slots=True)
class _BackOnInput:
    """Weights from the kept part of the network's grid to the input grid; outside of it an axis' weights sum to 0."""

    slices: Axis
    rows: Axis
    columns: Axis

    def background(self, start: Any, stop: Any) -> Any:
        """Return the weight that no kept voxel has, FP32 [slice, row, column]: there the first class stands."""
        deep, down, across = (tf.reduce_sum(each.matrix, axis=1) for each in (self.slices, self.rows, self.columns))
        inside = deep[start:stop, None, None] * down[:, None] * across
        return tf.where(inside < 1 - _ROUNDING, 1 - inside, tf.zeros_like(inside))

    def one_class(self, held: _Held, start: Any, stop: Any, label: Any) -> Any:
        """Return one class's probability on slices start..stop-1 of the input grid, background left out."""
        low, high = self.slices.first[start], self.slices.beyond[stop - 1]
        part = held.values[label, low - held.begin : high - held.begin]
        across = tf.tensordot(self.slices.matrix[start:stop, low:high], part, 1)
        return resampled_in_plane(across, self.rows.matrix, self.columns.matrix)


def label_map(pieces: Pieces, fit: Fit, sizes: Any) -> tuple[Any, Any]:
    """Return the most probable class on the input grid, and how sure the network was.

    Probabilities are resampled (linearly, averaged where the grid becomes coarser), not labels; the first class wins a
    tie and stands where the canvas cut the image off. The run fails where a probability is NaN or infinite.

    Args:
        pieces: Probabilities on the part of the network's grid that lies in the canvas.
        fit: How the network's grid lies in its canvas.
        sizes: INT32 [3] of the input grid, which has the same borders as the network's.

    Returns:
        Labels UINT8 [slice, row, column]; and FP32 [1], the mean over the network's voxels of the greatest probability.

    Raises:
        ValueError: there are more than 256 classes.
    """
    refuse_many_classes(pieces.classes)
    back = _BackOnInput(*(_kept_axis(fit, sizes, at) for at in range(3)))

    def body(index: Any, done: Any, carried: Any, labels: Any, sure: Any) -> tuple[Any, ...]:
        fresh = finite(pieces.made(index), "class probabilities")
        begin = pieces.edges[index] - tf.shape(carried)[1]
        held = _Held(begin, tf.concat((carried, fresh), axis=1))
        ready = _ready(back.slices, pieces, index)
        labels = labels.write(index, _labelled(back, held, done, ready))
        return index + 1, ready, _still_wanted(back.slices, held, ready), labels, sure + _sureness(fresh)

    room = by_slabs.pieces(pieces.count, tf.uint8, (None, None))
    nothing = tf.zeros((pieces.classes, 0, fit.kept[1], fit.kept[2]))
    zero = tf.constant(0)
    shapes = [zero.shape, zero.shape, tf.TensorShape((pieces.classes, None, None, None)), tf.TensorShape(None), ()]
    _, _, _, labels, sure = tf.while_loop(
        lambda index, *_: index < pieces.count,
        body,
        (zero, zero, nothing, room, tf.constant(0, tf.float64)),
        shape_invariants=(*shapes[:4], tf.TensorShape(())),
        parallel_iterations=1,
    )
    voxels = tf.cast(tf.reduce_prod(fit.kept), tf.float64)
    return tf.ensure_shape(labels.concat(), (None, None, None)), tf.cast(sure / voxels, tf.float32)[None]


def _kept_axis(fit: Fit, sizes: Any, at: int) -> Axis:
    whole = axis(fit.sizes[at], sizes[at], antialias=True)
    left, kept = fit.cropped[at], fit.kept[at]
    first, beyond = (tf.clip_by_value(place - left, 0, kept) for place in (whole.first, whole.beyond))
    return Axis(whole.matrix[:, left : left + kept], first, beyond)


def _ready(slices: Axis, pieces: Pieces, index: Any) -> Any:
    """Count the output slices that need nothing beyond the pieces up to `index`."""
    known = tf.searchsorted(slices.beyond, pieces.edges[index + 1][None], side="right")[0]
    return tf.where(index + 1 == pieces.count, tf.shape(slices.beyond)[0], known)


def _still_wanted(slices: Axis, held: _Held, ready: Any) -> Any:
    """Keep the slices that the next outputs look at."""
    first = tf.concat((slices.first, slices.beyond[-1:]), 0)[ready]
    return held.values[:, tf.maximum(first - held.begin, 0) :]


def _labelled(back: _BackOnInput, held: _Held, done: Any, ready: Any) -> Any:
    def labelled() -> Any:
        return by_slabs.mapped(
            ready - done,
            lambda start, stop: _most_probable(back, held, done + start, done + stop),
            (None, None),
            dtype=tf.uint8,
        )

    none = (0, tf.shape(back.rows.matrix)[0], tf.shape(back.columns.matrix)[0])
    return tf.cond(ready > done, labelled, lambda: tf.zeros(none, tf.uint8))


def _most_probable(back: _BackOnInput, held: _Held, start: Any, stop: Any) -> Any:
    def body(rival: Any, best: Any, label: Any) -> tuple[Any, ...]:
        found = back.one_class(held, start, stop, rival)
        better = found > best
        return rival + 1, tf.where(better, found, best), tf.where(better, tf.cast(rival, tf.uint8), label)

    first = back.one_class(held, start, stop, 0) + back.background(start, stop)
    begin = (tf.constant(1), first, tf.zeros_like(first, tf.uint8))
    return tf.while_loop(lambda rival, *_: rival < held.values.shape[0], body, begin, parallel_iterations=1)[2]


def _sureness(probabilities: Any) -> Any:
    """Sum the greatest probability of each voxel, FP64."""
    return tf.cast(tf.reduce_sum(tf.reduce_max(probabilities, axis=0)), tf.float64)
