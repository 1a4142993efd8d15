"""The service's answers to every kind of request, over TCP and a Unix socket."""

import json
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from node.errors import InferenceUnavailable
from protos import open_inference_pb2 as messages
from protos.model_manifest import open_bundle
from protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from protos.tensors import from_raw
from tests.inference_requests import WRONG, changed, right_request
from tests.inference_service import RunningService, client_of, volume_of

LIMIT = 256 << 20


@pytest.fixture
def channel(endpoint: str) -> Iterator[grpc.Channel]:
    options = (("grpc.max_receive_message_length", LIMIT), ("grpc.max_send_message_length", LIMIT))
    with grpc.insecure_channel(endpoint, options) as opened:
        yield opened


@pytest.fixture
def stub(channel: grpc.Channel) -> GRPCInferenceServiceStub:
    return GRPCInferenceServiceStub(channel)


def test_the_ready_file_names_addresses_and_models(service: RunningService) -> None:
    text = service.ready_file.read_text(encoding="utf-8")
    assert text.count("\n") == 1
    ready = json.loads(text)
    assert ready["addresses"][0].startswith("127.0.0.1:")
    assert ready["addresses"][1].startswith("unix:/")
    assert "bright_regions/1" in ready["models"]
    assert ready["refused"] == {}


def test_the_unix_socket_is_for_its_user_alone(service: RunningService) -> None:
    mode = Path(service.unix.removeprefix("unix:")).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert mode & (stat.S_IRWXG | stat.S_IRWXO) == 0


def test_it_is_live_ready_and_healthy(stub: GRPCInferenceServiceStub, channel: grpc.Channel) -> None:
    assert stub.ServerLive(messages.ServerLiveRequest()).live
    assert stub.ServerReady(messages.ServerReadyRequest()).ready
    assert stub.ServerMetadata(messages.ServerMetadataRequest()).name == "hilum"
    for name in ("", "inference.GRPCInferenceService"):
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("version", ["", "1"])
def test_a_model_is_ready_and_describes_itself(stub: GRPCInferenceServiceStub, version: str) -> None:
    assert stub.ModelReady(messages.ModelReadyRequest(name="bright_regions", version=version)).ready
    described = stub.ModelMetadata(messages.ModelMetadataRequest(name="bright_regions", version=version))
    assert list(described.versions) == ["1"]
    image = described.inputs[0]
    assert (image.name, image.datatype, list(image.shape)) == ("image", "INT16", [-1, -1, -1])
    assert [item.name for item in described.outputs] == ["probability"]


@pytest.mark.parametrize("call", ["ModelReady", "ModelMetadata"])
def test_an_unknown_model_is_not_found(stub: GRPCInferenceServiceStub, call: str) -> None:
    request = getattr(messages, f"{call}Request")(name="nobody")
    with pytest.raises(grpc.RpcError) as refusal:
        getattr(stub, call)(request)
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_right_request_is_answered_with_the_digest(stub: GRPCInferenceServiceStub, service: RunningService) -> None:
    answer = stub.ModelInfer(right_request())
    bundle = open_bundle(service.models / "bright_regions" / "1")
    assert answer.parameters["hilum.digest"].string_param == bundle.digest
    assert (answer.model_name, answer.model_version) == ("bright_regions", "1")
    assert answer.id == right_request().id
    marked = from_raw(answer.raw_output_contents[0], answer.outputs[0].datatype, answer.outputs[0].shape)
    expected = np.zeros((4, 32, 32), np.uint8)
    expected[1:3, 10:14, 10:14] = 255
    np.testing.assert_array_equal(marked, expected)


def test_inputs_may_come_in_any_order_and_outputs_by_name(stub: GRPCInferenceServiceStub) -> None:
    straight, turned = right_request(), right_request(outputs=[{"name": "probability"}])
    for field in (turned.inputs, turned.raw_input_contents):
        entries = list(field)
        del field[:]
        field.extend(reversed(entries))
    assert stub.ModelInfer(turned).raw_output_contents == stub.ModelInfer(straight).raw_output_contents


def test_the_same_request_gives_the_same_bytes(stub: GRPCInferenceServiceStub) -> None:
    answers = {stub.ModelInfer(right_request()).raw_output_contents[0] for _ in range(5)}
    assert len(answers) == 1


@pytest.mark.parametrize("name", sorted(WRONG))
def test_a_wrong_request_gets_its_status_and_a_precise_sentence(stub: GRPCInferenceServiceStub, name: str) -> None:
    change, status, parts = WRONG[name]
    with pytest.raises(grpc.RpcError) as refusal:
        stub.ModelInfer(changed(change), timeout=30)
    assert refusal.value.code().name == status
    assert [part for part in parts if part not in refusal.value.details()] == []
    assert stub.ModelInfer(right_request()).raw_output_contents


def test_nan_from_the_graph_is_never_a_result(stub: GRPCInferenceServiceStub) -> None:
    request = right_request()
    request.model_name = "logarithm"
    with pytest.raises(grpc.RpcError) as refusal:
        stub.ModelInfer(request)
    assert refusal.value.code() is grpc.StatusCode.INTERNAL
    assert "no result is given out" in refusal.value.details()
    assert "'values'" in refusal.value.details()


