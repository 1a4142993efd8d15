"""From the headers of one series to its Volume: slices proven even, stored values read straight into their place."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from node.domain.image_rules import padding_of
from node.domain.instances import ImageHeader
from node.domain.slice_order import Stack, stack_of
from node.domain.units import unit_of
from node.domain.volume import Volume
from node.errors import Refusal
from node.imaging.slice_pixels import fill_slice, is_native
from node.imaging.stored_values import voxel_type

# Reading is copying from the page cache and faulting in fresh pages: two threads halve it, more add nothing here.
_READERS: Final = 2
Room = Callable[[int], memoryview | None]
"""Number of bytes -> writable memory for them, or None."""


def no_room(_byte_size: int) -> None:
    """Have no memory in store: the volume gets its own."""


def build_volume(headers: Sequence[ImageHeader], *, max_bytes: int, room: Room = no_room) -> Volume:
    """Return the volume of one single-frame CT, MR or PET series, in its source orientation.

    Slices ascend along the normal of their planes. Voxels are stored values: int16 or uint16 (uint8 where 8 bits are
    allocated and unsigned), Bits Stored only; slope and intercept of each slice make values of them.

    `room` is asked for memory to build into: reused from an earlier volume that nobody holds any more (fresh pages
    cost about as much as reading the files), or shared with another process. The volume lies in it where it is large
    enough, so it must not be used again before the volume is done with.

    Raises:
        Refusal: the images cannot make a volume of linear values, or it would take more than `max_bytes`.
        GeometryRefusal: the slices do not make an even, right-angled stack; the message names positions in mm.
        DecodingError: the pixels of an image cannot be decoded; the message names it and its transfer syntax.
        OSError: a file cannot be read now.
    """
    stack = stack_of(headers)
    first = stack.headers[0]
    voxel = voxel_type(first)
    size = math.prod(stack.geometry.shape) * voxel.itemsize
    if size > max_bytes:
        raise Refusal(
            f"the volume of {' x '.join(map(str, stack.geometry.shape))} voxels takes {size / 1e6:.0f} MB, "
            f"more than the {max_bytes / 1e6:.0f} MB allowed (processing.max_volume_mb)"
        )
    voxels = _place(stack.geometry.shape, voxel, room(size))
    _fill(voxels, stack)
    return Volume(
        voxels=voxels,
        slope=np.array([header.rescale_slope for header in stack.headers], np.float32),
        intercept=np.array([header.rescale_intercept for header in stack.headers], np.float32),
        geometry=stack.geometry,
        frame_of_reference_uid=first.frame_of_reference_uid,
        study_uid=first.study_uid,
        series_uid=first.series_uid,
        sources=tuple(header.sop for header in stack.headers),
        unit=unit_of(first),
        padding=_stored_padding(stack),
    )


def _place(shape: tuple[int, int, int], voxel: "np.dtype[Any]", memory: memoryview | None) -> NDArray[Any]:
    count = math.prod(shape)
    if memory is None or memory.nbytes < count * voxel.itemsize:
        return np.empty(shape, voxel)
    return np.frombuffer(memory, voxel, count).reshape(shape)


def _fill(voxels: NDArray[Any], stack: Stack) -> None:
    pairs = list(zip(stack.headers, voxels, strict=True))
    if all(is_native(header) for header in stack.headers):
        with ThreadPoolExecutor(_READERS) as readers:
            parts = [pairs[start::_READERS] for start in range(_READERS)]
            for done in [readers.submit(_fill_slices, part) for part in parts]:
                done.result()
    else:
        _fill_slices(pairs)


def _fill_slices(pairs: Sequence[tuple[ImageHeader, NDArray[Any]]]) -> None:
    for header, pixels in pairs:
        fill_slice(header, pixels)


def _stored_padding(stack: Stack) -> int | None:
    """Return the padding as it stands in the voxels; None where no pixel of the series can hold what is stated."""
    stated, first = padding_of(stack.headers), stack.headers[0]
    if stated is None:
        return None
    values = 1 << first.bits_stored
    least = -(values >> 1) if first.pixel_representation == 1 else 0
    if first.pixel_representation == 1 and values >> 1 <= stated < values:
        stated -= values  # written as the bits of the pixel, without the sign above Bits Stored
    return stated if least <= stated < least + values else None
