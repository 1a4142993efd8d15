"""Chunks beside their messages: the same bytes on the wire as protobuf's, and the same messages read from them."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from protos.region_wire import CHUNK_MOST, Framed, read_download, read_upload, written
from protos.tensor_regions_pb2 import DownloadChunk, UploadRequest

UINT32, UINT64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
UPLOADS = st.builds(UploadRequest, slot=UINT32, offset=UINT64, whole_slots=UINT32)
DOWNLOADS = st.builds(DownloadChunk, offset=UINT64, encoding=st.text(max_size=9), byte_size=UINT32)
CHUNKS = st.binary(max_size=300)


def whole(framed: Framed) -> object:
    """Give the message with its chunk in it."""
    message = type(framed.head)()
    message.CopyFrom(framed.head)
    message.chunk = bytes(framed.chunk)
    return message


@given(st.one_of(UPLOADS, DOWNLOADS), CHUNKS)
@settings(deadline=None)
def test_protobuf_reads_what_is_written(head: UploadRequest | DownloadChunk, chunk: bytes) -> None:
    message = type(head).FromString(written(Framed(head, memoryview(chunk))))
    assert message == whole(Framed(head, chunk))


@given(st.one_of(UPLOADS, DOWNLOADS), CHUNKS)
@settings(deadline=None)
def test_what_protobuf_writes_is_read(head: UploadRequest | DownloadChunk, chunk: bytes) -> None:
    read = read_upload if isinstance(head, UploadRequest) else read_download
    message = whole(Framed(head, chunk))
    assert written(message) == message.SerializeToString()
    assert whole(read(message.SerializeToString())) == message


@given(st.one_of(UPLOADS, DOWNLOADS), CHUNKS)
@settings(deadline=None)
def test_what_is_written_is_read_without_a_copy(head: UploadRequest | DownloadChunk, chunk: bytes) -> None:
    read = read_upload if isinstance(head, UploadRequest) else read_download
    content = written(Framed(head, chunk))
    framed = read(content)
    assert (framed.head, bytes(framed.chunk)) == (head, chunk)
    assert isinstance(framed.chunk, memoryview)
    assert framed.chunk.obj is content


@given(st.lists(st.one_of(UPLOADS.map(lambda head: head.SerializeToString()), st.binary(max_size=40)), max_size=4))
@settings(deadline=None)
def test_any_bytes_are_read_or_refused_as_by_protobuf(parts: list[bytes]) -> None:
    content = b"".join(parts)
    try:
        expected = UploadRequest.FromString(content)
    except DecodeError:
        with pytest.raises(DecodeError):
            read_upload(content)
        return
    assert whole(read_upload(content)) == expected


@pytest.mark.parametrize(
    "content",
    [
        b"\x22\xff\xff\xff\xff\x0f",  # a chunk of 4 GiB that is not there
        b"\x22\x05abc",  # cut within the chunk
        b"\x80" * CHUNK_MOST,  # a number without end
        b"\x10",
        b"\x0b\x0b",  # a group, which no field is
    ],
)
def test_broken_messages_are_refused(content: bytes) -> None:
    with pytest.raises(DecodeError):
        read_upload(content)


def test_a_field_of_a_later_version_is_passed_over() -> None:
    later = b"\x7a\x03abc" + written(Framed(UploadRequest(slot=3), b"chunk"))
    framed = read_upload(later)
    assert (framed.head.slot, bytes(framed.chunk)) == (3, b"chunk")


def test_of_two_chunks_the_last_counts_as_in_protobuf() -> None:
    content = b"\x22\x01a\x10\x07\x22\x02bc"
    assert UploadRequest.FromString(content).chunk == b"bc"
    framed = read_upload(content)
    assert (framed.head.slot, bytes(framed.chunk)) == (7, b"bc")