def test_big_messages_pass_both_ways(endpoint: str, service: RunningService) -> None:
    voxels = np.zeros((60, 512, 512), np.int16)
    voxels[7, 300:310, 300:310] = 1000
    bundle = open_bundle(service.models / "bright_regions" / "1")
    with client_of(endpoint) as client:
        marked = client.infer(bundle, volume_of(voxels)).outputs["probability"]
    np.testing.assert_array_equal(marked > 0, voxels > 0)


def slow_request(milliseconds: int) -> messages.ModelInferRequest:
    request = right_request()
    request.model_name = "slow"
    request.raw_input_contents[0] = np.full((4, 32, 32), milliseconds, np.int16).tobytes()
    return request


def test_a_deadline_is_kept_and_the_service_serves_on(stub: GRPCInferenceServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        stub.ModelInfer(slow_request(5_000), timeout=0.2)
    assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert stub.ServerLive(messages.ServerLiveRequest(), timeout=5).live
    assert stub.ModelInfer(right_request(), timeout=60).raw_output_contents


def test_more_requests_than_places_are_refused_at_once(service: RunningService) -> None:
    with grpc.insecure_channel(service.tcp) as channel, ThreadPoolExecutor(14) as pool:
        stub = GRPCInferenceServiceStub(channel)
        start = threading.Barrier(14)

        def ask() -> grpc.StatusCode:
            start.wait()
            try:
                stub.ModelInfer(slow_request(2000), timeout=1.5)
            except grpc.RpcError as error:
                return error.code()
            return grpc.StatusCode.OK

        codes = [pending.result() for pending in [pool.submit(ask) for _ in range(14)]]
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) >= 5
    assert set(codes) <= {
        grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED
    }  # fmt: skip
    with client_of(service.tcp, deadline_s=60) as client:
        assert client.infer(
            open_bundle(service.models / "bright_regions" / "1"), volume_of(np.eye(8)[None].astype("i2"))
        )


def test_the_clients_deadline_counts_as_unavailable(endpoint: str, service: RunningService) -> None:
    bundle = open_bundle(service.models / "slow" / "1")
    with client_of(endpoint, deadline_s=0.2) as client, pytest.raises(InferenceUnavailable, match="DEADLINE_EXCEEDED"):
        client.infer(bundle, volume_of(np.full((2, 8, 8), 5_000, np.int16)))


def test_a_stream_answers_in_order_and_outlives_a_refusal(stub: GRPCInferenceServiceStub) -> None:
    wrong = changed(lambda request: setattr(request, "model_name", "nobody"))
    wrong.id = "wrong"
    answers = list(stub.ModelStreamInfer(iter([right_request(), wrong, right_request()]), timeout=60))
    assert [bool(answer.error_message) for answer in answers] == [False, True, False]
    assert answers[1].infer_response.id == "wrong"
    assert "got 'nobody'" in answers[1].error_message
    assert answers[2].infer_response.raw_output_contents == stub.ModelInfer(right_request()).raw_output_contents


def test_typed_contents_answer_as_raw_ones_do(stub: GRPCInferenceServiceStub) -> None:
    typed = right_request()
    for tensor, raw in zip(typed.inputs, list(typed.raw_input_contents), strict=True):
        values = from_raw(raw, tensor.datatype, tensor.shape).ravel().tolist()
        field = "int_contents" if tensor.datatype == "INT16" else "fp32_contents"
        getattr(tensor.contents, field).extend(values)
    del typed.raw_input_contents[:]
    assert stub.ModelInfer(typed).raw_output_contents == stub.ModelInfer(right_request()).raw_output_contents


def test_the_configuration_holds_the_manifest_and_statistics_count(
    stub: GRPCInferenceServiceStub, service: RunningService
) -> None:
    config = stub.ModelConfig(messages.ModelConfigRequest(name="bright_regions")).config
    text = (service.models / "bright_regions" / "1" / "model.toml").read_text(encoding="utf-8")
    assert config.parameters["hilum.manifest"].string_value == text
    assert config.input[0].data_type == messages.TYPE_INT16
    before = stub.ModelStatistics(messages.ModelStatisticsRequest(name="bright_regions")).model_stats[0]
    stub.ModelInfer(right_request())
    after = stub.ModelStatistics(messages.ModelStatisticsRequest(name="bright_regions")).model_stats[0]
    assert after.inference_stats.success.count == before.inference_stats.success.count + 1
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns


@pytest.mark.parametrize("rpc", ["CudaSharedMemoryStatus", "TraceSetting", "LogSettings", "RepositoryModelLoad"])
def test_what_is_not_offered_says_its_name(stub: GRPCInferenceServiceStub, rpc: str) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        getattr(stub, rpc)(getattr(messages, f"{rpc}Request")())
    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert rpc in refusal.value.details()


def test_a_model_never_comes_by_the_wire(stub: GRPCInferenceServiceStub) -> None:
    request = messages.RepositoryModelLoadRequest(model_name="bright_regions")
    request.parameters["file:1/saved_model.pb"].bytes_param = b"x"
    with pytest.raises(grpc.RpcError, match="never by the wire") as refusal:
        stub.RepositoryModelLoad(request)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
