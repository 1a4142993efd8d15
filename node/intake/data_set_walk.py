"""A bounded walk over an encoded data set (PS3.5 7): is its structure whole, and which instance is it?

No recursion, no decoding of values, no copy of bulk data: element headers are read and values stepped over. A lying
length, an end inside an element, nesting or a number of elements beyond all reason end the walk with a reason.
"""

import struct
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from pydicom._dicom_dict import DicomDictionary

from node.errors import NotUnderstood
from node.intake.presentation import DEFLATED, ENCAPSULATED, EXPLICIT_BIG, IMPLICIT_LITTLE

MOST_NESTING: Final = 64
MOST_ELEMENTS: Final = 2_000_000
MOST_INFLATED_BYTES: Final = 128 << 20
MOST_BEGINNING_BYTES: Final = 64 << 10
_LONGEST_VALUE: Final = 256
_UNDEFINED: Final = 0xFFFFFFFF

_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD
_PIXEL_DATA: Final = 0x7FE00010
_SHORT_VRS: Final = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_SEQUENCES: Final = frozenset(tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ")
_SOP_CLASS: Final = 0x00080016
_SOP_INSTANCE: Final = 0x00080018
_MODALITY: Final = 0x00080060
_STUDY: Final = 0x0020000D
_SERIES: Final = 0x0020000E
_WANTED: Final = frozenset((_SOP_CLASS, _SOP_INSTANCE, _MODALITY, _STUDY, _SERIES))
# One at a time, so that a hundred deflated data sets at once cannot take a hundred times the memory.
_inflating = threading.Lock()


@dataclass(frozen=True, slots=True)
class DataSetOutline:
    """What a whole data set says it is; absent values are empty, and nothing was validated yet."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    modality: str
    elements: int


def walk(encoded: memoryview, transfer_syntax: str) -> DataSetOutline:
    """Walk a data set from end to end.

    Args:
        encoded: The data set as received, without file meta.
        transfer_syntax: The negotiated one. Unknown ones are taken as explicit little endian (PS3.5 10).

    Raises:
        NotUnderstood: It is empty, broken or beyond the bounds.
    """
    if transfer_syntax != DEFLATED:
        return _walked(encoded, transfer_syntax)
    with _inflating, memoryview(_inflated(encoded)) as plain:
        return _walked(plain, transfer_syntax)


def study_of_beginning(encoded: bytes, transfer_syntax: str) -> str:
    """Return the Study Instance UID that the beginning of a data set names; empty where it does not (or is deflated).

    A hint for an instance that is still on its way: `walk` judges the whole one.
    """
    if transfer_syntax == DEFLATED:
        return ""
    walker = _Walker(memoryview(encoded), transfer_syntax)
    with suppress(NotUnderstood):
        walker.run()
    return walker.text(_STUDY)


def _walked(encoded: memoryview, transfer_syntax: str) -> DataSetOutline:
    if not encoded:
        raise NotUnderstood("the data set is empty")
    walker = _Walker(encoded, transfer_syntax)
    walker.run()
    return DataSetOutline(
        sop_class_uid=walker.text(_SOP_CLASS),
        sop_instance_uid=walker.text(_SOP_INSTANCE),
        study_uid=walker.text(_STUDY),
        series_uid=walker.text(_SERIES),
        modality=walker.text(_MODALITY),
        elements=walker.elements,
    )


def _inflated(encoded: memoryview) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = inflater.decompress(encoded, MOST_INFLATED_BYTES)
    except zlib.error as error:
        raise NotUnderstood(f"the deflated data set is broken: {error}") from None
    if inflater.unconsumed_tail:
        raise NotUnderstood(f"the deflated data set holds more than {MOST_INFLATED_BYTES >> 20} MiB")
    if not inflater.eof:
        raise NotUnderstood("the deflated data set is cut short")
    return plain


@dataclass(slots=True)
class _Level:
    """One open data set, sequence or encapsulated pixel data."""

    end: int
    """Where it ends at the latest; exactly there if its length is defined."""
    is_defined: bool
    kind: str
    """"elements", "items" or "fragments"."""
    is_implicit: bool


@dataclass(slots=True)
class _Walker:
    encoded: memoryview
    transfer_syntax: str
    elements: int = 0
    values: dict[int, bytes] = field(default_factory=dict)
    _position: int = 0
    _last_tag: int = 0
    _order: str = "<"
    _levels: list[_Level] = field(default_factory=list)

    def text(self, tag: int) -> str:
        return self.values.get(tag, b"").decode("ascii", errors="replace").strip(" \0")

    def run(self) -> None:
        self._order = ">" if self.transfer_syntax == EXPLICIT_BIG else "<"
        whole = _Level(len(self.encoded), True, "elements", self.transfer_syntax == IMPLICIT_LITTLE)  # noqa: FBT003
        self._levels.append(whole)
        steps: dict[str, Callable[[_Level], None]] = {
            "elements": self._element,
            "items": self._item,
            "fragments": self._fragment,
        }
        while self._levels:
            level = self._levels[-1]
            if self._position >= level.end:
                self._close_at_end(level)
                continue
            self.elements += 1
            if self.elements > MOST_ELEMENTS:
                raise NotUnderstood(f"the data set has more than {MOST_ELEMENTS} elements")
            steps[level.kind](level)

    def _close_at_end(self, level: _Level) -> None:
        if not level.is_defined:
            raise NotUnderstood("a sequence, item or pixel data of undefined length has no end")
        self._levels.pop()

    def _element(self, level: _Level) -> None:
        tag = self._tag(level)
        if tag >> 16 == 0xFFFE:
            self._end_of(level, tag, _ITEM_END)
            return
        is_top = len(self._levels) == 1
        if is_top:
            self._check_order(tag)
        vr, length = self._implicit_length(tag, level) if level.is_implicit else self._explicit_length(level)
        if length == _UNDEFINED or vr == b"SQ":
            self._open(level, tag, vr, length)
            return
        self._check_fits(tag, length, level)
        if is_top and tag in _WANTED:
            self.values[tag] = bytes(self.encoded[self._position : self._position + min(length, _LONGEST_VALUE)])
        self._position += length

    def _item(self, level: _Level) -> None:
        tag = self._tag(level)
        if tag != _ITEM:
            self._end_of(level, tag, _SEQUENCE_END)
            return
        self._descend(level, tag, self._number("I", 4), kind="elements", is_implicit=level.is_implicit)

    def _fragment(self, level: _Level) -> None:
        tag = self._tag(level)
        if tag != _ITEM:
            self._end_of(level, tag, _SEQUENCE_END)
            return
        length = self._number("I", 4)
        self._check_fits(tag, length, level)
        self._position += length

    def _open(self, level: _Level, tag: int, vr: bytes, length: int) -> None:
        if vr == b"SQ":
            self._descend(level, tag, length, kind="items", is_implicit=level.is_implicit)
        elif vr == b"UN":
            # PS3.5 6.2.2: what is inside is implicit little endian.
            self._descend(level, tag, length, kind="items", is_implicit=True)
        elif tag == _PIXEL_DATA and self.transfer_syntax in ENCAPSULATED:
            self._descend(level, tag, length, kind="fragments", is_implicit=False)
        else:
            raise NotUnderstood(f"element {_named(tag)} has an undefined length that its VR does not allow")

    def _descend(self, level: _Level, tag: int, length: int, *, kind: str, is_implicit: bool) -> None:
        if len(self._levels) > MOST_NESTING:
            raise NotUnderstood(f"the data set is nested more than {MOST_NESTING} deep")
        is_defined = length != _UNDEFINED
        if is_defined:
            self._check_fits(tag, length, level)
        end = self._position + length if is_defined else level.end
        self._levels.append(_Level(end, is_defined, kind, is_implicit))

    def _end_of(self, level: _Level, tag: int, expected: int) -> None:
        if tag != expected or level.is_defined:
            raise NotUnderstood(f"{_named(tag)} stands where it does not belong")
        self._number("I", 4)
        self._levels.pop()

    def _explicit_length(self, level: _Level) -> tuple[bytes, int]:
        vr = bytes(self.encoded[self._position : self._position + 2])
        if vr in _SHORT_VRS:
            return vr, struct.unpack_from(self._order + "H", self.encoded, self._advanced(4) - 2)[0]
        if not (vr.isalpha() and vr.isupper()):
            raise NotUnderstood(f"no value representation at byte {self._position}: not an explicit VR data set")
        if level.end - self._position < 8:
            raise NotUnderstood("the data set ends inside an element")
        return vr, struct.unpack_from(self._order + "I", self.encoded, self._advanced(8) - 4)[0]

    def _implicit_length(self, tag: int, _level: _Level) -> tuple[bytes, int]:
        length = self._number("I", 4)
        if tag in _SEQUENCES or (length == _UNDEFINED and tag != _PIXEL_DATA):
            return b"SQ", length
        return b"--", length

    def _check_order(self, tag: int) -> None:
        if tag >> 16 < 0x0004:
            raise NotUnderstood(f"element {_named(tag)} does not belong into a data set")
        if tag <= self._last_tag:
            raise NotUnderstood(f"element {_named(tag)} comes after {_named(self._last_tag)}")
        self._last_tag = tag

    def _check_fits(self, tag: int, length: int, level: _Level) -> None:
        if length > level.end - self._position:
            left = level.end - self._position
            raise NotUnderstood(f"element {_named(tag)} says {length} bytes, {left} are left")

    def _tag(self, level: _Level) -> int:
        if level.end - self._position < 8:
            raise NotUnderstood("the data set ends inside an element")
        group, element = struct.unpack_from(self._order + "HH", self.encoded, self._position)
        self._position += 4
        return int(group) << 16 | int(element)

    def _number(self, code: str, size: int) -> int:
        return int(struct.unpack_from(self._order + code, self.encoded, self._advanced(size) - size)[0])

    def _advanced(self, step: int) -> int:
        self._position += step
        return self._position


def _named(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
