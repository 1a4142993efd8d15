import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from inference.graph.rescale import rescaled
from inference.graph.sampling import coarse_positions, pixel_positions, resampled, tent_matrix


def test_rescale_is_slice_by_slice_and_lifts_padding_to_the_floor() -> None:
    image = np.array([[[0, 1000]], [[-2000, 50]]], np.int16)
    got = rescaled(image, tf.constant([1.0, 2.0]), tf.constant([-1024.0, 10.0]), -1024.0).numpy()
    np.testing.assert_array_equal(got, [[[-1024, -24]], [[-1024, 110]]])


def test_a_tent_as_wide_as_the_spacing_is_linear_interpolation() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 13, 17)).astype(np.float32)
    rows_mm, columns_mm = rng.uniform(0, 12 * 0.7, 9), rng.uniform(0, 16 * 0.9, 11)
    rows = tent_matrix(tf.constant(rows_mm, tf.float32), pixel_positions(13, 0.7), 0.7)
    columns = tent_matrix(tf.constant(columns_mm, tf.float32), pixel_positions(17, 0.9), 0.9)
    points = np.meshgrid(rows_mm / 0.7, columns_mm / 0.9, indexing="ij")
    expected = [ndimage.map_coordinates(plane, points, order=1, mode="nearest") for plane in image]
    np.testing.assert_allclose(resampled(image, rows, columns).numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("leading", [(5,), (6, 1), (2, 3), (0, 1)])
def test_leading_axes_are_resampled_one_by_one_and_nothing_is_written_beyond(leading: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    image, rows, columns = (
        rng.normal(size=size).astype(np.float32) for size in ((*leading, 32, 21), (20, 32), (17, 21))
    )
    run = tf.function(resampled, autograph=False)
    expected = rows @ image @ columns.T
    # Memory written beyond its end shows after some runs: wrong values, or the end of the process.
    for _ in range(200):
        answer = run(image, rows, columns)
        np.testing.assert_allclose(answer, expected, atol=1e-4)
    assert answer.shape == (*leading, 20, 17)


def test_positions_beyond_the_samples_take_the_outermost_one() -> None:
    matrix = tent_matrix(tf.constant([-5.0, 99.0]), pixel_positions(4, 1.0), 1.0).numpy()
    np.testing.assert_allclose(matrix, [[1, 0, 0, 0], [0, 0, 0, 1]], atol=1e-6)


@pytest.mark.parametrize(("count", "spacing"), [(512, 0.7), (511, 0.977), (64, 3.0), (3, 0.5), (1, 0.5)])
def test_coarse_cells_span_the_image_and_average_without_bias(count: int, spacing: float) -> None:
    positions, step = coarse_positions(count, spacing, 3.0)
    assert float(step) * len(positions) == pytest.approx(count * spacing, rel=1e-5)
    weights = tent_matrix(positions, pixel_positions(count, spacing), tf.maximum(step, spacing)).numpy()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    assert np.isfinite(weights).all()
