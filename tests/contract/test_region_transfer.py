"""The node's uploads and downloads against services that are older, stall or lie; real gRPC on both sides."""
# ruff: noqa: N802, ARG002 - the server's names and parameters are the protocol's

import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import grpc
import lz4.block
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.regions.leased import LeasedRegions, RegionLimits
from inference.regions.servicer import add_to
from inference.regions.upload import Slots, UploadedTensor
from node.errors import InferenceRejected, InferenceUnavailable
from node.inference_client import region_pool
from node.inference_client.endpoints import Endpoint
from node.inference_client.lease import Lease
from node.inference_client.remote_region import download, upload
from node.settings import InferenceSettings
from protos.model_manifest import open_bundle
from protos.region_wire import CHUNK_MOST, CHUNK_UNSTATED
from protos.tensor_regions_pb2 import CommitRequest, CommitResponse, DownloadChunk, UploadRequest, UploadResponse
from protos.tensor_regions_pb2_grpc import TensorRegionsServicer, add_TensorRegionsServicer_to_server
from tests.inference_service import RunningService, bright_volume, client_of
from tests.waiting import wait_until

SIZE = 3 << 20
REGION = "r" * 32


@dataclass
class Scripted(TensorRegionsServicer):
    """Keeps what is uploaded, and sends the chunks that it was given."""

    chunks: Callable[[], Iterator[DownloadChunk]] = lambda: iter(())
    uploads: list[UploadRequest] = field(default_factory=list)
    commit: CommitRequest = field(default_factory=CommitRequest)

    def Upload(self, request_iterator, context):
        self.uploads = list(request_iterator)
        return UploadResponse(slots=1)

    def Commit(self, request, context):
        self.commit = request
        return CommitResponse()

    def Download(self, request, context):
        yield from self.chunks()


@contextmanager
def endpoint_of(service: TensorRegionsServicer) -> Iterator[Endpoint]:
    options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]
    server = grpc.server(ThreadPoolExecutor(4), options=options)
    add_TensorRegionsServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with closing(Endpoint(f"127.0.0.1:{port}", InferenceSettings())) as endpoint:
            yield endpoint
    finally:
        server.stop(0).wait()


@pytest.fixture(scope="module")
def scripted() -> Iterator[tuple[Scripted, Endpoint]]:
    service = Scripted()
    with endpoint_of(service) as endpoint:
        yield service, endpoint


def packed(size: int) -> bytes:
    return lz4.block.compress(bytes(size), store_size=False)


def chunk(offset: int, size: int, content: bytes, encoding: str = "") -> DownloadChunk:
    return DownloadChunk(offset=offset, byte_size=size, chunk=content, encoding=encoding)


def test_chunks_of_either_kind_are_put_together(scripted: tuple[Scripted, Endpoint]) -> None:
    service, endpoint = scripted
    noise = np.random.default_rng(1).bytes(1 << 20)
    service.chunks = lambda: iter((chunk(0, 1 << 20, noise), chunk(1 << 20, CHUNK_MOST, packed(CHUNK_MOST), "lz4")))
    content = np.full(SIZE, 7, np.uint8)
    download(endpoint, endpoint.regions, REGION, content, timeout_s=30)
    assert content.tobytes() == noise + bytes(CHUNK_MOST)


