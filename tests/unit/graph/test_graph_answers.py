import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.special import softmax

from inference.graph.answers import ensemble_mean, flips_mean, labels, labels_on_grid, tempered

RNG = np.random.default_rng(9)
TILES = RNG.normal(size=(2, 5, 6, 7, 1)).astype(np.float32)
RAMP = RNG.normal(size=(5, 6, 7, 1)).astype(np.float32)
SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))


@tf.function(
    autograph=False,
    input_signature=[tf.TensorSpec([None, None, None, 4], tf.float32), tf.TensorSpec([3], tf.int32)],
)
def on_grid(probabilities: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
    return labels_on_grid(probabilities, sizes)


def test_flips_are_undone_before_the_mean() -> None:
    got = flips_mean(lambda tiles: tiles * RAMP, tf.constant(TILES), ((1,), (2, 3)))
    expected = TILES * (RAMP + RAMP[::-1] + RAMP[:, ::-1, ::-1]) / 3
    np.testing.assert_allclose(got, expected, atol=1e-6)
    scores = flips_mean(lambda tiles: tf.reduce_sum(tiles * RAMP, (1, 2, 3)), TILES, ((1,),), spatial=False)
    np.testing.assert_allclose(scores, (TILES * (RAMP + RAMP[::-1]) / 2).sum((1, 2, 3)), atol=1e-4)


def test_an_ensemble_is_the_mean_of_its_networks() -> None:
    got = ensemble_mean([lambda x: x, lambda x: 3 * x, lambda x: x * x], tf.constant(TILES))
    np.testing.assert_allclose(got, (4 * TILES + TILES**2) / 3, atol=1e-6)
    with pytest.raises(ValueError, match="networks"):
        ensemble_mean([], TILES)


@pytest.mark.parametrize("temperature", [0.5, 1, 2.3])
def test_temperature_divides_logits(temperature: float) -> None:
    logits = 5 * RNG.normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_allclose(tempered(logits, temperature), softmax(logits / temperature, axis=-1), atol=1e-6)
    with pytest.raises(ValueError, match="temperature"):
        tempered(logits, -temperature)


def test_labels_take_the_first_of_equals() -> None:
    np.testing.assert_array_equal(labels(tf.constant([[0.2, 0.4, 0.4], [0.3, 0.3, 0.3], [0.0, 0.1, 0.9]])), [1, 0, 2])
    equal = np.full((3, 3, 3, 4), 0.25, np.float32)
    assert not on_grid(equal, (5, 2, 3)).numpy().any()
    assert labels(tf.zeros((1, 256))).dtype == tf.uint8
    with pytest.raises(ValueError, match="classes 257"):
        labels(tf.zeros((1, 257)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_becomes_no_label(value: float) -> None:
    probabilities = RNG.uniform(size=(3, 5, 7, 4)).astype(np.float32)
    assert on_grid(probabilities, (3, 9, 2)).shape == (3, 9, 2)
    probabilities[2, 4, 6, 3] = value
    for made in (lambda: labels(probabilities), lambda: on_grid(probabilities, (3, 9, 2))):
        with pytest.raises(tf.errors.InvalidArgumentError, match="class probabilities: expected finite values"):
            made()


@settings(max_examples=25, deadline=None)
@given(before=SIZES, more=SIZES)
def test_labels_are_the_argmax_of_resampled_probabilities(
    before: tuple[int, int, int], more: tuple[int, int, int]
) -> None:
    """Onto finer grids against scipy, where the best two differ by more than FP32 rounding."""
    sizes = tuple(np.maximum(before, more))
    probabilities = softmax(RNG.normal(size=(*before, 4)), axis=-1).astype(np.float32)
    points = np.meshgrid(
        *((np.arange(m) + 0.5) * n / m - 0.5 for n, m in zip(before, sizes, strict=True)), indexing="ij"
    )
    kinds = [
        ndimage.map_coordinates(probabilities[..., kind].astype(np.float64), points, order=1, mode="nearest")
        for kind in range(4)
    ]
    got = on_grid(probabilities, sizes).numpy()
    ordered = np.sort(kinds, axis=0)
    clear = ordered[-1] - ordered[-2] > 1e-5
    assert got.shape == sizes
    np.testing.assert_array_equal(got[clear], np.argmax(kinds, axis=0)[clear])
    assert clear.mean() > 0.9
    assert on_grid.experimental_get_tracing_count() == 1
