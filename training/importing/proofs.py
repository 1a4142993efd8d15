"""What is tried before a bundle is made: the shape of the network's answer, and that blocks are the whole."""

import numpy as np
import tensorflow as tf

from inference.graph.blocks import BlockSize, Network, block_pieces, one_piece
from inference.graph.fitting import Fit
from training.importing.errors import RecipeRefused, SourceRefused
from training.importing.networks import ForeignNetwork
from training.importing.recipe import Recipe

BLOCKS_DIFFERENCE_MOST = 1e-5
"""Of the greatest answer."""
_SMALL, _THIN = 32, 6


def try_network(network: Network, recipe: Recipe) -> None:
    """Run once and hold the answer to the recipe.

    Raises:
        RecipeRefused: the answer has other classes, another size, or no probabilities.
        SourceRefused: the network does not run on what the recipe gives it.
    """
    terms = recipe.network
    size = tile_size(recipe)
    tile = _noise((1, *size, 1), recipe)
    try:
        answer = network(tf.constant(tile)).numpy()
    except (tf.errors.OpError, ValueError, TypeError) as error:
        raise SourceRefused(f"the network does not run on a tile {list(size)}: {_first_line(error)}") from error
    classes = len(recipe.labels) + 1
    if answer.shape[:-1] != (1, *size):
        raise RecipeRefused(
            f"the network answers {list(answer.shape[1:-1])} to a tile {list(size)}; expected a map on the tile's own "
            f"grid. Scores and smaller maps are not taken. Remedy: grid.size or grid.multiple_of that fits its strides"
        )
    if answer.shape[-1] != classes:
        raise RecipeRefused(
            f"labels: the network answers {answer.shape[-1]} classes, the recipe names {len(recipe.labels)} beside the "
            f"background. Remedy: name each of them; class 0 is the background"
        )
    if not np.isfinite(answer).all():
        raise SourceRefused("the network answers noise with NaN or infinity. Remedy: export it again")
    if terms.activation == "none" and (answer.min() < -1e-3 or abs(answer.sum(-1) - 1).max() > 1e-2):
        raise RecipeRefused(
            "network.activation = 'none': the network's classes do not sum to 1. Remedy: 'softmax', or 'sigmoid'"
        )


def tile_size(recipe: Recipe) -> tuple[int, ...]:
    """Return the size of a tile that the network must take: its fixed size, or a small one."""
    terms, grid = recipe.network, recipe.grid
    if terms.window is not None:
        return terms.window
    if terms.block is None and grid.size is not None:
        return grid.size
    steps = grid.multiple_of or (1,) * terms.dimensions
    return tuple(-(-_SMALL // step) * step for step in steps)


def chosen_halo(network: ForeignNetwork, recipe: Recipe) -> int:
    """Return the halo of blocks: what the recipe says, else what the layers say; 0 where nothing is cut in blocks.

    Raises:
        RecipeRefused: nobody says it, it is less than the layers reach, or blocks are no larger than two of it.
    """
    terms = recipe.network
    if terms.run != "blocks":
        return 0
    stated, reach = terms.halo, network.halo
    if stated is None and reach is None:
        raise RecipeRefused(
            "network.halo is missing, and the layers do not say how far the network looks. Remedy: state it: for each "
            "convolution dilation x (size - 1) / 2, added up; or run = 'whole' where strides or pools are"
        )
    if stated is not None and reach is not None and stated < reach:
        raise RecipeRefused(f"network.halo = {stated}: the layers look {reach} voxels around. Remedy: halo = {reach}")
    halo = stated if stated is not None else reach or 0
    if min(terms.block or ()) <= 2 * halo:
        raise RecipeRefused(
            f"network.block = {list(terms.block or ())}: must be larger than two halos of {halo}. Remedy: raise it"
        )
    return halo


def try_blocks(network: Network, recipe: Recipe, halo: int) -> float:
    """Cut a volume in two along each axis in turn, and compare with the answer of the whole.

    Args:
        network: answers before softmax or sigmoid: those of noise are often certain and would show no difference.
        recipe: of the import.
        halo: of its blocks.

    Returns:
        The greatest difference, as a part of the greatest answer.

    Raises:
        RecipeRefused: it is more than rounding.
    """
    greatest = 0.0
    for axis in range(3):
        shape = [_THIN] * 3
        shape[axis] = 2 * halo + 9
        size = [2 * halo + _THIN] * 3
        size[axis] = 2 * halo + 5
        volume = tf.constant(_noise(tuple(shape), recipe))
        fit = Fit(tf.constant(shape), tf.constant(shape))
        answer = network(volume[None, ..., None])[0]
        if tuple(answer.shape[:3]) != tuple(shape):
            raise RecipeRefused(
                f"network.run = 'blocks': the network answers {list(answer.shape[:3])} to {shape}, so it has strides "
                f"or pools or cuts its border off. Remedy: run = 'whole' or 'windows'"
            )
        whole = one_piece(answer, fit).made(0)
        cut = block_pieces(volume, fit, BlockSize(tuple(size), (halo,) * 3), network, recipe.classes)
        parts = [cut.made(tf.constant(index)) for index in range(int(cut.count))]
        most = tf.maximum(tf.reduce_max(tf.abs(whole)), 1e-12)
        greatest = max(greatest, float(tf.reduce_max(tf.abs(tf.concat(parts, 1) - whole)) / most))
    if not greatest <= BLOCKS_DIFFERENCE_MOST:
        raise RecipeRefused(
            f"network.halo = {halo}: blocks answer otherwise than the whole, by {greatest:.2g} of the answer. "
            f"Remedy: raise network.halo to what the network reaches, or run = 'whole' where it has strides or pools"
        )
    return greatest


def _noise(shape: tuple[int, ...], recipe: Recipe) -> np.ndarray:
    """Draw values of the order that the normalisation gives."""
    drawn = np.random.default_rng(1).uniform(0, 1, shape)
    return (drawn * 1000 if recipe.normalisation.kind == "none" else drawn).astype(np.float32)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:300]
