"""Stored values of pixels: which of the allocated bits count (PS3.5 8.1.1)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.domain.instances import ImageHeader


def voxel_type(header: ImageHeader) -> "np.dtype[Any]":
    """Return the type that holds the stored values: uint8, uint16 or int16 (signed bytes are widened)."""
    if header.pixel_representation == 1:
        return np.dtype(np.int16)
    return np.dtype(np.uint8 if header.bits_allocated == 8 else np.uint16)


def native_type(header: ImageHeader) -> "np.dtype[Any]":
    """Return the type of the pixels in a little endian file."""
    sign = "i" if header.pixel_representation == 1 else "u"
    return np.dtype(f"<{sign}{header.bits_allocated // 8}")


def drop_unused_bits(pixels: NDArray[Any], header: ImageHeader) -> None:
    """Keep the Bits Stored below High Bit, in place, sign-extended where signed; other bits may hold overlays.

    `pixels` are as allocated, in `native_type` or wider.
    """
    stored, shift = header.bits_stored, header.high_bit + 1 - header.bits_stored
    if shift == 0 and (stored == header.bits_allocated or _fits(pixels, stored, header.pixel_representation)):
        return
    if header.pixel_representation == 0:
        pixels >>= shift
        pixels &= (1 << stored) - 1
        return
    width = pixels.dtype.itemsize * 8
    pixels <<= width - 1 - header.high_bit
    pixels >>= width - stored


def _fits(pixels: NDArray[Any], stored: int, representation: int) -> bool:
    if representation == 0:
        return bool(pixels.max() < 1 << stored)
    limit = 1 << (stored - 1)
    return bool(-limit <= pixels.min() and pixels.max() < limit)
