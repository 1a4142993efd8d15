"""The only place where exceptions become gRPC status codes."""

import traceback
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Never, TypeVar

import grpc
import structlog
from google.protobuf.message import DecodeError

from inference.errors import PredictionFailed, RequestCancelled, RequestRefused, ServiceError
from inference.interception import Behaviour, Handler, WrappingInterceptor, rewrapped
from protos.tensors import TensorError

_log = structlog.get_logger(__name__)
Answer = TypeVar("Answer")
_SENTENCE_MOST = 800
"""Characters of a refusal: a status travels in a trailer, which gRPC bounds at 8 KiB."""
_LOGGED_MOST = 300
_BLAND = "the service failed over this request; its log says where"


def answered(call: Callable[[], Answer], method: str) -> Answer | ServiceError:
    """Give the answer of `call`, or the error that the client shall see; a fault is logged without contents."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - the edge of the process: nothing may reach gRPC as UNKNOWN
        return _shown(error, method)


async def answered_async(answer: Awaitable[Answer], method: str) -> Answer | ServiceError:
    """Do as `answered` with an answer that is awaited."""
    try:
        return await answer
    except Exception as error:  # noqa: BLE001 - as above
        return _shown(error, method)


def _shown(error: Exception, method: str) -> ServiceError:
    """Give the error that the client shall see."""
    if isinstance(error, TensorError):
        return _noted(RequestRefused(str(error)), method)
    return _noted(error, method) if isinstance(error, ServiceError) else _noted_fault(error, method)


def sentence_of(error: ServiceError) -> str:
    """Give the error's message, cut to what a status can carry."""
    text = str(error)
    return text if len(text) <= _SENTENCE_MOST else text[:_SENTENCE_MOST] + "..."


class ErrorInterceptor(WrappingInterceptor):
    """Turn our errors into their status with their message, and any other exception into INTERNAL without it."""

    def wrapped(self, handler: Handler, method: str) -> Handler:
        """Guard unary and streamed methods alike, and the reading of their requests."""
        if getattr(handler.unary_stream, "experimental_non_blocking", False):
            return handler  # health's Watch: it gives its answers to a callback, and raises none of our errors
        guard = _guarded_stream if handler.response_streaming else _guarded
        readable = _readable_each if handler.request_streaming else _readable
        read = _reader(handler.request_deserializer, method) if handler.request_deserializer else None
        return rewrapped(handler, lambda behaviour: guard(behaviour, method, readable), read=read)


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """Stands for a message that cannot be parsed: gRPC's own answer to that is INTERNAL and no reason."""

    sentence: str


def _reader(parse: Callable[[bytes], Any], method: str) -> Callable[[bytes], Any]:
    def read(content: bytes) -> Any:
        try:
            return parse(content)
        except DecodeError:
            return _Unreadable(f"message: expected the request of {method}, got {len(content)} bytes that are none")

    return read


def _readable(request: Any) -> Any:
    if isinstance(request, _Unreadable):
        raise RequestRefused(request.sentence)
    return request


def _readable_each(requests: Iterator[Any]) -> Iterator[Any]:
    return map(_readable, requests)


def _guarded(behaviour: Behaviour, method: str, readable: Callable[[Any], Any]) -> Behaviour:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        found = answered(lambda: behaviour(readable(request), context), method)
        return _abort(context, found) if isinstance(found, ServiceError) else found

    return answer


def _guarded_stream(behaviour: Behaviour, method: str, readable: Callable[[Any], Any]) -> Behaviour:
    def answer(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        answers = answered(lambda: iter(behaviour(readable(request), context)), method)
        while not isinstance(answers, ServiceError):
            found = answered(lambda: next(answers, _END), method)
            if found is _END:
                return
            if isinstance(found, ServiceError):
                _abort(context, found)
            yield found
        _abort(context, answers)

    return answer


_END = object()


def _noted(error: ServiceError, method: str) -> ServiceError:
    # A client that goes away is no news: every lease of a node that stops ends so.
    if not isinstance(error, RequestCancelled):
        _log.info("request_refused", method=method, status=error.code.name, reason=str(error)[:_LOGGED_MOST])
    return error


def _noted_fault(error: Exception, method: str) -> ServiceError:
    """Log where it happened; the message of a foreign exception may quote the request, so it stays out."""
    frames = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    _log.error("request_failed", method=method, error=type(error).__qualname__, trace=frames)
    return PredictionFailed(_BLAND)


def _abort(context: grpc.ServicerContext, error: ServiceError) -> Never:
    context.abort(error.code, sentence_of(error))
    raise error  # abort raises; this tells the type checker so
