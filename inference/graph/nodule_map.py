"""The whole algorithm of `lung_nodule`: stored values + rescale + spacing in, nodule probability and lungs out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from inference.graph.answers import finite
from inference.graph.lungs import LungRules, coarse_lungs
from inference.graph.persistence import persistent, slices_spanning
from inference.graph.rescale import rescaled
from inference.graph.sampling import coarse_positions, pixel_positions, resampled, tent_matrix
from inference.graph.tile_grid import TileGrid
from inference.graph.tiles import blend, blending_matrix, cut, cutting_matrix, scaled, touched

Network = Callable[[Any], Any]
"""Tiles FP32 [n, size, size, 1] in 0..1 to probabilities FP32 of the same shape."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class NoduleMap:
    """A 2-D network run on the tiles that touch the lungs. Memory is bounded by working on `chunk` slices at a time."""

    network: Network
    grid: TileGrid = field(default_factory=TileGrid)
    rules: LungRules = field(default_factory=LungRules)
    chunk: int = 4
    seen_mm: float = 3.0
    """A nodule is seen through this length of slices; what is brighter in fewer is vessel or noise more often."""

    def __call__(self, image: Any, slope: Any, intercept: Any, spacing: Any) -> dict[str, Any]:
        """Return `probability` (255 = 1) and `lungs` (1 inside), both UINT8 on the grid of `image`.

        Args:
            image: Stored values INT16 [slice, row, column].
            slope: FP32 [slice].
            intercept: FP32 [slice].
            spacing: FP32 [3], mm along slice, row and column.
        """
        shape = tf.shape(image)
        rescale = (image, slope, intercept)
        coarse, up = self._coarse_lungs(rescale, shape, spacing)
        rows = cutting_matrix(shape[1], spacing[1], self.grid), blending_matrix(shape[1], spacing[1], self.grid)
        columns = cutting_matrix(shape[2], spacing[2], self.grid), blending_matrix(shape[2], spacing[2], self.grid)

        def step(first: Any) -> tuple[Any, Any]:
            after = first + self.chunk
            lungs = tf.cast(resampled(coarse[first:after], *up) >= 0.5, tf.float32)
            values = self._values(rescale, first)
            probability = self.probability(values, lungs, (rows[0], columns[0]), (rows[1], columns[1]))
            return tf.cast(tf.round(probability * 255), tf.uint8), tf.cast(lungs, tf.uint8)

        probability, lungs = self._by_chunks(shape[0], step, (tf.uint8, tf.uint8))
        seen = persistent(tf.reshape(probability, shape), slices_spanning(self.seen_mm, spacing[0], shape[0]))
        return {"probability": tf.reshape(seen, shape), "lungs": tf.reshape(lungs, shape)}

    def probability(self, values: Any, lungs: Any, cutting: tuple[Any, Any], blending: tuple[Any, Any]) -> Any:
        """Return probabilities FP32 of slices of HU [slice, row, column]; tiles that touch no lung stay 0.

        The run fails where the network answers NaN or infinity.
        """
        size = self.grid.size
        tiles = cut(values, *cutting, size)
        wanted = tf.where(touched(lungs, *cutting, size))
        chosen = scaled(tf.gather_nd(tiles, wanted))
        # One blank tile more: convolutions refuse a batch of none, which slices without lung would make.
        answers = self.network(tf.pad(chosen, ((0, 1), (0, 0), (0, 0)))[..., None])[:-1, ..., 0]
        whole = tf.scatter_nd(wanted, answers, tf.shape(tiles, out_type=tf.int64))
        return tf.clip_by_value(finite(blend(whole, *blending), "probabilities"), 0, 1)

    def _values(self, rescale: tuple[Any, Any, Any], first: Any) -> Any:
        image, slope, intercept = (part[first : first + self.chunk] for part in rescale)
        return rescaled(image, slope, intercept, self.grid.floor)

    def _coarse_lungs(self, rescale: tuple[Any, Any, Any], shape: Any, spacing: Any) -> tuple[Any, tuple[Any, Any]]:
        """Return the coarse lung mask and the matrices that bring it back to rows and columns."""
        down, up = [], []
        for axis in (1, 2):
            pixels = pixel_positions(shape[axis], spacing[axis])
            cells, step = coarse_positions(shape[axis], spacing[axis], self.rules.grid_mm)
            down.append(tent_matrix(cells, pixels, tf.maximum(step, spacing[axis])))
            up.append(tent_matrix(pixels, cells, step))
        (coarse,) = self._by_chunks(
            shape[0], lambda first: (resampled(self._values(rescale, first), down[0], down[1]),), (tf.float32,)
        )
        return coarse_lungs(coarse, self.rules), (up[0], up[1])

    def _by_chunks(self, slices: Any, step: Callable[[Any], tuple[Any, ...]], kinds: tuple[Any, ...]) -> list[Any]:
        """Run `step(first)` for every chunk of slices, one after the other, and join what it returns."""
        count = (slices + self.chunk - 1) // self.chunk
        parts = tuple(
            tf.TensorArray(kind, size=count, infer_shape=False, element_shape=(None, None, None)) for kind in kinds
        )

        def body(number: Any, arrays: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
            made = step(number * self.chunk)
            return number + 1, tuple(array.write(number, value) for array, value in zip(arrays, made, strict=True))

        _, parts = tf.while_loop(
            lambda number, _arrays: number < count, body, (tf.constant(0), parts), parallel_iterations=1
        )
        return [part.concat() for part in parts]
