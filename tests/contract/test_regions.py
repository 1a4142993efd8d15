"""Tensor regions of a real service, asked by a raw gRPC client over its Unix socket and over TCP."""

import math
import os
import queue
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import lz4.block
import numpy as np
import pytest

from node.inference_client.region_stub import region_stub
from protos import open_inference_pb2 as oip
from protos import tensor_regions_pb2 as messages
from protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from protos.region_wire import Framed
from protos.tensor_regions_pb2_grpc import TensorRegionsStub
from tests.bundles import ROOT
from tests.inference_service import RunningService, end_process, kill, running_service
from tests.region_client import CHUNK, OpenLease, mapped, open_lease, upload_requests
from tests.waiting import wait_until

SHAPE = (4, 8, 16)
IMAGE = np.arange(math.prod(SHAPE), dtype=np.int16).reshape(SHAPE) - 50
BYTES = IMAGE.nbytes


@pytest.fixture
def channel(service: RunningService) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(service.unix) as opened:
        yield opened


@pytest.fixture
def lease(channel: grpc.Channel) -> Iterator[OpenLease]:
    with open_lease(channel) as opened:
        yield opened


def echo_request(region: str = "", offset: int = 0, byte_size: int = BYTES) -> oip.ModelInferRequest:
    """Ask the echo model for IMAGE: in the message, or in a region."""
    tensors = {
        "image": IMAGE,
        "slope": np.ones(SHAPE[0], np.float32),
        "intercept": np.zeros(SHAPE[0], np.float32),
        "spacing": np.ones(3, np.float32),
        "padding": np.array(-1, np.int16),
    }
    request = oip.ModelInferRequest(model_name="echo")
    for name, array in tensors.items():
        datatype = {"int16": "INT16", "float32": "FP32"}[str(array.dtype)]
        tensor = request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        if name == "image" and region:
            place(tensor, region, offset, byte_size)
        else:
            request.raw_input_contents.append(array.tobytes())
    return request


def place(tensor: object, region: str, offset: int, byte_size: int) -> None:
    parameters = tensor.parameters  # type: ignore[attr-defined]
    parameters["shared_memory_region"].string_param = region
    parameters["shared_memory_offset"].int64_param = offset
    parameters["shared_memory_byte_size"].int64_param = byte_size


def infer(channel: grpc.Channel, request: oip.ModelInferRequest) -> oip.ModelInferResponse:
    return GRPCInferenceServiceStub(channel).ModelInfer(request)


def descriptors(service: RunningService) -> list[str]:
    """Give the regions among the service's open files."""
    folder = Path(f"/proc/{service.process.pid}/fd")
    found = []
    for link in folder.iterdir():
        try:
            found.append(str(link.readlink()))
        except FileNotFoundError:
            continue
    return [name for name in found if name.startswith("/memfd:hilum-region")]


def no_memory_left(service: RunningService) -> bool:
    """Tell whether the service has neither a region's file nor a map of one."""
    maps = Path(f"/proc/{service.process.pid}/maps").read_text(encoding="utf-8")
    return not descriptors(service) and "memfd:hilum-region" not in maps


@pytest.mark.parametrize("offset", [0, 2, 64])
def test_a_mapped_region_answers_as_a_message_does(channel: grpc.Channel, lease: OpenLease, offset: int) -> None:
    expected = infer(channel, echo_request()).raw_output_contents
    answer = lease.create(1 << 16, local=True)
    assert (answer.error_code, answer.not_local_because) == (0, "")
    second = 1 << 15
    with mapped(answer) as room:
        room[offset : offset + BYTES] = IMAGE.tobytes()
        request = echo_request(answer.name, offset)
        place(request.outputs.add(name="stored"), answer.name, second + offset, BYTES)
        request.outputs.add(name="values")
        response = infer(channel, request)
        assert room[second + offset : second + offset + BYTES] == expected[0]
    assert response.outputs[0].parameters["shared_memory_region"].string_param == answer.name
    assert response.outputs[0].parameters["shared_memory_byte_size"].int64_param == BYTES
    assert list(response.raw_output_contents) == [b"", expected[1]]


