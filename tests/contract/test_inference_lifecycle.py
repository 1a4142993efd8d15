"""The service's start and end, the bundles that it refuses, and the child that the node keeps alive."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from node.errors import InferenceRejected, InferenceUnavailable, SettingsError
from node.inference_client.service import ServiceProcess
from node.settings import InferenceSettings
from protos import open_inference_pb2 as messages
from protos.model_manifest import ModelBundle, open_bundle
from protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.bundles import ROOT, threshold_bundle
from tests.inference_requests import right_request
from tests.inference_service import (
    RunningService,
    bright_volume,
    client_of,
    end_process,
    is_running,
    kill,
    running_service,
    start_service,
    volume_of,
)
from tests.odd_bundles import odd_bundles
from tests.waiting import wait_until

FILES = ("saved_model.pb", "model.toml", "golden.npz", "bundle.sha256")


def flip_one_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service of one good version among bundles that must be refused; messages of at most 4 MiB."""
    models = tmp_path_factory.mktemp("mixed")
    shutil.copytree(odd_bundles() / "bad", models, dirs_exist_ok=True)
    for number, file in enumerate(FILES):
        flip_one_byte(threshold_bundle(models, name=f"flipped_{number}").directory / file)
    threshold_bundle(models)
    threshold_bundle(models, version="2")
    flip_one_byte(threshold_bundle(models, version="10").directory / "saved_model.pb")
    with running_service(models, "--max-message-mb", "4") as running:
        yield running


@pytest.fixture
def stub(mixed: RunningService) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(mixed.tcp) as channel:
        yield GRPCInferenceServiceStub(channel)


def refusal_of(stub: GRPCInferenceServiceStub, name: str, version: str = "") -> grpc.RpcError:
    request = right_request()
    request.model_name, request.model_version = name, version
    with pytest.raises(grpc.RpcError) as refusal:
        stub.ModelInfer(request)
    return refusal.value


@pytest.mark.parametrize("number", range(len(FILES)), ids=FILES)
def test_one_byte_flipped_in_any_file_of_a_bundle_is_refused(stub: GRPCInferenceServiceStub, number: int) -> None:
    error = refusal_of(stub, f"flipped_{number}")
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "bundle.sha256" in error.details()
    assert not stub.ModelReady(messages.ModelReadyRequest(name=f"flipped_{number}")).ready


@pytest.mark.parametrize(
    ("name", "place"), [("reads_file", "the graph holds"), ("reads_file_in_loop", "function '")], ids=["graph", "loop"]
)
def test_a_forbidden_op_is_refused_by_name_wherever_it_hides(
    stub: GRPCInferenceServiceStub, name: str, place: str
) -> None:
    error = refusal_of(stub, name)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "'ReadFile'" in error.details()
    assert place in error.details()


def test_the_highest_version_that_loaded_answers_where_none_is_asked(stub: GRPCInferenceServiceStub) -> None:
    request = right_request(model_version="")
    request.model_version = ""
    assert stub.ModelInfer(request).model_version == "2"
    assert refusal_of(stub, "bright_regions", "10").code() is grpc.StatusCode.FAILED_PRECONDITION
    described = stub.ModelMetadata(messages.ModelMetadataRequest(name="bright_regions"))
    assert list(described.versions) == ["1", "2", "10"]


def test_refused_bundles_are_named_and_the_server_is_not_ready(
    stub: GRPCInferenceServiceStub, mixed: RunningService
) -> None:
    assert mixed.ready["models"] == ["bright_regions/1", "bright_regions/2"]
    assert sorted(mixed.ready["refused"]) == sorted(
        ["bright_regions/10", "reads_file/1", "reads_file_in_loop/1", *(f"flipped_{n}/1" for n in range(len(FILES)))]
    )
    assert not stub.ServerReady(messages.ServerReadyRequest()).ready


