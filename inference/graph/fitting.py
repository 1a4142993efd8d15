"""Padding and cropping about the centre."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf


@dataclass(frozen=True, slots=True)
class Fit:
    """How a grid lies in a canvas that it was brought to by `centred`; all INT32 [3]."""

    sizes: Any
    """Of the grid."""
    canvas: Any
    """Of the canvas."""

    @property
    def cropped(self) -> Any:
        """First voxel of the grid that lies in the canvas."""
        return tf.maximum(self.sizes - self.canvas, 0) // 2

    @property
    def kept(self) -> Any:
        """Voxels of the grid that lie in the canvas."""
        return tf.minimum(self.sizes, self.canvas)

    @property
    def low(self) -> Any:
        """Where the grid begins in the canvas."""
        return (self.canvas - self.kept) // 2

    @property
    def high(self) -> Any:
        """Where it ends in the canvas."""
        return self.low + self.kept


def centred(volume: Any, sizes: Any, value: float = 0) -> Any:
    """Pad and crop each leading axis to its size, |size - n| // 2 of it before; growing and then shrinking undoes it.

    Args:
        volume: Of any type; axes beyond the sizes stay as they are.
        sizes: INT32 [axes], or a sequence of sizes.
        value: Of what is padded.
    """
    sizes = tf.convert_to_tensor(sizes, tf.int32)
    axes = sizes.shape[0]
    there = tf.shape(volume)
    begin = tf.maximum(there[:axes] - sizes, 0) // 2
    kept = tf.minimum(there[:axes], sizes)
    rest = volume.shape.rank - axes
    cropped = tf.slice(volume, tf.pad(begin, ((0, rest),)), tf.concat((kept, there[axes:]), 0))
    more = sizes - kept
    before = more // 2
    pads = tf.pad(tf.stack((before, more - before), axis=1), ((0, rest), (0, 0)))
    fitted = tf.pad(cropped, pads, constant_values=tf.cast(value, volume.dtype))
    return tf.ensure_shape(fitted, [*(tf.get_static_value(size) for size in tf.unstack(sizes)), *volume.shape[axes:]])


def padded_to_multiples(volume: Any, multiples: Sequence[int], value: float = 0) -> Any:
    """Pad each leading axis about the centre to the next multiple; `centred` with the former sizes undoes it."""
    there = tf.shape(volume)[: len(multiples)]
    steps = tf.constant(list(multiples), tf.int32)
    return centred(volume, (there + steps - 1) // steps * steps, value)
