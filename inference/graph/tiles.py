"""Cutting a slice into overlapping tiles at the network's spacing, scaling each, and blending the answers back.

Cutting and blending are one matrix along rows and one along columns. Sums run in a fixed order, so the same input
gives the same bytes; and the answers land on the input grid whatever its size.
"""

from typing import Any

import tensorflow as tf

from inference.graph.sampling import pixel_positions, resampled, tent_matrix
from inference.graph.tile_grid import TileGrid

_FLAT = 1e-3
"""A tile whose maximum is no more than this above its minimum is flat."""


def tile_origins(count: Any, spacing: Any, grid: TileGrid) -> Any:
    """Return where tiles start along one axis of `count` pixels, FP32 [tile] in mm from the first pixel's centre.

    Tiles are spread evenly from border to border; one that is longer than the axis is centred on it.
    """
    room = tf.cast(count - 1, tf.float32) * spacing - grid.extent_mm
    stride = (grid.size - grid.overlap) * grid.spacing_mm
    last = tf.cast(tf.math.ceil(tf.maximum(room, 0) / stride), tf.int32)
    even = tf.range(tf.cast(last + 1, tf.float32)) / tf.maximum(tf.cast(last, tf.float32), 1)
    return tf.where(room > 0, even * room, room / 2 + tf.zeros_like(even))


def cutting_matrix(count: Any, spacing: Any, grid: TileGrid) -> Any:
    """Return the matrix FP32 [tile * size, pixel] that samples every tile of one axis linearly."""
    origins = tile_origins(count, spacing, grid)
    offsets = tf.range(float(grid.size)) * grid.spacing_mm
    wanted = tf.reshape(origins[:, None] + offsets[None, :], (-1,))
    return tent_matrix(wanted, pixel_positions(count, spacing), spacing)


def blending_matrix(count: Any, spacing: Any, grid: TileGrid) -> Any:
    """Return the matrix FP32 [pixel, tile * size] that interpolates in each tile and weighs tiles that overlap.

    A tile's weight falls linearly over the overlap toward its border; the weights of a pixel sum to 1.
    """
    origins = tile_origins(count, spacing, grid)
    pixels = pixel_positions(count, spacing)
    place = (pixels[:, None] - origins[None, :]) / grid.spacing_mm
    last = grid.size - 1
    to_border = tf.minimum(place, last - place)
    weight = tf.where(to_border >= -0.5, tf.clip_by_value(to_border / max(grid.overlap, 1), 1e-3, 1), 0)
    weight = weight / tf.reduce_sum(weight, axis=1, keepdims=True)
    samples = tf.range(float(grid.size))
    tent = tf.maximum(1 - tf.abs(tf.clip_by_value(place, 0, last)[..., None] - samples), 0)
    return tf.reshape(weight[..., None] * tent, (tf.shape(pixels)[0], -1))


def cut(slices: Any, rows: Any, columns: Any, size: int) -> Any:
    """Return tiles FP32 [slice, down, across, size, size] of slices [slice, row, column]."""
    sheet = resampled(slices, rows, columns)
    shape = tf.shape(sheet)
    blocks = tf.reshape(sheet, (shape[0], shape[1] // size, size, shape[2] // size, size))
    return tf.transpose(blocks, (0, 1, 3, 2, 4))


def blend(tiles: Any, rows: Any, columns: Any) -> Any:
    """Return slices FP32 [slice, row, column] from tiles [slice, down, across, size, size]."""
    shape = tf.shape(tiles)
    sheet = tf.transpose(tiles, (0, 1, 3, 2, 4))
    sheet = tf.reshape(sheet, (shape[0], shape[1] * shape[3], shape[2] * shape[4]))
    return resampled(sheet, rows, columns)


def scaled(tiles: Any) -> Any:
    """Scale each tile [..., size, size] by its own minimum and maximum to 0..1; a flat one becomes 0."""
    low = tf.reduce_min(tiles, axis=(-2, -1), keepdims=True)
    high = tf.reduce_max(tiles, axis=(-2, -1), keepdims=True)
    return (tiles - low) / tf.maximum(high - low, _FLAT)


def touched(mask: Any, rows: Any, columns: Any, size: int) -> Any:
    """Return BOOL [slice, down, across]: does a tile sample any set pixel of `mask` FP32 [slice, row, column]?"""
    reach = [tf.reduce_max(tf.reshape(axis, (-1, size, tf.shape(axis)[1])), axis=1) for axis in (rows, columns)]
    held = [tf.cast(axis > 0, tf.float32) for axis in reach]
    return resampled(mask, held[0], held[1]) > 0
