"""The repository's index, the bound on messages and a request's own timeout, at a service of their own."""

import shutil
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from protos import open_inference_pb2 as messages
from protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.bundles import threshold_bundle
from tests.inference_requests import right_request
from tests.inference_service import running_service
from tests.odd_bundles import odd_bundles


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GRPCInferenceServiceStub]:
    """Two models that answer and one that is refused; messages of 4 MiB at most."""
    models = tmp_path_factory.mktemp("models")
    threshold_bundle(models)
    shutil.copytree(odd_bundles() / "good" / "slow", models / "slow")
    shutil.copytree(odd_bundles() / "bad" / "reads_file", models / "reads_file")
    with running_service(models, "--max-message-mb", "4") as running, grpc.insecure_channel(running.tcp) as channel:
        yield GRPCInferenceServiceStub(channel)


def test_the_index_gives_every_version_and_why_one_does_not_answer(stub: GRPCInferenceServiceStub) -> None:
    found = {item.name: item for item in stub.RepositoryIndex(messages.RepositoryIndexRequest()).models}
    assert {name: (item.version, item.state) for name, item in found.items()} == {
        "bright_regions": ("1", "READY"),
        "slow": ("1", "READY"),
        "reads_file": ("1", "UNAVAILABLE"),
    }
    assert "ReadFile" in found["reads_file"].reason
    assert found["slow"].reason == ""


def test_the_index_can_leave_out_what_does_not_answer(stub: GRPCInferenceServiceStub) -> None:
    found = stub.RepositoryIndex(messages.RepositoryIndexRequest(ready=True)).models
    assert sorted(item.name for item in found) == ["bright_regions", "slow"]


def test_another_repository_is_refused_by_name(stub: GRPCInferenceServiceStub) -> None:
    with pytest.raises(grpc.RpcError, match="repository_name") as refusal:
        stub.RepositoryIndex(messages.RepositoryIndexRequest(repository_name="elsewhere"))
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_refused_model_is_not_ready_and_says_why(stub: GRPCInferenceServiceStub) -> None:
    assert not stub.ModelReady(messages.ModelReadyRequest(name="reads_file")).ready
    with pytest.raises(grpc.RpcError, match="ReadFile") as refusal:
        stub.ModelInfer(right_request(model_name="reads_file"))
    assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_a_message_beyond_the_bound_is_resource_exhausted_and_others_are_served(stub: GRPCInferenceServiceStub) -> None:
    request = right_request()
    request.raw_input_contents[0] = bytes(5 << 20)
    with pytest.raises(grpc.RpcError, match="larger than max") as refusal:
        stub.ModelInfer(request, timeout=30)
    assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stub.ModelInfer(right_request(), timeout=30).raw_output_contents


@pytest.mark.parametrize("field", ["int64_param", "uint64_param"])
def test_a_requests_own_timeout_ends_it_before_the_deadline(stub: GRPCInferenceServiceStub, field: str) -> None:
    request = right_request(model_name="slow")
    request.raw_input_contents[0] = np.full((4, 32, 32), 30_000, np.int16).tobytes()
    setattr(request.parameters["timeout"], field, 200_000)
    with pytest.raises(grpc.RpcError) as refusal:
        stub.ModelInfer(request, timeout=300)
    assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert stub.ModelInfer(right_request(), timeout=60).raw_output_contents


def test_a_timeout_that_is_no_integer_is_refused(stub: GRPCInferenceServiceStub) -> None:
    request = right_request()
    request.parameters["timeout"].string_param = "soon"
    with pytest.raises(grpc.RpcError, match="'timeout': expected an integer") as refusal:
        stub.ModelInfer(request)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
