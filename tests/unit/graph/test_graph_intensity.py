import numpy as np
import pytest
import tensorflow as tf

from inference.graph.intensity import counted_voxels, scaled_to_range, z_scored


def volume(offset: float, spread: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    values = (offset + spread * rng.normal(size=(37, 12, 9))).astype(np.float32)
    return values, rng.uniform(size=values.shape) < 0.7


@pytest.mark.parametrize(("offset", "spread"), [(0, 1), (-600, 350), (30000, 0.5)])
def test_z_scores_are_numpys_over_what_counts(offset: float, spread: float) -> None:
    values, counted = volume(offset, spread)
    kept = values[counted].astype(np.float64)
    got = tf.function(z_scored, autograph=False)(tf.constant(values), tf.constant(counted)).numpy()
    np.testing.assert_allclose(got[counted], (kept - kept.mean()) / kept.std(), rtol=1e-5, atol=2e-6)
    assert not got[~counted].any()


def test_range_scaling_takes_least_and_greatest_of_what_counts() -> None:
    values, counted = volume(-600, 350)
    kept = values[counted]
    got = scaled_to_range(values, counted).numpy()
    np.testing.assert_allclose(got[counted], (kept - kept.min()) / np.ptp(kept), atol=1e-6)
    assert (got[counted].min(), got[counted].max()) == (0, 1)
    assert not got[~counted].any()


@pytest.mark.parametrize("scale", [z_scored, scaled_to_range])
def test_flat_volumes_and_volumes_of_padding_become_zero(scale: object) -> None:
    assert callable(scale)
    flat = np.full((20, 3, 3), 0.1, np.float32)
    marked = flat.copy()
    marked[0, 0, 0] = 9
    assert not scale(flat, np.ones(flat.shape, bool)).numpy().any()
    assert not scale(marked, marked < 9).numpy().any()
    assert not scale(marked, np.zeros(flat.shape, bool)).numpy().any()


def test_padding_is_compared_in_stored_values() -> None:
    image = np.array([[[-2000, 0, 7]]], np.int16)
    np.testing.assert_array_equal(counted_voxels(image, np.int32([-2000])), [[[False, True, True]]])
    np.testing.assert_array_equal(counted_voxels(image.astype(np.uint16), np.uint16(63536)), [[[False, True, True]]])
