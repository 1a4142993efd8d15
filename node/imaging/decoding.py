"""Pixels of one image that do not lie in its file as they are in memory: compressed, deflated, big endian."""

import os
import warnings
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from node.domain.instances import ImageHeader
from node.errors import DecodingError, NotUnderstood
from node.imaging.deflated import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, HEADER_BYTES, inflate
from node.imaging.explicit_scan import Unscannable, scan_inflated, scan_meta
from node.imaging.pydicom_scan import MALFORMED, is_of_the_machine, read_inflated
from node.imaging.stored_values import drop_unused_bits, native_type

_LONGEST_REASON: Final = 300


def decode_into(header: ImageHeader, pixels: NDArray[Any]) -> None:
    """Decode the image of `header` into `pixels` [row, column].

    Raises:
        DecodingError: no decoder of ours reads it, or it is not the image that its header describes; the message
            names the SOP instance and the transfer syntax.
        OSError: the file cannot be read now.
    """
    decode = _deflated if header.transfer_syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN else _by_pydicom
    decoded = decode(header)
    if decoded.shape != pixels.shape:
        raise decoding_error(header, f"the decoded image has {decoded.shape} pixels, the header says {pixels.shape}")
    if not np.can_cast(decoded.dtype, pixels.dtype, "safe"):
        raise decoding_error(header, f"the decoded image is {decoded.dtype}, the header says {pixels.dtype}")
    pixels[...] = decoded


def _by_pydicom(header: ImageHeader) -> NDArray[Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pixel_array(header.path, raw=True)
    except (*MALFORMED, RuntimeError, MemoryError) as error:
        if is_of_the_machine(error):
            raise
        raise decoding_error(header, f"{type(error).__name__}: {error}") from error


def _deflated(header: ImageHeader) -> NDArray[Any]:
    needed = header.rows * header.columns * header.bits_allocated // 8
    descriptor = os.open(header.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        inflated = inflate(descriptor, scan_meta(descriptor).position, HEADER_BYTES + needed)
    except (Unscannable, NotUnderstood) as error:
        raise decoding_error(header, str(error)) from error
    finally:
        os.close(descriptor)
    offset = _offset(inflated)
    if offset is None or offset + needed > len(inflated):
        raise decoding_error(header, "the deflated data set ends within Pixel Data")
    decoded = np.frombuffer(inflated, native_type(header), needed * 8 // header.bits_allocated, offset)
    decoded = decoded.reshape(header.rows, header.columns).copy()
    drop_unused_bits(decoded, header)
    return decoded


def _offset(inflated: bytes) -> int | None:
    try:
        return scan_inflated(inflated).pixel_offset
    except Unscannable:
        return read_inflated(inflated).pixel_offset


def decoding_error(header: ImageHeader, reason: str) -> DecodingError:
    """Return the error that names the instance, its transfer syntax and `reason`."""
    syntax = UID(header.transfer_syntax)
    return DecodingError(
        f"SOP instance {header.sop.sop_instance_uid}, transfer syntax {syntax} ({syntax.name}): "
        f"{reason[:_LONGEST_REASON]}"
    )
