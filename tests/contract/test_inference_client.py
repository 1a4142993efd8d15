"""The node's client against our service, and against foreign servers that answer in their own ways."""
# ruff: noqa: N802, ARG002 - the foreign server's names and parameters are the protocol's

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from node.errors import InferenceBroken, InferenceRejected, InferenceUnavailable
from node.inference_client.client import InferenceClient
from protos import open_inference_pb2 as messages
from protos.model_manifest import ModelBundle, open_bundle
from protos.open_inference_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)
from tests.inference_service import RunningService, bright_volume, client_of, volume_of


@pytest.fixture(scope="module")
def client(service: RunningService) -> Iterator[InferenceClient]:
    with client_of(service.tcp) as opened:
        yield opened


def bundle_of(service: RunningService, name: str) -> ModelBundle:
    return open_bundle(service.models / name / "1")


def test_a_prediction_comes_back_with_the_verified_model(endpoint: str, service: RunningService) -> None:
    bundle = bundle_of(service, "bright_regions")
    with client_of(endpoint) as client:
        client.wait_ready("bright_regions", "1", 30)
        health = client.health()
        assert (health.status, health.detail.split()[0]) == ("serving", "hilum")
        prediction = client.infer(bundle, bright_volume())
    assert np.argwhere(prediction.outputs["probability"]).min(axis=0).tolist() == [1, 10, 10]
    assert (prediction.model.digest, prediction.model.verified) == (bundle.digest, "digest")
    assert prediction.seconds > 0


@given(
    voxels=arrays.arrays(np.uint16, (2, 3, 4)),
    slope=st.floats(1 / 64, 64, width=16),
    intercept=st.integers(-2048, 2048),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_uint16_reaches_the_graph_as_the_same_values(
    client: InferenceClient, service: RunningService, voxels: np.ndarray, slope: float, intercept: int
) -> None:
    volume = volume_of(voxels, slope=slope, intercept=intercept)
    outputs = client.infer(bundle_of(service, "echo"), volume).outputs
    exact = voxels.astype(np.float64) * np.float64(slope) + intercept
    # Half a unit in the last place of FP32 for the product, the moved intercept and the sum.
    bound = 2 * np.spacing(np.float32(32768 * slope + 2048))
    np.testing.assert_allclose(outputs["values"], exact, rtol=0, atol=bound)


@given(voxels=arrays.arrays(np.uint16, (2, 3, 4)), intercept=st.integers(-32768, 32768))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_uint16_shift_is_exact_for_whole_rescales(
    client: InferenceClient, service: RunningService, voxels: np.ndarray, intercept: int
) -> None:
    outputs = client.infer(bundle_of(service, "echo"), volume_of(voxels, intercept=intercept)).outputs
    np.testing.assert_array_equal(outputs["values"], voxels.astype(np.float64) + intercept)
    shift = 32768 if voxels.max() > 32767 else 0
    # No voxel has the padding value that the client makes up, so the graph finds none to blank.
    np.testing.assert_array_equal(outputs["stored"], voxels.astype(np.int32) - shift)


@given(voxels=arrays.arrays(np.int16, (2, 3, 4)))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_int16_reaches_the_graph_untouched_without_padding(
    client: InferenceClient, service: RunningService, voxels: np.ndarray
) -> None:
    outputs = client.infer(bundle_of(service, "echo"), volume_of(voxels)).outputs
    np.testing.assert_array_equal(outputs["stored"], voxels)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_padding_travels_and_moves_with_the_voxels(
    client: InferenceClient, service: RunningService, dtype: type
) -> None:
    voxels = np.full((2, 3, 4), 5, dtype)
    voxels[0, 0, 0] = 40000 if dtype is np.uint16 else 400
    voxels[1, 1, 1] = 7
    stored = client.infer(bundle_of(service, "echo"), volume_of(voxels, padding=7)).outputs["stored"]
    assert np.argwhere(stored == 0).tolist() == [[1, 1, 1]]


def test_a_rescale_of_its_own_for_each_slice_is_kept(client: InferenceClient, service: RunningService) -> None:
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    volume = volume_of(voxels, slope=[1, 2], intercept=[-10, 10])
    values = client.infer(bundle_of(service, "echo"), volume).outputs["values"]
    np.testing.assert_array_equal(values, voxels * np.array([1, 2])[:, None, None] + np.array([-10, 10])[:, None, None])


def test_a_flipped_view_is_sent_as_it_looks(client: InferenceClient, service: RunningService) -> None:
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)[::-1, :, ::-1]
    stored = client.infer(bundle_of(service, "echo"), volume_of(voxels)).outputs["stored"]
    np.testing.assert_array_equal(stored, voxels)


