"""Tensors in registered regions: where inputs lie, where answers go, and what is refused."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from protos import open_inference_pb2 as messages
from protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.inference_requests import right_request

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lies
SIZE, FILLED = 32768, 7
IMAGE_BYTES, MASK_BYTES = 8192, 4096


@pytest.fixture
def stub(endpoint: str) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(endpoint) as channel:
        yield GRPCInferenceServiceStub(channel)


@pytest.fixture
def region(stub: GRPCInferenceServiceStub) -> Iterator[Path]:
    """A registered region of SIZE bytes, each FILLED; its name is that of its file."""
    path = SHARED_MEMORY / f"hilum-test-{uuid.uuid4().hex}"
    path.touch(mode=0o600)
    path.write_bytes(bytes([FILLED]) * SIZE)
    request = messages.SystemSharedMemoryRegisterRequest(name=path.name, key=f"/{path.name}", byte_size=SIZE)
    try:
        stub.SystemSharedMemoryRegister(request)
        yield path
        stub.SystemSharedMemoryUnregister(messages.SystemSharedMemoryUnregisterRequest(name=path.name))
    finally:
        path.unlink()


def place(tensor: object, region: Path, byte_size: int, offset: int = 0) -> None:
    parameters = tensor.parameters  # type: ignore[attr-defined]
    parameters["shared_memory_region"].string_param = region.name
    parameters["shared_memory_byte_size"].int64_param = byte_size
    if offset:
        parameters["shared_memory_offset"].int64_param = offset


def request_into(region: Path, byte_size: int, offset: int = 0) -> messages.ModelInferRequest:
    request = right_request()
    place(request.outputs.add(name="probability"), region, byte_size, offset)
    return request


def write(region: Path, content: bytes, offset: int) -> None:
    descriptor = os.open(region, os.O_WRONLY)
    try:
        assert os.pwrite(descriptor, content, offset) == len(content)
    finally:
        os.close(descriptor)


def refusal_of(stub: GRPCInferenceServiceStub, request: messages.ModelInferRequest) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as refusal:
        stub.ModelInfer(request, timeout=60)
    return refusal.value.code(), str(refusal.value.details())


@pytest.mark.parametrize(("byte_size", "offset"), [(MASK_BYTES, 0), (MASK_BYTES, 3), (MASK_BYTES + 900, 64)])
def test_an_answer_goes_to_its_place_and_nowhere_else(
    stub: GRPCInferenceServiceStub, region: Path, byte_size: int, offset: int
) -> None:
    expected = stub.ModelInfer(right_request()).raw_output_contents[0]
    answer = stub.ModelInfer(request_into(region, byte_size, offset))
    assert list(answer.raw_output_contents) == [b""]
    stated = answer.outputs[0].parameters
    assert stated["shared_memory_region"].string_param == region.name
    assert stated["shared_memory_byte_size"].int64_param == MASK_BYTES
    assert stated["shared_memory_offset"].int64_param == offset
    assert list(answer.outputs[0].shape) == [4, 32, 32]
    content = region.read_bytes()
    assert content[offset : offset + MASK_BYTES] == expected
    assert set(content[:offset]) | set(content[offset + byte_size :]) == {FILLED}


@pytest.mark.parametrize("offset", [0, 1, 2, 64])
def test_an_input_may_lie_at_any_offset(stub: GRPCInferenceServiceStub, region: Path, offset: int) -> None:
    request = right_request()
    write(region, request.raw_input_contents.pop(0), offset)
    place(request.inputs[0], region, IMAGE_BYTES, offset)
    assert stub.ModelInfer(request).raw_output_contents == stub.ModelInfer(right_request()).raw_output_contents


def test_input_and_output_share_a_region_side_by_side(stub: GRPCInferenceServiceStub, region: Path) -> None:
    request = request_into(region, MASK_BYTES, IMAGE_BYTES)
    write(region, request.raw_input_contents.pop(0), 0)
    place(request.inputs[0], region, IMAGE_BYTES)
    stub.ModelInfer(request)
    content = region.read_bytes()
    expected = stub.ModelInfer(right_request()).raw_output_contents[0]
    assert content[IMAGE_BYTES : IMAGE_BYTES + MASK_BYTES] == expected


def test_a_place_that_is_too_small_is_refused_and_left_alone(stub: GRPCInferenceServiceStub, region: Path) -> None:
    code, details = refusal_of(stub, request_into(region, MASK_BYTES - 1))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"expected a region of {MASK_BYTES} bytes or more, got {MASK_BYTES - 1}" in details
    assert set(region.read_bytes()) == {FILLED}


@pytest.mark.parametrize(("byte_size", "offset"), [(MASK_BYTES, SIZE - MASK_BYTES + 1), (SIZE + 1, 0), (1 << 62, 0)])
def test_a_place_beyond_its_region_is_refused(
    stub: GRPCInferenceServiceStub, region: Path, byte_size: int, offset: int
) -> None:
    code, details = refusal_of(stub, request_into(region, byte_size, offset))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert region.name in details
    assert set(region.read_bytes()) == {FILLED}


@pytest.mark.parametrize("offset", [0, IMAGE_BYTES - 1])
def test_an_output_upon_an_input_is_refused(stub: GRPCInferenceServiceStub, region: Path, offset: int) -> None:
    request = request_into(region, MASK_BYTES, offset)
    write(region, request.raw_input_contents.pop(0), 0)
    place(request.inputs[0], region, IMAGE_BYTES)
    before = region.read_bytes()
    code, details = refusal_of(stub, request)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "'probability': expected bytes of a region for itself, got some of tensor 'image'" in details
    assert region.read_bytes() == before


def test_a_failed_prediction_leaves_its_place_alone(stub: GRPCInferenceServiceStub, region: Path) -> None:
    request = right_request(model_name="logarithm")
    place(request.outputs.add(name="values"), region, 4 * MASK_BYTES)
    assert refusal_of(stub, request)[0] is grpc.StatusCode.INTERNAL
    assert set(region.read_bytes()) == {FILLED}


def test_contents_and_a_region_are_refused_together(stub: GRPCInferenceServiceStub, region: Path) -> None:
    request = right_request()
    del request.raw_input_contents[:]
    request.inputs[0].contents.int_contents.append(1)
    place(request.inputs[0], region, IMAGE_BYTES)
    code, details = refusal_of(stub, request)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "expected either contents or a region, got both" in details