LIES: dict[str, tuple[DownloadChunk, str]] = {
    "more than it states": (chunk(0, 4096, packed(1 << 26), "lz4"), "not 4096 bytes once unpacked"),
    "less than it states": (chunk(0, 4096, packed(4095), "lz4"), "states 4096 bytes and has 4095"),
    "more than was asked for": (chunk(0, CHUNK_MOST + 1, packed(CHUNK_MOST + 1), "lz4"), "got 2097153 bytes at 0"),
    "beyond the end": (chunk(0, 1 << 30, packed(1 << 26), "lz4"), "got 1073741824 bytes at 0"),
    "no LZ4": (chunk(0, 4096, b"\xff" * 100, "lz4"), "not 4096 bytes once unpacked"),
    "nothing": (chunk(0, 0, b""), "got 0 bytes at 0"),
    "another offset": (chunk(1, 4096, bytes(4096)), "got 4096 bytes at 1"),
    "plain, other bytes than stated": (chunk(0, 4096, bytes(4095)), "states 4096 bytes and has 4095"),
    "an encoding that was not asked for": (chunk(0, 4096, bytes(9), "deflate"), "got 'deflate'"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_chunk_that_lies_is_refused_and_unpacked_no_further(scripted: tuple[Scripted, Endpoint], name: str) -> None:
    service, endpoint = scripted
    lie, sentence = LIES[name]
    service.chunks = lambda: iter((lie, lie))
    content = np.zeros(SIZE, np.uint8)
    tracemalloc.start()
    try:
        with pytest.raises(InferenceRejected, match=sentence):
            download(endpoint, endpoint.regions, REGION, content, timeout_s=30)
        # Both ends run in this process; 1 << 26 bytes would be another 64 MiB.
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_download_that_ends_early_is_refused(scripted: tuple[Scripted, Endpoint]) -> None:
    service, endpoint = scripted
    service.chunks = lambda: iter((chunk(0, 4096, bytes(4096)),))
    with pytest.raises(InferenceRejected, match="expected 3145728 bytes, the service sent 4096"):
        download(endpoint, endpoint.regions, REGION, np.zeros(SIZE, np.uint8), timeout_s=30)


def test_closing_the_endpoint_ends_a_download_that_stalls() -> None:
    stalled, go_on = threading.Event(), threading.Event()

    def chunks() -> Iterator[DownloadChunk]:
        yield chunk(0, 4096, bytes(4096))
        stalled.set()
        go_on.wait(60)

    with endpoint_of(Scripted(chunks)) as endpoint, ThreadPoolExecutor(1) as pool:
        content = np.zeros(SIZE, np.uint8)
        ended = pool.submit(download, endpoint, endpoint.regions, REGION, content, timeout_s=60)
        assert stalled.wait(30)
        endpoint.close()
        with pytest.raises(InferenceUnavailable):
            ended.result(30)
        go_on.set()


SLICES = st.tuples(st.integers(1, 9), st.sampled_from([1, 1000, 300_000, 1 << 19, (1 << 20) + 1, (2 << 20) + 3]))


@given(shape=SLICES, stated=st.sampled_from([0, 4096, 1 << 20, CHUNK_MOST, 1 << 31]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_upload_keeps_to_what_the_service_states(
    scripted: tuple[Scripted, Endpoint], shape: tuple[int, int], stated: int
) -> None:
    service, endpoint = scripted
    array = np.arange(shape[0] * shape[1], dtype=np.uint32).astype(np.uint8).reshape(shape)
    upload(endpoint, endpoint.regions, REGION, array, timeout_s=30, chunk_byte_size=stated)
    start, *parts = service.uploads
    assert (start.start.region, start.start.slot_byte_size, start.chunk) == (REGION, shape[1], b"")
    assert max(len(part.chunk) for part in parts) <= min(stated or CHUNK_UNSTATED, CHUNK_MOST)
    if not stated:
        assert not any(part.whole_slots for part in parts)
    room = bytearray(array.nbytes)
    slots = Slots(memoryview(room), shape[1])
    for part in parts:
        slots.put(part.slot, part.offset, part.chunk, part.whole_slots)
    slots.commit(UploadedTensor(service.commit.datatype, tuple(service.commit.shape)))
    assert room == array.tobytes()


def test_slices_travel_several_in_a_message(scripted: tuple[Scripted, Endpoint]) -> None:
    service, endpoint = scripted
    array = np.zeros((30, 512, 512), np.int16)
    upload(endpoint, endpoint.regions, REGION, array, timeout_s=30, chunk_byte_size=CHUNK_MOST)
    assert [part.whole_slots for part in service.uploads[1:]] == [4] * 7 + [2]


def test_a_region_that_is_idle_goes_back_to_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(region_pool, "IDLE_MOST_S", 0.1)
    leased = LeasedRegions(RegionLimits(expiry_s=3))  # renewed every second
    server = grpc.server(ThreadPoolExecutor(4))
    add_to(server, leased)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with (
        closing(Endpoint(f"127.0.0.1:{port}", InferenceSettings())) as endpoint,
        closing(region_pool.RegionPool(endpoint.regions, endpoint.address, maps=False)) as pool,
    ):
        used, idle = pool.take(1 << 20), pool.take(1 << 20)
        pool.give_back(idle)
        wait_until(lambda: leased.counts().regions == 1, timeout_s=30, what="the end of the idle region")
        upload(endpoint, endpoint.regions, used.name, np.zeros((1, 9), np.uint8), timeout_s=30)
        assert pool.take(1 << 20).name not in (idle.name, used.name)
    leased.close()
    server.stop(0).wait()


def test_uploads_use_their_regions_again(service: RunningService, monkeypatch: pytest.MonkeyPatch) -> None:
    created = []
    create = Lease.create
    monkeypatch.setattr(Lease, "create", lambda *args, **how: created.append(args) or create(*args, **how))
    bundle = open_bundle(service.models / "echo" / "1")
    with client_of(service.tcp, regions="upload") as client:
        for number in range(4):
            voxels = bright_volume().voxels + np.int16(number)
            volume = bright_volume()
            volume.voxels[...] = voxels
            held = client.infer(bundle, volume).outputs["stored"]
            np.testing.assert_array_equal(held, voxels)
    assert len(created) == 2  # one for the images, one for the answers
