"""Slots of an upload: filled in the order in which they arrive, then put into the tensor's order in place."""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inference.errors import RegionNotReady, RequestRefused
from protos.region_wire import CHUNK_MOST
from protos.tensors import dtype_of

SLOTS_MOST = 1 << 16
_NAMED_MOST = 8


@dataclass(frozen=True, slots=True)
class UploadedTensor:
    """What the slots shall be: `order[i]` is the slot that becomes the i-th (empty: all, as they came)."""

    datatype: str
    shape: tuple[int, ...]
    order: Sequence[int] = ()
    crc32: int | None = None

    def byte_size(self) -> int:
        """Count the tensor's bytes; raise TensorError or RequestRefused where datatype or shape is none."""
        if any(size < 0 for size in self.shape):
            raise RequestRefused(f"shape: expected dimensions of 0 or more, got {list(self.shape)!r:.200}")
        return math.prod(self.shape) * dtype_of(self.datatype, name="region").itemsize


class Slots:
    """Equal parts of a region's bytes, counted in order of arrival; each is filled from its beginning without gaps."""

    def __init__(self, room: memoryview, slot_byte_size: int) -> None:
        """Lay slots of `slot_byte_size` bytes over `room`; raise RequestRefused where not one fits."""
        if not 1 <= slot_byte_size <= room.nbytes:
            raise RequestRefused(
                f"slot_byte_size: expected 1 to {room.nbytes}, the region's size, got {slot_byte_size}"
            )
        self._room = room
        self._size = slot_byte_size
        self._filled: list[int] = []

    @property
    def count(self) -> int:
        """Slots that have begun."""
        return len(self._filled)

    @property
    def byte_size(self) -> int:
        """Bytes that lie in slots so far."""
        return sum(self._filled)

    def put(self, slot: int, offset: int, chunk: bytes | memoryview, whole_slots: int = 0) -> None:
        """Write a chunk into a slot, or into several that it holds whole; what was sent before may be sent again.

        Raises:
            RequestRefused: chunk empty or too large, slot not the next one, a gap, past a slot's or region's end, or
                other bytes than `whole_slots` have.
        """
        if not 1 <= len(chunk) <= CHUNK_MOST:
            raise RequestRefused(f"chunk of slot {slot}: expected 1 to {CHUNK_MOST} bytes, got {len(chunk)}")
        if slot > self.count:
            raise RequestRefused(f"slot: expected at most {self.count}, the next in order of arrival, got {slot}")
        most = min(SLOTS_MOST, self._room.nbytes // self._size)
        last = slot + max(1, whole_slots) - 1
        if last >= most:
            raise RequestRefused(f"slot: the region has room for {most} slots of {self._size} bytes, got slot {last}")
        if whole_slots:
            self._write_whole(slot, offset, chunk, whole_slots)
        else:
            self._write(slot, offset, chunk)

    def _write(self, slot: int, offset: int, chunk: bytes | memoryview) -> None:
        filled = self._filled[slot] if slot < self.count else 0
        if offset > filled:
            raise RequestRefused(f"slot {slot}: expected an offset of at most {filled}, what is filled, got {offset}")
        end = offset + len(chunk)
        if end > self._size:
            raise RequestRefused(f"slot {slot}: expected at most {self._size} bytes, got some up to {end}")
        self._copy(slot * self._size + offset, chunk)
        self._filled[slot : slot + 1] = [max(filled, end)]

    def _write_whole(self, slot: int, offset: int, chunk: bytes | memoryview, whole_slots: int) -> None:
        if offset:
            raise RequestRefused(f"slot {slot}: expected offset 0 of a chunk of whole slots, got {offset}")
        expected = whole_slots * self._size
        if len(chunk) != expected:
            raise RequestRefused(
                f"chunk of slot {slot}: expected {expected} bytes for {whole_slots} whole slots, got {len(chunk)}"
            )
        self._copy(slot * self._size, chunk)
        self._filled[slot : slot + whole_slots] = [self._size] * whole_slots

    def _copy(self, start: int, chunk: bytes | memoryview) -> None:
        # By numpy, which lets other threads run meanwhile.
        room = np.frombuffer(self._room, np.uint8, len(chunk), start)
        np.copyto(room, np.frombuffer(chunk, np.uint8))

    def commit(self, tensor: UploadedTensor) -> None:
        """Put the slots into the tensor's order, from the region's beginning; nothing moves where it is refused.

        Raises:
            RequestRefused: an order that names a slot twice or one that never began, other bytes than shape and
                datatype say, or another CRC-32.
            RegionNotReady: slots are not full; the message names them.
            TensorError: unknown datatype.
        """
        order = self._checked_order(tensor.order)
        got, expected = len(order) * self._size, tensor.byte_size()
        if got != expected:
            raise RequestRefused(
                f"slots: expected {expected} bytes for {tensor.datatype} {list(tensor.shape)!r:.200}, "
                f"got {len(order)} slots of {self._size} bytes"
            )
        self._check_crc(order, tensor.crc32)
        named = set(order)
        self._permute([*order, *(slot for slot in range(self.count) if slot not in named)])

    def _checked_order(self, order: Sequence[int]) -> list[int]:
        if len(order) > self.count:
            raise RequestRefused(f"permutation: expected at most {self.count} slots, got {len(order)}")
        wanted = list(order) or list(range(self.count))
        beyond = [slot for slot in wanted if slot >= self.count]
        if beyond:
            raise RequestRefused(f"permutation: expected slots below {self.count}, got {beyond[0]}")
        if len(set(wanted)) != len(wanted):
            raise RequestRefused("permutation: expected each slot once, got one twice")
        short = [slot for slot in sorted(wanted) if self._filled[slot] < self._size]
        if short:
            named = ", ".join(str(slot) for slot in short[:_NAMED_MOST])
            more = f" and {len(short) - _NAMED_MOST} more" if len(short) > _NAMED_MOST else ""
            raise RegionNotReady(f"slots not full: {named}{more}; expected {self._size} bytes in each")
        return wanted

    def _check_crc(self, order: Sequence[int], expected: int | None) -> None:
        if expected is None:
            return
        found = 0
        for slot in order:
            found = zlib.crc32(self._slot(slot), found)
        if found != expected:
            raise RequestRefused(f"crc32: expected {expected:#010x} as stated, got {found:#010x} of the bytes here")

    def _permute(self, order: list[int]) -> None:
        """Follow each cycle of the permutation, with room for one slot beside it."""
        for first in range(len(order)):
            if order[first] == first:
                continue
            kept = bytes(self._slot(first))
            here = first
            while order[here] != first:
                self._slot(here)[:] = self._slot(order[here])
                order[here], here = here, order[here]
            self._slot(here)[:] = kept
            order[here] = here

    def _slot(self, slot: int) -> memoryview:
        return self._room[slot * self._size : (slot + 1) * self._size]
