"""The algorithm around a network: stored values in, labels on exactly the input grid out, as the recipe says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from inference.graph import windowing
from inference.graph.blocks import EVERYTHING, BlockSize, Network, block_pieces, one_piece, slice_pieces
from inference.graph.fitting import Fit, centred
from inference.graph.intensity import scaled_to_quantiles, scaled_to_range, z_scored
from inference.graph.label_maps import Pieces, label_map
from inference.graph.resampling import resampled, sizes_at
from inference.graph.rescale import rescaled
from inference.graph.windows import WindowGrid, slid
from training.importing.described import CERTAINTY, LABELS
from training.importing.recipe import (
    FixedScaling,
    NetworkTerms,
    Normalisation,
    QuantileScaling,
    RangeScaling,
    Recipe,
    Statistics,
    WindowScaling,
    ZScore,
)

WINDOWS_AT_ONCE = 2


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Algorithm:
    """A function of the manifest's inputs that returns its outputs."""

    recipe: Recipe
    network: Network
    halo: int
    """Voxels that blocks see beyond what is kept."""
    batch: int = WINDOWS_AT_ONCE
    """Windows or slices that the network may get at once."""

    def __call__(self, image: Any, slope: Any, intercept: Any, spacing: Any) -> Mapping[str, Any]:
        """Answer for INT16 [slice, row, column] with FP32 slope and intercept [slice] and spacing [3] in mm."""
        fit, canvas = conformed(self.recipe, (image, slope, intercept), spacing)
        found, certainty = label_map(self.pieces(canvas, fit), fit, tf.shape(image))
        return {LABELS: found, CERTAINTY: certainty}

    def pieces(self, canvas: Any, fit: Fit) -> Pieces:
        """Cut the canvas as the recipe says and run the network on what was cut."""
        terms, classes = self.recipe.network, len(self.recipe.labels) + 1
        if terms.run == "windows":
            grid = window_grid(terms)
            return one_piece(slid(canvas, grid, self.network, classes, batch=self.batch), fit)
        if terms.dimensions == 2:
            return slice_pieces(canvas, fit, self.batch, self.network, classes)
        return block_pieces(canvas, fit, block_size(terms, self.halo), self.network, classes)


def conformed(recipe: Recipe, stored: tuple[Any, Any, Any], spacing: Any) -> tuple[Fit, Any]:
    """Bring an image to the network's grid and values.

    Args:
        recipe: its `grid` and `normalisation`.
        stored: image, slope and intercept as the manifest declares them.
        spacing: FP32 [3] in mm.

    Returns:
        How the resampled image lies in the canvas, and the canvas FP32 [slice, row, column].
    """
    grid = recipe.grid
    values = rescaled(*stored, tf.float32.min if grid.floor is None else grid.floor)
    sizes = tf.shape(values)
    if grid.spacing_mm is not None:
        wanted = sizes_at(sizes, spacing, (*(1.0,) * (3 - len(grid.spacing_mm)), *grid.spacing_mm))
        sizes = tf.concat((sizes[: 3 - len(grid.spacing_mm)], wanted[3 - len(grid.spacing_mm) :]), 0)
        values = resampled(values, sizes, antialias=True)
    fit = Fit(sizes, _canvas_sizes(recipe, sizes))
    image = centred(tf.ones_like(values, tf.bool), fit.canvas, value=False)
    return fit, normalised(centred(values, fit.canvas, grid.fill), image, recipe.normalisation)


def normalised(values: Any, image: Any, how: Normalisation) -> Any:
    """Scale values FP32 [slice, row, column]; `image` BOOL of the same shape tells the image from padding."""
    if isinstance(how, FixedScaling):
        return (values - how.subtract) / how.divide
    if isinstance(how, WindowScaling):
        return windowing.WINDOWS[how.function](values, how.center, how.width)
    if not isinstance(how, Statistics):
        return values
    counted = _counted(values, image, how)
    if isinstance(how, ZScore):
        return z_scored(values, counted)
    if isinstance(how, RangeScaling):
        return scaled_to_range(values, counted)
    return _by_quantiles(values, counted, how)


def _by_quantiles(values: Any, counted: Any, how: Any) -> Any:
    scaled = scaled_to_quantiles(values, counted, how.lower, how.upper)
    return tf.clip_by_value(scaled, 0, 1) if isinstance(how, QuantileScaling) and how.clip else scaled


def _counted(values: Any, image: Any, how: Statistics) -> Any:
    if how.counted == "all":
        return tf.ones_like(image)
    return image if how.counted == "image" else image & (values != 0)


def window_grid(terms: NetworkTerms) -> WindowGrid:
    """Return the windows of a recipe that runs in windows."""
    size = terms.window or ()
    return WindowGrid(size, tuple(max(1, round(length * (1 - terms.overlap))) for length in size))


def block_size(terms: NetworkTerms, halo: int) -> BlockSize:
    """Return the blocks of a network of three dimensions; everything at once where the recipe does not cut."""
    if terms.block is None:
        return BlockSize((EVERYTHING,) * 3, (EVERYTHING,) * 3)
    return BlockSize(terms.block, (halo,) * 3)


def _canvas_sizes(recipe: Recipe, sizes: Any) -> Any:
    grid = recipe.grid
    own = sizes[: 3 - recipe.network.dimensions]
    if grid.size is not None:
        return tf.concat((own, tf.constant(grid.size)), 0)
    if grid.multiple_of is None:
        return sizes
    steps = tf.constant(grid.multiple_of)
    along = sizes[3 - recipe.network.dimensions :]
    return tf.concat((own, (along + steps - 1) // steps * steps), 0)
