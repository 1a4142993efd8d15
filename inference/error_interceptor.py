"""The only place where exceptions become gRPC status codes."""

from collections.abc import Callable
from typing import Any, Never

import grpc
import structlog

from inference.errors import RequestRefused, ServiceError
from protos.tensors import TensorError

_log = structlog.get_logger(__name__)


class ErrorInterceptor(grpc.ServerInterceptor):
    """Turn our errors into their status with their message; others reach gRPC, which answers UNKNOWN."""

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], "grpc.RpcMethodHandler[Any, Any] | None"],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Wrap unary handlers; the service has no others that raise our errors."""
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        return grpc.unary_unary_rpc_method_handler(
            _guarded(handler.unary_unary, handler_call_details.method),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _guarded(behaviour: Callable[[Any, grpc.ServicerContext], Any], method: str) -> Callable[[Any, Any], Any]:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return behaviour(request, context)
        except TensorError as error:
            _refuse(context, method, RequestRefused(str(error)))
        except ServiceError as error:
            _refuse(context, method, error)

    return answer


def _refuse(context: grpc.ServicerContext, method: str, error: ServiceError) -> Never:
    _log.info("request_refused", method=method, status=error.code.name, reason=str(error))
    context.abort(error.code, str(error))
    raise error  # abort raises; this tells the type checker so
