"""Windows of crops as the graph cuts tiles, and their random variations. All numpy; every draw comes from `rng`."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference.graph.tile_grid import TileGrid
from training.datasets.lidc_crops import CONSENSUS, Crop

_EMPTY_TRIES = 6


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a window lies on a crop: centre in crop pixels, magnification, turn in radians, mirrored or not."""

    row: float
    column: float
    scale: float = 1.0
    turn: float = 0.0
    mirrored: bool = False


@dataclass(frozen=True, slots=True)
class Mixture:
    """What a batch is made of."""

    size: int = 32
    empty: float = 0.25
    """Part of the crop windows that are laid away from every mark where the crop leaves room."""
    phantom: int = 6
    """Windows of a batch that come from phantoms."""


def scaled(tile: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale a tile by its own minimum and maximum to 0..1, as the crops were made; a flat tile becomes 0."""
    low, high = tile.min(), tile.max()
    return np.asarray((tile - low) / max(high - low, np.float32(1e-3)), np.float32)


def cut_window(crop: Crop, placement: Placement, grid: TileGrid) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Sample pixels (linear) and readers (nearest) of one tile [size, size] at the grid's spacing.

    Beyond the crop's border the crop is mirrored: a window in a corner holds far lung, and no nodule.
    """
    steps = (np.arange(grid.size) - (grid.size - 1) / 2) * (grid.spacing_mm * placement.scale / crop.spacing_mm)
    down, across = np.meshgrid(steps, -steps if placement.mirrored else steps, indexing="ij")
    cosine, sine = np.cos(placement.turn), np.sin(placement.turn)
    points = np.stack((cosine * down - sine * across + placement.row, sine * down + cosine * across + placement.column))
    tile = ndimage.map_coordinates(crop.pixels.astype(np.float32), points, order=1, mode="mirror")
    readers = ndimage.map_coordinates(crop.readers, points, order=0, mode="mirror")
    return tile, readers


def varied(tile: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Vary sharpness, noise, window and gamma of a tile in 0..1; the result is scaled to 0..1 again."""
    if rng.random() < 0.3:
        tile = coarsened(tile, rng)
    elif rng.random() < 0.25:
        tile = ndimage.gaussian_filter(tile, rng.uniform(0.3, 0.9))
    if rng.random() < 0.5:
        tile = tile + rng.normal(0, rng.uniform(0.005, 0.04), tile.shape).astype(np.float32)
    if rng.random() < 0.5:
        low, high = np.quantile(tile, (rng.uniform(0, 0.02), rng.uniform(0.96, 1)))
        tile = np.clip(tile, low, max(high, low + 0.2))
    if rng.random() < 0.5:
        tile = scaled(tile) ** np.float32(np.exp(rng.uniform(-0.4, 0.4)))
    return scaled(tile)


def coarsened(tile: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Lose resolution along one axis, as the slice axis of a scan does in a coronal view."""
    axis, size = int(rng.integers(2)), tile.shape[0]
    places = np.arange(rng.uniform(0, 1), size, rng.uniform(1.2, 3.5))
    thick = ndimage.uniform_filter1d(tile, 2, axis=axis)
    planes = ndimage.map_coordinates(thick, _mesh(axis, places, size), order=1, mode="nearest")
    back = (np.arange(size) - places[0]) / (places[1] - places[0])
    return np.asarray(ndimage.map_coordinates(planes, _mesh(axis, back, size), order=1, mode="nearest"), np.float32)


def _mesh(axis: int, places: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    every = np.arange(size, dtype=np.float64)
    return np.stack(np.meshgrid(*((places, every) if axis == 0 else (every, places)), indexing="ij"))


def target_of(readers: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return truth and weight [..., 2]: nodule by consensus is 1; pixels that too few readers marked weigh nothing."""
    truth = readers >= CONSENSUS
    return np.stack((truth, truth | (readers == 0)), axis=-1).astype(np.float32)


def random_window(
    crop: Crop, grid: TileGrid, rng: np.random.Generator, *, empty: bool
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Cut a randomly laid window; with `empty`, one without a mark if a few tries find it."""
    rows, columns = crop.pixels.shape
    readers = crop.readers[: grid.size, : grid.size]
    tile = np.zeros(readers.shape, np.float32)
    for _ in range(_EMPTY_TRIES if empty else 1):
        reach = 0.5 if empty else 0.19
        placement = Placement(
            row=rows * (0.5 + rng.uniform(-reach, reach)),
            column=columns * (0.5 + rng.uniform(-reach, reach)),
            scale=float(np.exp(rng.uniform(-0.18, 0.18))),
            turn=rng.uniform(-np.pi, np.pi),
            mirrored=bool(rng.random() < 0.5),
        )
        tile, readers = cut_window(crop, placement, grid)
        if not readers.any():
            break
    return tile, readers


@dataclass(frozen=True, slots=True)
class TrainingCrops:
    """What batches are drawn from."""

    lidc: tuple[Crop, ...]
    phantom: tuple[Crop, ...] = ()


def batches(
    crops: TrainingCrops, grid: TileGrid, mixture: Mixture, *, seed: int, first_step: int = 0
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Yield tiles [n, size, size, 1] and targets [n, size, size, 2] for ever, each by seed and step alone."""
    step = first_step
    while True:
        yield make_batch(crops, grid, mixture, np.random.default_rng((seed, step)))
        step += 1


def make_batch(
    crops: TrainingCrops, grid: TileGrid, mixture: Mixture, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw one batch: LIDC windows first, phantom windows last."""
    phantom = mixture.phantom if crops.phantom else 0
    drawn = [crops.lidc[rng.integers(len(crops.lidc))] for _ in range(mixture.size - phantom)]
    drawn += [crops.phantom[rng.integers(len(crops.phantom))] for _ in range(phantom)]
    pairs = [random_window(crop, grid, rng, empty=bool(rng.random() < mixture.empty)) for crop in drawn]
    tiles = np.stack([varied(scaled(tile), rng) for tile, _ in pairs])
    return tiles[..., None], np.stack([target_of(readers) for _, readers in pairs])
