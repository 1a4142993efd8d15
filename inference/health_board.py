"""Health of the service and of each model by its name, on threads that no prediction can take."""

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from inference.interception import Behaviour, Handler, WrappingInterceptor, rewrapped
from inference.ports import Models
from inference.repository_shelf import EVICTED

_THREADS = 4
_FOLLOW_S = 0.5
_LANE = (
    "/grpc.health.v1.Health/",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class HealthBoard:
    """States `grpc.health.v1` for "", the service, and each model of the repository."""

    def __init__(self, models: Models, service: str) -> None:
        """State nothing as serving yet."""
        self._models = models
        self._servicer = health.HealthServicer()
        self._overall = ("", service)
        self._names: set[str] = set()
        self._stated: dict[str, Any] = {}
        self._ended = threading.Event()
        for name in self._overall:
            self._state(name, NOT_SERVING)

    def add_to(self, server: grpc.Server) -> None:
        """Offer health at a server."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def open(self) -> None:
        """State the service as serving, and follow the models from now on until `close`."""
        for name in self._overall:
            self._state(name, SERVING)
        self.follow()
        threading.Thread(target=self._keep_following, name="health-follow", daemon=True).start()

    def close(self) -> None:
        """State everything as not serving, for good."""
        self._ended.set()
        self._stated = dict.fromkeys(self._stated, NOT_SERVING)
        self._servicer.enter_graceful_shutdown()

    def follow(self) -> None:
        """State each model as serving where one of its versions answers."""
        index = self._models.index()
        states = {state.name: False for state in index}
        for state in index:
            states[state.name] |= state.state == "READY" or state.reason == EVICTED
        for name in self._names - set(states):
            self._state(name, UNKNOWN)
        for name, answers in states.items():
            self._state(name, SERVING if answers else NOT_SERVING)
        self._names = set(states)

    def statuses(self) -> Mapping[str, Any]:
        """Give what is stated of each name, in the numbers of HealthCheckResponse."""
        return dict(self._stated)

    def _state(self, name: str, status: Any) -> None:
        if not self._ended.is_set():
            self._stated[name] = status
        self._servicer.set(name, status)

    def _keep_following(self) -> None:
        while not self._ended.wait(_FOLLOW_S):
            self.follow()


@dataclass(eq=False)
class _InLane:
    """A behaviour that gRPC runs on the threads of `experimental_thread_pool`."""

    behaviour: Behaviour
    experimental_thread_pool: ThreadPoolExecutor

    def __call__(self, request: Any, context: grpc.ServicerContext, *send: Any) -> Any:
        return self.behaviour(request, context, *send)


class HealthLane(WrappingInterceptor):
    """Runs health, ServerLive and ServerReady on threads of their own; must be the first interceptor."""

    def __init__(self) -> None:
        super().__init__()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="health")

    def wrapped(self, handler: Handler, method: str) -> Handler:
        """Move the handler where it is one of the lane's."""
        if not method.startswith(_LANE):
            return handler
        return rewrapped(handler, lambda behaviour: _InLane(behaviour, self._pool))
