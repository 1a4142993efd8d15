"""A sliding window over a volume or over each of its slices, its answers blended by Gaussian weights.

Weights are separable and normalised along each axis, so that those of one voxel sum to 1 whatever the volume's size.
Blending works row by row of windows and keeps one window's depth of answers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from inference.graph import by_slabs
from inference.graph.fitting import centred
from inference.graph.sampling import resampled as resampled_in_plane

_SIGMA = 0.125
"""Of a window's size."""
Network = Callable[[Any], Any]
"""FP32 [n, *size, channel] -> FP32 [n, *size, class]."""


@dataclass(frozen=True, slots=True)
class WindowGrid:
    """Windows of `size` every `interval` voxels: [slice, row, column], or [row, column] for windows in each slice."""

    size: tuple[int, ...]
    interval: tuple[int, ...]

    def __post_init__(self) -> None:
        """Hold the intervals to the sizes; ValueError otherwise."""
        if len(self.size) not in (2, 3) or len(self.interval) != len(self.size):
            raise ValueError(f"size {self.size} and interval {self.interval}: must both have 2 or both 3 axes")
        if any(not 1 <= step <= size for step, size in zip(self.interval, self.size, strict=True)):
            raise ValueError(f"interval {self.interval}: must lie in 1..size {self.size} on each axis")

    @property
    def depth(self) -> int:
        """Slices of a window."""
        return self._in_space(self.size)[0]

    def axes(self, sizes: Any) -> "tuple[WindowAxis, ...]":
        """Lay the windows over a volume of sizes INT32 [3], none less than a window's."""
        wanted = zip(self._in_space(self.size), self._in_space(self.interval), strict=True)
        return tuple(window_axis(sizes[axis], size, step) for axis, (size, step) in enumerate(wanted))

    def padded_sizes(self, sizes: Any) -> Any:
        """Return sizes INT32 [3] raised to those of one window where they are less."""
        return tf.maximum(sizes, tf.constant(self._in_space(self.size)))

    def _in_space(self, numbers: tuple[int, ...]) -> tuple[int, ...]:
        return numbers if len(numbers) == 3 else (1, *numbers)


@dataclass(frozen=True, slots=True)
class WindowAxis:
    """Windows along one axis."""

    size: int
    origins: Any
    """INT32 [window], ascending."""
    weights: Any
    """FP32 [window, voxel]; each voxel's sum to 1."""

    @property
    def count(self) -> Any:
        """Windows, INT32."""
        return tf.shape(self.origins)[0]

    @property
    def places(self) -> Any:
        """Voxels of each window, INT32 [window, size]."""
        return self.origins[:, None] + tf.range(self.size)

    @property
    def blending(self) -> Any:
        """Weights as a matrix FP32 [voxel, window * size]."""
        offsets = tf.range(tf.shape(self.weights)[1])[:, None] - self.origins
        placed = tf.one_hot(offsets, self.size) * tf.transpose(self.weights)[..., None]
        return tf.reshape(placed, (tf.shape(self.weights)[1], -1))


