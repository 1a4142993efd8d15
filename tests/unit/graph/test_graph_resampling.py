import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from inference.graph.resampling import axis, resampled, sizes_at

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
SPACINGS = st.tuples(*(st.floats(0.3, 7) for _ in range(3)))
VOLUME = tf.TensorSpec([None, None, None], tf.float32)


@tf.function(autograph=False, input_signature=[VOLUME, tf.TensorSpec([3], tf.int32)])
def linear(volume: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
    return resampled(volume, sizes)


@tf.function(autograph=False, input_signature=[VOLUME, tf.TensorSpec([3], tf.float32)])
def there_and_back(volume: tf.Tensor, spacing: tf.Tensor) -> tf.Tensor:
    coarse = resampled(volume, sizes_at(tf.shape(volume), spacing, (2.0, 1.5, 1.5)), antialias=True)
    return resampled(coarse, tf.shape(volume))


def noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(5).normal(size=shape).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(before=SIZES, after=SIZES)
def test_linear_resampling_is_scipys_on_grids_of_the_same_borders(
    before: tuple[int, int, int], after: tuple[int, int, int]
) -> None:
    image = noise(before)
    points = [(np.arange(size) + 0.5) * n / size - 0.5 for n, size in zip(before, after, strict=True)]
    expected = ndimage.map_coordinates(
        image.astype(np.float64), np.meshgrid(*points, indexing="ij"), order=1, mode="nearest"
    )
    np.testing.assert_allclose(linear(image, after), expected, atol=1e-5)


def test_linear_resampling_is_scipys_zoom_in_grid_mode() -> None:
    image = noise((18, 20, 12))
    for after in ((36, 10, 12), (9, 40, 30), (18, 5, 3)):
        zoom = [size / n for size, n in zip(after, image.shape, strict=True)]
        expected = ndimage.zoom(image.astype(np.float64), zoom, order=1, mode="nearest", grid_mode=True)
        np.testing.assert_allclose(linear(image, after), expected, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(before=SIZES, after=SIZES)
def test_antialias_in_plane_is_pillows_bilinear(before: tuple[int, int, int], after: tuple[int, int, int]) -> None:
    image = noise((1, *before[1:]))
    expected = np.asarray(Image.fromarray(image[0]).resize((after[2], after[1]), Image.Resampling.BILINEAR))
    got = resampled(image, (1, *after[1:]), antialias=True).numpy()
    np.testing.assert_allclose(got[0], expected, atol=2e-5)


@settings(max_examples=60, deadline=None)
@given(shape=SIZES, spacing=SPACINGS)
def test_answers_lie_on_exactly_the_input_grid(shape: tuple[int, int, int], spacing: tuple[float, ...]) -> None:
    """Same shape, constants kept, and mirrored input gives the mirrored answer: nothing moves by a part of a voxel."""
    image = noise(shape)
    back = there_and_back(image, spacing).numpy()
    assert back.shape == shape
    mirrored = there_and_back(image[::-1, ::-1, ::-1].copy(), spacing).numpy()[::-1, ::-1, ::-1]
    np.testing.assert_allclose(mirrored, back, atol=2e-5)
    np.testing.assert_allclose(there_and_back(np.full(shape, 3.5, np.float32), spacing), 3.5, atol=1e-5)
    assert there_and_back.experimental_get_tracing_count() == 1


def test_every_weight_lies_within_the_stated_inputs() -> None:
    for count, wanted in ((40, 7), (7, 40), (1, 5), (5, 1), (33, 33)):
        made = axis(count, wanted, antialias=True)
        columns = np.arange(count)
        outside = (columns < made.first.numpy()[:, None]) | (columns >= made.beyond.numpy()[:, None])
        assert not made.matrix.numpy()[outside].any()
