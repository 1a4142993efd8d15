"""Where every RPC arrives: inference goes on to the model's replicas, the rest is answered by what they report."""
# ruff: noqa: N802 - names are the protocol's

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from ray import serve
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from inference.admission import Admission
from inference.client_limits import INFER_METHOD
from inference.drain import DrainGate
from inference.error_interceptor import answered_async
from inference.errors import Busy, RequestRefused, ServiceError
from inference.health_board import UNKNOWN, HealthBoard
from inference.log import configure_log
from inference.ports import ModelState
from inference.repository_folders import Key
from inference.scale.catalogue import Catalogue
from inference.scale.figures import GatheredStatistics
from inference.scale.remote_model import RemoteModel, Room
from inference.scale.replies import Asker, Encoded, Reply, Report
from inference.scale.rpc_answers import encoded, end_stream, refused, refused_for, served, told, unoffered
from inference.scale.unoffered import NoRegions
from inference.security import client_of
from inference.servicer import INFER_STREAMS_MOST, InferenceServicer, stream_refusal
from inference.servicer_parts import Parts
from protos.open_inference_pb2 import DESCRIPTOR, ModelInferRequest
from protos.tensor_regions_pb2 import DESCRIPTOR as REGIONS

if TYPE_CHECKING:
    from ray.serve.grpc_util import RayServegRPCContext
    from ray.serve.handle import DeploymentHandle

SERVICE_NAME = DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_WATCH_S = 0.5
_STREAM = "ModelStreamInfer"
_TOLD = (
    "ServerLive",
    "ServerReady",
    "ServerMetadata",
    "ModelReady",
    "ModelMetadata",
    "ModelConfig",
    "ModelStatistics",
    "RepositoryIndex",
)
"""RPCs that are answered here, by what the replicas reported."""


@dataclass(frozen=True, slots=True)
class IngressSettings:
    """What an ingress replica starts with."""

    expected: tuple[Key, ...]
    """Versions that have replicas."""
    refused: Mapping[Key, str]
    """Versions that have none, and why."""
    rooms: Mapping[str, Room]
    """Of each model that has replicas."""
    requests_most: int
    """Inference requests that are here at once."""
    log_level: str = "info"


@dataclass(frozen=True, slots=True)
class _Asked:
    """An inference request as far as it is read here."""

    name: str
    version: str
    request_id: str
    content: bytes


