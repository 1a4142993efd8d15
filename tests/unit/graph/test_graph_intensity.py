import numpy as np
import pytest
import tensorflow as tf

from inference.graph.intensity import counted_voxels, quantiles, scaled_to_quantiles, scaled_to_range, z_scored


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


@pytest.mark.parametrize(("offset", "spread"), [(0, 1), (-600, 350), (1e6, 3)])
def test_quantiles_are_numpys_within_a_step_of_the_range(offset: float, spread: float) -> None:
    values, counted = volume(offset, spread)
    kept = values[counted].astype(np.float64)
    wanted = (0.0, 0.02, 0.5, 0.98, 1.0)
    got = tf.function(lambda: quantiles(tf.constant(values), tf.constant(counted), wanted), autograph=False)()
    np.testing.assert_allclose(got, np.quantile(kept, wanted), atol=1.1 * np.ptp(kept) / 65534, rtol=1e-6)


def test_quantile_scaling_goes_on_beyond_its_quantiles() -> None:
    values, counted = volume(100, 20)
    low, high = np.quantile(values[counted].astype(np.float64), (0.05, 0.9))
    got = scaled_to_quantiles(values, counted, 0.05, 0.9).numpy()
    np.testing.assert_allclose(got[counted], (values[counted] - low) / (high - low), atol=1e-3)
    assert got.min() < 0
    assert got.max() > 1
    assert not got[~counted].any()


@pytest.mark.parametrize("pair", [(0.5, 0.5), (0.9, 0.1), (-0.1, 0.5), (0.5, 1.1)])
def test_quantiles_that_do_not_rise_are_refused(pair: tuple[float, float]) -> None:
    values, counted = volume(0, 1)
    with pytest.raises(ValueError, match="must rise within"):
        scaled_to_quantiles(values, counted, *pair)


@pytest.mark.parametrize("scale", [z_scored, scaled_to_range, lambda *given: scaled_to_quantiles(*given, 0.02, 0.98)])
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