def test_no_one_can_shrink_a_mapped_region(lease: OpenLease) -> None:
    answer = lease.create(1 << 16, local=True)
    with open(answer.key, "r+b", buffering=0) as file, pytest.raises(PermissionError):  # noqa: PTH123 (a link)
        os.ftruncate(file.fileno(), 0)


@pytest.mark.parametrize("encodings", [[], ["lz4", "deflate"], ["snappy"]])
def test_slots_uploaded_in_any_order_answer_and_are_downloaded(
    channel: grpc.Channel, lease: OpenLease, encodings: list[str]
) -> None:
    stub = TensorRegionsStub(channel)
    region = lease.create(1 << 16).name
    arrived = [2, 0, 3, 1]
    uploaded = stub.Upload(upload_requests(region, [IMAGE[number].tobytes() for number in arrived]))
    assert (uploaded.slots, uploaded.byte_size) == (4, BYTES)
    with pytest.raises(grpc.RpcError) as early:
        infer(channel, echo_request(region))
    assert early.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    order = [arrived.index(number) for number in range(4)]
    commit = messages.CommitRequest(region=region, datatype="INT16", shape=SHAPE, permutation=order)
    commit.crc32 = zlib.crc32(IMAGE.tobytes())
    stub.Commit(commit)
    request = echo_request(region)
    place(request.outputs.add(name="stored"), region, 1 << 15, BYTES)
    infer(channel, request)
    chunks = list(stub.Download(messages.DownloadRequest(region=region, byte_size=BYTES, encodings=encodings)))
    assert [(chunk.offset, chunk.byte_size) for chunk in chunks] == [(0, BYTES)]
    assert (chunks[0].encoding, chunks[0].chunk) == ("", IMAGE.tobytes())  # a ramp gains nothing worth its time
    output = list(stub.Download(messages.DownloadRequest(region=region, offset=1 << 15, byte_size=BYTES)))
    assert output[0].chunk == infer(channel, echo_request()).raw_output_contents[0]


