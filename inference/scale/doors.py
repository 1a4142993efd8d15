"""The RPCs that Ray's gRPC proxy takes: those of the single service, named to Ray as `grpc_servicer_functions`."""

from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2

from protos.open_inference_pb2 import DESCRIPTOR
from protos.tensor_regions_pb2 import DESCRIPTOR as REGIONS

SERVICER_FUNCTION = f"{__name__}.add_services"
_PASSED_ON = frozenset({"ModelInfer", "ModelStreamInfer"})
"""Requests that the proxy need not read: they go on as bytes, so that a volume is parsed where the model is."""
_MAKERS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def add_services(servicer: Any, server: Any) -> None:
    """Register every RPC at the proxy's server, which puts a behaviour of its own in place of the servicer's."""
    for file in (DESCRIPTOR, REGIONS, health_pb2.DESCRIPTOR):
        for service in file.services_by_name.values():
            handlers = {method.name: _handler(servicer, method) for method in service.methods}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))


def _handler(servicer: Any, method: MethodDescriptor) -> Any:
    make = _MAKERS[method.client_streaming, method.server_streaming]
    read = None if method.name in _PASSED_ON else message_factory.GetMessageClass(method.input_type).FromString
    return make(getattr(servicer, method.name), request_deserializer=read)
