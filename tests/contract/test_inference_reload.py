"""Versions come, break and go under a running service while clients ask without pause."""

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc

from protos import open_inference_pb2 as messages
from protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.bundles import threshold_bundle
from tests.inference_requests import right_request
from tests.inference_service import running_service
from tests.waiting import wait_until

NAME = "bright_regions"
CLIENTS = 4


def ask_on(address: str, stop: threading.Event, versions: list[str]) -> None:
    """Ask for the model's highest version until told to stop; any failure is raised."""
    request = right_request()
    request.model_version = ""
    with grpc.insecure_channel(address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        while not stop.is_set():
            version = stub.ModelInfer(request, timeout=60).model_version
            if not versions or versions[-1] != version:
                versions.append(version)


@contextmanager
def asking(address: str) -> Iterator[list[list[str]]]:
    """Let clients ask while the block runs; give the versions that answered each, without repetitions."""
    stop, seen = threading.Event(), [list[str]() for _ in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(ask_on, address, stop, versions) for versions in seen]
        try:
            yield seen
        finally:
            stop.set()
        for client in clients:
            client.result()


def publish(models: Path, version: str, *, broken: bool = False) -> None:
    made = threshold_bundle(models.parent / "staging", version=version).directory
    if broken:
        content = bytearray((made / "saved_model.pb").read_bytes())
        content[len(content) // 2] ^= 1
        (made / "saved_model.pb").write_bytes(content)
    made.rename(models / NAME / version)


def test_no_request_fails_while_versions_come_break_and_go(tmp_path: Path) -> None:
    models = tmp_path / "models"
    threshold_bundle(models)
    with running_service(models, "--poll-s", "0.2") as service, grpc.insecure_channel(service.tcp) as channel:
        stub = GRPCInferenceServiceStub(channel)

        def index() -> dict[str, tuple[str, str]]:
            found = stub.RepositoryIndex(messages.RepositoryIndexRequest()).models
            return {entry.version: (entry.state, entry.reason) for entry in found}

        with asking(service.tcp) as seen:
            wait_until(lambda: all(versions == ["1"] for versions in seen), what="answers of version 1")
            publish(models, "2")
            wait_until(lambda: all(versions == ["1", "2"] for versions in seen), what="answers of version 2")
            publish(models, "3", broken=True)
            wait_until(lambda: "3" in index(), what="the refusal of version 3")
            assert index()["3"][0] == "UNAVAILABLE"
            assert "content is not what bundle.sha256 lists" in index()["3"][1]
            assert stub.ServerReady(messages.ServerReadyRequest()).ready
            shutil.rmtree(models / NAME / "2")
            wait_until(lambda: all(versions[-1] == "1" for versions in seen), what="version 1 again")
        assert seen == [["1", "2", "1"]] * CLIENTS
        assert index()["1"] == ("READY", "")
        assert sorted(index()) == ["1", "3"]


def test_clients_load_and_unload_where_they_may(tmp_path: Path) -> None:
    models = tmp_path / "models"
    threshold_bundle(models)
    options = ("--poll-s", "0", "--model-control")
    with running_service(models, *options) as service, grpc.insecure_channel(service.tcp) as channel:
        stub = GRPCInferenceServiceStub(channel)
        stub.RepositoryModelUnload(messages.RepositoryModelUnloadRequest(model_name=NAME))
        assert not stub.ModelReady(messages.ModelReadyRequest(name=NAME)).ready
        publish(models, "2")
        stub.RepositoryModelLoad(messages.RepositoryModelLoadRequest(model_name=NAME))
        assert stub.ModelReady(messages.ModelReadyRequest(name=NAME, version="2")).ready
