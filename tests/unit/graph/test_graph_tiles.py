import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from inference.graph.tile_grid import TileGrid
from inference.graph.tiles import blend, blending_matrix, cut, cutting_matrix, scaled, tile_origins, touched
from training.augmentation import Placement, cut_window
from training.augmentation import scaled as scaled_in_training
from training.datasets.lidc_crops import Crop

GRID = TileGrid(size=32, spacing_mm=0.8, overlap=8)


@settings(max_examples=40, deadline=None)
@given(count=st.integers(2, 600), spacing=st.floats(0.3, 2.0))
def test_tiles_reach_from_border_to_border_and_overlap_enough(count: int, spacing: float) -> None:
    origins = tile_origins(count, spacing, GRID).numpy()
    length = (count - 1) * spacing
    if length <= GRID.extent_mm:
        assert len(origins) == 1
        return
    assert origins[0] == pytest.approx(0, abs=1e-3)
    assert origins[-1] + GRID.extent_mm == pytest.approx(length, abs=1e-2)
    assert np.diff(origins).max(initial=0) <= (GRID.size - GRID.overlap) * GRID.spacing_mm + 1e-2


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 600), spacing=st.floats(0.3, 2.0))
def test_blending_weights_of_every_pixel_sum_to_one(count: int, spacing: float) -> None:
    matrix = blending_matrix(count, spacing, GRID).numpy()
    assert matrix.shape[0] == count
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-4)
    assert matrix.min() >= 0


def test_cut_tiles_are_scipys_linear_samples() -> None:
    image = np.random.default_rng(1).normal(size=(1, 91, 77)).astype(np.float32)
    tiles = cut(image, cutting_matrix(91, 0.6, GRID), cutting_matrix(77, 0.6, GRID), GRID.size).numpy()
    rows, columns = tile_origins(91, 0.6, GRID).numpy(), tile_origins(77, 0.6, GRID).numpy()
    assert tiles.shape[1:3] == (len(rows), len(columns))
    steps = np.arange(GRID.size) * GRID.spacing_mm
    for down, across in ((0, 0), (1, 1), (len(rows) - 1, len(columns) - 1)):
        points = np.meshgrid((rows[down] + steps) / 0.6, (columns[across] + steps) / 0.6, indexing="ij")
        expected = ndimage.map_coordinates(image[0], points, order=1, mode="nearest")
        np.testing.assert_allclose(tiles[0, down, across], expected, atol=1e-4)


@pytest.mark.parametrize("shape", [(64, 64), (63, 101), (20, 97), (31, 33)])
def test_a_smooth_image_survives_cutting_and_blending_on_its_own_grid(shape: tuple[int, int]) -> None:
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    image = (0.02 * rows + 0.01 * columns)[None]
    cutting = [cutting_matrix(count, 0.7, GRID) for count in shape]
    blending = [blending_matrix(count, 0.7, GRID) for count in shape]
    back = blend(cut(image, cutting[0], cutting[1], GRID.size), blending[0], blending[1]).numpy()
    assert back.shape == image.shape
    np.testing.assert_allclose(back, image, atol=1e-2)


def test_only_tiles_that_sample_the_mask_are_touched() -> None:
    mask = np.zeros((2, 120, 120), np.float32)
    mask[1, 5, 110] = 1
    cutting = cutting_matrix(120, 0.8, GRID)
    got = touched(mask, cutting, cutting, GRID.size).numpy()
    assert not got[0].any()
    assert got[1].sum() == 1
    assert got[1, 0, -1]


def test_a_flat_tile_scales_to_zero() -> None:
    assert not scaled(tf.fill((1, 4, 4), 37.0)).numpy().any()


def test_training_and_graph_see_the_same_tile() -> None:
    """Same pixels, same window, same scaling: what the network learned on is what it is given."""
    rng = np.random.default_rng(2)
    pixels = ndimage.gaussian_filter(rng.uniform(0, 255, (128, 128)), 1).astype(np.uint8)
    grid = TileGrid()
    crop = Crop("c", "p", "n", 0.7, pixels, np.zeros_like(pixels))
    cutting = cutting_matrix(128, 0.7, grid)
    origin = tile_origins(128, 0.7, grid).numpy()
    tiles = scaled(cut(pixels[None].astype(np.float32), cutting, cutting, grid.size)).numpy()
    centers = (origin + grid.extent_mm / 2) / 0.7
    for down, row in enumerate(centers):
        for across, column in enumerate(centers):
            tile, _ = cut_window(crop, Placement(float(row), float(column)), grid)
            np.testing.assert_allclose(tiles[0, down, across], scaled_in_training(tile), atol=1e-3)