@pytest.mark.parametrize(
    ("model", "dtype", "source"),
    [
        ("echo_uint8", np.uint8, np.uint8),
        ("echo_fp32", np.float32, np.float32),
        ("echo_fp32", np.float32, np.int16),
        ("echo_fp32", np.float32, np.uint16),
        ("echo", np.int16, np.uint8),
    ],
)
def test_other_datatypes_reach_the_graph_exactly(
    client: InferenceClient, service: RunningService, model: str, dtype: type, source: type
) -> None:
    voxels = np.array([[[0, 1], [200, 255]], [[3, 4], [5, 6]]], source)
    stored = client.infer(bundle_of(service, model), volume_of(voxels)).outputs["stored"]
    assert stored.dtype == dtype
    np.testing.assert_array_equal(stored, voxels)


@pytest.mark.parametrize(("model", "source"), [("echo", np.float32), ("echo_uint8", np.int16), ("echo_uint8", "u2")])
def test_values_that_do_not_fit_the_model_are_refused_before_sending(
    client: InferenceClient, service: RunningService, model: str, source: str
) -> None:
    with pytest.raises(InferenceRejected, match=r"'image': expected values that fit (INT16|UINT8), got"):
        client.infer(bundle_of(service, model), volume_of(np.ones((2, 2, 2), source)))


def test_a_request_over_the_message_limit_is_final_and_names_the_setting(service: RunningService) -> None:
    with client_of(service.tcp, max_message_mb=4, regions="off") as client, pytest.raises(InferenceRejected) as refusal:
        client.infer(bundle_of(service, "bright_regions"), volume_of(np.zeros((10, 512, 512), np.int16)))
    assert "inference.max_message_mb allows 4" in str(refusal.value)


def test_an_answer_over_the_message_limit_is_final_too(service: RunningService) -> None:
    with client_of(service.tcp, max_message_mb=4, regions="off") as client, pytest.raises(InferenceRejected) as refusal:
        client.infer(bundle_of(service, "echo"), volume_of(np.zeros((6, 512, 512), np.int16)))
    assert "Remedy: raise inference.max_message_mb" in str(refusal.value)


def test_another_digest_than_the_nodes_is_final(service: RunningService) -> None:
    bundle = bundle_of(service, "bright_regions")
    other = ModelBundle(bundle.directory, bundle.manifest, "0" * 64)
    with client_of(service.tcp) as client, pytest.raises(InferenceRejected, match="give both the same bundle"):
        client.infer(other, bright_volume())


def test_an_unknown_model_is_final(service: RunningService) -> None:
    bundle = bundle_of(service, "bright_regions")
    identity = bundle.manifest.identity.model_copy(update={"version": "9"})
    missing = ModelBundle(bundle.directory, bundle.manifest.model_copy(update={"identity": identity}), bundle.digest)
    with client_of(service.tcp) as client:
        with pytest.raises(InferenceRejected, match="NOT_FOUND"):
            client.infer(missing, bright_volume())
        with pytest.raises(InferenceRejected, match="NOT_FOUND"):
            client.wait_ready("bright_regions", "9", 30)


def test_nobody_there_is_unavailable() -> None:
    with client_of("unix:/nowhere/s") as client:
        assert client.health().status == "unreachable"
        with pytest.raises(InferenceUnavailable, match=r"was not ready within 0\.3 s"):
            client.wait_ready("bright_regions", "1", 0.3)


def test_nobody_there_says_nothing_against_the_request(service: RunningService) -> None:
    with client_of("unix:/nowhere/s") as client, pytest.raises(InferenceUnavailable) as failure:
        client.infer(bundle_of(service, "bright_regions"), bright_volume())
    assert not isinstance(failure.value, InferenceBroken)