NOISE = np.random.default_rng(5).bytes(CHUNK)
LABELS = np.repeat(np.random.default_rng(6).integers(0, 9, CHUNK // 32, np.uint8), 32).tobytes()
MAPS = {
    "labels": (LABELS + LABELS[:1000], [True, True]),
    "noise": (NOISE + NOISE[:1000], [False, False]),
    "mixture": (NOISE + LABELS + bytes(1000), [False, True, True]),
}


@pytest.mark.parametrize("encoding", ["lz4", "deflate"])
@pytest.mark.parametrize("name", MAPS)
def test_a_download_packs_the_chunks_that_grow_much_smaller(
    channel: grpc.Channel, lease: OpenLease, name: str, encoding: str
) -> None:
    content, packed = MAPS[name]
    region, stub = committed(channel, lease, content), TensorRegionsStub(channel)
    request = messages.DownloadRequest(region=region, byte_size=len(content), encodings=[encoding, "snappy"])
    chunks = list(stub.Download(request))
    assert [chunk.encoding for chunk in chunks] == [encoding if is_packed else "" for is_packed in packed]
    assert b"".join(unpacked(chunk) for chunk in chunks) == content
    travelled = sum(len(chunk.chunk) for chunk in chunks if chunk.encoding)
    assert travelled <= sum(chunk.byte_size for chunk in chunks if chunk.encoding) / 8


@pytest.mark.parametrize(
    ("asked", "expected"), [(0, CHUNK), (65536, 65536), (2 * CHUNK, 2 * CHUNK), (2**32 - 1, 2 * CHUNK)]
)
def test_a_download_comes_in_chunks_of_the_size_asked_for(
    channel: grpc.Channel, lease: OpenLease, asked: int, expected: int
) -> None:
    content = NOISE * 2 + b"1"
    region = committed(channel, lease, content)
    request = messages.DownloadRequest(region=region, offset=1, byte_size=2 * CHUNK, chunk_byte_size=asked)
    chunks = list(TensorRegionsStub(channel).Download(request))
    assert {chunk.byte_size for chunk in chunks} == {expected}
    assert [chunk.offset for chunk in chunks] == list(range(1, 2 * CHUNK, expected))
    assert b"".join(chunk.chunk for chunk in chunks) == content[1:]


def test_chunks_of_a_few_bytes_are_refused(channel: grpc.Channel, lease: OpenLease) -> None:
    region = lease.create(1 << 16).name
    with pytest.raises(grpc.RpcError) as refusal:
        list(
            TensorRegionsStub(channel).Download(messages.DownloadRequest(region=region, byte_size=9, chunk_byte_size=9))
        )
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "expected 0 or 4096" in refusal.value.details()


def committed(channel: grpc.Channel, lease: OpenLease, content: bytes) -> str:
    """Lease a region that holds `content`; give its name."""
    stub, region = TensorRegionsStub(channel), lease.create(len(content)).name
    stub.Upload(upload_requests(region, [content]))
    stub.Commit(messages.CommitRequest(region=region, datatype="UINT8", shape=[len(content)]))
    return region


def unpacked(chunk: messages.DownloadChunk) -> bytes:
    if chunk.encoding == "lz4":
        return lz4.block.decompress(chunk.chunk, uncompressed_size=chunk.byte_size)
    return zlib.decompress(chunk.chunk) if chunk.encoding else chunk.chunk


@pytest.mark.parametrize("is_lean", [False, True], ids=["by protobuf", "chunk last"])
def test_a_message_carries_several_slots(channel: grpc.Channel, lease: OpenLease, *, is_lean: bool) -> None:
    slot = CHUNK // 2
    content, granted = NOISE * 2, lease.create(2 * CHUNK)
    assert granted.chunk_byte_size == 2 * CHUNK
    start = messages.UploadRequest.Start(region=granted.name, slot_byte_size=slot)

    def sent() -> Iterator[Any]:
        yield messages.UploadRequest(start=start)
        head = messages.UploadRequest(slot=0, whole_slots=4)
        if is_lean:
            yield Framed(head, content)
        else:
            head.chunk = content
            yield head

    stub = region_stub(channel)
    assert stub.Upload(sent()).slots == 4
    order = [1, 0, 3, 2]
    commit = messages.CommitRequest(region=granted.name, datatype="UINT8", shape=[4, slot], permutation=order)
    commit.crc32 = zlib.crc32(b"".join(content[number * slot : (number + 1) * slot] for number in order))
    stub.Commit(commit)


@pytest.mark.parametrize(
    ("head", "size", "sentence"),
    [
        (messages.UploadRequest(whole_slots=2), 15, "expected 16 bytes for 2 whole slots, got 15"),
        (messages.UploadRequest(whole_slots=2, offset=1), 16, "expected offset 0"),
        (messages.UploadRequest(whole_slots=3), 24, "room for 2 slots"),
        (messages.UploadRequest(), 2 * CHUNK + 1, "expected 1 to 2097152 bytes"),
    ],
)
def test_a_chunk_that_is_not_what_it_states_ends_the_upload(
    channel: grpc.Channel, lease: OpenLease, head: messages.UploadRequest, size: int, sentence: str
) -> None:
    region = lease.create(16).name
    start = messages.UploadRequest(start=messages.UploadRequest.Start(region=region, slot_byte_size=8))
    with pytest.raises(grpc.RpcError) as refusal:
        region_stub(channel).Upload(iter([start, Framed(head, b"1" * size)]))
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert sentence in refusal.value.details()


def test_a_region_dies_with_its_stream(service: RunningService, channel: grpc.Channel) -> None:
    wait_until(lambda: no_memory_left(service), what="the end of earlier regions")
    with open_lease(channel) as lease:
        region = lease.create(1 << 20, local=True).name
        assert len(descriptors(service)) >= 1
        lease.close()
    with pytest.raises(grpc.RpcError) as refusal:
        infer(channel, echo_request(region))
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
    wait_until(lambda: no_memory_left(service), what="the end of the region's memory")


def test_a_client_killed_while_it_uploads_leaves_nothing(service: RunningService) -> None:
    wait_until(lambda: no_memory_left(service), what="the end of earlier regions")
    command = [sys.executable, "-m", "tests.region_client", service.unix]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("uploading")
        assert descriptors(service)
        kill(process.pid)
    wait_until(lambda: no_memory_left(service), what="the end of the killed client's region")


def test_a_released_region_ends_its_upload(channel: grpc.Channel, lease: OpenLease) -> None:
    region = lease.create(1 << 20).name
    stub = TensorRegionsStub(channel)
    held: queue.SimpleQueue[messages.UploadRequest | None] = queue.SimpleQueue()
    held.put(messages.UploadRequest(start=messages.UploadRequest.Start(region=region, slot_byte_size=16)))
    upload = stub.Upload.future(iter(held.get, None))
    wait_until(lambda: is_under_upload(stub, region), what="the upload")
    assert lease.release(region).error_code == 0
    with pytest.raises(grpc.RpcError) as ended:
        upload.result(timeout=30)
    assert ended.value.code() is grpc.StatusCode.CANCELLED
    held.put(None)


def is_under_upload(stub: TensorRegionsStub, region: str) -> bool:
    try:
        list(stub.Download(messages.DownloadRequest(region=region, byte_size=1)))
    except grpc.RpcError as error:
        return error.code() is grpc.StatusCode.FAILED_PRECONDITION
    return False


def test_another_client_does_not_find_a_region(
    service: RunningService, channel: grpc.Channel, lease: OpenLease
) -> None:
    region = lease.create(1 << 16).name
    with grpc.insecure_channel(service.tcp) as foreign:
        stub = TensorRegionsStub(foreign)
        calls = (
            lambda: infer(foreign, echo_request(region)),
            lambda: stub.Upload(upload_requests(region, [b"\1" * 8])),
            lambda: stub.Commit(messages.CommitRequest(region=region, datatype="UINT8", shape=[1])),
            lambda: list(stub.Download(messages.DownloadRequest(region=region, byte_size=1))),
        )
        for call in calls:
            with pytest.raises(grpc.RpcError) as refusal:
                call()
            assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
    assert len(list(TensorRegionsStub(channel).Download(messages.DownloadRequest(region=region, byte_size=1)))) == 1


@pytest.mark.parametrize("offset", [(1 << 16) - BYTES + 1, 1 << 16, (1 << 62)])
def test_bytes_beyond_a_region_are_refused(channel: grpc.Channel, lease: OpenLease, offset: int) -> None:
    region = lease.create(1 << 16).name
    with pytest.raises(grpc.RpcError) as refusal:
        infer(channel, echo_request(region, offset))
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(1 << 16) in str(refusal.value.details())


def test_a_refused_lease_request_leaves_the_stream_open(lease: OpenLease) -> None:
    codes = [
        lease.create(0).error_code,
        lease.create(1 << 60).error_code,
        lease.renew("nobodys").error_code,
        lease.ask(messages.LeaseRequest()).error_code,
    ]
    assert codes == [3, 9, 5, 3]
    region = lease.create(100)
    assert (region.error_message, region.byte_size, len(region.name)) == ("", 100, 32)
    assert lease.renew().expires_after_s == region.expires_after_s > 0


def test_an_open_lease_does_not_hold_the_service_s_end(good_models: Path) -> None:
    with (
        running_service(good_models, "--grace-s", "100") as own,
        grpc.insecure_channel(own.unix) as channel,
        open_lease(channel) as lease,
    ):
        lease.create(1 << 16)
        assert end_process(own.process, timeout_s=60) == 0
