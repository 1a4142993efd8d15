"""Client of an Open Inference Protocol server: ours, or a foreign one that serves the same models."""

import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from node.domain.prediction import ModelIdentity, Prediction
from node.domain.volume import Volume
from node.errors import InferenceRejected, InferenceUnavailable
from node.inference_client.answers import check_version, read_outputs, verified_by
from node.inference_client.regions import Region
from node.inference_client.requests import build_request
from node.inference_client.statuses import error_of
from node.settings import InferenceSettings
from protos import open_inference_pb2 as messages
from protos.model_manifest import ModelBundle
from protos.open_inference_pb2_grpc import GRPCInferenceServiceStub

_log = structlog.get_logger(__name__)
MIB = 1 << 20
HEALTH_TIMEOUT_S = 5.0
_READY_POLL_S = 0.1
_RECONNECT_FIRST_MS, _RECONNECT_MOST_MS = 200, 5000


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


class InferenceClient:
    """One channel to the service; safe to share between threads."""

    def __init__(self, settings: InferenceSettings) -> None:
        """Open the channel; nothing is sent before the first call."""
        self._settings = settings
        limit = settings.max_message_mb * MIB
        self._channel = grpc.insecure_channel(
            settings.endpoint,
            options=(
                ("grpc.max_send_message_length", limit),
                ("grpc.max_receive_message_length", limit),
                ("grpc.initial_reconnect_backoff_ms", _RECONNECT_FIRST_MS),
                ("grpc.min_reconnect_backoff_ms", _RECONNECT_FIRST_MS),
                ("grpc.max_reconnect_backoff_ms", _RECONNECT_MOST_MS),
                ("grpc.enable_http_proxy", 0),  # voxels never take a detour over a web proxy of the environment
            ),
        )
        self._stub = GRPCInferenceServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)
        self._closed = threading.Event()

    def infer(self, bundle: ModelBundle, volume: Volume, region: Region | None = None) -> Prediction:
        """Run the bundle's model on a volume that lies in the manifest's axes, within the deadline of the settings.

        With `region`, the voxels lie there already and only the reference is sent.

        Raises:
            InferenceUnavailable: the service is away or busy; another attempt may succeed.
            InferenceBroken: it was there, and ended or gave no answer in time over this request.
            InferenceRejected: request, model or answer are wrong; it stays wrong.
        """
        request_id = str(uuid.uuid4())
        request = build_request(bundle.manifest, volume, request_id, region)
        self._refuse_too_large(request)
        self._look_whether_it_is_there()
        started = time.monotonic()
        response: messages.ModelInferResponse = self._call(
            self._stub.ModelInfer, request, timeout_s=self._settings.deadline_s, at_work=True
        )
        seconds = time.monotonic() - started
        verified = verified_by(response, bundle)
        check_version(response, bundle)
        identity = bundle.manifest.identity
        _log.info("prediction_received", request_id=request_id, model=identity.name, seconds=round(seconds, 3))
        return Prediction(
            outputs=read_outputs(response, bundle, volume.voxels.shape),
            model=ModelIdentity(
                name=identity.name,
                version=identity.version,
                title=identity.title,
                manufacturer=identity.manufacturer,
                digest=bundle.digest,
                verified=verified,
            ),
            request_id=request_id,
            seconds=seconds,
        )

    def wait_ready(self, model_name: str, version: str, timeout_s: float) -> None:
        """Return when the model answers; InferenceUnavailable after `timeout_s`, InferenceRejected if it is unknown."""
        deadline = time.monotonic() + timeout_s
        pause = threading.Event()
        request = messages.ModelReadyRequest(name=model_name, version=version)
        reason = "not ready yet"
        while (remaining := deadline - time.monotonic()) > 0:
            try:
                if self._call(self._stub.ModelReady, request, timeout_s=min(remaining, HEALTH_TIMEOUT_S)).ready:
                    return
            except InferenceUnavailable as error:
                reason = str(error)
            pause.wait(_READY_POLL_S)
        raise InferenceUnavailable(f"model {model_name}/{version} was not ready within {timeout_s:g} s: {reason}")

    def health(self) -> ServiceHealth:
        """Ask grpc.health.v1, or ServerReady where a foreign server offers no health service; never raises."""
        endpoint = self._settings.endpoint
        try:
            serving = self._is_serving()
            stated = self._call(self._stub.ServerMetadata, messages.ServerMetadataRequest(), timeout_s=HEALTH_TIMEOUT_S)
        except (InferenceUnavailable, InferenceRejected) as error:
            return ServiceHealth(endpoint, "unreachable", str(error))
        return ServiceHealth(endpoint, "serving" if serving else "not_serving", f"{stated.name} {stated.version}")

    def close(self) -> None:
        """Close the channel; calls that run or come later count as unavailable."""
        self._closed.set()
        self._channel.close()

    def _is_serving(self) -> bool:
        try:
            answer = self._answer(self._health.Check, health_pb2.HealthCheckRequest(), timeout_s=HEALTH_TIMEOUT_S)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise error_of(error, self._settings.endpoint) from error
            request = messages.ServerReadyRequest()
            return bool(self._call(self._stub.ServerReady, request, timeout_s=HEALTH_TIMEOUT_S).ready)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def _look_whether_it_is_there(self) -> None:
        # A server that refuses the question is there too.
        with suppress(InferenceRejected):
            self._call(self._stub.ServerLive, messages.ServerLiveRequest(), timeout_s=HEALTH_TIMEOUT_S)

    def _call(self, method: Callable[..., Any], request: object, *, timeout_s: float, at_work: bool = False) -> Any:
        try:
            return self._answer(method, request, timeout_s=timeout_s)
        except grpc.RpcError as error:
            raise error_of(error, self._settings.endpoint, at_work=at_work) from error

    def _answer(self, method: Callable[..., Any], request: object, *, timeout_s: float) -> Any:
        try:
            return method(request, timeout=timeout_s)
        except ValueError as error:
            # What gRPC raises on a closed channel is no RpcError.
            if not self._closed.is_set():
                raise
            raise InferenceUnavailable(f"the node closed its line to {self._settings.endpoint}") from error

    def _refuse_too_large(self, request: messages.ModelInferRequest) -> None:
        size, limit = request.ByteSize(), self._settings.max_message_mb * MIB
        if size > limit:
            raise InferenceRejected(
                f"the request takes {size / MIB:.0f} MiB, inference.max_message_mb allows "
                f"{self._settings.max_message_mb}. Remedy: raise it on the node and the service."
            )
