"""PDUs from and to one socket (PS3.8 9.3): each length bounded before it is read, each PDU within a deadline."""

import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from node.errors import AssociationError

HEADER_BYTES: Final = 6
MOST_ASSOCIATE_BYTES: Final = 1 << 20
MOST_SHORT_BYTES: Final = 1024
# Senders that overshoot the maximum length we state are common; ones beyond this are attacks or mistakes.
LEAST_P_DATA_LIMIT: Final = 1 << 20
_FIRST_BUFFER: Final = 1 << 17


class AbortReason(IntEnum):
    """Reasons of a provider's A-ABORT (PS3.8 9.3.8)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNIZED_PARAMETER = 4
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER = 6


class PduType(IntEnum):
    """PDU types (PS3.8 9.3.1)."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    P_DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


@dataclass(frozen=True, slots=True)
class Pdu:
    """One PDU; `body` (all after the 6 byte header) is valid until the next read of the same stream."""

    type: PduType
    header: bytes
    body: memoryview


class PduStream:
    """Reads and writes PDUs on a connected socket."""

    def __init__(self, connection: socket.socket, *, p_data_limit: int) -> None:
        """Take over a connected socket; `p_data_limit` is the maximum length that we state to the peer."""
        self._socket = connection
        self._buffer = bytearray(_FIRST_BUFFER)
        self._limits = {
            PduType.ASSOCIATE_RQ: MOST_ASSOCIATE_BYTES,
            PduType.P_DATA: max(2 * p_data_limit, LEAST_P_DATA_LIMIT),
        }

    def read(self, *, idle_s: float, whole_s: float) -> Pdu | None:
        """Return the next PDU, or None where the peer closed the connection between two PDUs.

        Args:
            idle_s: How long to wait for the first byte.
            whole_s: How long the whole PDU may take from its first byte on.

        Raises:
            TimeoutError: The peer was silent or too slow.
            AssociationError: Not a PDU, a length that no PDU has, or the connection ended inside a PDU.
            OSError: The connection broke.
        """
        header = bytearray(HEADER_BYTES)
        self._acknowledge_quickly()
        self._socket.settimeout(idle_s)
        got = self._socket.recv_into(header)
        if not got:
            return None
        deadline = time.monotonic() + whole_s
        self._fill(memoryview(header)[got:], deadline)
        kind, length = self._checked(header)
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        body = memoryview(self._buffer)[:length]
        self._fill(body, deadline)
        return Pdu(kind, bytes(header), body)

    def write(self, encoded: bytes, *, within_s: float) -> None:
        """Send one or more encoded PDUs.

        Raises:
            OSError: The peer does not take them in time, or is gone.
        """
        self._socket.settimeout(within_s)
        self._socket.sendall(encoded)

    def end(self, *, linger_s: float) -> None:
        """Say that nothing more comes and give the peer `linger_s` to close first, so that it reads our last PDU."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + linger_s
            while (left := deadline - time.monotonic()) > 0:
                self._socket.settimeout(left)
                if not self._socket.recv_into(self._buffer):
                    return
        except OSError:
            return

    def _fill(self, target: memoryview, deadline: float) -> None:
        while target:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the PDU was not complete in time")
            self._socket.settimeout(left)
            got = self._socket.recv_into(target)
            if not got:
                raise AssociationError("the connection ended inside a PDU", abort_reason=AbortReason.INVALID_PARAMETER)
            target = target[got:]

    def _checked(self, header: bytearray) -> tuple[PduType, int]:
        number, length = struct.unpack(">BxI", header)
        try:
            kind = PduType(number)
        except ValueError:
            raise AssociationError(
                f"unrecognized PDU type {number}", abort_reason=AbortReason.UNRECOGNIZED_PDU
            ) from None
        if length > self._limits.get(kind, MOST_SHORT_BYTES):
            raise AssociationError(
                f"a {kind.name} PDU of {length} bytes is longer than any we take",
                abort_reason=AbortReason.INVALID_PARAMETER,
            )
        return kind, length

    def _acknowledge_quickly(self) -> None:
        # A sender with Nagle's algorithm on (DCMTK by default) waits for our ACK before the end of each message.
        if hasattr(socket, "TCP_QUICKACK") and self._socket.family != socket.AF_UNIX:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


@dataclass(frozen=True, slots=True)
class Pdv:
    """A presentation data value (PS3.8 9.3.5.1) with its message control header (PS3.8 E.2)."""

    context_id: int
    is_command: bool
    is_last: bool
    fragment: memoryview


def split_pdvs(body: memoryview) -> Iterator[Pdv]:
    """Give the presentation data values of a P-DATA-TF body.

    Raises:
        AssociationError: A length does not fit the PDU.
    """
    position = 0
    while position < len(body):
        end = position + 4 + (struct.unpack_from(">I", body, position)[0] if len(body) - position >= 6 else 0)
        if end < position + 6 or end > len(body):
            raise AssociationError(
                "the length of a presentation data value does not fit its PDU",
                abort_reason=AbortReason.INVALID_PARAMETER,
            )
        control = body[position + 5]
        yield Pdv(body[position + 4], bool(control & 1), bool(control & 2), body[position + 6 : end])
        position = end


def encode_command_pdus(context_id: int, command_set: bytes, *, peer_limit: int) -> bytes:
    """Return a command set as P-DATA-TF PDUs that a peer with that maximum length takes (0: no limit)."""
    step = max(peer_limit - 6, 2) if peer_limit else len(command_set)
    pdus = []
    for start in range(0, len(command_set), step):
        fragment = command_set[start : start + step]
        control = 3 if start + step >= len(command_set) else 1
        pdus.append(struct.pack(">BxIIBB", PduType.P_DATA, len(fragment) + 6, len(fragment) + 2, context_id, control))
        pdus.append(fragment)
    return b"".join(pdus)


def encode_abort(reason: AbortReason | int) -> bytes:
    """Return an A-ABORT PDU of the service provider."""
    return struct.pack(">BxI2xBB", PduType.ABORT, 4, 2, reason)


def encode_reject(result: int, source: int, reason: int) -> bytes:
    """Return an A-ASSOCIATE-RJ PDU (PS3.8 9.3.4)."""
    return struct.pack(">BxIxBBB", PduType.ASSOCIATE_RJ, 4, result, source, reason)


def encode_release_response() -> bytes:
    """Return an A-RELEASE-RP PDU."""
    return struct.pack(">BxI4x", PduType.RELEASE_RP, 4)
