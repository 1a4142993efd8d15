"""Composition root of the service: server, health, models, ready file, end."""

import gc
import threading
import time

import grpc
import structlog
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection

from inference.access import AccessInterceptor, read_access_rules
from inference.admission import MB, Admission
from inference.after_answer import AnswerThreads
from inference.client_limits import ClientLimiter
from inference.drain import DrainGate
from inference.error_interceptor import ErrorInterceptor
from inference.health_board import HealthBoard, HealthLane
from inference.listening import listen
from inference.metrics import MetricsDoor, ServiceCollector, Sources
from inference.ready_file import write_ready_file
from inference.regions.leased import LeasedRegions
from inference.regions.registered import RegisteredRegions
from inference.regions.servicer import add_to, threads_of
from inference.regions.table import RegionTable
from inference.repository import MemoryFloor, ModelRepository
from inference.runners.whole import bound_threads
from inference.security import server_credentials
from inference.servicer import INFER_STREAMS_MOST, InferenceServicer
from inference.servicer_parts import Parts
from inference.settings import ServiceSettings
from inference.statistics import Statistics
from inference.waiting_line import SHARED_PLACES
from protos.open_inference_pb2 import DESCRIPTOR
from protos.open_inference_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from protos.region_wire import FRAME_MOST
from protos.tensor_regions_pb2 import DESCRIPTOR as REGIONS

_log = structlog.get_logger(__name__)
SERVICE_NAME = DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
SERVICES = (SERVICE_NAME, REGIONS.services_by_name["TensorRegions"].full_name, health.SERVICE_NAME)
_SPARE_THREADS = 6
"""For health, metadata and readiness while predictions run and wait."""
_SETTLE_S = 0.25
"""After the last answer: a client that asks again at once is told UNAVAILABLE, before its connection closes."""
_KEEPALIVE_ANSWER_MS = 20_000
_CLIENT_PING_LEAST_MS = 5_000
"""Clients that ping oftener than this are told to leave (GOAWAY too_many_pings)."""


class InferenceService:
    """One running service: listens, then loads and warms its models, then serves until stopped."""

    def __init__(self, settings: ServiceSettings) -> None:
        """Bind the addresses; raise ListenError or SettingsRefused where that cannot be."""
        self._settings = settings
        self._repository = ModelRepository(
            settings.models_directory,
            settings.models,
            policy=settings.versions,
            floor=MemoryFloor(settings.floor_mb * MB),
        )
        self._health = HealthBoard(self._repository, SERVICE_NAME)
        self._statistics = Statistics()
        self._gate = DrainGate(settings.concurrency + settings.queue + SHARED_PLACES)
        self._leased = LeasedRegions(settings.region_limits)
        self._stop = threading.Event()
        self._server = self._build_server()
        credentials = server_credentials(settings.tls)
        self._metrics = self._open_metrics()
        self.addresses = tuple(listen(self._server, address, credentials) for address in settings.listen)

    def run(self) -> int:
        """Serve until SIGTERM, SIGINT or the parent's end; return the exit status, 1 where no model could be loaded."""
        bound_threads(self._settings.threads)
        self._server.start()
        self._leased.start()
        gc.freeze()  # so that collecting a dropped model does not walk all of TensorFlow
        self._repository.load_all(until=self._stop.is_set)
        if not self._stop.is_set() and not self._repository.loaded():
            self.close(grace_s=0)
            return 1
        if not self._stop.is_set():
            self._announce()
            self._repository.watch(self._settings.poll_s)
        self._stop.wait()
        self.close(grace_s=self._settings.grace_s)
        return 0

    def stop(self) -> None:
        """Ask the service to end; running requests get their grace."""
        self._stop.set()

    def close(self, *, grace_s: float) -> None:
        """Refuse new requests, let running ones finish for `grace_s`, and leave."""
        self._repository.close()
        self._health.close()
        _log.info("drain_started", grace_s=grace_s)
        until = time.monotonic() + grace_s
        self._gate.close()
        self._gate.wait_idle(grace_s)  # addresses stay open: health says NOT_SERVING, requests get UNAVAILABLE
        threading.Event().wait(max(0.0, min(_SETTLE_S, until - time.monotonic())))
        rest_s = max(0.0, until - time.monotonic())
        ended = self._server.stop(rest_s)
        self._leased.close()  # an open lease would hold the grace to its end
        ended.wait(rest_s + 1)
        if self._metrics is not None:
            self._metrics.close()
        if self._settings.ready_file is not None:
            self._settings.ready_file.unlink(missing_ok=True)
        _log.info("service_stopped")

    def _build_server(self) -> grpc.Server:
        settings = self._settings
        limit = settings.max_message_mb * (1 << 20)
        threads = settings.concurrency + settings.queue + SHARED_PLACES + _SPARE_THREADS
        threads += INFER_STREAMS_MOST + threads_of(self._leased)
        server = grpc.server(
            AnswerThreads(max_workers=threads, thread_name_prefix="rpc"),
            interceptors=_interceptors(settings, self._gate),
            options=(
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", limit),
                ("grpc.http2.max_frame_size", FRAME_MOST),
                ("grpc.so_reuseport", 0),
                *_connection_options(settings),
            ),
        )
        admission = Admission(settings.concurrency, settings.queue, relieve=self._repository.relieve)
        registered = RegisteredRegions()
        parts = Parts(
            self._repository,
            admission,
            RegionTable(self._leased, registered),
            registered,
            self._statistics,
            model_control=settings.model_control,
            has_regions=True,
        )
        add_GRPCInferenceServiceServicer_to_server(InferenceServicer(parts), server)
        add_to(server, self._leased)
        self._health.add_to(server)
        if settings.reflection:
            reflection.enable_server_reflection([*SERVICES, reflection.SERVICE_NAME], server)
        return server

    def _open_metrics(self) -> MetricsDoor | None:
        if self._settings.metrics is None:
            return None
        sources = Sources(self._statistics, self._repository, self._leased.counts)
        return MetricsDoor(self._settings.metrics, ServiceCollector(sources))

    def _announce(self) -> None:
        self._health.open()
        identities = [model.bundle.manifest.identity for model in self._repository.loaded()]
        models = [f"{identity.name}/{identity.version}" for identity in identities]
        _log.info("service_started", addresses=list(self.addresses), models=models)
        if self._settings.ready_file is not None:
            line = {"addresses": list(self.addresses), "models": models, "refused": self._repository.refused()}
            if self._metrics is not None:
                line["metrics"] = self._metrics.address
            write_ready_file(self._settings.ready_file, line)


def _interceptors(settings: ServiceSettings, gate: DrainGate) -> list[grpc.ServerInterceptor]:
    methods = {
        f"/{service.full_name}/{method.name}"
        for file in (DESCRIPTOR, REGIONS, health_pb2.DESCRIPTOR)
        for service in file.services_by_name.values()
        for method in service.methods
    }
    gates: list[grpc.ServerInterceptor] = []
    if settings.access is not None:
        gates.append(AccessInterceptor(read_access_rules(settings.access, methods)))
    return [HealthLane(), ErrorInterceptor(), *gates, gate, ClientLimiter(settings.client_limits)]


def _connection_options(settings: ServiceSettings) -> list[tuple[str, int]]:
    options = [("grpc.max_concurrent_streams", settings.connection_requests)]
    if settings.keepalive_s > 0:
        every_ms = round(settings.keepalive_s * 1000)
        options += [
            ("grpc.keepalive_time_ms", every_ms),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_ANSWER_MS),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", _CLIENT_PING_LEAST_MS),
        ]
    return options
