import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.graph.percentiles import Method, histogram, percentiles

PERCENTS = (0, 0.5, 1, 12.3, 25, 33.3, 50, 61.7, 99, 99.5, 100)
METHODS: tuple[Method, ...] = ("linear", "lower", "higher")


@tf.function(
    autograph=False,
    input_signature=[tf.TensorSpec([None, None, None], tf.int16), tf.TensorSpec([], tf.int16)],
)
def counted(image: tf.Tensor, padding: tf.Tensor) -> list[tf.Tensor]:
    return [percentiles(image, PERCENTS, method, padding) for method in METHODS]


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 9), st.integers(1, 9)),
    span=st.sampled_from([1, 2, 5, 300, 65536]),
    seed=st.integers(0, 999),
)
def test_percentiles_are_numpys_to_the_bit(shape: tuple[int, int, int], span: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(-32768, -32768 + span, shape).astype(np.int16)
    padding = image[0, 0, 0]
    left = image[image != padding].astype(np.float64)
    for method, got in zip(METHODS, counted(image, padding), strict=True):
        expected = np.percentile(left, PERCENTS, method=method) if left.size else np.zeros(len(PERCENTS))
        np.testing.assert_array_equal(got, expected)


def test_unsigned_volumes_of_several_slabs_count_every_voxel() -> None:
    image = np.random.default_rng(0).integers(0, 65536, (35, 16, 16)).astype(np.uint16)
    np.testing.assert_array_equal(histogram(tf.constant(image)), np.bincount(image.ravel(), minlength=65536))
    got = percentiles(tf.constant(image), PERCENTS)
    np.testing.assert_array_equal(got, np.percentile(image.astype(np.float64), PERCENTS))


def test_a_volume_of_padding_has_percentiles_of_zero() -> None:
    assert not np.any(counted(np.full((3, 4, 5), -2000, np.int16), np.int16(-2000)))


def test_other_types_and_percents_are_refused() -> None:
    with pytest.raises(ValueError, match="INT16 or UINT16"):
        percentiles(tf.zeros((2, 2, 2)), PERCENTS)
    with pytest.raises(ValueError, match="percent 101"):
        percentiles(tf.zeros((2, 2, 2), tf.int16), (50, 101))