def test_a_message_over_the_services_limit_is_final_for_the_node(mixed: RunningService) -> None:
    bundle = open_bundle(mixed.models / "bright_regions" / "1")
    with client_of(mixed.tcp, regions="off") as client:
        with pytest.raises(InferenceRejected, match=r"Remedy: raise inference\.max_message_mb"):
            client.infer(bundle, volume_of(np.zeros((10, 512, 512), np.int16)))
        assert client.infer(bundle, bright_volume()).outputs


def service_process(directory: Path) -> tuple[ServiceProcess, ModelBundle]:
    bundle = threshold_bundle(directory / "models")
    settings = InferenceSettings(endpoint="127.0.0.1:0")
    return ServiceProcess(settings, directory / "models", directory / "run"), bundle


def test_a_killed_service_comes_back_and_the_same_client_goes_on(tmp_path: Path) -> None:
    process, bundle = service_process(tmp_path)
    try:
        endpoint = process.start()
        with client_of(endpoint) as client:
            before = client.infer(bundle, bright_volume()).outputs["probability"]
            first = process.pid
            assert first is not None
            kill(first)
            wait_until(lambda: not is_running(first), what="the end of the service")
            with pytest.raises(InferenceUnavailable):
                client.infer(bundle, bright_volume())
            client.wait_ready("bright_regions", "1", 120)
            after = client.infer(bundle, bright_volume()).outputs["probability"]
        np.testing.assert_array_equal(after, before)
        assert process.restarts == 1
        assert process.endpoint == endpoint
        second = process.pid
    finally:
        process.stop()
    assert second is not None
    assert not is_running(second)
    assert process.pid is None


def test_the_service_ends_with_the_node_that_was_killed(tmp_path: Path) -> None:
    threshold_bundle(tmp_path / "models")
    program = (
        "import sys, threading, pathlib\n"
        "from node.inference_client.service import ServiceProcess\n"
        "from node.settings import InferenceSettings\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "service = ServiceProcess(InferenceSettings(endpoint='127.0.0.1:0'), folder / 'models', folder / 'run')\n"
        "service.start()\n"
        "print(service.pid, flush=True)\n"
        "threading.Event().wait()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
    finally:
        parent.kill()
        parent.communicate()
    wait_until(lambda: not is_running(pid), timeout_s=15, what="the end of the service")


def test_a_running_request_is_answered_before_a_graceful_end(tmp_path: Path) -> None:
    shutil.copytree(odd_bundles() / "good" / "slow", tmp_path / "slow")
    bundle = open_bundle(tmp_path / "slow" / "1")
    with running_service(tmp_path) as running, client_of(running.tcp) as client, ThreadPoolExecutor(1) as pool:
        pending = pool.submit(client.infer, bundle, volume_of(np.full((2, 8, 8), 1000, np.int16)))
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(15) == 0
        try:
            assert pending.result().outputs["probability"].all()
        except InferenceUnavailable:
            # The signal may win against the request; then it is refused transiently, never answered wrongly.
            assert pending.done()
    assert not running.ready_file.exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--models", "/nowhere"), "no such folder"),
        (("--listen", "localhost"), "must be host:port"),
        (("--listen", "unix:relative"), "the path must be absolute"),
        (("--max-message-mb", "4096"), "must be 4 to 2047"),
    ],
)
def test_a_wrong_command_line_ends_with_a_sentence_and_status_2(
    options: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    process = start_service("--models", str(tmp_path), *options, stderr=subprocess.PIPE)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert sentence in errors.decode()


def test_an_address_in_use_is_told_to_the_node(mixed: RunningService, tmp_path: Path) -> None:
    settings = InferenceSettings(endpoint=mixed.tcp)
    with pytest.raises(SettingsError, match="status 2"):
        ServiceProcess(settings, mixed.models, tmp_path).start()


def test_no_model_that_loads_ends_the_service(tmp_path: Path) -> None:
    shutil.copytree(odd_bundles() / "bad", tmp_path / "models")
    process = start_service("--models", str(tmp_path / "models"), "--listen", "127.0.0.1:0")
    try:
        assert process.wait(120) == 1
    finally:
        end_process(process)
