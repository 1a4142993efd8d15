"""Lungs and the whole algorithm on a drawn chest: two lungs, a windpipe, bowel gas, nodules, and air around."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from inference.graph.lungs import LungRules, coarse_lungs
from inference.graph.nodule_map import NoduleMap
from inference.graph.tile_grid import TileGrid

RULES = LungRules()
STEP = RULES.grid_mm


def _disc(shape: tuple[int, int], row: float, column: float, down: float, across: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.asarray(((rows - row) / down) ** 2 + ((columns - column) / across) ** 2 <= 1)


def chest(shape: tuple[int, int] = (100, 120)) -> NDArray[np.float32]:
    """One slice in HU on the coarse grid: body, lungs with a nodule inside and one at the pleura, windpipe, gas."""
    image = np.full(shape, -1000, np.float32)
    image[_disc(shape, 50, 60, 38, 52)] = 40
    image[_disc(shape, 45, 35, 24, 16) | _disc(shape, 45, 85, 24, 16)] = -860
    image[_disc(shape, 45, 60, 3, 3)] = -1000
    image[_disc(shape, 78, 60, 6, 12)] = -1000
    image[_disc(shape, 45, 35, 3, 3)] = 30
    image[_disc(shape, 45, 100, 2, 2)] = 30
    image[94:96, 5:115] = 100
    return image


def lungs_of(slices: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.asarray(coarse_lungs(tf.constant(slices), RULES).numpy() > 0)


def test_lungs_are_found_with_their_nodules_and_without_gas_windpipe_and_room_air() -> None:
    shape = (100, 120)
    got = lungs_of(chest()[None])[0]
    lungs = _disc(shape, 45, 35, 24, 16) | _disc(shape, 45, 85, 24, 16)
    assert (got & lungs).sum() / lungs.sum() > 0.98
    assert (got & ~lungs).sum() / lungs.sum() < 0.03
    assert got[_disc(shape, 45, 35, 3, 3)].all()
    assert got[44:47, 98:100].all()
    assert not got[_disc(shape, 45, 60, 3, 3)].any()
    assert not got[_disc(shape, 78, 60, 6, 12)].any()


def test_heart_between_lungs_that_meet_in_front_and_behind_stays_out() -> None:
    shape = (100, 120)
    image = np.full(shape, -1000, np.float32)
    image[_disc(shape, 50, 60, 40, 55)] = 40
    image[_disc(shape, 50, 60, 30, 40)] = -860
    image[_disc(shape, 50, 60, 16, 16)] = 40
    got = lungs_of(image[None])[0]
    assert not got[_disc(shape, 50, 60, 12, 12)].any()
    assert got[50, 30]


def test_a_thin_recess_is_followed_from_the_slice_above() -> None:
    shape = (100, 120)
    thin = np.full(shape, -1000, np.float32)
    thin[_disc(shape, 50, 60, 38, 52)] = 40
    ring = _disc(shape, 45, 35, 24, 16) & ~_disc(shape, 45, 35, 21, 13)
    thin[ring] = -860
    alone, beside = lungs_of(thin[None])[0], lungs_of(np.stack((thin, chest())))[0]
    assert not alone[ring].any()
    assert beside[ring].mean() > 0.95


def test_a_slab_sees_the_lungs_that_the_whole_scan_sees() -> None:
    scan = np.repeat(chest()[None], 60, axis=0)
    np.testing.assert_array_equal(lungs_of(scan)[20:32], lungs_of(scan[20:32]))


def test_no_body_no_lungs() -> None:
    assert not lungs_of(np.full((3, 40, 50), -1000, np.float32)).any()
    assert not lungs_of(np.full((3, 40, 50), 40, np.float32)).any()


def _stored(slices: int, shape: tuple[int, int]) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """A drawn chest as stored values with another rescale in each slice, and its spacing."""
    coarse = chest()
    rows = np.arange(shape[0]) * coarse.shape[0] // shape[0]
    columns = np.arange(shape[1]) * coarse.shape[1] // shape[1]
    image = coarse[rows][:, columns]
    noise = np.random.default_rng(0).normal(0, 10, (slices, *shape))
    spacing = (2.0, coarse.shape[0] * STEP / shape[0], coarse.shape[1] * STEP / shape[1])
    return (image + noise + 1024).astype(np.int16), np.array(spacing, np.float32)


def _bright(tiles: Any) -> Any:
    return tf.cast(tiles > 0.6, tf.float32)


def _run(
    image: NDArray[np.int16], spacing: NDArray[np.float32], chunk: int = 4, network: Callable[[Any], Any] = _bright
) -> dict[str, NDArray[np.uint8]]:
    slices = len(image)
    algorithm = NoduleMap(network, TileGrid(), chunk=chunk)
    graph = tf.function(algorithm)
    rescale = np.ones(slices, np.float32), np.full(slices, -1024, np.float32)
    return {name: value.numpy() for name, value in graph(image, *rescale, spacing).items()}


@pytest.mark.parametrize(("slices", "shape"), [(5, (301, 277)), (4, (256, 311)), (1, (129, 400)), (9, (97, 101))])
def test_outputs_lie_exactly_on_the_input_grid(slices: int, shape: tuple[int, int]) -> None:
    got = _run(*_stored(slices, shape))
    for name in ("probability", "lungs"):
        assert got[name].shape == (slices, *shape)
        assert got[name].dtype == np.uint8
    scale = shape[0] / 100, shape[1] / 120
    inside = (slices // 2, round(45.5 * scale[0]), round(35.5 * scale[1]))
    assert got["lungs"][inside] == 1
    assert got["probability"][inside] > 200
    assert got["lungs"].max() == 1


def test_a_network_that_answers_no_number_gives_no_result() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="probabilities: expected finite values"):
        _run(*_stored(2, (97, 101)), network=lambda tiles: tf.math.log(-1 - tiles))


def test_slices_without_lung_cost_no_network_and_answer_zero() -> None:
    image = np.full((3, 130, 140), 1064, np.int16)
    got = _run(image, np.array([2, 0.7, 0.7], np.float32))
    assert not got["probability"].any()
    assert not got["lungs"].any()


def test_the_chunk_size_changes_nothing_and_the_same_input_gives_the_same_bytes() -> None:
    image, spacing = _stored(7, (201, 223))
    first, again, other = _run(image, spacing), _run(image, spacing), _run(image, spacing, chunk=3)
    for name in first:
        assert first[name].tobytes() == again[name].tobytes()
        np.testing.assert_array_equal(first[name], other[name])
