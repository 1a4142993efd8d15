"""`hilum inference-scale` beside the single service: the same answers and refusals, from several processes."""

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from protos import open_inference_pb2 as messages
from protos import tensor_regions_pb2 as regions
from protos.model_manifest import open_bundle
from protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from protos.tensor_regions_pb2_grpc import TensorRegionsStub
from tests.bundles import THRESHOLD_NAME, threshold_bundle
from tests.certificates import self_signed
from tests.inference_requests import WRONG, changed, right_request
from tests.inference_service import RunningService, bright_volume, client_of, is_running, kill, running_service
from tests.interop.triton import IS_SET_UP, ask_referee
from tests.part_bundles import part_bundles
from tests.ray_application import (
    IS_INSTALLED,
    RunningApplication,
    below,
    listening,
    replicas_below,
    running_application,
    running_cluster,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(not IS_INSTALLED, reason="ray is not installed: pip install 'hilum[scale]'")

PATIENCE_S = 120.0
TURNS = 400
"""Turns of the narrow model's loop that take about a second, on a busy machine several."""
LONG = 600_000
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
SCALING = """
[narrow]
max_replicas = 2
up_delay_s = 1
down_delay_s = 1
queue = 2
num_gpus = 0.5
"""
# What a client of Triton sees; the rest of its cases asks for shared memory.
REFEREE: dict[str, Any] = {
    "live_and_ready": [True, False, True, True],
    "repository_index": [[THRESHOLD_NAME, "1", "READY"]],
    "statistics_count": [1, 1, 0, 1],
    "infer_raw": {"right": True, "id": "seven", "model": THRESHOLD_NAME, "version": "1"},
    "infer_typed": True,
    "compressed": True,
    "priority_and_timeout": True,
    "unknown_parameter": True,
    "stream_with_an_error": ["refused", "right", "right"],
    "statistics_of_an_unknown_model": "NOT_FOUND",
    "sequence": "INVALID_ARGUMENT",
    "classification": "INVALID_ARGUMENT",
    "not_finite": "INVALID_ARGUMENT",
    "unknown_model": "NOT_FOUND",
    "unknown_version": "NOT_FOUND",
    "wrong_rank": "INVALID_ARGUMENT",
    "wrong_fixed_size": "INVALID_ARGUMENT",
    "wrong_datatype": "INVALID_ARGUMENT",
    "missing_input": "INVALID_ARGUMENT",
    "unknown_output": "INVALID_ARGUMENT",
    "shared_memory": "UNIMPLEMENTED",
    "shared_memory_nobody_registered": "UNIMPLEMENTED",
    "shared_memory_status_of_an_unknown_name": "UNIMPLEMENTED",
    "cuda_shared_memory_status": "UNIMPLEMENTED",
    "trace_setting": "UNIMPLEMENTED",
    "log_settings": "UNIMPLEMENTED",
    "load_a_model": "UNIMPLEMENTED",
    "load_a_model_by_the_wire": "UNIMPLEMENTED",
}
NOT_OFFERED = (
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus",
    "TraceSetting",
    "LogSettings",
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter, a classifier in tiles, a slow model, and one with a byte flipped."""
    folder = tmp_path_factory.mktemp("models")
    threshold_bundle(folder)
    for name in ("classifier", "narrow"):
        shutil.copytree(part_bundles() / "good" / name, folder / name)
    broken = threshold_bundle(folder, name="broken").directory / "saved_model.pb"
    content = bytearray(broken.read_bytes())
    content[len(content) // 2] ^= 1
    broken.write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def single(models: Path) -> Iterator[RunningService]:
    with running_service(models) as running:
        yield running


@pytest.fixture(scope="module")
def application(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApplication]:
    scaling = tmp_path_factory.mktemp("scaling") / "scaling.toml"
    scaling.write_text(SCALING, encoding="utf-8")
    options = ("--scaling", str(scaling), "--num-cpus", "0.2", "--gpus", "1", "--poll-s", "0.5", "--grace-s", "30")
    with running_application(models, *options, "--max-message-mb", "8") as running:
        yield running


@pytest.fixture
def stub(application: RunningApplication) -> Iterator[GRPCInferenceServiceStub]:
    with asked(application.tcp) as stub:
        yield stub


@contextmanager
def asked(address: str, credentials: grpc.ChannelCredentials | None = None) -> Iterator[GRPCInferenceServiceStub]:
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", "service"))
    with (
        grpc.insecure_channel(address, options[:1])
        if credentials is None
        else grpc.secure_channel(address, credentials, options)
    ) as channel:
        yield GRPCInferenceServiceStub(channel)


def picture_request(picture: NDArray[np.uint8], request_id: str = "") -> messages.ModelInferRequest:
    request = messages.ModelInferRequest(model_name="classifier", id=request_id, raw_input_contents=[picture.tobytes()])
    request.inputs.add(name="image", datatype="UINT8", shape=picture.shape)
    return request


def narrow(turns: int) -> messages.ModelInferRequest:
    """A request that computes for about `turns` milliseconds."""
    values = np.full((1, 256, 256), turns, np.float32)
    request = messages.ModelInferRequest(model_name="narrow", raw_input_contents=[values.tobytes()])
    request.inputs.add(name="image", datatype="FP32", shape=values.shape)
    return request


def refusal(ask: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as refused:
        ask()
    return refused.value.code().name, refused.value.details()


def test_a_segmentation_is_that_of_the_single_service(
    application: RunningApplication, single: RunningService, models: Path
) -> None:
    bundle = open_bundle(models / THRESHOLD_NAME / "1")
    with client_of(single.tcp) as near:
        expected = near.infer(bundle, bright_volume())
    for address in (application.tcp, application.unix):
        with client_of(address) as client:
            assert client.health().status == "serving"
            found = client.infer(bundle, bright_volume())
        np.testing.assert_array_equal(found.outputs["probability"], expected.outputs["probability"])
        assert found.model.verified == "digest"
    assert expected.outputs["probability"].max() == 255


def test_a_classification_is_that_of_the_single_service(stub: GRPCInferenceServiceStub, single: RunningService) -> None:
    request = picture_request(np.random.default_rng(1).integers(1, 255, (20, 30, 3), np.uint8), "seven")
    with asked(single.tcp) as beside:
        assert stub.ModelInfer(request) == beside.ModelInfer(request)


@pytest.mark.parametrize("name", sorted(set(WRONG) - {"region of another client, or of none"}))
def test_a_refusal_is_that_of_the_single_service(
    stub: GRPCInferenceServiceStub, single: RunningService, name: str
) -> None:
    request = changed(WRONG[name][0])
    with asked(single.tcp) as beside:
        assert refusal(lambda: stub.ModelInfer(request)) == refusal(lambda: beside.ModelInfer(request))


def test_what_is_said_of_models_is_what_the_single_service_says(
    stub: GRPCInferenceServiceStub, single: RunningService
) -> None:
    with asked(single.tcp) as beside:
        for name in (THRESHOLD_NAME, "classifier"):
            for rpc, asking in (
                ("ModelMetadata", messages.ModelMetadataRequest(name=name)),
                ("ModelConfig", messages.ModelConfigRequest(name=name)),
                ("ModelReady", messages.ModelReadyRequest(name=name)),
            ):
                assert getattr(stub, rpc)(asking) == getattr(beside, rpc)(asking)
        everything = messages.RepositoryIndexRequest()
        assert stub.RepositoryIndex(everything) == beside.RepositoryIndex(everything)
        for rpc, asking in (
            ("ModelConfig", messages.ModelConfigRequest(name="broken")),
            ("ModelMetadata", messages.ModelMetadataRequest(name="nobody")),
            ("ModelStatistics", messages.ModelStatisticsRequest(name="nobody")),
        ):
            assert refusal(partial(getattr(stub, rpc), asking)) == refusal(partial(getattr(beside, rpc), asking))
        ready = messages.ServerReadyRequest()
        assert stub.ServerReady(ready) == beside.ServerReady(ready)
    assert stub.ServerLive(messages.ServerLiveRequest()).live
    assert "hilum_tensor_regions" not in stub.ServerMetadata(messages.ServerMetadataRequest()).extensions


def test_a_broken_bundle_is_refused_with_its_reason(
    application: RunningApplication, stub: GRPCInferenceServiceStub
) -> None:
    code, sentence = refusal(lambda: stub.ModelInfer(right_request(model_name="broken")))
    assert code == "FAILED_PRECONDITION"
    assert "content is not what bundle.sha256 lists" in sentence
    assert application.ready["models"] == ["bright_regions/1", "classifier/1", "narrow/1"]
    assert "bundle.sha256" in application.ready["refused"]["broken/1"]
    assert application.replicas("broken") == []


def test_health_is_stated_of_the_service_and_of_each_model(application: RunningApplication) -> None:
    with grpc.insecure_channel(application.tcp) as channel:
        stub, request = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest
        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", "inference.GRPCInferenceService", THRESHOLD_NAME):
            assert stub.Check(request(service=name)).status == serving
        assert stub.Check(request(service="broken")).status == not_serving
        assert refusal(lambda: stub.Check(request(service="nobody")))[0] == "NOT_FOUND"
        assert stub.List(health_pb2.HealthListRequest()).statuses["narrow"].status == serving
        watch = stub.Watch(request(service=THRESHOLD_NAME))
        assert next(watch).status == serving
        watch.cancel()


def test_a_message_may_be_as_large_as_was_said(
    application: RunningApplication, single: RunningService, models: Path
) -> None:
    bundle = open_bundle(models / THRESHOLD_NAME / "1")
    with client_of(application.tcp) as client, client_of(single.tcp) as near:
        large = bright_volume(slices=12, size=512)  # 6 MB; the object store between the processes holds 100
        found, expected = client.infer(bundle, large), near.infer(bundle, large)
        np.testing.assert_array_equal(found.outputs["probability"], expected.outputs["probability"])
    with asked(application.tcp) as stub:
        too_large = right_request(raw_input_contents=[bytes(9 << 20)])
        assert refusal(lambda: stub.ModelInfer(too_large))[0] == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("rpc", NOT_OFFERED)
def test_what_is_not_offered_says_its_name(stub: GRPCInferenceServiceStub, rpc: str) -> None:
    code, sentence = refusal(lambda: getattr(stub, rpc)(getattr(messages, f"{rpc}Request")()))
    assert (code, sentence) == ("UNIMPLEMENTED", f"{rpc} is not offered by this server")


def test_regions_are_not_offered(application: RunningApplication, stub: GRPCInferenceServiceStub) -> None:
    with grpc.insecure_channel(application.tcp) as channel:
        tensors = TensorRegionsStub(channel)
        for name, ask in (
            ("Lease", lambda: list(tensors.Lease(iter([regions.LeaseRequest()])))),
            ("Upload", lambda: tensors.Upload(iter([regions.UploadRequest()]))),
            ("Download", lambda: list(tensors.Download(regions.DownloadRequest()))),
        ):
            assert refusal(ask) == ("UNIMPLEMENTED", f"{name} is not offered by this server")
    elsewhere = changed(WRONG["region of another client, or of none"][0])
    code, sentence = refusal(lambda: stub.ModelInfer(elsewhere))
    assert code == "UNIMPLEMENTED"
    assert "send the tensor in the message" in sentence


def test_a_stream_goes_on_after_a_refusal(stub: GRPCInferenceServiceStub) -> None:
    right, wrong, unknown = right_request(id="a"), right_request(id="b"), right_request(id="c")
    wrong.model_version, unknown.model_name = "7", "nobody"
    answers = list(stub.ModelStreamInfer(iter([right, wrong, unknown, right])))
    assert [answer.infer_response.id for answer in answers] == ["a", "b", "c", "a"]
    assert [bool(answer.error_message) for answer in answers] == [False, True, True, False]
    assert "expected a version of ['1'], got '7'" in answers[1].error_message
    assert answers[3].infer_response.raw_output_contents == answers[0].infer_response.raw_output_contents


@pytest.mark.skipif(not IS_SET_UP, reason="no .venv-referee: run scripts/referee-setup")
def test_tritons_client_sees_the_protocol(application: RunningApplication) -> None:
    seen = ask_referee("observe", application.tcp)
    judged = {
        name: answer["status"] if isinstance(answer, dict) and "status" in answer else answer
        for name, answer in seen.items()
    }
    assert {name: judged[name] for name in REFEREE} == REFEREE
    assert seen["model_config"]["manifest"].startswith("schema_version")
    assert seen["server_metadata"]["name"] == "hilum"


def test_nothing_listens_beyond_this_host(application: RunningApplication) -> None:
    addresses = listening([application.process.pid, *below(application.process.pid)])
    assert addresses
    assert addresses <= LOOPBACK


def test_requests_of_a_replica_share_runs(application: RunningApplication, stub: GRPCInferenceServiceStub) -> None:
    assert len(application.replicas("classifier")) == 1
    ask_for_shades(stub, 100)
    (figures,) = stub.ModelStatistics(messages.ModelStatisticsRequest(name="classifier")).model_stats
    assert max(batch.batch_size for batch in figures.batch_stats) > 1
    assert figures.inference_stats.success.count >= figures.execution_count


def ask_for_shades(stub: GRPCInferenceServiceStub, count: int) -> None:
    """Ask the classifier for pictures of one shade each, 16 at once; every answer must be of its own picture."""
    shades = [np.full((8, 8, 3), 1 + number % 250, np.uint8) for number in range(count)]
    with ThreadPoolExecutor(16) as pool:
        asking = (picture_request(shade, str(number)) for number, shade in enumerate(shades))
        answers = list(pool.map(lambda request: stub.ModelInfer(request, timeout=PATIENCE_S), asking))
    for number, (answer, shade) in enumerate(zip(answers, shades, strict=True)):
        scores = np.frombuffer(answer.raw_output_contents[0], np.float32)
        assert answer.id == str(number)
        np.testing.assert_allclose(scores[:3], shade[0, 0] / 255, rtol=1e-5)


def test_a_request_that_is_given_up_stops(stub: GRPCInferenceServiceStub) -> None:
    before = failures_of(stub, "narrow")
    slow = [stub.ModelInfer.future(narrow(LONG), timeout=2.0) for _ in range(4)]  # two in the replica, two that wait
    assert {answer.code().name for answer in slow} == {"DEADLINE_EXCEEDED"}
    wait_until(
        lambda: failures_of(stub, "narrow") >= before + 2,
        timeout_s=PATIENCE_S,
        what="the end of the runs in the replica",
    )
    again = [stub.ModelInfer.future(narrow(1), timeout=PATIENCE_S) for _ in range(4)]
    assert all(answer.result().raw_output_contents for answer in again), "their places are free"


def test_replicas_follow_the_load_and_a_full_queue_is_refused_at_once(
    application: RunningApplication, stub: GRPCInferenceServiceStub
) -> None:
    def running() -> int:
        return int([of for of in application.events("replicas_changed") if of["deployment"] == "narrow"][-1]["running"])

    assert running() == 1
    refused, over = [], threading.Event()

    def client() -> None:
        while not over.is_set():
            try:
                stub.ModelInfer(narrow(TURNS), timeout=PATIENCE_S)
            except grpc.RpcError as error:
                refused.append((error.code().name, error.details()))
                over.wait(0.5)

    clients = [threading.Thread(target=client) for _ in range(6)]  # a replica takes two, and two more wait
    for thread in clients:
        thread.start()
    try:
        wait_until(lambda: running() == 2, timeout_s=PATIENCE_S, what="a second replica")
    finally:
        over.set()
        for thread in clients:
            thread.join()
    assert set(refused) == {("RESOURCE_EXHAUSTED", "the queue is full; try again later")}
    wait_until(lambda: running() == 1, timeout_s=PATIENCE_S, what="the end of a replica that nobody needs")


def test_a_killed_replica_is_started_again(application: RunningApplication, stub: GRPCInferenceServiceStub) -> None:
    (victim,) = application.replicas("classifier")
    kill(victim)
    wait_until(lambda: not is_running(victim), what="the end of the replica")
    codes = []

    def answers() -> bool:
        try:
            ask_for_shades(stub, 1)
        except grpc.RpcError as error:
            codes.append(error.code().name)
            return False
        return True

    wait_until(answers, timeout_s=PATIENCE_S, what="an answer of a new replica")
    assert set(codes) <= {"UNAVAILABLE"}, "a client may try all of these again"
    assert application.replicas("classifier") != [victim]


def test_a_killed_ingress_is_started_again_and_its_clients_may_ask_again(
    application: RunningApplication, stub: GRPCInferenceServiceStub
) -> None:
    (victim,) = application.replicas("Ingress")
    before = failures_of(stub, "narrow")
    asking = full_of(stub, LONG)
    kill(victim)
    codes = [answer.code().name for answer in asking]
    assert set(codes) == {"UNAVAILABLE", "RESOURCE_EXHAUSTED"}
    assert codes.count("UNAVAILABLE") >= 4
    ask_for_shades(stub, 1)
    assert application.replicas("Ingress") != [victim]
    wait_until(
        lambda: failures_of(stub, "narrow") >= before + 2, timeout_s=PATIENCE_S, what="the end of what nobody waits for"
    )


@pytest.mark.ends_its_service
def test_a_new_version_is_served_and_ctrl_c_answers_what_runs_and_leaves_no_process(
    application: RunningApplication, models: Path, tmp_path: Path
) -> None:
    threshold_bundle(tmp_path, version="2").directory.rename(models / THRESHOLD_NAME / "2")
    with asked(application.tcp) as stub:
        newest = messages.ModelReadyRequest(name=THRESHOLD_NAME, version="2")
        wait_until(lambda: is_ready(stub, newest), timeout_s=PATIENCE_S, what="version 2")
        asking = full_of(stub, 2 * TURNS)
        family = below(application.process.pid)
        os.killpg(application.process.pid, signal.SIGINT)
        codes = [answer.code().name for answer in asking]
        assert codes.count("OK") >= 4, "what was in the service is answered"
        assert set(codes) <= {"OK", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}
    assert application.process.wait(PATIENCE_S) == 0
    assert [pid for pid in family if is_running(pid)] == []
    assert not application.ready_file.exists()
    assert not Path(application.unix.removeprefix("unix:")).exists()
    assert len(application.events("service_stopped")) == 1
    assert application.events("processes_killed") == []


def test_replicas_on_a_running_cluster_share_its_gpu_and_answer_each_request_with_its_own_answer(
    tmp_path: Path,
) -> None:
    models = tmp_path / "models"
    shutil.copytree(part_bundles() / "good" / "classifier", models / "classifier")
    certificate, key = self_signed(tmp_path, "service")
    own, own_key = self_signed(tmp_path, "node")
    options = ("--num-gpus", "0.5", "--min-replicas", "2", "--num-cpus", "0.5", "--by-value")
    tls = ("--tls-cert", str(certificate), "--tls-key", str(key), "--client-ca", str(own))
    with running_cluster(gpus=1) as cluster:
        with running_application(
            models, "--address", cluster.address, *options, *tls, environment=cluster.opens
        ) as application:
            replicas = replicas_below(cluster.process.pid, "classifier")
            assert len(replicas) == 2
            shown = grpc.ssl_channel_credentials(certificate.read_bytes(), own_key.read_bytes(), own.read_bytes())
            with asked(application.tcp, shown) as stub:
                ask_for_shades(stub, 400)
            for credentials in (grpc.ssl_channel_credentials(certificate.read_bytes()), None):
                with asked(application.tcp, credentials) as stub:
                    assert refusal(partial(ask_for_shades, stub, 1))[0] == "UNAVAILABLE"
            wait_until(lambda: sum(map(cluster.answered_by, replicas)) == 400, timeout_s=PATIENCE_S, what="their logs")
            assert min(map(cluster.answered_by, replicas)) > 0
        assert application.process.returncode == 0
        assert replicas_below(cluster.process.pid, "classifier") == []
        assert cluster.process.poll() is None, "it goes on"


def failures_of(stub: GRPCInferenceServiceStub, model: str) -> int:
    (figures,) = stub.ModelStatistics(messages.ModelStatisticsRequest(name=model)).model_stats
    return int(figures.inference_stats.fail.count)


def full_of(stub: GRPCInferenceServiceStub, turns: int) -> list[Any]:
    """Ask more than two replicas and their queue have room for, until that shows; four or more are then inside."""
    asking = [stub.ModelInfer.future(narrow(turns), timeout=PATIENCE_S) for _ in range(8)]
    wait_until(lambda: sum(answer.done() for answer in asking) >= 2, timeout_s=PATIENCE_S, what="two refusals")
    assert {answer.code().name for answer in asking if answer.done()} == {"RESOURCE_EXHAUSTED"}
    return asking


def is_ready(stub: GRPCInferenceServiceStub, asking: messages.ModelReadyRequest) -> bool:
    try:
        return bool(stub.ModelReady(asking).ready)
    except grpc.RpcError:  # not known yet
        return False
