"""What is no request at all, and what all bad input together leaves behind at a running service: nothing."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos import open_inference_pb2 as messages
from protos import tensor_regions_pb2 as regions
from protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from protos.tensor_regions_pb2_grpc import TensorRegionsStub
from tests.bundles import ROOT
from tests.inference_requests import WRONG, changed, right_request
from tests.inference_service import RunningService
from tests.raw_http2 import grpc_prefix, raw_request, torn_request
from tests.region_client import open_lease
from tests.waiting import wait_until

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
UPLOAD = "/hilum.inference.TensorRegions/Upload"
INVALID_ARGUMENT, RESOURCE_EXHAUSTED = 3, 8
JUNK = b"\xff" * 100
MIB = 1 << 20
ROUNDS = 3


@pytest.fixture
def channel(service: RunningService) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(service.tcp) as opened:
        yield opened


@pytest.fixture
def stub(channel: grpc.Channel) -> GRPCInferenceServiceStub:
    return GRPCInferenceServiceStub(channel)


def status_of(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as refusal:
        call()
    return refusal.value.code(), str(refusal.value.details())


@pytest.mark.parametrize("method", [INFER, "/inference.GRPCInferenceService/ModelConfig"])
def test_bytes_that_are_no_message_are_refused_by_name(channel: grpc.Channel, method: str) -> None:
    code, details = status_of(lambda: channel.unary_unary(method)(JUNK, timeout=10))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"expected the request of {method}" in details
    assert "got 100 bytes that are none" in details


def test_bytes_that_are_no_message_in_a_stream_are_refused_there(channel: grpc.Channel) -> None:
    answers = channel.stream_stream(STREAM)(iter([right_request().SerializeToString(), JUNK]), timeout=10)
    assert messages.ModelStreamInferResponse.FromString(next(answers)).infer_response.raw_output_contents
    code, details = status_of(lambda: next(answers))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"expected the request of {STREAM}" in details


def test_bytes_that_are_no_chunk_end_the_upload(channel: grpc.Channel) -> None:
    code, _ = status_of(lambda: channel.stream_unary(UPLOAD)(iter([JUNK]), timeout=10))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("length", [(1 << 31) - 1, (1 << 32) - 1], ids=["2 GB", "4 GB"])
def test_a_message_that_claims_gigabytes_is_refused_before_it_comes(service: RunningService, length: int) -> None:
    answer = raw_request(service.tcp, INFER, grpc_prefix(length) + JUNK, end=False)
    assert answer.status == RESOURCE_EXHAUSTED


def test_a_message_that_ends_before_its_length_is_no_request(service: RunningService) -> None:
    content = right_request().SerializeToString()
    answer = raw_request(service.tcp, INFER, grpc_prefix(len(content)) + content[:-100])
    assert answer.status not in (None, 0)


@pytest.mark.parametrize("cut", [3, 5, 200])
def test_a_client_that_goes_within_its_message_leaves_others_alone(
    service: RunningService, stub: GRPCInferenceServiceStub, cut: int
) -> None:
    content = right_request().SerializeToString()
    torn_request(service.tcp, INFER, (grpc_prefix(len(content)) + content)[:cut])
    assert stub.ModelInfer(right_request(), timeout=30).raw_output_contents


def regions_of(stub: GRPCInferenceServiceStub) -> int:
    return len(stub.SystemSharedMemoryStatus(messages.SystemSharedMemoryStatusRequest()).regions)


def held_by(service: RunningService) -> tuple[int, int]:
    """Open files and threads of the service."""
    folder = Path(f"/proc/{service.process.pid}")
    return len(list((folder / "fd").iterdir())), len(list((folder / "task").iterdir()))


def private_bytes(service: RunningService) -> int:
    status = Path(f"/proc/{service.process.pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon"))


def all_bad_input(service: RunningService, stub: GRPCInferenceServiceStub) -> None:
    """Send every wrong request, junk, torn messages and an upload whose client is killed."""
    for change, status, _ in WRONG.values():
        assert status_of(lambda change=change: stub.ModelInfer(changed(change), timeout=30))[0].name == status
    raw_request(service.tcp, INFER, grpc_prefix((1 << 31) - 1) + JUNK, end=False)
    raw_request(service.tcp, INFER, grpc_prefix(len(JUNK)) + JUNK)
    torn_request(service.tcp, INFER, grpc_prefix(9000) + JUNK)
    killed_upload(service)


def killed_upload(service: RunningService) -> str:
    command = [sys.executable, "-m", "tests.region_client", service.tcp]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        name = client.stdout.readline().split()[1]
        client.kill()
    return name


def test_a_region_whose_client_was_killed_is_nobodys(service: RunningService, channel: grpc.Channel) -> None:
    name = killed_upload(service)
    request = regions.CommitRequest(region=name, datatype="UINT8", shape=[1])
    code, details = status_of(lambda: TensorRegionsStub(channel).Commit(request, timeout=10))
    assert code is grpc.StatusCode.NOT_FOUND
    assert "this client has leased none of that name" in details


def test_all_bad_input_leaves_nothing_behind(service: RunningService, channel: grpc.Channel) -> None:
    stub = GRPCInferenceServiceStub(channel)
    all_bad_input(service, stub)  # what is made once and kept is made now
    assert stub.ModelInfer(right_request(), timeout=30).raw_output_contents
    (files, threads), registered, memory = held_by(service), regions_of(stub), private_bytes(service)
    for _ in range(ROUNDS):
        all_bad_input(service, stub)
    with open_lease(channel) as lease:  # the quota of the killed clients is free again
        wait_until(lambda: not lease.create(8 * MIB).error_code, what="the memory of the killed uploads")
    answer = stub.ModelInfer(right_request(), timeout=30)
    assert answer.raw_output_contents == stub.ModelInfer(right_request(), timeout=30).raw_output_contents
    assert regions_of(stub) == registered
    wait_until(lambda: held_by(service)[0] <= files, what="the files that bad input opened")
    wait_until(lambda: held_by(service)[1] <= threads + 4, what="the threads that bad input started")
    assert private_bytes(service) - memory < 16 * MIB
    with suppress(grpc.RpcError):
        stub.ServerLive(messages.ServerLiveRequest(), timeout=5)