class Ingress:
    """The deployment that Ray's proxies call, by the name of the RPC."""

    def __init__(self, settings: IngressSettings, handles: "Mapping[str, DeploymentHandle[Any]]") -> None:
        configure_log(settings.log_level)
        self._name: str = serve.get_replica_context().replica_id.unique_id
        self._catalogue = Catalogue(settings.expected, settings.refused)
        self._models = {
            name: RemoteModel(name, handle, settings.rooms[name], partial(self._count, name))
            for name, handle in handles.items()
        }
        self._figures = GatheredStatistics()
        self._gate = DrainGate(settings.requests_most)
        self._health = HealthBoard(self._catalogue, SERVICE_NAME)
        self._rpcs = InferenceServicer(_parts(self._catalogue, self._figures))
        self._is_open = self._is_closing = False
        self._streams = 0

    async def ModelInfer(self, request: bytes, grpc_context: "RayServegRPCContext") -> Encoded:
        """Run the model in one of its replicas."""
        found = await answered_async(self._inferred(_asked(request), grpc_context, in_stream=False), "ModelInfer")
        if isinstance(found, ServiceError):
            return refused_for(grpc_context, found)
        if found.code != grpc.StatusCode.OK.name:
            return refused(grpc_context, grpc.StatusCode[found.code], found.sentence)
        return Encoded(found.content)

    async def ModelStreamInfer(
        self, request_stream: AsyncIterator[bytes], grpc_context: "RayServegRPCContext"
    ) -> AsyncIterator[Encoded]:
        """Answer the requests of a stream one after the other, as the single service does."""
        if self._streams >= INFER_STREAMS_MOST:
            most = f"{_STREAM}: {INFER_STREAMS_MOST} streams are open, which is the most; use ModelInfer"
            raise end_stream(grpc_context, Busy(most))
        self._streams += 1
        try:
            async for request in request_stream:
                asked = _asked(request)
                found = await answered_async(self._inferred(asked, grpc_context, in_stream=True), _STREAM)
                if isinstance(found, ServiceError) and self._is_closing:
                    raise end_stream(grpc_context, found)
                yield _in_stream(asked, found)
        finally:
            self._streams -= 1

    async def Check(self, request: health_pb2.HealthCheckRequest, grpc_context: "RayServegRPCContext") -> Encoded:
        """Give the health of the service or of a model."""
        status = self._health.statuses().get(request.service)
        if status is None:
            return refused(grpc_context, grpc.StatusCode.NOT_FOUND, "")
        return encoded(health_pb2.HealthCheckResponse(status=status))

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, grpc_context: "RayServegRPCContext"
    ) -> AsyncIterator[Encoded]:
        """Give the health of the service or of a model whenever it changes."""
        del grpc_context
        before = None
        while True:
            status = self._health.statuses().get(request.service, UNKNOWN)
            if status != before:
                yield encoded(health_pb2.HealthCheckResponse(status=status))
            before = status
            await asyncio.sleep(_WATCH_S)

    async def List(self, request: health_pb2.HealthListRequest, grpc_context: "RayServegRPCContext") -> Encoded:
        """Give the health of the service and of each model."""
        del request, grpc_context
        answer = health_pb2.HealthCheckResponse
        statuses = {name: answer(status=status) for name, status in self._health.statuses().items()}
        return encoded(health_pb2.HealthListResponse(statuses=statuses))

    async def __call__(self, request: Request) -> PlainTextResponse:
        """Tell a browser that this is no place for it: Ray's proxy cannot do without an HTTP port."""
        del request
        return PlainTextResponse("The Open Inference Protocol is spoken over gRPC.\n", status_code=404)

    async def note(self, report: Report) -> str:
        """Take a replica's report, and give the name of this ingress; serve once every model was reported on."""
        self._catalogue.note(report)
        self._figures.note(report.replica, report.figures)
        self._figures.forget_all_but(self._catalogue.replicas())
        if not self._is_open and self._catalogue.is_settled:
            self._is_open = True
            self._health.open()
        return self._name

    async def index(self) -> list[ModelState]:
        """Give every version with its state."""
        return list(self._catalogue.index())

    async def close(self) -> None:
        """Refuse new inference requests from now on; those that are here go on."""
        self._is_closing = True
        self._health.close()
        self._gate.close()

    async def drained(self, timeout_s: float) -> bool:
        """Return when no inference request is here, or False after `timeout_s`."""
        return await asyncio.to_thread(self._gate.wait_idle, timeout_s)

    def told(self, method: str, request: Any, context: "RayServegRPCContext") -> Encoded:
        """Answer an RPC of `_TOLD`."""
        self._figures.forget_all_but(self._catalogue.replicas())
        return told(getattr(self._rpcs, method), method, request, context)

    async def _inferred(self, asked: _Asked | None, context: "RayServegRPCContext", *, in_stream: bool) -> Reply:
        if asked is None:
            raise RequestRefused("the request is no ModelInferRequest message")
        with self._gate.around(INFER_METHOD, asked, served(context)):
            model = self._model_of(asked)
            asker = Asker(client_of(served(context)), self._name)
            reply = await model.infer(asked.content, asker, in_stream=in_stream)
        self._figures.note(reply.replica, reply.figures)
        return reply

    def _count(self, model: str) -> int:
        return len(self._catalogue.replicas(model))

    def _model_of(self, asked: _Asked) -> RemoteModel:
        if asked.name not in self._models:
            with self._catalogue.lease(asked.name, asked.version):
                pass  # it raises why there is none: unknown, or refused when the application started
        return self._models[asked.name]


def _parts(catalogue: Catalogue, figures: GatheredStatistics) -> Parts:
    nowhere = NoRegions()
    return Parts(catalogue, Admission(1, 0), nowhere, nowhere, figures)  # nothing is admitted here


def _asked(request: bytes) -> _Asked | None:
    """Read who is asked for; None where it is no message."""
    try:
        read = ModelInferRequest.FromString(request)
    except DecodeError:
        return None
    return _Asked(read.model_name, read.model_version, read.id, request)


def _in_stream(asked: _Asked | None, found: Reply | ServiceError) -> Encoded:
    if isinstance(found, ServiceError):
        return encoded(stream_refusal(asked.request_id if asked else "", found))
    return Encoded(found.content)


def _told(name: str) -> Callable[..., Any]:
    async def answer(self: Ingress, request: Any, grpc_context: "RayServegRPCContext") -> Encoded:
        return self.told(name, request, grpc_context)

    return answer


for _name in _TOLD:
    setattr(Ingress, _name, _told(_name))
for _service in (*DESCRIPTOR.services_by_name.values(), *REGIONS.services_by_name.values()):
    for _method in _service.methods:
        if not hasattr(Ingress, _method.name):
            setattr(Ingress, _method.name, unoffered(_method))
