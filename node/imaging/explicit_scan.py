"""A scanner for Part 10 files in Explicit VR Little Endian: the wanted elements and where the pixels lie, fast.

It knows the common encoding only and raises `Unscannable` at anything odd; `headers` then asks pydicom. All
encapsulated transfer syntaxes are Explicit VR Little Endian too (PS3.5 A.4), so compressed files are scanned as well.
"""

import os
from dataclasses import dataclass
from struct import Struct
from typing import Final

from node.domain.instances import EXPLICIT_VR_LITTLE_ENDIAN
from node.imaging.deflated import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
from node.imaging.image_attributes import KEYWORDS, MODALITY_LUT_SEQUENCE, PIXEL_DATA, Elements

_PREAMBLE_BYTES: Final = 132  # 128 + "DICM", PS3.10 7.1
_WINDOW_BYTES: Final = 1 << 14
_LARGEST_VALUE_BYTES: Final = 1 << 16
_UNDEFINED: Final = 0xFFFFFFFF
# Encapsulated syntaxes of the standard, all Explicit VR Little Endian: JPEG family, JPEG 2000, HTJ2K, RLE.
_ENCAPSULATED: Final = "1.2.840.10008.1.2.4."
_RLE_LOSSLESS: Final = "1.2.840.10008.1.2.5"
_JPIP_REFERENCED: Final = ("1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.95")

_SHORT: Final = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())

_ELEMENT: Final = Struct("<I2sH").unpack_from
_LENGTH: Final = Struct("<I").unpack_from


def _little_endian(tag: int) -> int:
    """Return `tag` as its four bytes in the file read as one number: the element comes out above the group."""
    return (tag >> 16) | (tag & 0xFFFF) << 16


_PIXEL_DATA: Final = _little_endian(PIXEL_DATA)
_MODALITY_LUT: Final = _little_endian(MODALITY_LUT_SEQUENCE)
_WANTED: Final = {_little_endian(tag): keyword for tag, keyword in KEYWORDS.items()}
_TRANSFER_SYNTAX: Final = _little_endian(0x00020010)
_ITEM: Final = _little_endian(0xFFFEE000)
_ITEM_END: Final = _little_endian(0xFFFEE00D)
_SEQUENCE_END: Final = _little_endian(0xFFFEE0DD)


class Unscannable(Exception):
    """The file is not in the common encoding that the scanner knows: a signal to take the other way, no error."""


@dataclass(frozen=True, slots=True)
class Meta:
    """What the file meta group says, and the first bytes of the file, read for it."""

    transfer_syntax: str
    position: int
    """Where the data set begins."""
    start: bytes


def scan_meta(descriptor: int) -> Meta:
    """Return the file meta of an open Part 10 file; raise Unscannable."""
    start = os.pread(descriptor, _WINDOW_BYTES, 0)
    if start[128:_PREAMBLE_BYTES] != b"DICM":
        raise Unscannable
    transfer_syntax, position = "", _PREAMBLE_BYTES
    while position + 12 <= len(start):
        tag, vr, length = _ELEMENT(start, position)
        if tag & 0xFFFF != 0x0002:
            break
        head = 8
        if vr in _LONG:
            head, length = 12, _LENGTH(start, position + 8)[0]
        elif vr not in _SHORT:
            raise Unscannable
        if tag == _TRANSFER_SYNTAX:
            transfer_syntax = start[position + 8 : position + 8 + length].rstrip(b"\0 ").decode("latin-1")
        position += head + length
    return Meta(transfer_syntax, position, start)


def scan_data_set(descriptor: int, meta: Meta) -> Elements:
    """Return the elements of the data set of an open file; raise Unscannable."""
    if not _is_known(meta.transfer_syntax):
        raise Unscannable
    scan = _Scan(descriptor, os.fstat(descriptor).st_size, meta.start)
    return scan.elements(meta.position, meta.transfer_syntax)


def scan_inflated(inflated: bytes) -> Elements:
    """Return the elements of an inflated data set; `pixel_offset` counts in `inflated`. Raise Unscannable."""
    found = _Scan(None, len(inflated), inflated).elements(0, EXPLICIT_VR_LITTLE_ENDIAN)
    found.transfer_syntax = DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
    return found


def _is_known(transfer_syntax: str) -> bool:
    if transfer_syntax in (EXPLICIT_VR_LITTLE_ENDIAN, _RLE_LOSSLESS):
        return True
    return transfer_syntax.startswith(_ENCAPSULATED) and transfer_syntax not in _JPIP_REFERENCED


