"""A raw client of the tensor regions: leases, uploads, maps. Run as a script it uploads without end, to be killed."""

import mmap
import queue
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from protos import tensor_regions_pb2 as messages
from protos.tensor_regions_pb2_grpc import TensorRegionsStub

CHUNK = 1 << 20


@dataclass
class OpenLease:
    """A lease stream whose requests are sent one by one, each answer awaited."""

    stub: TensorRegionsStub
    _requests: "queue.SimpleQueue[messages.LeaseRequest | None]" = field(default_factory=queue.SimpleQueue)
    _answers: Any = None

    def __post_init__(self) -> None:
        self._answers = self.stub.Lease(iter(self._requests.get, None))

    def ask(self, request: messages.LeaseRequest) -> messages.LeaseResponse:
        self._requests.put(request)
        return next(self._answers)

    def create(self, byte_size: int, *, local: bool = False) -> messages.LeaseResponse:
        return self.ask(messages.LeaseRequest(create=messages.LeaseRequest.Create(byte_size=byte_size, local=local)))

    def renew(self, name: str = "") -> messages.LeaseResponse:
        return self.ask(messages.LeaseRequest(renew=messages.LeaseRequest.Renew(name=name)))

    def release(self, name: str = "") -> messages.LeaseResponse:
        return self.ask(messages.LeaseRequest(release=messages.LeaseRequest.Release(name=name)))

    def close(self) -> None:
        """Half-close and wait until the server has ended the stream."""
        self._requests.put(None)
        assert list(self._answers) == []


@contextmanager
def open_lease(channel: grpc.Channel) -> Iterator[OpenLease]:
    lease = OpenLease(TensorRegionsStub(channel))
    try:
        yield lease
    finally:
        lease._requests.put(None)
        lease._answers.cancel()


@contextmanager
def mapped(answer: messages.LeaseResponse) -> Iterator[mmap.mmap]:
    """Map a local region as the protocol says: look at the link, open, hold size and proof to the answer."""
    assert str(Path(answer.key).readlink()).startswith("/memfd:hilum-region")
    with open(answer.key, "r+b", buffering=0) as file, mmap.mmap(file.fileno(), 0) as room:  # noqa: PTH123 (a link)
        assert len(room) == answer.byte_size
        assert room[: len(answer.proof)] == answer.proof
        yield room


def upload_requests(region: str, slots: Sequence[bytes]) -> Iterator[messages.UploadRequest]:
    """Send whole slots one after the other, in chunks."""
    start = messages.UploadRequest.Start(region=region, slot_byte_size=len(slots[0]))
    yield messages.UploadRequest(start=start)
    for number, content in enumerate(slots):
        for offset in range(0, len(content), CHUNK):
            yield messages.UploadRequest(slot=number, offset=offset, chunk=content[offset : offset + CHUNK])


def _endless(region: str) -> Iterator[messages.UploadRequest]:
    yield messages.UploadRequest(start=messages.UploadRequest.Start(region=region, slot_byte_size=4 * CHUNK))
    yield messages.UploadRequest(slot=0, offset=0, chunk=b"\1" * CHUNK)
    print("uploading", region, flush=True)
    queue.SimpleQueue[None]().get()


def _main(endpoint: str) -> None:
    with grpc.insecure_channel(endpoint) as channel, open_lease(channel) as lease:
        region = lease.create(16 * CHUNK, local=True).name
        TensorRegionsStub(channel).Upload(_endless(region))


if __name__ == "__main__":
    _main(sys.argv[1])
