import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from scipy import ndimage

from inference.graph.morphology import closed, dilated, eroded, filled, grown, opened, reconstructed
from inference.graph.persistence import persistent, slices_spanning

CROSS = ndimage.generate_binary_structure(2, 1)
OCTAGON = ndimage.binary_dilation(np.pad(CROSS, 1), np.ones((3, 3)))


def _blobs(seed: int, slices: int = 3) -> NDArray[np.bool_]:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(slices, 40, 52)), (0, 2, 2))
    return np.asarray(noise > 0.02)


def _to_graph(mask: NDArray[np.bool_]) -> tf.Tensor:
    return tf.constant(mask.transpose(1, 2, 0)[None], tf.float32)


def _back(mask: tf.Tensor) -> NDArray[np.bool_]:
    return np.asarray(mask.numpy()[0].transpose(2, 0, 1) > 0)


def test_growing_and_dilating_equal_scipys() -> None:
    mask = _blobs(0)
    for plane, one, two in zip(mask, _back(grown(_to_graph(mask))), _back(dilated(_to_graph(mask), 2)), strict=True):
        np.testing.assert_array_equal(one, ndimage.binary_dilation(plane, CROSS))
        np.testing.assert_array_equal(two, ndimage.binary_dilation(plane, OCTAGON))


def test_eroding_opening_and_closing_equal_scipys() -> None:
    mask = _blobs(1)
    inner = slice(5, -5)
    for plane, less, open_, close in zip(
        mask,
        _back(eroded(_to_graph(mask), 2)),
        _back(opened(_to_graph(mask), 2)),
        _back(closed(_to_graph(mask), 2)),
        strict=True,
    ):
        np.testing.assert_array_equal(less, ndimage.binary_erosion(plane, OCTAGON, border_value=1))
        np.testing.assert_array_equal(open_[inner, inner], ndimage.binary_opening(plane, OCTAGON)[inner, inner])
        np.testing.assert_array_equal(close[inner, inner], ndimage.binary_closing(plane, OCTAGON)[inner, inner])


def test_filling_holes_equals_scipys() -> None:
    mask = _blobs(2)
    for plane, got in zip(mask, _back(filled(_to_graph(mask))), strict=True):
        np.testing.assert_array_equal(got, ndimage.binary_fill_holes(plane))


@pytest.mark.parametrize("across", [False, True])
def test_reconstruction_equals_scipys_propagation(across: bool) -> None:  # noqa: FBT001
    mask = _blobs(3, slices=5)
    seed = np.zeros_like(mask)
    seed[2, 20, 10:40:6] = True
    structure = ndimage.generate_binary_structure(3, 1)
    if not across:
        structure[0] = structure[2] = False
    expected = ndimage.binary_propagation(seed & mask, structure, mask=mask)
    np.testing.assert_array_equal(
        _back(reconstructed(_to_graph(seed), _to_graph(mask), across_slices=across)), expected
    )


@pytest.mark.parametrize(("spacing", "count"), [(2.5, 2), (1.25, 3), (3.0, 1), (5.0, 1), (0.6, 5), (0.01, 9)])
def test_slices_that_span_a_length(spacing: float, count: int) -> None:
    assert int(slices_spanning(3.0, tf.constant(spacing), tf.constant(9))) == count


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_persistence_is_a_grey_opening_along_slices(count: int) -> None:
    volume = np.random.default_rng(4).integers(0, 255, (7, 5, 6)).astype(np.uint8)
    windows = np.stack([volume[first : first + count].min(axis=0) for first in range(7 - count + 1)])
    expected = [windows[max(0, number - count + 1) : number + 1].max(axis=0) for number in range(7)]
    np.testing.assert_array_equal(persistent(tf.constant(volume), tf.constant(count)).numpy(), expected)
