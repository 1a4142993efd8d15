"""The stored values of one image: read straight into their place where they lie in the file as in memory."""

import os
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import ImplicitVRLittleEndian

from node.domain.instances import EXPLICIT_VR_LITTLE_ENDIAN, ImageHeader
from node.imaging.decoding import decode_into, decoding_error
from node.imaging.stored_values import drop_unused_bits, native_type

_NATIVE_LITTLE_ENDIAN: Final = (EXPLICIT_VR_LITTLE_ENDIAN, ImplicitVRLittleEndian)


def is_native(header: ImageHeader) -> bool:
    """Tell whether the pixels lie in the file as they are in memory: nothing has to be decoded."""
    return header.pixel_offset is not None and header.transfer_syntax in _NATIVE_LITTLE_ENDIAN


def fill_slice(header: ImageHeader, pixels: NDArray[Any]) -> None:
    """Write the stored values of the image into `pixels` [row, column] of `voxel_type(header)`, Bits Stored only.

    Raises:
        DecodingError: the pixels cannot be decoded; the message names the image and its transfer syntax.
        OSError: the file cannot be read now.
    """
    if not is_native(header):
        decode_into(header, pixels)
    elif pixels.dtype.itemsize * 8 == header.bits_allocated:
        _read_into(header, pixels)
        drop_unused_bits(pixels, header)
    else:
        narrow = np.empty(pixels.shape, native_type(header))
        _read_into(header, narrow)
        drop_unused_bits(narrow, header)
        pixels[...] = narrow


def _read_into(header: ImageHeader, pixels: NDArray[Any]) -> None:
    descriptor = os.open(header.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        got = os.preadv(descriptor, [pixels.data.cast("B")], header.pixel_offset or 0)
    finally:
        os.close(descriptor)
    if got < pixels.nbytes:
        raise decoding_error(header, f"the file ends after {got} of {pixels.nbytes} bytes of Pixel Data")