def window_axis(count: Any, size: int, interval: int) -> WindowAxis:
    """Lay windows along one axis of `count` voxels: at every `interval`, the last one at the end."""
    last = count - size
    origins = tf.minimum(tf.range((last + interval - 1) // interval + 1) * interval, last)
    offsets = tf.range(count) - origins[:, None]
    away = (tf.cast(offsets, tf.float32) - (size - 1) / 2) / (_SIGMA * size)
    weights = tf.where((offsets >= 0) & (offsets < size), tf.exp(-0.5 * away * away), 0.0)
    return WindowAxis(size, origins, weights / tf.reduce_sum(weights, axis=0))


def slid(volume: Any, grid: WindowGrid, network: Network, classes: int, *, batch: int = 4) -> Any:
    """Run `network` window by window and blend: FP32 [slice, row, column, class] on the volume's own grid.

    Args:
        volume: FP32 [slice, row, column], or [slice, row, column, channel]; smaller than a window it is padded by 0.
        grid: The windows.
        network: Called with `batch` windows at most.
        classes: Of the network's answer.
        batch: Windows in one run of the network.
    """
    sizes = tf.shape(volume)[:3]
    fitted = _fitted(volume, grid)
    axes = grid.axes(tf.shape(fitted)[:3])

    def answers_of(row: Any) -> Any:
        tiles = _row_of_tiles(fitted, grid, axes, row)
        shape = (*grid.size, classes)
        return by_slabs.mapped(tf.shape(tiles)[0], lambda a, b: network(tiles[a:b]), shape, slices=batch)

    return centred(_blended(axes, classes, answers_of), sizes)


def cut_windows(volume: Any, grid: WindowGrid) -> Any:
    """Return all windows FP32 [n, *size, channel] of a volume as `slid` takes it, for the part `prepare` of a model."""
    fitted = _fitted(volume, grid)
    axes = grid.axes(tf.shape(fitted)[:3])
    tiles = by_slabs.mapped(
        axes[0].count,
        lambda start, _: _row_of_tiles(fitted, grid, axes, start)[None],
        (None, *grid.size, fitted.shape[-1]),
        slices=1,
    )
    return tf.reshape(tiles, (-1, *grid.size, fitted.shape[-1]))


def blended_windows(answers: Any, sizes: Any, grid: WindowGrid) -> Any:
    """Blend the answers to `cut_windows`, for the part `finish` of a model.

    Args:
        answers: FP32 [n, *size, class] in the order of the windows.
        sizes: INT32 [3] of the volume that was cut.
        grid: As it was cut.

    Returns:
        FP32 [slice, row, column, class] on the volume's own grid.
    """
    axes = grid.axes(grid.padded_sizes(sizes))
    many = axes[1].count * axes[2].count
    made = _blended(axes, answers.shape[-1], lambda row: answers[row * many : (row + 1) * many])
    return centred(made, sizes)


def _fitted(volume: Any, grid: WindowGrid) -> Any:
    channelled = volume if volume.shape.rank == 4 else volume[..., None]
    return centred(channelled, grid.padded_sizes(tf.shape(channelled)[:3]))


def _row_of_tiles(volume: Any, grid: WindowGrid, axes: tuple[WindowAxis, ...], row: Any) -> Any:
    """All windows that begin at one slice, [down * across, *size, channel]."""
    begin = axes[0].origins[row]
    down = tf.gather(volume[begin : begin + grid.depth], axes[1].places, axis=1)
    tiles = tf.transpose(tf.gather(down, axes[2].places, axis=3), (1, 3, 0, 2, 4, 5))
    return tf.reshape(tiles, (-1, *grid.size, volume.shape[-1]))


def _blended(axes: tuple[WindowAxis, ...], classes: int, answers_of: Callable[[Any], Any]) -> Any:
    deep, down, across = axes
    rows, columns = down.blending, across.blending
    weights = tf.gather(deep.weights, deep.places, axis=1, batch_dims=1)
    steps = tf.concat((deep.origins[1:], deep.origins[-1:] + deep.size), 0) - deep.origins

    def body(row: Any, begun: Any, done: Any) -> tuple[Any, ...]:
        tiles = tf.reshape(answers_of(row), (down.count, across.count, deep.size, down.size, across.size, classes))
        sheet = tf.transpose(tiles, (2, 5, 0, 3, 1, 4))
        sheet = tf.reshape(sheet, (deep.size, classes, down.count * down.size, across.count * across.size))
        plane = resampled_in_plane(sheet, rows, columns) * weights[row][:, None, None, None]
        begun = begun + plane
        step = steps[row]
        left = tf.pad(begun[step:], ((0, step), (0, 0), (0, 0), (0, 0)))
        return row + 1, tf.ensure_shape(left, begun.shape), done.write(row, begun[:step])

    shape = (deep.size, classes, tf.shape(rows)[0], tf.shape(columns)[0])
    begun = tf.ensure_shape(tf.zeros(shape), (deep.size, classes, None, None))
    done = by_slabs.pieces(deep.count, tf.float32, (classes, None, None))
    _, _, done = tf.while_loop(
        lambda row, *_: row < deep.count, body, (tf.constant(0), begun, done), parallel_iterations=1
    )
    return tf.transpose(tf.ensure_shape(done.concat(), (None, classes, None, None)), (0, 2, 3, 1))
