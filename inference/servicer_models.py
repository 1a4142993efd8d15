"""RPCs about the server, its models and its repository."""
# ruff: noqa: N802, ARG002 - names and parameters are the protocol's

from collections.abc import Iterable
from functools import cache
from importlib.metadata import version

import grpc

from inference.errors import BundleRefused, ModelNotFound, ModelNotReady, NotOffered, RequestRefused
from inference.model_config import PLATFORM, model_config, model_statistics
from inference.servicer_parts import PartedServicer
from inference.statistics import Key
from protos import open_inference_pb2 as messages
from protos.model_manifest import Tensor

SERVER_NAME = "hilum"
EXTENSIONS = (
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)
REGION_EXTENSIONS = ("system_shared_memory", "hilum_tensor_regions")
_CARRIED_MODEL = ("config", "file:")


class ModelRpcs(PartedServicer):
    """Liveness, readiness, metadata, configuration, statistics, repository."""

    def ServerLive(
        self, request: messages.ServerLiveRequest, context: grpc.ServicerContext
    ) -> messages.ServerLiveResponse:
        """Say that the process answers."""
        return messages.ServerLiveResponse(live=True)

    def ServerReady(
        self, request: messages.ServerReadyRequest, context: grpc.ServicerContext
    ) -> messages.ServerReadyResponse:
        """Say whether every model that was asked for is loaded and warmed."""
        return messages.ServerReadyResponse(ready=self._parts.models.is_ready)

    def ModelReady(
        self, request: messages.ModelReadyRequest, context: grpc.ServicerContext
    ) -> messages.ModelReadyResponse:
        """Say whether a model answers; NOT_FOUND where it is not known at all."""
        try:
            with self._parts.models.lease(request.name, request.version):
                return messages.ModelReadyResponse(ready=True)
        except (ModelNotReady, BundleRefused):
            return messages.ModelReadyResponse(ready=False)

    def ServerMetadata(
        self, request: messages.ServerMetadataRequest, context: grpc.ServicerContext
    ) -> messages.ServerMetadataResponse:
        """Name the server, its version and the extensions that it offers."""
        offered = EXTENSIONS + (REGION_EXTENSIONS if self._parts.has_regions else ())
        return messages.ServerMetadataResponse(name=SERVER_NAME, version=_own_version(), extensions=offered)

    def ModelMetadata(
        self, request: messages.ModelMetadataRequest, context: grpc.ServicerContext
    ) -> messages.ModelMetadataResponse:
        """Give tensors and versions of a model."""
        with self._parts.models.lease(request.name, request.version) as model:
            manifest = model.bundle.manifest
        return messages.ModelMetadataResponse(
            name=manifest.identity.name,
            versions=self._parts.models.versions(request.name),
            platform=PLATFORM,
            inputs=[_described(tensor) for tensor in manifest.inputs],
            outputs=[_described(tensor) for tensor in manifest.outputs],
        )

    def ModelConfig(
        self, request: messages.ModelConfigRequest, context: grpc.ServicerContext
    ) -> messages.ModelConfigResponse:
        """Give a model's configuration with its manifest and digest."""
        with self._parts.models.lease(request.name, request.version) as model:
            return messages.ModelConfigResponse(config=model_config(model.bundle, self._parts.gpus))

    def ModelStatistics(
        self, request: messages.ModelStatisticsRequest, context: grpc.ServicerContext
    ) -> messages.ModelStatisticsResponse:
        """Give the figures of a model, or of all; zeros where it had no request yet."""
        figures = self._parts.statistics
        return messages.ModelStatisticsResponse(
            model_stats=[model_statistics(*key, figures.of(*key)) for key in self._asked_for(request)]
        )

    def RepositoryIndex(
        self, request: messages.RepositoryIndexRequest, context: grpc.ServicerContext
    ) -> messages.RepositoryIndexResponse:
        """Give every version with its state, or those that answer."""
        _refuse_repository_name(request.repository_name)
        states = [state for state in self._parts.models.index() if state.state == "READY" or not request.ready]
        entry = messages.RepositoryIndexResponse.ModelIndex
        return messages.RepositoryIndexResponse(
            models=[entry(name=of.name, version=of.version, state=of.state, reason=of.reason) for of in states]
        )

    def RepositoryModelLoad(
        self, request: messages.RepositoryModelLoadRequest, context: grpc.ServicerContext
    ) -> messages.RepositoryModelLoadResponse:
        """Load a model from its folder; what comes by the wire is never loaded."""
        _refuse_repository_name(request.repository_name)
        _refuse_carried_model(request.parameters)
        self._refuse_unless_controlled("RepositoryModelLoad")
        self._parts.models.load(request.model_name)
        return messages.RepositoryModelLoadResponse()

    def RepositoryModelUnload(
        self, request: messages.RepositoryModelUnloadRequest, context: grpc.ServicerContext
    ) -> messages.RepositoryModelUnloadResponse:
        """Stop answering for a model; `unload_dependents` says nothing here, no model depends on another."""
        _refuse_repository_name(request.repository_name)
        _refuse_carried_model(name for name in request.parameters if name != "unload_dependents")
        self._refuse_unless_controlled("RepositoryModelUnload")
        self._parts.models.unload(request.model_name)
        return messages.RepositoryModelUnloadResponse()

    def _refuse_unless_controlled(self, rpc: str) -> None:
        if not self._parts.model_control:
            raise NotOffered(f"{rpc}: is switched off. Remedy: start the service with --model-control")

    def _asked_for(self, request: messages.ModelStatisticsRequest) -> list[Key]:
        if not request.name:
            if request.version:
                raise RequestRefused(f"model: expected a name beside version {request.version!r}, got none")
            return sorted({(state.name, state.version) for state in self._parts.models.index()})
        versions = self._parts.models.versions(request.name)
        if not versions:
            raise ModelNotFound(f"model: expected one of the repository's, got {request.name!r}")
        if request.version and request.version not in versions:
            raise ModelNotFound(
                f"model {request.name!r}: expected a version of {list(versions)}, got {request.version!r}"
            )
        return [(request.name, item) for item in versions if request.version in ("", item)]


def _described(tensor: Tensor) -> messages.ModelMetadataResponse.TensorMetadata:
    return messages.ModelMetadataResponse.TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)


def _refuse_repository_name(name: str) -> None:
    if name:
        raise RequestRefused(f"repository_name: expected none, this server has one repository; got {name!r}")


def _refuse_carried_model(parameters: Iterable[str]) -> None:
    for name in parameters:
        if name.startswith(_CARRIED_MODEL):
            raise RequestRefused(f"parameter {name!r}: a model comes by its folder on the server, never by the wire")
        raise RequestRefused(f"parameter {name!r}: is not offered")


@cache
def _own_version() -> str:
    """Read the version once: it stands in a file of the installed package."""
    return version("hilum")
