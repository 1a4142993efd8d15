import numpy as np
import pytest

from inference.graph.tile_grid import TileGrid
from tests.drawn_crops import nodule_crop
from training.augmentation import (
    Mixture,
    Placement,
    TrainingCrops,
    batches,
    cut_window,
    make_batch,
    random_window,
    scaled,
    target_of,
    varied,
)

GRID = TileGrid(size=32, spacing_mm=0.8, overlap=8)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    crops = TrainingCrops((nodule_crop(0), nodule_crop(1)))
    first = [next(batches(crops, GRID, Mixture(size=4), seed=3, first_step=step)) for step in range(3)]
    going = batches(crops, GRID, Mixture(size=4), seed=3)
    for expected in first:
        got = next(going)
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_array_equal(got[1], expected[1])


def test_tiles_span_zero_to_one_and_targets_are_truth_and_weight() -> None:
    crops = TrainingCrops((nodule_crop(0),), (nodule_crop(1),))
    tiles, targets = make_batch(crops, GRID, Mixture(size=12, phantom=3), np.random.default_rng(0))
    assert tiles.shape == (12, 32, 32, 1)
    assert targets.shape == (12, 32, 32, 2)
    assert tiles.dtype == targets.dtype == np.float32
    np.testing.assert_allclose(tiles.min(axis=(1, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(tiles.max(axis=(1, 2, 3)), 1, atol=1e-6)
    assert targets[..., 0].any()


def test_pixels_that_one_reader_marked_weigh_nothing() -> None:
    got = target_of(np.array([[0, 1, 2, 4]], np.uint8))
    np.testing.assert_array_equal(got[..., 0], [[0, 0, 1, 1]])
    np.testing.assert_array_equal(got[..., 1], [[1, 0, 1, 1]])


def test_windows_away_from_marks_hold_none() -> None:
    rng = np.random.default_rng(5)
    marked = [random_window(nodule_crop(), GRID, rng, empty=True)[1].any() for _ in range(60)]
    assert np.mean(marked) < 0.05


def test_truth_follows_the_pixels_through_turn_mirror_and_scale() -> None:
    crop = nodule_crop()
    tile, readers = cut_window(crop, Placement(58.0, 70.0, scale=1.2, turn=0.7, mirrored=True), GRID)
    assert tile[readers == 4].mean() > 150
    assert tile[readers == 0].mean() < 70
    assert (readers == 4).sum() == pytest.approx(np.pi * (6.2 * 0.7 / (0.8 * 1.2)) ** 2, rel=0.15)


def test_scaling_forgets_the_window_that_a_crop_was_scaled_by() -> None:
    tile = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    np.testing.assert_allclose(scaled(tile * 37 - 800), scaled(tile), atol=1e-5)


def test_variation_keeps_the_range() -> None:
    rng = np.random.default_rng(1)
    tile = scaled(rng.normal(size=(32, 32)).astype(np.float32))
    for _ in range(30):
        got = varied(tile, rng)
        assert got.min() == 0
        assert got.max() == pytest.approx(1)
        assert np.isfinite(got).all()
