"""RPCs of Triton that this service does not offer: each answers UNIMPLEMENTED and says its own name."""
# ruff: noqa: N802, ARG002, D102 - names and parameters are the protocol's

from collections.abc import Iterator
from typing import Never

import grpc

from inference.errors import NotOffered
from protos import open_inference_pb2 as messages
from protos.open_inference_pb2_grpc import GRPCInferenceServiceServicer


def not_offered(rpc: str) -> Never:
    """Refuse an RPC by its name.

    Raises:
        NotOffered: always.
    """
    raise NotOffered(f"{rpc} is not offered by this server")


class UnofferedRpcs(GRPCInferenceServiceServicer):
    """CUDA shared memory, trace and log settings."""

    def ModelConfig(
        self, request: messages.ModelConfigRequest, context: grpc.ServicerContext
    ) -> messages.ModelConfigResponse:
        not_offered("ModelConfig")

    def ModelStatistics(
        self, request: messages.ModelStatisticsRequest, context: grpc.ServicerContext
    ) -> messages.ModelStatisticsResponse:
        not_offered("ModelStatistics")

    def RepositoryIndex(
        self, request: messages.RepositoryIndexRequest, context: grpc.ServicerContext
    ) -> messages.RepositoryIndexResponse:
        not_offered("RepositoryIndex")

    def RepositoryModelLoad(
        self, request: messages.RepositoryModelLoadRequest, context: grpc.ServicerContext
    ) -> messages.RepositoryModelLoadResponse:
        not_offered("RepositoryModelLoad")

    def RepositoryModelUnload(
        self, request: messages.RepositoryModelUnloadRequest, context: grpc.ServicerContext
    ) -> messages.RepositoryModelUnloadResponse:
        not_offered("RepositoryModelUnload")

    def SystemSharedMemoryStatus(
        self, request: messages.SystemSharedMemoryStatusRequest, context: grpc.ServicerContext
    ) -> messages.SystemSharedMemoryStatusResponse:
        not_offered("SystemSharedMemoryStatus")

    def SystemSharedMemoryRegister(
        self, request: messages.SystemSharedMemoryRegisterRequest, context: grpc.ServicerContext
    ) -> messages.SystemSharedMemoryRegisterResponse:
        not_offered("SystemSharedMemoryRegister")

    def SystemSharedMemoryUnregister(
        self, request: messages.SystemSharedMemoryUnregisterRequest, context: grpc.ServicerContext
    ) -> messages.SystemSharedMemoryUnregisterResponse:
        not_offered("SystemSharedMemoryUnregister")

    def CudaSharedMemoryStatus(
        self, request: messages.CudaSharedMemoryStatusRequest, context: grpc.ServicerContext
    ) -> messages.CudaSharedMemoryStatusResponse:
        not_offered("CudaSharedMemoryStatus")

    def CudaSharedMemoryRegister(
        self, request: messages.CudaSharedMemoryRegisterRequest, context: grpc.ServicerContext
    ) -> messages.CudaSharedMemoryRegisterResponse:
        not_offered("CudaSharedMemoryRegister")

    def CudaSharedMemoryUnregister(
        self, request: messages.CudaSharedMemoryUnregisterRequest, context: grpc.ServicerContext
    ) -> messages.CudaSharedMemoryUnregisterResponse:
        not_offered("CudaSharedMemoryUnregister")

    def TraceSetting(
        self, request: messages.TraceSettingRequest, context: grpc.ServicerContext
    ) -> messages.TraceSettingResponse:
        not_offered("TraceSetting")

    def LogSettings(
        self, request: messages.LogSettingsRequest, context: grpc.ServicerContext
    ) -> messages.LogSettingsResponse:
        not_offered("LogSettings")

    def ModelStreamInfer(
        self, request_iterator: Iterator[messages.ModelInferRequest], context: grpc.ServicerContext
    ) -> Iterator[messages.ModelStreamInferResponse]:
        not_offered("ModelStreamInfer")