class ForeignServer(GRPCInferenceServiceServicer):
    """A server of somebody else: no digest, no health service; `change` makes its answer wrong."""

    def __init__(self, change: Callable[[messages.ModelInferResponse], object] = lambda _: None) -> None:
        self._change = change
        self.requests: list[messages.ModelInferRequest] = []

    def ModelInfer(self, request, context):
        self.requests.append(request)
        answer = messages.ModelInferResponse(model_name=request.model_name, model_version=request.model_version)
        answer.outputs.add(name="probability", datatype="UINT8", shape=request.inputs[0].shape)
        answer.raw_output_contents.append(bytes(4 * 32 * 32))
        self._change(answer)
        return answer

    def ServerReady(self, request, context):
        return messages.ServerReadyResponse(ready=True)

    def ServerMetadata(self, request, context):
        return messages.ServerMetadataResponse(name="triton", version="2.60.0")

    def ServerLive(self, request, context):
        return messages.ServerLiveResponse(live=True)

    def ModelReady(self, request, context):
        return messages.ModelReadyResponse(ready=True)

    def ModelMetadata(self, request, context):
        return messages.ModelMetadataResponse(name=request.name)


@contextmanager
def foreign(server: ForeignServer, **settings: float) -> Iterator[InferenceClient]:
    running = grpc.server(ThreadPoolExecutor(2))
    add_GRPCInferenceServiceServicer_to_server(server, running)
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    try:
        with client_of(f"127.0.0.1:{port}", **settings) as client:
            yield client
    finally:
        running.stop(0).wait()


def test_a_foreign_server_without_digest_is_unverified(service: RunningService) -> None:
    with foreign(ForeignServer()) as client:
        prediction = client.infer(bundle_of(service, "bright_regions"), bright_volume())
        assert client.health().status == "serving"
        assert client.health().detail == "triton 2.60.0"
    assert prediction.model.verified == "unverified"


class BreakingServer(ForeignServer):
    """Answers that it is there, and says nothing to a request, or ends over it."""

    def __init__(self, *, ends: bool) -> None:
        super().__init__()
        self._ends = ends
        self.over = threading.Event()

    def ModelInfer(self, request, context):
        if self._ends:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        self.over.wait(20)
        return super().ModelInfer(request, context)


@pytest.mark.parametrize("ends", [True, False])
def test_a_service_that_breaks_over_a_request_is_told_from_one_that_is_away(
    service: RunningService, *, ends: bool
) -> None:
    server = BreakingServer(ends=ends)
    with foreign(server, deadline_s=0.5) as client:
        with pytest.raises(InferenceBroken):
            client.infer(bundle_of(service, "bright_regions"), bright_volume())
        server.over.set()


def test_only_voxels_spacing_rescale_and_a_random_id_cross_the_wire(service: RunningService) -> None:
    server = ForeignServer()
    with foreign(server) as client:
        for _ in range(2):
            client.infer(bundle_of(service, "bright_regions"), bright_volume())
    first, second = server.requests
    assert [item.name for item in first.inputs] == ["image", "slope", "intercept", "spacing"]
    assert not first.parameters
    assert first.id != second.id
    assert b"2.25." not in first.SerializeToString()


def _wrong_shape(answer: messages.ModelInferResponse) -> None:
    del answer.outputs[0].shape[:]
    answer.outputs[0].shape.extend((4, 1024, 1))


def _wrong_count(answer: messages.ModelInferResponse) -> None:
    answer.raw_output_contents[0] = b"123"


WRONG_ANSWERS = {
    "other grid": (_wrong_shape, r"expected UINT8 \[4, 32, 32\], got UINT8 \[4, 1024, 1\]"),
    "other datatype": (lambda a: setattr(a.outputs[0], "datatype", "FP32"), "expected UINT8.*got FP32"),
    "other output": (lambda a: setattr(a.outputs[0], "name", "heat"), r"expected the outputs \['probability'\]"),
    "byte count": (_wrong_count, "expected 4096 bytes.*got 3 bytes"),
    "no contents": (lambda a: a.raw_output_contents.pop(), "with 0 raw contents"),
    "other model": (lambda a: setattr(a, "model_name", "other"), "answered by other/1"),
    "other version": (lambda a: setattr(a, "model_version", "2"), "answered by bright_regions/2"),
}


@pytest.mark.parametrize("name", sorted(WRONG_ANSWERS))
def test_a_wrong_answer_is_final(name: str, service: RunningService) -> None:
    change, sentence = WRONG_ANSWERS[name]
    with foreign(ForeignServer(change)) as client, pytest.raises(InferenceRejected, match=sentence):
        client.infer(bundle_of(service, "bright_regions"), bright_volume())
