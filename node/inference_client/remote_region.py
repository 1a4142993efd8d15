"""Tensors to and from regions that cannot be mapped: sent slice by slice, read in chunks, deflated where that helps."""

import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from node.errors import InferenceRejected
from node.inference_client.endpoints import Endpoint
from protos.tensor_regions_pb2 import CommitRequest, DownloadChunk, DownloadRequest, UploadRequest
from protos.tensor_regions_pb2_grpc import TensorRegionsStub
from protos.tensors import datatype_of, to_raw

CHUNK = 1 << 20
ENCODINGS = ("deflate",)


def upload(
    endpoint: Endpoint, stub: TensorRegionsStub, region: str, array: NDArray[np.generic], *, timeout_s: float
) -> None:
    """Send an array [slice, ...] into a region, one slot a slice, and say what it is.

    Raises:
        InferenceError: as `Endpoint.call`.
    """
    endpoint.call(stub.Upload, _messages(region, array), timeout_s=timeout_s)
    commit = CommitRequest(region=region, datatype=datatype_of(array.dtype), shape=array.shape)
    endpoint.call(stub.Commit, commit, timeout_s=timeout_s)


def _messages(region: str, array: NDArray[np.generic]) -> Iterator[UploadRequest]:
    slots = len(array)
    content = to_raw(array)
    slot_bytes = len(content) // slots
    start = UploadRequest.Start(region=region, slot_byte_size=slot_bytes)
    for slot in range(slots):
        for offset in range(0, slot_bytes, CHUNK):
            begin = slot * slot_bytes + offset
            chunk = bytes(content[begin : begin + min(CHUNK, slot_bytes - offset)])
            first = slot == offset == 0
            yield UploadRequest(start=start if first else None, slot=slot, offset=offset, chunk=chunk)


def download(
    endpoint: Endpoint, stub: TensorRegionsStub, region: str, byte_size: int, *, timeout_s: float
) -> NDArray[np.uint8]:
    """Read the first `byte_size` bytes of a region.

    Raises:
        InferenceRejected: the chunks are not those bytes, each once and in order.
        InferenceError: as `Endpoint.call`.
    """
    content = np.empty(byte_size, np.uint8)

    def receive(request: DownloadRequest, *, timeout: float) -> int:
        done = 0
        for chunk in stub.Download(request, timeout=timeout):
            done = _place(chunk, content, done)
        return done

    request = DownloadRequest(region=region, offset=0, byte_size=byte_size, encodings=ENCODINGS)
    done = endpoint.call(receive, request, timeout_s=timeout_s, at_work=True)
    if done != byte_size:
        raise InferenceRejected(f"region: expected {byte_size} bytes, the service sent {done}")
    return content


def _place(chunk: DownloadChunk, content: NDArray[np.uint8], done: int) -> int:
    """Write one chunk where `done` bytes are there already; return how many are there then."""
    end = done + chunk.byte_size
    plain = _plain(chunk)
    if chunk.offset != done or end > len(content) or len(plain) != chunk.byte_size:
        raise InferenceRejected(
            f"region: expected a chunk at byte {done} of {len(content)}, got {len(plain)} bytes at {chunk.offset}"
        )
    content[done:end] = np.frombuffer(plain, np.uint8)
    return end


def _plain(chunk: DownloadChunk) -> bytes:
    if not chunk.encoding:
        return chunk.chunk
    if chunk.encoding not in ENCODINGS or chunk.byte_size > CHUNK:
        raise InferenceRejected(f"region: expected chunks as they are or of {ENCODINGS}, got {chunk.encoding[:20]!r}")
    try:
        return zlib.decompressobj().decompress(chunk.chunk, CHUNK + 1)
    except zlib.error as error:
        raise InferenceRejected(f"region: a chunk cannot be inflated: {error}") from error
