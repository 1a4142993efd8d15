"""Chunks of tensor regions to and from the wire without protobuf's copies.

Protobuf copies a `bytes` field when it is set, when the message is written, and twice when it is read. A chunk is a
megabyte or two, so that is most of what a transfer costs. Both messages that carry one are ordinary protobuf on the
wire: the fields in front of the chunk are written and read by protobuf, the chunk, last, is put behind them as it is.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from protos.tensor_regions_pb2 import DownloadChunk, UploadRequest

CHUNK_MOST = 2 << 20
"""Bytes of a chunk between peers that both state what they take."""
CHUNK_UNSTATED = 1 << 20
"""Bytes of a chunk for a peer that states nothing."""
FRAME_MOST = 1 << 20
"""Bytes of an HTTP/2 frame that a peer takes (SETTINGS_MAX_FRAME_SIZE); gRPC's own 16 KiB make many small pieces."""
Head = TypeVar("Head", bound=Message)
_VARINT, _LENGTH = 0, 2
"""Wire types of the fields that these messages have."""
_FIELDS_MOST, _VARINT_BYTES_MOST = 16, 10
"""A message that exceeds them is left to protobuf, which reads nonsense faster."""


@dataclass(frozen=True, slots=True)
class Framed(Generic[Head]):
    """A message without its chunk, and the chunk: a view, valid as long as the memory behind it."""

    head: Head
    chunk: bytes | memoryview


def written(framed: Framed[Head] | Head) -> bytes:
    """Serialise a message, given whole or with its chunk apart; the chunk is copied once."""
    if not isinstance(framed, Framed):
        return framed.SerializeToString()
    chunk = memoryview(framed.chunk).cast("B")
    tag = framed.head.DESCRIPTOR.fields_by_name["chunk"].number << 3 | _LENGTH
    return b"".join((framed.head.SerializeToString(), bytes((tag,)), _varint(len(chunk)), chunk))


def reader_of(kind: type[Head]) -> Callable[[bytes], Framed[Head]]:
    """Make the deserialiser of a message with a chunk: the chunk views the bytes received where it comes last.

    It raises protobuf's DecodeError where the bytes are no such message.
    """
    number = kind.DESCRIPTOR.fields_by_name["chunk"].number

    def read(content: bytes) -> Framed[Head]:
        for field, begin, start, end in _fields(content):
            if field == number and end == len(content):
                return Framed(kind.FromString(content[:begin]), memoryview(content)[start:])
        message = kind.FromString(content)
        chunk: bytes = message.chunk  # type: ignore[attr-defined]  # both kinds have one
        return Framed(message, chunk)

    return read


read_upload = reader_of(UploadRequest)
read_download = reader_of(DownloadChunk)


def _fields(content: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, begin, begin of the contents and end of each field; stop at what these messages do not have."""
    at = 0
    try:
        for _ in range(_FIELDS_MOST):
            begin = at
            tag, at = _read_varint(content, at)
            size, start = _read_varint(content, at)
            if tag & 7 not in (_VARINT, _LENGTH):
                return
            at = start + (size if tag & 7 == _LENGTH else 0)
            yield tag >> 3, begin, start, at
    except IndexError:  # the end, which protobuf judges too
        return


def _read_varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(_VARINT_BYTES_MOST):
        byte = content[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise IndexError


def _varint(value: int) -> bytes:
    content = bytearray()
    while value > 0x7F:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    content.append(value)
    return bytes(content)
