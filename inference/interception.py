"""One way to lay something around every kind of RPC: unary, streamed, and health's watch that holds no thread."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    Handler = grpc.RpcMethodHandler  # generic in its stubs alone
Behaviour = Callable[..., Any]
_KEPT = ("experimental_non_blocking", "experimental_thread_pool")
"""Attributes by which gRPC chooses how a behaviour runs; a wrapper must show them too."""
_BEHAVIOURS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class WrappingInterceptor(grpc.ServerInterceptor):
    """Wraps each method's handler, once: gRPC asks for the handler at every RPC."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Handler, Handler]] = {}

    @abstractmethod
    def wrapped(self, handler: Handler, method: str) -> Handler:
        """Give the handler that shall stand in for that of a method, "/package.Service/Method"."""

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Give the wrapped handler, or None where the method is unknown."""
        handler, method = continuation(handler_call_details), handler_call_details.method
        if handler is None:
            return None
        known = self._known.get(method)
        if known is None or known[0] is not handler:
            known = self._known[method] = (handler, self.wrapped(handler, method))
        return known[1]


class AroundInterceptor(WrappingInterceptor):
    """Enters `around` before a method's behaviour and leaves it when its last answer is given."""

    @abstractmethod
    def around(self, method: str, request: Any, context: grpc.ServicerContext) -> AbstractContextManager[Any]:
        """Hold the RPC; give the request (or the iterator of requests) that the behaviour shall see."""

    def concerns(self, method: str) -> bool:
        """Tell whether a method, "/package.Service/Method", is wrapped at all."""
        del method
        return True

    def wrapped(self, handler: Handler, method: str) -> Handler:
        """Wrap the handler of a method that is concerned."""
        if not self.concerns(method):
            return handler
        return rewrapped(handler, lambda behaviour: self._around(behaviour, method, handler))

    def _around(self, behaviour: Behaviour, method: str, handler: Handler) -> Behaviour:
        def single(request: Any, context: grpc.ServicerContext, *send: Any) -> Any:
            with self.around(method, request, context) as seen:
                return behaviour(seen, context, *send)

        def streamed(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with self.around(method, request, context) as seen:
                yield from behaviour(seen, context)

        holds_thread = not getattr(behaviour, "experimental_non_blocking", False)
        return streamed if handler.response_streaming and holds_thread else single


def rewrapped(
    handler: Handler, wrap: Callable[[Behaviour], Behaviour], *, read: Callable[[bytes], Any] | None = None
) -> Handler:
    """Make the same kind of handler around another behaviour; `read` stands in for its deserialiser."""
    name = next(name for name in _BEHAVIOURS if getattr(handler, name) is not None)
    behaviour = getattr(handler, name)
    wrapper = wrap(behaviour)
    for attribute in _KEPT:
        if hasattr(behaviour, attribute) and not hasattr(wrapper, attribute):
            setattr(wrapper, attribute, getattr(behaviour, attribute))
    make = getattr(grpc, f"{name}_rpc_method_handler")
    made: Handler = make(
        wrapper,
        request_deserializer=read or handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )
    return made
