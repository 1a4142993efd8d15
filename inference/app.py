"""Composition root of the service: server, health, models, ready file, end."""

import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from inference.admission import Admission
from inference.error_interceptor import ErrorInterceptor
from inference.errors import ListenError
from inference.repository import ModelRepository
from inference.runners.whole import bound_threads
from inference.servicer import InferenceServicer
from inference.settings import ServiceSettings
from protos.open_inference_pb2 import DESCRIPTOR
from protos.open_inference_pb2_grpc import add_GRPCInferenceServiceServicer_to_server

_log = structlog.get_logger(__name__)
SERVICE_NAME = DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_SPARE_THREADS = 6
"""For health, metadata and readiness while predictions run and wait."""
_PARENT_POLL_S = 0.25


class InferenceService:
    """One running service: listens, then loads and warms its models, then serves until stopped."""

    def __init__(self, settings: ServiceSettings) -> None:
        """Bind the addresses; raise ListenError or SettingsRefused where that cannot be."""
        self._settings = settings
        self._repository = ModelRepository(settings.models_directory, settings.models)
        self._health = health.HealthServicer()
        self._stop = threading.Event()
        self._server = self._build_server()
        self.addresses = tuple(_listen(self._server, address) for address in settings.listen)

    def run(self) -> int:
        """Serve until SIGTERM, SIGINT or the parent's end; return the exit status, 1 where no model could be loaded."""
        bound_threads(self._settings.threads)
        self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._server.start()
        self._repository.load_all(until=self._stop.is_set)
        if not self._stop.is_set() and not self._repository.loaded():
            self.close(grace_s=0)
            return 1
        if not self._stop.is_set():
            self._announce()
        self._stop.wait()
        self.close(grace_s=self._settings.grace_s)
        return 0

    def stop(self) -> None:
        """Ask the service to end; running requests get their grace."""
        self._stop.set()

    def close(self, *, grace_s: float) -> None:
        """Refuse new requests, let running ones finish for `grace_s`, and leave."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace_s).wait(grace_s + 1)
        if self._settings.ready_file is not None:
            self._settings.ready_file.unlink(missing_ok=True)
        _log.info("service_stopped")

    def _build_server(self) -> grpc.Server:
        settings = self._settings
        limit = settings.max_message_mb * (1 << 20)
        places = settings.concurrency + settings.queue
        server = grpc.server(
            ThreadPoolExecutor(max_workers=places + _SPARE_THREADS, thread_name_prefix="rpc"),
            interceptors=[ErrorInterceptor()],
            options=(
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", limit),
                ("grpc.so_reuseport", 0),
            ),
        )
        admission = Admission(settings.concurrency, settings.queue)
        add_GRPCInferenceServiceServicer_to_server(InferenceServicer(self._repository, admission), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        return server

    def _announce(self) -> None:
        self._set_health(health_pb2.HealthCheckResponse.SERVING)
        identities = [model.bundle.manifest.identity for model in self._repository.loaded()]
        models = [f"{identity.name}/{identity.version}" for identity in identities]
        _log.info("service_started", addresses=list(self.addresses), models=models)
        if self._settings.ready_file is not None:
            line = {"addresses": list(self.addresses), "models": models, "refused": self._repository.refused()}
            _write_atomically(self._settings.ready_file, json.dumps(line) + "\n")

    def _set_health(self, status: int) -> None:
        for name in ("", SERVICE_NAME):
            self._health.set(name, status)


def _listen(server: grpc.Server, address: str) -> str:
    """Bind one address and give it with its real port."""
    before = os.umask(0o077)  # a Unix socket is for this user alone
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise ListenError(f"--listen {address}: cannot be listened on. Remedy: is another service there?") from error
    finally:
        os.umask(before)
    return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"


def _write_atomically(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def stop_on_signals(service: InferenceService) -> None:
    """End the service on SIGTERM and SIGINT."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stop())


def stop_with_parent(service: InferenceService, parent_pid: int) -> None:
    """End the service when the process that started it is gone; a child is then handed to another parent."""
    pause = threading.Event()

    def watch() -> None:
        while os.getppid() == parent_pid:
            pause.wait(_PARENT_POLL_S)
        _log.warning("parent_ended", pid=parent_pid)
        service.stop()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
