import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.graph.windows import WindowGrid, blended_windows, cut_windows, slid, window_axis

SOLID = WindowGrid((6, 8, 7), (4, 5, 7))
FLAT = WindowGrid((8, 6), (5, 4))
SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
VOLUME = tf.TensorSpec([None, None, None], tf.float32)


def network(tiles: tf.Tensor) -> tf.Tensor:
    """Answer with the voxels and with the window's mean: the one tests places, the other weights."""
    mean = tf.reduce_mean(tiles, axis=list(range(1, tiles.shape.rank)), keepdims=True)
    return tf.concat((tiles, mean + tf.zeros_like(tiles)), -1)


@tf.function(autograph=False, input_signature=[VOLUME])
def solid(volume: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    tiles = cut_windows(volume, SOLID)
    assert tiles.shape[1:] == (6, 8, 7, 1)
    return slid(volume, SOLID, network, 2), blended_windows(network(tiles), tf.shape(volume), SOLID)


@tf.function(autograph=False, input_signature=[VOLUME])
def flat(volume: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    tiles = cut_windows(volume, FLAT)
    assert tiles.shape[1:] == (8, 6, 1)
    return slid(volume, FLAT, network, 2, batch=7), blended_windows(network(tiles), tf.shape(volume), FLAT)


def gaussian(size: int) -> np.ndarray:
    return np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / (0.125 * size)) ** 2)


def expected_means(volume: np.ndarray, size: tuple[int, ...], interval: tuple[int, ...]) -> np.ndarray:
    """Blend the windows' means as written in a textbook: weighted sum over windows, divided by the weights."""
    pads = [max(0, window - n) for window, n in zip(size, volume.shape, strict=True)]
    padded = np.pad(volume.astype(np.float64), [(more // 2, more - more // 2) for more in pads])
    total, weights = np.zeros(padded.shape), np.zeros(padded.shape)
    weight = np.einsum("i,j,k->ijk", *(gaussian(window) for window in size))
    last = [n - window for n, window in zip(padded.shape, size, strict=True)]
    for index in np.ndindex(*(-(-end // step) + 1 for end, step in zip(last, interval, strict=True))):
        origin = [min(i * step, end) for i, step, end in zip(index, interval, last, strict=True)]
        place = tuple(slice(begin, begin + window) for begin, window in zip(origin, size, strict=True))
        total[place] += weight * padded[place].mean()
        weights[place] += weight
    inside = tuple(slice(more // 2, more // 2 + n) for more, n in zip(pads, volume.shape, strict=True))
    return (total / weights)[inside]


@settings(max_examples=10, deadline=None)
@given(shape=SIZES)
def test_windows_blend_on_exactly_the_input_grid(shape: tuple[int, int, int]) -> None:
    volume = np.random.default_rng(7).normal(size=shape).astype(np.float32)
    for run, grid in ((solid, SOLID), (flat, FLAT)):
        size, interval = ((1, *part)[-3:] for part in (grid.size, grid.interval))
        for answer in run(volume):
            np.testing.assert_allclose(answer[..., 0], volume, atol=1e-5)
            np.testing.assert_allclose(answer[..., 1], expected_means(volume, size, interval), atol=1e-5)
        assert run.experimental_get_tracing_count() == 1


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 40), more=st.integers(0, 200), part=st.floats(0, 1))
def test_weights_of_every_voxel_sum_to_one(size: int, more: int, part: float) -> None:
    made = window_axis(tf.constant(size + more), size, max(1, round(size * part)))
    np.testing.assert_allclose(made.weights.numpy().sum(axis=0), 1, atol=1e-5)
    assert made.origins[0] == 0
    assert made.origins[-1] == more
    assert (np.diff(made.origins) > 0).all()


def test_channels_reach_the_network_and_no_more_windows_than_the_batch() -> None:
    seen: list[int] = []

    def counted(tiles: tf.Tensor) -> tf.Tensor:
        seen.append(tiles.shape[0])
        return tf.reduce_sum(tiles, axis=-1, keepdims=True)

    volume = np.random.default_rng(8).normal(size=(9, 20, 17, 3)).astype(np.float32)
    answer = slid(tf.constant(volume), SOLID, counted, 1, batch=5)
    np.testing.assert_allclose(answer[..., 0], volume.sum(-1), atol=1e-5)
    assert (max(seen), sum(seen)) == (5, 2 * 4 * 3)


@pytest.mark.parametrize(("size", "interval"), [((4, 4), (5, 4)), ((4, 4, 4), (0, 1, 1)), ((4,), (4,)), ((4, 4), (4,))])
def test_a_grid_with_gaps_is_refused(size: tuple[int, ...], interval: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="interval"):
        WindowGrid(size, interval)