class _Scan:
    """A window on the file that follows the scan; what nobody wants is skipped without being read."""

    __slots__ = ("_descriptor", "_size", "base", "window")

    def __init__(self, descriptor: int | None, size: int, window: bytes = b"") -> None:
        self._descriptor = descriptor
        self._size = size
        self.window = window
        self.base = 0

    def elements(self, position: int, transfer_syntax: str) -> Elements:
        """Walk the top level from `position` to Pixel Data or the end of the file."""
        found = Elements(transfer_syntax)
        # The loop runs for every element of every image: names are local, `at` counts in the window.
        fields, window, size, at = found.fields, self.window, len(self.window), position - self.base
        base = self.base
        while True:
            if at + 8 > size:
                if not self._reach(base + at, 8):
                    break
                window, size, at, base = self.window, len(self.window), base + at - self.base, self.base
            tag, vr, length = _ELEMENT(window, at)
            if vr not in _SHORT:
                at = self._long_element(found, base + at, tag, vr) - base
                if found.pixel_length:
                    return found
                continue
            start, at = at + 8, at + 8 + length
            if tag in _WANTED:
                fields[_WANTED[tag]] = window[start:at] if at <= size else self._value(base + start, length)
        self._expect_end(base + at)
        return found

    def _long_element(self, found: Elements, position: int, tag: int, vr: bytes) -> int:
        """Note the element with 32 bits of length at `position` if it is wanted; return where the next one begins."""
        position, length = self._long_form(position, vr)
        if tag == _PIXEL_DATA:
            found.pixel_length = -1 if length == _UNDEFINED else length
            native = found.transfer_syntax == EXPLICIT_VR_LITTLE_ENDIAN
            found.pixel_offset = position if native and length != _UNDEFINED else None
            return position
        if tag == _MODALITY_LUT:
            found.has_modality_lut = True
        elif tag in _WANTED:
            found.fields[_WANTED[tag]] = self._value(position, length)
        return self._end_of_sequence(position, vr) if length == _UNDEFINED else position + length

    def _reach(self, position: int, count: int) -> bool:
        """Have `count` bytes from `position` in the window; False where the file ends before."""
        if position + count - self.base <= len(self.window):
            return True
        if position + count > self._size or self._descriptor is None:
            return False
        self.window = os.pread(self._descriptor, max(count, _WINDOW_BYTES), position)
        self.base = position
        return len(self.window) >= count

    def _long_form(self, position: int, vr: bytes) -> tuple[int, int]:
        """Return where the value begins and its length, for the VRs with 32 bits of length (PS3.5 7.1.2)."""
        if vr not in _LONG or not self._reach(position, 12):
            raise Unscannable
        return position + 12, _LENGTH(self.window, position - self.base + 8)[0]

    def _value(self, position: int, length: int) -> bytes:
        if length > _LARGEST_VALUE_BYTES or not self._reach(position, length):
            raise Unscannable
        start = position - self.base
        return self.window[start : start + length]

    def _end_of_sequence(self, position: int, vr: bytes) -> int:
        """Return where the sequence of undefined length ends that began at `position`; nesting costs no recursion."""
        if vr != b"SQ":
            raise Unscannable
        open_items_and_sequences = 1
        while open_items_and_sequences:
            if not self._reach(position, 8):
                raise Unscannable
            tag, vr, length = _ELEMENT(self.window, position - self.base)
            if tag in (_ITEM_END, _SEQUENCE_END):
                open_items_and_sequences -= 1
                position += 8
                continue
            position, length = self._nested_head(position, tag, vr, length)
            if length == _UNDEFINED:
                open_items_and_sequences += 1
            else:
                position += length
        return position

    def _nested_head(self, position: int, tag: int, vr: bytes, length: int) -> tuple[int, int]:
        """Return where the value of an item or of an element inside an item begins, and its length."""
        if tag == _ITEM:
            return position + 8, _LENGTH(self.window, position - self.base + 4)[0]
        if vr in _SHORT:
            return position + 8, length
        position, length = self._long_form(position, vr)
        if length == _UNDEFINED and vr != b"SQ":
            raise Unscannable
        return position, length

    def _expect_end(self, position: int) -> None:
        """Take up to 7 bytes of litter at the end, as pydicom does; a value that runs past the end is no data set."""
        if position > self._size:
            raise Unscannable
