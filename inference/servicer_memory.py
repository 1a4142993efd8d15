"""Triton's system shared memory: clients register regions of their own."""
# ruff: noqa: N802 - names are the protocol's

import grpc

from inference.errors import RequestRefused
from inference.peer_user import require_own_user
from inference.servicer_parts import PartedServicer, caller
from protos import open_inference_pb2 as messages


class SharedMemoryRpcs(PartedServicer):
    """Status, register, unregister; an empty name means all of the client's regions in the first and the last."""

    def SystemSharedMemoryStatus(
        self, request: messages.SystemSharedMemoryStatusRequest, context: grpc.ServicerContext
    ) -> messages.SystemSharedMemoryStatusResponse:
        """Give the regions of this client."""
        response = messages.SystemSharedMemoryStatusResponse()
        for region in self._parts.registrations.status(request.name, caller(context)):
            stated = response.regions[region.name]
            stated.name, stated.key = region.name, region.key
            stated.offset, stated.byte_size = region.offset, region.byte_size
        return response

    def SystemSharedMemoryRegister(
        self, request: messages.SystemSharedMemoryRegisterRequest, context: grpc.ServicerContext
    ) -> messages.SystemSharedMemoryRegisterResponse:
        """Map a region of this client."""
        if not request.name:
            raise RequestRefused("name: expected a name for the region, got none")
        require_own_user(context.peer())
        self._parts.registrations.register(
            request.name, request.key, request.offset, request.byte_size, caller(context)
        )
        return messages.SystemSharedMemoryRegisterResponse()

    def SystemSharedMemoryUnregister(
        self, request: messages.SystemSharedMemoryUnregisterRequest, context: grpc.ServicerContext
    ) -> messages.SystemSharedMemoryUnregisterResponse:
        """Forget a region of this client."""
        self._parts.registrations.unregister(request.name, caller(context))
        return messages.SystemSharedMemoryUnregisterResponse()
