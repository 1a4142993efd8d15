"""Headers of images: what routing and the volume builder need to know, without decoding a pixel."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from node.domain.instances import ImageHeader
from node.errors import NotUnderstood
from node.imaging.deflated import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, HEADER_BYTES, inflate
from node.imaging.explicit_scan import Unscannable, scan_data_set, scan_inflated, scan_meta
from node.imaging.image_attributes import Elements, header_of
from node.imaging.pydicom_scan import read_elements, read_inflated


def read_header(path: Path) -> ImageHeader:
    """Return the header of the Part 10 file at `path`.

    The common encodings are scanned by our own code (about ten microseconds), the others are read by pydicom.

    Raises:
        NotUnderstood: the file is no DICOM file, is torn before its pixels, or an attribute has a value that cannot
            be meant; the message names it.
        OSError: the file cannot be opened or read, which says nothing of its content.
    """
    return header_of(_elements(path), path)


def read_headers(
    paths: Iterable[Path], *, on_refused: Callable[[Path, NotUnderstood], None] | None = None
) -> tuple[ImageHeader, ...]:
    """Return the headers of `paths`, in their order.

    Where `on_refused` is given it is told of each file that cannot be understood, and the others are returned;
    else the first such file raises NotUnderstood.
    """
    found = []
    for path in paths:
        try:
            found.append(read_header(path))
        except NotUnderstood as error:
            if on_refused is None:
                raise
            on_refused(path, error)
    return tuple(found)


def _elements(path: Path) -> Elements:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        meta = scan_meta(descriptor)
        if meta.transfer_syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
            return _inflated_elements(inflate(descriptor, meta.position, HEADER_BYTES))
        return scan_data_set(descriptor, meta)
    except Unscannable:
        return read_elements(path)
    finally:
        os.close(descriptor)


def _inflated_elements(inflated: bytes) -> Elements:
    try:
        found = scan_inflated(inflated)
    except Unscannable:
        found = read_inflated(inflated)
    if len(inflated) >= HEADER_BYTES and not found.pixel_length:
        raise NotUnderstood(f"the deflated data set has no Pixel Data within its first {HEADER_BYTES >> 20} MiB")
    # It is an offset into the inflated bytes, not into the file.
    found.pixel_offset = None
    return found
