"""Tensors to and from regions that cannot be mapped: sent slice by slice, read in chunks, packed where that helps."""

from collections.abc import Iterator
from typing import cast

import lz4.block
import numpy as np
from numpy.typing import NDArray

from node.errors import InferenceRejected
from node.inference_client.endpoints import Endpoint
from protos.region_wire import CHUNK_MOST, CHUNK_UNSTATED, Framed
from protos.tensor_regions_pb2 import CommitRequest, DownloadChunk, DownloadRequest, UploadRequest
from protos.tensor_regions_pb2_grpc import TensorRegionsStub
from protos.tensors import datatype_of, to_raw

ENCODINGS = ("lz4",)
_Requests = Iterator[UploadRequest | Framed[UploadRequest]]


def upload(
    endpoint: Endpoint,
    stub: TensorRegionsStub,
    region: str,
    array: NDArray[np.generic],
    *,
    timeout_s: float,
    chunk_byte_size: int = 0,
) -> None:
    """Send an array [slice, ...] into a region, one slot a slice, and say what it is.

    `chunk_byte_size` is what the service stated with the region: then a message carries several slices.

    Raises:
        InferenceError: as `Endpoint.call`.
    """
    endpoint.call(stub.Upload, _messages(region, array, chunk_byte_size), timeout_s=timeout_s)
    commit = CommitRequest(region=region, datatype=datatype_of(array.dtype), shape=array.shape)
    endpoint.call(stub.Commit, commit, timeout_s=timeout_s)


def _messages(region: str, array: NDArray[np.generic], stated: int) -> _Requests:
    content = to_raw(array)
    slot_bytes = len(content) // len(array)
    most = min(stated, CHUNK_MOST) or CHUNK_UNSTATED
    together = most // slot_bytes if stated else 0
    yield UploadRequest(start=UploadRequest.Start(region=region, slot_byte_size=slot_bytes))
    if together > 1:
        yield from _whole_slots(content, slot_bytes, together)
    else:
        yield from _parts_of_slots(content, slot_bytes, most)


def _whole_slots(content: memoryview, slot_bytes: int, together: int) -> _Requests:
    for start in range(0, len(content), together * slot_bytes):
        chunk = content[start : start + together * slot_bytes]
        yield Framed(UploadRequest(slot=start // slot_bytes, whole_slots=len(chunk) // slot_bytes), chunk)


def _parts_of_slots(content: memoryview, slot_bytes: int, most: int) -> _Requests:
    for start in range(0, len(content), slot_bytes):
        for offset in range(0, slot_bytes, most):
            chunk = content[start + offset : start + min(offset + most, slot_bytes)]
            yield Framed(UploadRequest(slot=start // slot_bytes, offset=offset), chunk)


def download(
    endpoint: Endpoint, stub: TensorRegionsStub, region: str, content: NDArray[np.uint8], *, timeout_s: float
) -> None:
    """Fill `content` [byte] with the first bytes of a region.

    Raises:
        InferenceRejected: the chunks are not those bytes, each once and in order.
        InferenceError: as `Endpoint.call`.
    """
    byte_size = len(content)

    def receive(request: DownloadRequest, *, timeout: float) -> int:
        done = 0
        chunks = cast("Iterator[Framed[DownloadChunk]]", stub.Download(request, timeout=timeout))
        for chunk in chunks:
            done = _place(chunk, content, done)
        return done

    request = DownloadRequest(region=region, offset=0, byte_size=byte_size, encodings=ENCODINGS)
    request.chunk_byte_size = CHUNK_MOST
    done = endpoint.call(receive, request, timeout_s=timeout_s, at_work=True)
    if done != byte_size:
        raise InferenceRejected(f"region: expected {byte_size} bytes, the service sent {done}")


def _place(chunk: Framed[DownloadChunk], content: NDArray[np.uint8], done: int) -> int:
    """Write one chunk where `done` bytes are there already; return how many are there then."""
    head = chunk.head
    end = done + head.byte_size
    if head.offset != done or end > len(content) or not 1 <= head.byte_size <= CHUNK_MOST:
        raise InferenceRejected(
            f"region: expected a chunk at byte {done} of {len(content)}, got {head.byte_size} bytes at {head.offset}"
        )
    plain = _plain(chunk)
    if len(plain) != head.byte_size:
        raise InferenceRejected(f"region: a chunk states {head.byte_size} bytes and has {len(plain)}")
    content[done:end] = np.frombuffer(plain, np.uint8)
    return end


def _plain(chunk: Framed[DownloadChunk]) -> bytes | memoryview:
    """Unpack a chunk into no more than the bytes that it states, which the caller has bounded."""
    encoding: str = chunk.head.encoding
    if not encoding:
        return chunk.chunk
    if encoding not in ENCODINGS:
        raise InferenceRejected(f"region: expected chunks as they are or of {ENCODINGS}, got {encoding[:20]!r}")
    try:
        plain: bytes = lz4.block.decompress(chunk.chunk, uncompressed_size=chunk.head.byte_size)
    except lz4.block.LZ4BlockError as error:
        stated = chunk.head.byte_size
        raise InferenceRejected(f"region: a chunk is not {stated} bytes once unpacked: {error}") from error
    return plain
