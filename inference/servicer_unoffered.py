"""RPCs of Triton that this service does not offer: each answers UNIMPLEMENTED and says its own name."""
# ruff: noqa: N802, ARG002, D102 - names and parameters are the protocol's

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
