"""The services that serve the same models: asked in turn, left out while they do not answer."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from node.errors import InferenceRejected, InferenceUnavailable
from node.inference_client.channel import open_channel
from node.inference_client.region_stub import region_stub
from node.inference_client.statuses import error_of
from node.settings import InferenceSettings
from protos import open_inference_pb2 as messages
from protos.open_inference_pb2_grpc import GRPCInferenceServiceStub

_log = structlog.get_logger(__name__)
HEALTH_TIMEOUT_S = 5.0
_LEFT_OUT_FIRST_S, _LEFT_OUT_MOST_S = 0.5, 30.0


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """What the service says of itself."""

    endpoint: str
    status: Literal["serving", "not_serving", "unreachable"]
    detail: str
    """Name and version of the server, or why it does not answer."""

    @property
    def is_serving(self) -> bool:
        """Tell whether requests are answered."""
        return self.status == "serving"


class Endpoint:
    """One channel to one service, and since when it has not answered; safe to share between threads."""

    def __init__(self, address: str, settings: InferenceSettings) -> None:
        """Open the channel; SettingsError where a file of `inference.tls` cannot be read."""
        self.address = address
        self._channel = open_channel(address, settings)
        self.stub = GRPCInferenceServiceStub(self._channel)
        self.regions = region_stub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)
        self._closed = threading.Event()
        self._backoff_s = 0.0
        self._again_at = 0.0

    @property
    def is_left_out(self) -> bool:
        """Tell whether it failed and its back-off has not passed."""
        return time.monotonic() < self._again_at

    def leave_out(self, reason: str) -> None:
        """Leave it out for a while, longer after each failure in a row."""
        self._backoff_s = min(max(2 * self._backoff_s, _LEFT_OUT_FIRST_S), _LEFT_OUT_MOST_S)
        self._again_at = time.monotonic() + self._backoff_s
        _log.warning("endpoint_left", endpoint=self.address, reason=reason, seconds=self._backoff_s)

    def take_back(self) -> None:
        """Forget earlier failures: it answered."""
        if self._backoff_s:
            self._backoff_s = self._again_at = 0.0
            _log.info("endpoint_returned", endpoint=self.address)

    def call(self, method: Callable[..., Any], request: object, *, timeout_s: float, at_work: bool = False) -> Any:
        """Call and give the answer; raise the node's error for a status."""
        try:
            return self._answer(method, request, timeout_s=timeout_s)
        except grpc.RpcError as error:
            raise error_of(error, self.address, at_work=at_work) from error

    def is_serving(self) -> bool:
        """Ask grpc.health.v1, or ServerReady where there is no health service; InferenceError where none answers."""
        try:
            answer = self._answer(self._health.Check, health_pb2.HealthCheckRequest(), timeout_s=HEALTH_TIMEOUT_S)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise error_of(error, self.address) from error
            request = messages.ServerReadyRequest()
            return bool(self.call(self.stub.ServerReady, request, timeout_s=HEALTH_TIMEOUT_S).ready)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def health(self) -> ServiceHealth:
        """Ask for health and name; never raises."""
        try:
            serving = self.is_serving()
            stated = self.call(self.stub.ServerMetadata, messages.ServerMetadataRequest(), timeout_s=HEALTH_TIMEOUT_S)
        except (InferenceUnavailable, InferenceRejected) as error:
            return ServiceHealth(self.address, "unreachable", str(error))
        status: Literal["serving", "not_serving"] = "serving" if serving else "not_serving"
        return ServiceHealth(self.address, status, f"{stated.name} {stated.version}")

    def close(self) -> None:
        """Close the channel; calls that run or come later count as unavailable."""
        self._closed.set()
        self._channel.close()

    def _answer(self, method: Callable[..., Any], request: object, *, timeout_s: float) -> Any:
        try:
            return method(request, timeout=timeout_s)
        except ValueError as error:
            # What gRPC raises on a closed channel is no RpcError.
            if not self._closed.is_set():
                raise
            raise InferenceUnavailable(f"the node closed its line to {self.address}") from error


class Rotation:
    """Gives every request the endpoints in an order that begins one further each time."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        """Begin with the first."""
        self._endpoints = tuple(endpoints)
        self._next = 0
        self._lock = threading.Lock()

    def candidates(self, beginning: Endpoint | None = None) -> Iterator[Endpoint]:
        """Yield all endpoints once, those that are left out last; a stated `beginning` does not move the order on."""
        with self._lock:
            if beginning is not None:
                first = self._endpoints.index(beginning)
            else:
                first, self._next = self._next, (self._next + 1) % len(self._endpoints)
        turned = (*self._endpoints[first:], *self._endpoints[:first])
        yield from sorted(turned, key=lambda endpoint: endpoint.is_left_out)
