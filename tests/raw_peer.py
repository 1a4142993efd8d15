"""A peer that says on the wire exactly what a test wants, also what no library would say."""

import socket
import struct
from types import TracebackType
from typing import Self

from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification

ABORT, REJECT, ACCEPT, P_DATA = 7, 3, 2, 4


def associate_request(
    *, called: str = "HILUM", calling: str = "RAW", abstract: str = CTImageStorage, syntax: str = ExplicitVRLittleEndian
) -> bytes:
    context = build_context(abstract, [syntax])
    context.context_id = 1
    length = MaximumLengthNotification()
    length.maximum_length_received = 16382
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = UID("1.2.3.4")
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID("1.2.840.10008.3.1.1.1")
    primitive.calling_ae_title = calling
    primitive.called_ae_title = called
    primitive.presentation_context_definition_list = [context]
    primitive.user_information = [length, implementation]
    return bytes(A_ASSOCIATE_RQ(primitive).encode())


def element(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def store_command(uid: str, *, sop_class: str = CTImageStorage) -> bytes:
    body = b"".join(
        (
            element(0x00000002, even(sop_class)),
            element(0x00000100, struct.pack("<H", 1)),
            element(0x00000110, struct.pack("<H", 7)),
            element(0x00000700, struct.pack("<H", 0)),
            element(0x00000800, struct.pack("<H", 1)),
            element(0x00001000, even(uid)),
        )
    )
    return element(0x00000000, struct.pack("<I", len(body))) + body


def even(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


def p_data(fragment: bytes, *, command: bool = False, last: bool = True, context_id: int = 1) -> bytes:
    control = int(command) | int(last) << 1
    return struct.pack(">BxIIBB", P_DATA, len(fragment) + 6, len(fragment) + 2, context_id, control) + fragment


class RawPeer:
    """A TCP connection to a receiver."""

    def __init__(self, port: int, *, source: str = "127.0.0.1", timeout_s: float = 20.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s, source_address=(source, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()

    def say(self, *pieces: bytes) -> None:
        self.socket.sendall(b"".join(pieces))

    def hear(self) -> tuple[int, bytes]:
        """Return type and body of the next PDU; type 0 where the connection is over."""
        header = self._exactly(6)
        if len(header) < 6:
            return 0, b""
        return header[0], self._exactly(struct.unpack(">I", header[2:])[0])

    def associate(self, **request: str) -> None:
        self.say(associate_request(**request))
        assert self.hear()[0] == ACCEPT

    def store(self, uid: str, data_set: bytes) -> tuple[int, str]:
        """C-STORE `data_set`, in pieces a receiver takes; return status and error comment."""
        self.say(p_data(store_command(uid), command=True))
        pieces = [data_set[start : start + 65536] for start in range(0, len(data_set), 65536)] or [b""]
        for number, piece in enumerate(pieces):
            self.say(p_data(piece, last=number == len(pieces) - 1))
        kind, body = self.hear()
        assert kind == P_DATA, f"PDU type {kind} instead of a response"
        return status_of(body[6:])

    def _exactly(self, length: int) -> bytes:
        got = b""
        while len(got) < length:
            try:
                piece = self.socket.recv(length - len(got))
            except ConnectionResetError:
                return got
            if not piece:
                return got
            got += piece
        return got


def status_of(command_set: bytes) -> tuple[int, str]:
    status, comment, position = -1, "", 0
    while position < len(command_set):
        group, number, length = struct.unpack_from("<HHI", command_set, position)
        value = command_set[position + 8 : position + 8 + length]
        if (group, number) == (0, 0x0900):
            status = struct.unpack("<H", value)[0]
        if (group, number) == (0, 0x0902):
            comment = value.decode().rstrip()
        position += 8 + length
    return status, comment
