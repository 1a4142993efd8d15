"""Deflated Explicit VR Little Endian (PS3.5 A.5): the data set is one deflate stream. Inflating is always bounded."""

import os
import zlib
from typing import Final

from node.errors import NotUnderstood

DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1.99"
HEADER_BYTES: Final = 16 << 20
"""Bytes inflated to find the header: far more than any header, far less than a deflate bomb."""


def inflate(descriptor: int, position: int, limit: int) -> bytes:
    """Return at most `limit` inflated bytes of the deflate stream that begins at `position` of an open file.

    Raises:
        NotUnderstood: the bytes are no deflate stream.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    packed = os.pread(descriptor, max(0, os.fstat(descriptor).st_size - position), position)
    try:
        return inflater.decompress(packed, limit)
    except zlib.error as error:
        raise NotUnderstood(f"the data set is no deflate stream (PS3.5 A.5): {error}") from error
