"""How the ingress answers through Ray's proxy: serialised messages, and a status set on the proxy's context."""

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor

from inference.error_interceptor import answered, sentence_of
from inference.errors import ServiceError
from inference.scale.replies import Encoded
from inference.servicer_unoffered import not_offered

if TYPE_CHECKING:
    from ray.serve.grpc_util import RayServegRPCContext


class StreamEnded(Exception):
    """Ends a stream with the status that was set: Ray takes it from the context beside an exception."""


def encoded(message: Any) -> Encoded:
    """Serialise an answer."""
    return Encoded(message.SerializeToString())


def refused(context: "RayServegRPCContext", code: grpc.StatusCode, sentence: str) -> Encoded:
    """Set a status; the message beside it is never sent."""
    context.set_code(code)
    context.set_details(sentence)
    return Encoded()


def refused_for(context: "RayServegRPCContext", error: ServiceError) -> Encoded:
    """Set the status of an error, with its sentence."""
    return refused(context, error.code, sentence_of(error))


def end_stream(context: "RayServegRPCContext", error: ServiceError) -> StreamEnded:
    """Set the status of an error; raise what this gives."""
    refused_for(context, error)
    return StreamEnded(sentence_of(error))


def served(context: "RayServegRPCContext") -> grpc.ServicerContext:
    """See Ray's context as gRPC's: it has the client's address and certificate."""
    return cast("grpc.ServicerContext", context)


def told(answer: Callable[[Any, Any], Any], method: str, request: Any, context: "RayServegRPCContext") -> Encoded:
    """Answer with a method of a servicer."""
    found = answered(lambda: answer(request, context), method)
    return refused_for(context, found) if isinstance(found, ServiceError) else encoded(found)


def unoffered(method: MethodDescriptor) -> Callable[..., Any]:
    """Make the ingress's method for an RPC that is not offered, unary or streamed."""

    async def answer(_ingress: object, request: Any, grpc_context: "RayServegRPCContext") -> Encoded:
        del request
        return told(lambda *_: not_offered(method.name), method.name, None, grpc_context)

    async def answers(_ingress: object, request: Any, grpc_context: "RayServegRPCContext") -> AsyncIterator[Encoded]:
        del request
        found = answered(lambda: not_offered(method.name), method.name)
        if isinstance(found, ServiceError):
            raise end_stream(grpc_context, found)
        yield Encoded()

    return answers if method.server_streaming else answer
