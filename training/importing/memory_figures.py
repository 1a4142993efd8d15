"""What one request takes, measured in the child: the manifest's figures that the service admits requests by."""

import math
from collections.abc import Callable

from inference.peak_memory import peak_bytes, reset_peak_bytes
from protos.model_manifest import Memory
from training.importing.golden_image import Inputs, network_spacing, synthetic_input
from training.importing.recipe import Recipe

_MARGIN = 1.15
_FREE_LENGTH = {2: 160, 3: 64}
"""Side of the volume that is measured where the recipe fixes none."""
_BYTES_PER_INPUT_VOXEL = 14
_BYTES_PER_RESAMPLED_VOXEL = 8
_BYTES_PER_GRID_VOXEL = 26
"""Copies around the network that exist at once: rescaled values; resampled slabs and their join; the fitted canvas, its
16-bit codes with the numbers they come from, and what is scaled (4 bytes each, masks 1)."""
_COPIES_OF_PROBABILITIES = 3
_ROOM = 64e6
"""Bytes of tables, slabs and TensorFlow's own arrays."""
_LEAST_SIDE = 64
"""Of slices that are padded to a fixed size, where `accepts` does not say."""
_GROWTH_TO_MULTIPLE = 1.5


def measured_memory(recipe: Recipe, halo: int, predict: Callable[[Inputs], object], loaded: int) -> Memory:
    """Run `predict` on a volume that makes the network's largest run, and state what it and larger ones take.

    Args:
        recipe: of the import.
        halo: of its blocks.
        predict: the exported graph.
        loaded: bytes that were resident before the first run; TensorFlow keeps what a run took for the next.

    Returns:
        Figures with a margin. Where the canvas is fixed, all but copies of the input lies in `base_mb`.
    """
    shape = _measuring_shape(recipe, halo)
    inputs = synthetic_input(recipe, shape)
    reset_peak_bytes()
    predict(inputs)
    peak = max(0, peak_bytes() - loaded)
    terms, size = recipe.network, recipe.grid.size
    if terms.dimensions == 3 and size is not None:
        base = peak + _held_beside(recipe, size, halo)
        return _figures(base, _BYTES_PER_INPUT_VOXEL + _BYTES_PER_RESAMPLED_VOXEL * _growth(recipe))
    per_voxel: float = _BYTES_PER_GRID_VOXEL
    base = float(peak)
    if terms.run != "whole":
        per_voxel += _COPIES_OF_PROBABILITIES * _answer_bytes(recipe)
    elif size is None:
        run = math.prod(shape) if terms.dimensions == 3 else terms.slices * math.prod(shape[1:])
        base, per_voxel = 0.0, max(per_voxel, peak / run)
    return _figures(base, _BYTES_PER_INPUT_VOXEL + per_voxel * _growth(recipe) * _growth_to_canvas(recipe))


def _figures(base: float, per_voxel: float) -> Memory:
    return Memory(base_mb=math.ceil(_MARGIN * (base + _ROOM) / 1e6), bytes_per_voxel=math.ceil(_MARGIN * per_voxel))


def _measuring_shape(recipe: Recipe, halo: int) -> tuple[int, ...]:
    """Return a shape on the network's grid whose run is as large as any, and no larger than it must be."""
    terms = recipe.network
    size = recipe.grid.size or (_FREE_LENGTH[terms.dimensions],) * terms.dimensions
    if terms.block is not None:
        size = tuple(block - 2 * halo for block in terms.block)
    elif terms.window is not None:
        size = tuple(round(1.25 * window) for window in terms.window)
    elif recipe.grid.multiple_of is not None:
        size = tuple(-(-side // step) * step for side, step in zip(size, recipe.grid.multiple_of, strict=True))
    return size if terms.dimensions == 3 else (2 * terms.slices, *size)


def _held_beside(recipe: Recipe, size: tuple[int, ...], halo: int) -> float:
    """Return the bytes of probabilities on a fixed canvas that the measured run, which was smaller, did not hold."""
    terms, answer = recipe.network, _answer_bytes(recipe)
    if terms.block is not None:
        return answer * min(terms.block[0] - halo, size[0]) * size[1] * size[2]
    return _COPIES_OF_PROBABILITIES * answer * math.prod(size) if terms.window is not None else 0.0


def _answer_bytes(recipe: Recipe) -> float:
    """Return the bytes of one voxel's probabilities."""
    return 4.0 * (len(recipe.labels) + 1)


def _growth(recipe: Recipe) -> float:
    """Return how many voxels resampling makes of one, for the coarsest series that the recipe accepts."""
    if recipe.grid.spacing_mm is None:
        return 1.0
    most = (recipe.accepts.slice_spacing_mm.most or 1.0, *(recipe.accepts.pixel_spacing_mm.most or 1.0,) * 2)
    kept = len(recipe.grid.spacing_mm)
    return max(1.0, math.prod(most[3 - kept :]) / math.prod(network_spacing(recipe)[3 - kept :]))


def _growth_to_canvas(recipe: Recipe) -> float:
    """Return how many voxels padding makes of one: to multiples, or of small slices to a fixed size."""
    size = recipe.grid.size
    if size is None:
        return 1.0 if recipe.grid.multiple_of is None else _GROWTH_TO_MULTIPLE
    sides = (recipe.accepts.rows.least or _LEAST_SIDE, recipe.accepts.columns.least or _LEAST_SIDE)
    return max(1.0, math.prod(size) / math.prod(sides))
