"""Noise and texture of the phantom: correlated like a reconstruction's, fresh for each slice, repeatable by seed."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.fft

from node.testing.phantom_plane import Field

_TILE = 1024
_CORRELATED, _WHITE = 0.9, 0.43


@dataclass(frozen=True, slots=True)
class Noise:
    """Periodic tiles of unit variance that slices are cut from."""

    grain: Field
    """[1024, 1024] with the band-pass spectrum of filtered back projection."""
    clouds: tuple[Field, Field]
    """Two tiles with structures of some millimetres, mixed by height into a texture that runs through slices."""
    seed: int

    @classmethod
    def of_seed(cls, seed: int, *, pixel: float) -> Self:
        """Make the tiles for pixels of `pixel` mm."""
        generator = np.random.default_rng([seed, 1])
        white = [generator.standard_normal((_TILE, _TILE), np.float32) for _ in range(3)]
        across = scipy.fft.fftfreq(_TILE, pixel).astype(np.float32)[:, None]
        along = scipy.fft.rfftfreq(_TILE, pixel).astype(np.float32)[None, :]
        frequency = np.sqrt(across**2 + along**2)
        grain = np.sqrt(frequency) * np.exp(-((frequency / 0.38) ** 2))
        cloud = np.exp(-((frequency / 0.10) ** 2)) * (frequency > 0.01)
        first, second = (_shaped(tile, cloud) for tile in white[1:])
        return cls(_shaped(white[0], grain), (first, second), seed)

    def of_slice(self, index: int, size: int) -> Field:
        """Return noise [size, size] of unit variance for slice `index`."""
        generator = np.random.default_rng([self.seed, 2, index])
        row, column = generator.integers(0, _TILE, 2)
        noise = _WHITE * generator.standard_normal((size, size), np.float32)
        noise += np.float32(_CORRELATED * generator.choice((-1, 1))) * _cut(self.grain, int(row), int(column), size)
        return np.asarray(noise, np.float32)

    def texture(self, z: float, size: int) -> Field:
        """Return texture [size, size] of unit variance that changes smoothly with the height `z` in mm."""
        turn = z / 5.0
        first, second = (_cut(tile, 0, 0, size) for tile in self.clouds)
        return np.asarray(first * np.float32(np.cos(turn)) + second * np.float32(np.sin(turn)), np.float32)


def _shaped(white: Field, gain: Field) -> Field:
    tile = scipy.fft.irfft2(scipy.fft.rfft2(white) * gain, s=white.shape)
    return np.asarray(tile / tile.std(), np.float32)


def _cut(tile: Field, row: int, column: int, size: int) -> Field:
    if size > _TILE:
        tile = np.tile(tile, (-(-size // _TILE), -(-size // _TILE)))
    turned = np.arange(row, row + size) % len(tile), np.arange(column, column + size) % len(tile)
    return np.asarray(tile[turned[0]][:, turned[1]], np.float32)
