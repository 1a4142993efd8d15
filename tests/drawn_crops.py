"""Drawn crops for tests of training: noise with a bright disc in the middle that four readers marked."""

import numpy as np

from training.datasets.lidc_crops import Crop


def nodule_crop(number: int = 0, *, size: int = 128) -> Crop:
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:size, :size] - size // 2
    inside = np.hypot(rows, columns) <= 6
    pixels = (rng.integers(20, 60, (size, size)) + inside * 150).astype(np.uint8)
    return Crop(f"c{number}", f"p{number}", "n", 0.7, pixels, (inside * 4).astype(np.uint8))
