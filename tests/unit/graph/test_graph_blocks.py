"""Blocks with a halo give the answer of the whole; labels made piece by piece lie on the input grid."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from inference.graph.answers import labels_on_grid
from inference.graph.blocks import EVERYTHING, BlockSize, block_axis, block_pieces, one_piece, slice_pieces
from inference.graph.fitting import Fit, centred
from inference.graph.label_maps import Pieces, label_map

RNG = np.random.default_rng(5)
CLASSES = 4
FIRST = tf.constant(RNG.normal(size=(3, 3, 3, 1, 6)).astype(np.float32))
SECOND = tf.constant(RNG.normal(size=(3, 3, 3, 6, CLASSES)).astype(np.float32) / 8)
REACH = 1 + 3


def network(tiles: Any) -> Any:
    """Two layers with zero padding, the second dilated by 3: an answer depends on 4 voxels around it."""
    inner = tf.nn.elu(tf.nn.convolution(tiles, FIRST, padding="SAME"))
    return tf.nn.softmax(tf.nn.convolution(inner + 0.3, SECOND, padding="SAME", dilations=(3, 3, 3)))


def flat_network(tiles: Any) -> Any:
    inner = tf.nn.elu(tf.nn.conv2d(tiles, FIRST[1], 1, "SAME"))
    return tf.nn.softmax(tf.nn.conv2d(inner + 0.3, SECOND[1], 1, "SAME"))


def fit_of(shape: tuple[int, ...], canvas: tuple[int, ...]) -> Fit:
    return Fit(tf.constant(shape), tf.constant(canvas))


def canvas_of(shape: tuple[int, ...], canvas: tuple[int, ...]) -> Any:
    return centred(tf.constant(RNG.normal(size=shape).astype(np.float32)), canvas)


def joined(pieces: Pieces) -> NDArray[np.float32]:
    parts = [pieces.made(tf.constant(index)).numpy() for index in range(int(pieces.count))]
    edges = np.cumsum([0, *(part.shape[1] for part in parts)])
    np.testing.assert_array_equal(edges, pieces.edges)
    return np.concatenate(parts, axis=1).transpose(1, 2, 3, 0)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_blocks_cover_an_axis_once_and_see_their_halo(draws: Any) -> None:
    count = draws.draw(st.integers(1, 80))
    low = draws.draw(st.integers(0, count - 1))
    high = draws.draw(st.integers(low + 1, count))
    halo = draws.draw(st.integers(0, 12))
    size = draws.draw(st.integers(2 * halo + 1, 60))
    axis = block_axis(tf.constant(count), (tf.constant(low), tf.constant(high)), size, halo)
    starts, edges, length = axis.starts.numpy(), axis.edges.numpy(), int(axis.length)
    assert edges[0] == low
    assert edges[-1] == high
    assert length <= size
    assert (np.diff(edges) > 0).all()
    for start, first, last in zip(starts, edges[:-1], edges[1:], strict=True):
        assert start >= 0
        assert start + length <= count
        assert start == 0 or start <= first - halo
        assert start + length == count or start + length >= last + halo


@pytest.mark.parametrize(
    ("shape", "canvas"), [((21, 17, 30), (21, 17, 30)), ((9, 25, 13), (32, 32, 32)), ((40, 11, 12), (20, 24, 10))]
)
def test_blocks_put_together_are_the_whole_answer(shape: tuple[int, ...], canvas: tuple[int, ...]) -> None:
    fit, volume = fit_of(shape, canvas), canvas_of(shape, canvas)
    whole = joined(one_piece(network(volume[None, ..., None])[0], fit))
    block = BlockSize((13, 12, 11), (REACH, REACH, REACH))
    assert all(int(axis.count) > 1 for axis in block.axes(fit_of((30, 30, 30), (30, 30, 30))))
    np.testing.assert_allclose(joined(block_pieces(volume, fit, block, network, CLASSES)), whole, atol=2e-6)


def test_a_halo_that_is_too_small_is_seen() -> None:
    shape = (24, 24, 24)
    fit, volume = fit_of(shape, shape), canvas_of(shape, shape)
    whole = network(volume[None, ..., None])[0]
    short = joined(block_pieces(volume, fit, BlockSize((13, 13, 13), (REACH - 1,) * 3), network, CLASSES))
    assert np.abs(short - whole).max() > 1e-3


def test_a_network_that_sees_everything_gets_the_whole_canvas() -> None:
    def looks_everywhere(tiles: Any) -> Any:
        return tf.nn.softmax(tf.concat((tiles, tiles - tf.reduce_mean(tiles)), -1))

    fit, volume = fit_of((7, 9, 8), (16, 12, 10)), canvas_of((7, 9, 8), (16, 12, 10))
    whole = joined(one_piece(looks_everywhere(volume[None, ..., None])[0], fit))
    block = BlockSize((EVERYTHING,) * 3, (EVERYTHING,) * 3)
    np.testing.assert_allclose(joined(block_pieces(volume, fit, block, looks_everywhere, 2)), whole, atol=1e-6)


def test_slices_run_a_few_at_a_time() -> None:
    shape, canvas = (11, 17, 14), (11, 16, 16)
    fit, volume = fit_of(shape, canvas), canvas_of(shape, canvas)
    whole = joined(one_piece(flat_network(volume[..., None]), fit))
    np.testing.assert_allclose(joined(slice_pieces(volume, fit, 4, flat_network, CLASSES)), whole, atol=1e-6)


@pytest.mark.parametrize("sizes", [(21, 17, 30), (7, 40, 22), (64, 5, 31), (1, 1, 1), (200, 17, 3)])
def test_labels_by_pieces_are_those_of_the_whole(sizes: tuple[int, int, int]) -> None:
    shape = (21, 17, 30)
    fit, volume = fit_of(shape, shape), canvas_of(shape, shape)
    probabilities = network(volume[None, ..., None])[0]
    pieces = block_pieces(volume, fit, BlockSize((11, 12, 13), (REACH,) * 3), network, CLASSES)
    run = tf.function(lambda: label_map(pieces, fit, tf.constant(sizes)))
    got, sure = run()
    expected = labels_on_grid(probabilities, tf.constant(sizes)).numpy()
    assert got.shape == sizes
    assert got.dtype == tf.uint8
    assert (got.numpy() != expected).sum() <= 1e-3 * expected.size
    np.testing.assert_allclose(sure, [tf.reduce_mean(tf.reduce_max(probabilities, -1))], rtol=1e-5)


@given(st.tuples(*[st.integers(1, 24)] * 3), st.tuples(*[st.integers(4, 20)] * 3), st.tuples(*[st.integers(1, 30)] * 3))
@settings(max_examples=25, deadline=None)
def test_what_the_canvas_cuts_off_is_background(
    grid: tuple[int, ...], canvas: tuple[int, ...], sizes: tuple[int, ...]
) -> None:
    """The reference pads the answer with background and resamples it by scipy, linearly."""
    grid = tuple(min(size, wanted) for size, wanted in zip(grid, sizes, strict=True))  # finer or equal: no averaging
    fit = fit_of(grid, canvas)
    kept = tuple(int(size) for size in fit.kept)
    probabilities = RNG.dirichlet(np.ones(CLASSES), kept).astype(np.float32)
    on_canvas = centred(tf.constant(probabilities), canvas)
    got, _ = label_map(one_piece(on_canvas, fit), fit, tf.constant(sizes))
    padded = np.zeros((*grid, CLASSES))
    padded[..., 0] = 1
    padded[tuple(slice(int(a), int(a) + n) for a, n in zip(fit.cropped, kept, strict=True))] = probabilities
    zoom = [wanted / size for wanted, size in zip(sizes, grid, strict=True)]
    grown = [
        ndimage.zoom(padded[..., at], zoom, order=1, mode="grid-constant", grid_mode=True) for at in range(CLASSES)
    ]
    resampled = np.stack(grown, -1)
    inner = tuple(slice(1, -1) if size > 2 else slice(0, 0) for size in sizes)
    assert got.shape == sizes
    ranked = np.sort(resampled, axis=-1)
    clear = (ranked[..., -1] - ranked[..., -2] > 1e-4)[inner]
    np.testing.assert_array_equal(got.numpy()[inner][clear], resampled.argmax(-1)[inner][clear])


def test_nan_of_a_network_ends_the_run() -> None:
    probabilities = np.full((3, 4, 5, 2), 0.5, np.float32)
    probabilities[1, 2, 3, 1] = np.nan
    fit = fit_of((3, 4, 5), (3, 4, 5))
    with pytest.raises(tf.errors.InvalidArgumentError, match="class probabilities"):
        label_map(one_piece(tf.constant(probabilities), fit), fit, tf.constant((6, 4, 5)))


@pytest.mark.parametrize(("size", "halo"), [((8, 8, 8), (4, 4, 4)), ((8, 8, 8), (-1, 0, 0))])
def test_a_block_that_keeps_nothing_is_refused(size: tuple[int, ...], halo: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="larger than two halos"):
        BlockSize(size, halo)
