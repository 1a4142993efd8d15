"""Slots of an upload: whatever the order of arrival, the commit puts the bytes where they belong."""

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.errors import RegionNotReady, RequestRefused, ServiceError
from inference.regions.upload import CHUNK_MOST, SLOTS_MOST, Slots, UploadedTensor
from protos.tensors import TensorError

SLOT = 6


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[list[bytes], list[int], list[tuple[int, int, int]]]:
    """Slots in the tensor's order, the order in which they arrive, and the pieces (slot, begin, end) as sent."""
    tensor = draw(st.lists(st.binary(min_size=SLOT, max_size=SLOT), min_size=1, max_size=9))
    arrived = draw(st.permutations(range(len(tensor))))
    filled = [0] * len(tensor)
    begun, pieces = 0, []
    while any(size < SLOT for size in filled):
        open_slots = [slot for slot in range(min(begun + 1, len(tensor))) if filled[slot] < SLOT]
        slot = draw(st.sampled_from(open_slots))
        begin = draw(st.integers(0, filled[slot]))
        end = draw(st.integers(filled[slot] + 1, SLOT))
        pieces.append((slot, begin, end))
        filled[slot], begun = end, max(begun, slot + 1)
    return tensor, list(arrived), pieces


def sent(tensor: list[bytes], arrived: list[int], pieces: list[tuple[int, int, int]], spare: int = 0) -> bytearray:
    room = bytearray(len(tensor) * SLOT + spare)
    slots = Slots(memoryview(room), SLOT)
    for slot, begin, end in pieces:
        slots.put(slot, begin, tensor[arrived[slot]][begin:end])
    assert slots.byte_size == len(tensor) * SLOT
    order = [arrived.index(number) for number in range(len(tensor))]
    crc32 = zlib.crc32(b"".join(tensor))
    slots.commit(UploadedTensor("INT16", (len(tensor), SLOT // 2), order, crc32))
    return room


@given(arrivals(), st.integers(0, 20))
def test_any_arrival_and_its_permutation_give_the_tensor(
    case: tuple[list[bytes], list[int], list[tuple[int, int, int]]], spare: int
) -> None:
    tensor, arrived, pieces = case
    assert sent(tensor, arrived, pieces, spare) == b"".join(tensor) + bytes(spare)


@given(st.permutations(range(7)), st.integers(0, 7))
def test_slots_that_are_not_named_are_left_out(order: list[int], named: int) -> None:
    contents = [bytes([number]) * SLOT for number in range(7)]
    slots, room = filled_slots(contents)
    kept = order[:named] or list(range(7))
    slots.commit(UploadedTensor("UINT8", (len(kept), SLOT), order[:named]))
    assert room[: len(kept) * SLOT] == b"".join(contents[slot] for slot in kept)


def filled_slots(contents: list[bytes]) -> tuple[Slots, bytearray]:
    room = bytearray(len(contents) * SLOT)
    slots = Slots(memoryview(room), SLOT)
    for number, content in enumerate(contents):
        slots.put(number, 0, content)
    return slots, room


REFUSED: dict[str, tuple[int, int, bytes, str]] = {
    "a slot that is not the next": (3, 0, b"1", "expected at most 2"),
    "a gap": (1, 3, b"1", "expected an offset of at most 2"),
    "a gap at a slot's beginning": (2, 1, b"1", "expected an offset of at most 0"),
    "past the slot's end": (1, 2, b"12345", "expected at most 6 bytes, got some up to 7"),
    "an offset near 2**64": (0, (1 << 64) - 1, b"1", "offset of at most 6"),
    "no bytes": (1, 2, b"", "expected 1 to"),
    "more than a chunk": (1, 2, b"1" * (CHUNK_MOST + 1), "expected 1 to"),
}


@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 8))
@settings(deadline=None)
def test_a_chunk_of_whole_slots_fills_them(slots: int, together: int, again: int) -> None:
    content = bytes(range(slots * SLOT))
    room = bytearray(slots * SLOT)
    filled = Slots(memoryview(room), SLOT)
    for first in [*range(0, slots, together), min(again, slots - 1)]:
        chunk = content[first * SLOT : (first + together) * SLOT]
        filled.put(first, 0, chunk, len(chunk) // SLOT)
    filled.commit(UploadedTensor("UINT8", (slots, SLOT), (), zlib.crc32(content)))
    assert room == content


WHOLE_REFUSED: dict[str, tuple[int, int, bytes, int, str]] = {
    "an offset": (1, 1, b"1" * 12, 2, "expected offset 0"),
    "too few bytes": (1, 0, b"1" * 11, 2, "expected 12 bytes for 2 whole slots, got 11"),
    "too many bytes": (1, 0, b"1" * 13, 2, "expected 12 bytes for 2 whole slots, got 13"),
    "past the region": (1, 0, b"1" * 18, 3, "room for 3 slots"),
    "more slots than any region has": (0, 0, b"1", 2**32 - 1, "room for 3 slots"),
    "a gap": (3, 0, b"1" * 6, 1, "expected at most 2"),
}


@pytest.mark.parametrize("name", WHOLE_REFUSED)
def test_whole_slots_that_do_not_fit_are_refused_and_change_nothing(name: str) -> None:
    slot, offset, chunk, whole, sentence = WHOLE_REFUSED[name]
    room = bytearray(3 * SLOT)
    slots = Slots(memoryview(room), SLOT)
    slots.put(0, 0, b"abcdef")
    slots.put(1, 0, b"gh")
    with pytest.raises(RequestRefused, match=sentence):
        slots.put(slot, offset, chunk, whole)
    assert (bytes(room[:8]), slots.count, slots.byte_size) == (b"abcdefgh", 2, 8)


@pytest.mark.parametrize("name", REFUSED)
def test_a_chunk_that_does_not_fit_is_refused_and_changes_nothing(name: str) -> None:
    slot, offset, chunk, sentence = REFUSED[name]
    room = bytearray(3 * SLOT)
    slots = Slots(memoryview(room), SLOT)
    slots.put(0, 0, b"abcdef")
    slots.put(1, 0, b"gh")
    with pytest.raises(RequestRefused, match=sentence):
        slots.put(slot, offset, chunk)
    assert (bytes(room[:8]), slots.count, slots.byte_size) == (b"abcdefgh", 2, 8)


def test_slots_end_with_the_region() -> None:
    slots = Slots(memoryview(bytearray(2 * SLOT + 5)), SLOT)
    slots.put(0, 0, b"1")
    slots.put(1, 0, b"1")
    with pytest.raises(RequestRefused, match="room for 2 slots"):
        slots.put(2, 0, b"1")


def test_the_number_of_slots_is_bounded() -> None:
    slots = Slots(memoryview(bytearray(SLOTS_MOST + 1)), 1)
    for number in range(SLOTS_MOST):
        slots.put(number, 0, b"1")
    with pytest.raises(RequestRefused, match=f"room for {SLOTS_MOST} slots"):
        slots.put(SLOTS_MOST, 0, b"1")


@pytest.mark.parametrize("size", [0, 13])
def test_a_slot_must_fit_the_region(size: int) -> None:
    with pytest.raises(RequestRefused, match="expected 1 to 12"):
        Slots(memoryview(bytearray(12)), size)


@pytest.mark.parametrize(
    ("tensor", "kind", "sentence"),
    [
        (UploadedTensor("UINT8", (3, SLOT), (0, 1, 1)), RequestRefused, "each slot once"),
        (UploadedTensor("UINT8", (2, SLOT), (0, 3)), RequestRefused, "slots below 3, got 3"),
        (UploadedTensor("UINT8", (4, SLOT), (0, 1, 2, 0)), RequestRefused, "at most 3 slots"),
        (UploadedTensor("INT16", (3, SLOT)), RequestRefused, "expected 36 bytes"),
        (UploadedTensor("INT16", (-3, -3)), RequestRefused, "dimensions of 0 or more"),
        (UploadedTensor("UINT8", (3, SLOT), (2, 1, 0), 7), RequestRefused, "crc32: expected 0x00000007"),
    ],
)
def test_a_commit_that_is_refused_moves_nothing(
    tensor: UploadedTensor, kind: type[ServiceError], sentence: str
) -> None:
    slots, room = filled_slots([b"aaaaaa", b"bbbbbb", b"cccccc"])
    with pytest.raises(kind, match=sentence):
        slots.commit(tensor)
    assert room == b"aaaaaabbbbbbcccccc"


def test_an_unknown_datatype_is_refused() -> None:
    slots, _ = filled_slots([b"aaaaaa"])
    with pytest.raises(TensorError, match="'BYTES'"):
        slots.commit(UploadedTensor("BYTES", (6,)))


def test_slots_that_are_not_full_are_named() -> None:
    slots = Slots(memoryview(bytearray(4 * SLOT)), SLOT)
    for number, content in enumerate((b"aaaaaa", b"b", b"cccccc", b"d")):
        slots.put(number, 0, content)
    with pytest.raises(RegionNotReady, match="not full: 1, 3; expected 6"):
        slots.commit(UploadedTensor("UINT8", (4, SLOT)))
    slots.commit(UploadedTensor("UINT8", (2, SLOT), (2, 0)))
