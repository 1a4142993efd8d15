"""A network over a large canvas, block by block, with the answer that the whole canvas would give.

A block sees `halo` voxels beyond what is kept of its answer, fewer only where the canvas ends: there the network pads
with its own zeros, as it does for the whole. With a halo of at least the reach of the network (how far an output voxel
looks) the blocks put together are the whole answer, without blending. That holds for networks without strides and
without layers that look at everything at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from inference.graph import by_slabs
from inference.graph.fitting import Fit
from inference.graph.label_maps import Pieces

EVERYTHING = 1 << 20
"""As size and halo: the network sees the whole canvas along that axis at once."""
Network = Callable[[Any], Any]
"""FP32 [n, *size, channel] -> FP32 [n, *size, class]."""


@dataclass(frozen=True, slots=True)
class BlockSize:
    """Blocks of at most `size` voxels [slice, row, column], `halo` of them beyond what is kept at each inner side."""

    size: tuple[int, ...]
    halo: tuple[int, ...]

    def __post_init__(self) -> None:
        """Hold each size to more than two halos; ValueError otherwise."""
        for size, halo in zip(self.size, self.halo, strict=True):
            if halo < 0 or (size <= 2 * halo and size != EVERYTHING):
                raise ValueError(f"size {size} and halo {halo}: a block must be larger than two halos of 0 or more")

    def axes(self, fit: Fit) -> "tuple[BlockAxis, ...]":
        """Lay the blocks over where an image lies in a canvas."""
        return tuple(
            block_axis(fit.canvas[at], (fit.low[at], fit.high[at]), size, halo)
            for at, (size, halo) in enumerate(zip(self.size, self.halo, strict=True))
        )


@dataclass(frozen=True, slots=True)
class BlockAxis:
    """Blocks along one axis of a canvas."""

    starts: Any
    """INT32 [block]: first voxel that each sees."""
    length: Any
    """INT32: voxels that each sees."""
    edges: Any
    """INT32 [block + 1]: where what is kept of each begins; the last is where the image ends."""

    @property
    def count(self) -> Any:
        """Blocks, INT32."""
        return tf.shape(self.starts)[0]

    def kept(self, index: Any) -> tuple[Any, Any]:
        """Return where what is kept begins and ends in block `index`."""
        return self.edges[index] - self.starts[index], self.edges[index + 1] - self.starts[index]


def block_axis(count: Any, image: tuple[Any, Any], size: int, halo: int) -> BlockAxis:
    """Lay as few blocks as do over one axis, all of one length, no longer than they must be.

    Args:
        count: Voxels of the canvas.
        image: Where the image begins and ends in it.
        size: Of a block at most.
        halo: Voxels seen beyond what is kept.
    """
    first = tf.maximum(image[0] - halo, 0)
    seen = tf.minimum(image[1] + halo, count) - first
    each = max(size - 2 * halo, 1)
    blocks = tf.where(seen <= size, 1, (seen - 2 * halo + each - 1) // each)
    length = tf.where(blocks == 1, seen, (seen + 2 * halo * (blocks - 1) + blocks - 1) // blocks)
    starts = first + tf.range(blocks) * (seen - length) // tf.maximum(blocks - 1, 1)
    return BlockAxis(starts, length, tf.concat((image[0][None], starts[1:] + halo, image[1][None]), 0))


def block_pieces(canvas: Any, fit: Fit, block: BlockSize, network: Network, classes: int) -> Pieces:
    """Run a network over where an image lies in a canvas, one row of blocks after the other as they are asked for.

    Args:
        canvas: FP32 [slice, row, column].
        fit: How the image lies in it; the rest is seen where a halo reaches it, and not answered.
        block: The blocks.
        network: Of three dimensions; called with one block at a time, `n` = 1.
        classes: Of its answer.
    """
    deep, down, across = block.axes(fit)

    def answer(at: tuple[Any, Any, Any]) -> Any:
        begin = tf.stack([axis.starts[index] for axis, index in zip((deep, down, across), at, strict=True)])
        tile = tf.slice(canvas, begin, tf.stack((deep.length, down.length, across.length)))
        ends = [axis.kept(index) for axis, index in zip((deep, down, across), at, strict=True)]
        made = network(tile[None, ..., None])[0]
        return made[ends[0][0] : ends[0][1], ends[1][0] : ends[1][1], ends[2][0] : ends[2][1]]

    def row(deep_at: Any, down_at: Any) -> Any:
        joined = by_slabs.mapped(
            across.count,
            lambda at, _: tf.transpose(answer((deep_at, down_at, at)), (2, 3, 0, 1)),
            (classes, None, None),
            slices=1,
        )
        return tf.transpose(joined, (3, 1, 2, 0))

    def made(deep_at: Any) -> Any:
        rows = by_slabs.mapped(down.count, lambda at, _: row(deep_at, at), (classes, None, None), slices=1)
        return tf.transpose(rows, (1, 2, 0, 3))

    return Pieces(deep.edges - fit.low[0], made, classes)


def slice_pieces(canvas: Any, fit: Fit, slices: int, network: Network, classes: int) -> Pieces:
    """Run a network of two dimensions over the slices of a canvas, `slices` of them at a time.

    Args:
        canvas: FP32 [slice, row, column].
        fit: How the image lies in it.
        slices: In one run at most.
        network: Of two dimensions.
        classes: Of its answer.
    """
    axis = block_axis(fit.canvas[0], (fit.low[0], fit.high[0]), slices, 0)

    def made(at: Any) -> Any:
        answer = network(canvas[axis.edges[at] : axis.edges[at + 1], ..., None])
        kept = answer[:, fit.low[1] : fit.high[1], fit.low[2] : fit.high[2]]
        return tf.transpose(kept, (3, 0, 1, 2))

    return Pieces(axis.edges - fit.low[0], made, classes)


def one_piece(probabilities: Any, fit: Fit) -> Pieces:
    """Take the answer to a whole canvas, FP32 [slice, row, column, class], as one piece."""
    kept = tf.slice(probabilities, tf.concat((fit.low, (0,)), 0), tf.concat((fit.kept, tf.shape(probabilities)[3:]), 0))
    made = tf.transpose(kept, (3, 0, 1, 2))
    return Pieces(tf.stack((0, fit.kept[0])), lambda _: made, int(probabilities.shape[-1]))
