import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.graph.fitting import centred, padded_to_multiples

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))


@tf.function(
    autograph=False,
    input_signature=[tf.TensorSpec([None, None, None], tf.int16), tf.TensorSpec([3], tf.int32)],
)
def fitted(volume: tf.Tensor, sizes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    there = tf.shape(volume)
    multiples = padded_to_multiples(volume, (4, 16, 7), -9)
    return centred(volume, sizes, -9), multiples, centred(multiples, there)


@settings(max_examples=60, deadline=None)
@given(shape=SIZES, sizes=SIZES)
def test_fitting_is_centred_and_undone(shape: tuple[int, int, int], sizes: tuple[int, int, int]) -> None:
    volume = np.random.default_rng(6).integers(0, 99, shape).astype(np.int16)
    got, multiples, back = (made.numpy() for made in fitted(volume, sizes))
    expected = volume
    for place, (n, size) in enumerate(zip(shape, sizes, strict=True)):
        offset = abs(size - n) // 2
        if size >= n:
            pads = [(offset, size - n - offset) if axis == place else (0, 0) for axis in range(3)]
            expected = np.pad(expected, pads, constant_values=-9)
        else:
            expected = np.take(expected, range(offset, offset + size), axis=place)
    np.testing.assert_array_equal(got, expected)
    steps = np.array((4, 16, 7))
    np.testing.assert_array_equal(multiples.shape, -(-np.array(shape) // steps) * steps)
    np.testing.assert_array_equal(back, volume)
    assert fitted.experimental_get_tracing_count() == 1


def test_fixed_sizes_stay_known_and_channels_stay_whole() -> None:
    def fit(volume: tf.Tensor) -> tf.Tensor:
        return centred(volume, (8, 6))

    concrete = tf.function(fit, autograph=False).get_concrete_function(tf.TensorSpec([None, None, 2], tf.float32))
    assert concrete.output_shapes == (8, 6, 2)
