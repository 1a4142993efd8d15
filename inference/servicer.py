"""The six core RPCs of the Open Inference Protocol: proto <-> arrays, and nothing else."""
# ruff: noqa: N802, ARG002 - names and parameters are the protocol's

import time
from importlib.metadata import version

import grpc
import structlog

from inference.admission import Admission
from inference.call import call_of
from inference.errors import BundleRefused, ModelNotReady
from inference.ports import LoadedModel
from inference.repository import ModelRepository
from inference.requests import build_response, memory_need, read_inputs, wanted_outputs
from inference.servicer_unoffered import UnofferedRpcs
from protos import open_inference_pb2 as messages
from protos.model_manifest import Tensor

_log = structlog.get_logger(__name__)
SERVER_NAME = "hilum"
PLATFORM = "tensorflow_frozen_graph"


class InferenceServicer(UnofferedRpcs):
    """Answers from a repository; errors are raised and become status codes in the interceptor."""

    def __init__(self, repository: ModelRepository, admission: Admission) -> None:
        self._repository = repository
        self._admission = admission

    def ServerLive(
        self, request: messages.ServerLiveRequest, context: grpc.ServicerContext
    ) -> messages.ServerLiveResponse:
        """Say that the process answers."""
        return messages.ServerLiveResponse(live=True)

    def ServerReady(
        self, request: messages.ServerReadyRequest, context: grpc.ServicerContext
    ) -> messages.ServerReadyResponse:
        """Say whether every model that was asked for is loaded and warmed."""
        return messages.ServerReadyResponse(ready=self._repository.is_ready)

    def ModelReady(
        self, request: messages.ModelReadyRequest, context: grpc.ServicerContext
    ) -> messages.ModelReadyResponse:
        """Say whether a model answers; NOT_FOUND where it is not known at all."""
        try:
            self._repository.find(request.name, request.version)
        except (ModelNotReady, BundleRefused):
            return messages.ModelReadyResponse(ready=False)
        return messages.ModelReadyResponse(ready=True)

    def ServerMetadata(
        self, request: messages.ServerMetadataRequest, context: grpc.ServicerContext
    ) -> messages.ServerMetadataResponse:
        """Name the server, its version and the extensions that it offers: none yet."""
        return messages.ServerMetadataResponse(name=SERVER_NAME, version=version("hilum"), extensions=[])

    def ModelMetadata(
        self, request: messages.ModelMetadataRequest, context: grpc.ServicerContext
    ) -> messages.ModelMetadataResponse:
        """Give tensors and versions of a model."""
        model = self._repository.find(request.name, request.version)
        return messages.ModelMetadataResponse(
            name=model.bundle.manifest.identity.name,
            versions=self._repository.versions(request.name),
            platform=PLATFORM,
            inputs=[_described(tensor) for tensor in model.bundle.manifest.inputs],
            outputs=[_described(tensor) for tensor in model.bundle.manifest.outputs],
        )

    def ModelInfer(
        self, request: messages.ModelInferRequest, context: grpc.ServicerContext
    ) -> messages.ModelInferResponse:
        """Run the model on the request's tensors, waiting for a turn no longer than the client does."""
        started = time.monotonic()
        with self._repository.lease(request.model_name, request.model_version) as model:
            response = self._answered(model, request, context)
        _log.info(
            "request_answered",
            model=f"{response.model_name}/{response.model_version}",
            request_id=request.id,
            seconds=round(time.monotonic() - started, 3),
            bytes=sum(map(len, request.raw_input_contents)),
        )
        return response

    def _answered(
        self, model: LoadedModel, request: messages.ModelInferRequest, context: grpc.ServicerContext
    ) -> messages.ModelInferResponse:
        manifest = model.bundle.manifest
        wanted = wanted_outputs(request, manifest)
        inputs = read_inputs(request, manifest)
        call = call_of(context, context.peer())
        with self._admission.admitted(memory_need(manifest, inputs), call.remaining_s()):
            outcome = model.runner.run(inputs, call, {})
            return build_response(request, model.bundle, wanted, outcome.outputs)


def _described(tensor: Tensor) -> messages.ModelMetadataResponse.TensorMetadata:
    return messages.ModelMetadataResponse.TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
