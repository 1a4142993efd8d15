"""A synthetic image for the golden pair: smooth blobs in the modality's range, of odd sizes and uneven spacing."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.importing.recipe import Recipe

Inputs = dict[str, NDArray[np.generic]]
_STEPS = (1.25, 0.9, 0.8)
"""Input spacing over the network's, along slices, rows and columns."""
_SHAPE = (13, 22, 25)
_SLICES = 3
_CT_INTERCEPT = -1024


def golden_input(recipe: Recipe) -> Inputs:
    """Return inputs that make the network look at a small region, resampled and fitted as the recipe says."""
    return synthetic_input(recipe, _SHAPE if recipe.network.dimensions == 3 else (_SLICES, *_SHAPE[1:]))


def synthetic_input(recipe: Recipe, shape: tuple[int, ...]) -> Inputs:
    """Return inputs that have `shape` on the network's grid: blobs, 0 to 1000 (CT: -1024 to 976 by its intercept)."""
    spacing = network_spacing(recipe)
    steps = _STEPS if recipe.grid.spacing_mm is not None else (1.0,) * 3
    sizes = tuple(max(1, math.floor(size / step)) for size, step in zip(shape, steps, strict=True))
    rng = np.random.default_rng(7)
    fine = ndimage.gaussian_filter(rng.normal(size=sizes), 1.5)
    coarse = ndimage.gaussian_filter(rng.normal(size=sizes), 5)
    mixed = fine / fine.std() + 2 * coarse / max(coarse.std(), 1e-9)
    low, high = mixed.min(), max(mixed.max(), mixed.min() + 1e-9)
    is_ct = "CT" in recipe.accepts.modalities
    image = (mixed - low) / (high - low) * (2000 if is_ct else 1000)
    return {
        "image": image.astype(np.int16),
        "slope": np.ones(sizes[0], np.float32),
        "intercept": np.full(sizes[0], _CT_INTERCEPT if is_ct else 0, np.float32),
        "spacing": np.array([step * mm for step, mm in zip(steps, spacing, strict=True)], np.float32),
    }


def network_spacing(recipe: Recipe) -> tuple[float, ...]:
    """Return the network's spacing in mm along slices, rows and columns; 1 where the recipe leaves it."""
    stated = recipe.grid.spacing_mm or ()
    return (*(1.0,) * (3 - len(stated)), *stated)
