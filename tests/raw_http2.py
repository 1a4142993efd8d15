"""One gRPC request written byte by byte over HTTP/2 (RFC 9113, RFC 7541), to say what no gRPC library would."""

import re
import socket
import struct
from dataclasses import dataclass

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _GOAWAY = 0, 1, 3, 4, 7
_END_STREAM, _END_HEADERS = 1, 4


@dataclass(frozen=True)
class RawAnswer:
    """How the server ended the stream."""

    status: int | None
    """grpc-status; None where it gave none."""
    reset: bool


def grpc_prefix(length: int) -> bytes:
    """Give the five bytes before a message: not compressed, so many bytes."""
    return struct.pack(">BI", 0, length)


def raw_request(address: str, method: str, content: bytes, *, end: bool = True, timeout_s: float = 30) -> RawAnswer:
    """Send the bytes of a request's body, whatever they claim, and wait for the stream's end.

    Args:
        address: host:port.
        method: "/package.Service/Method".
        content: at most 16 KiB, the frame size that needs no agreement.
        end: end the stream properly; False leaves it open.
        timeout_s: AssertionError when the server says nothing for so long.
    """
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=timeout_s) as connection:
        connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, b""))
        connection.sendall(_frame(_HEADERS, _END_HEADERS, 1, _headers(method)))
        connection.sendall(_frame(_DATA, _END_STREAM if end else 0, 1, content))
        return _end_of_stream(connection)


def torn_request(address: str, method: str, content: bytes) -> None:
    """Send the beginning of a request and close the connection."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, b""))
        connection.sendall(_frame(_HEADERS, _END_HEADERS, 1, _headers(method)))
        connection.sendall(_frame(_DATA, 0, 1, content))


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _headers(method: str) -> bytes:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields.items())


def _text(text: str) -> bytes:
    content = text.encode("ascii")
    assert len(content) < 127, "longer ones need a continued length"
    return bytes((len(content),)) + content


def _end_of_stream(connection: socket.socket) -> RawAnswer:
    headers = b""
    while True:
        head = _exactly(connection, 9)
        length = int.from_bytes(head[:3], "big")
        kind, flags = head[3], head[4]
        payload = _exactly(connection, length)
        if kind == _HEADERS:
            headers += payload
        if kind in (_RST_STREAM, _GOAWAY) or (kind in (_HEADERS, _DATA) and flags & _END_STREAM):
            # gRPC writes its status without Huffman's code.
            found = re.search(rb"grpc-status.(\d+)", headers, re.DOTALL)
            return RawAnswer(int(found[1]) if found else None, reset=kind in (_RST_STREAM, _GOAWAY))


def _exactly(connection: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        part = connection.recv(count - len(content))
        assert part, "the server closed the connection without an answer"
        content += part
    return content
