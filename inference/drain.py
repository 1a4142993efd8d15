"""The gate that every inference request passes: a bound on how many hold a thread, and the end of the service."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any

import grpc

from inference.client_limits import INFER_METHOD
from inference.errors import Busy, ModelNotReady, ServiceError
from inference.interception import AroundInterceptor

STREAM_METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"
_LOOK_S = 0.1
_END = object()


class DrainGate(AroundInterceptor):
    """Counts inference requests, and after `close` refuses new ones with UNAVAILABLE while the counted ones end.

    A request of a ModelStreamInfer stream counts from its arrival until its answer is handed over; the stream itself
    does not, so that an idle one holds no end up.
    """

    def __init__(self, most: int) -> None:
        """Let `most` unary requests in at once: each holds a thread of the server while it runs or waits."""
        super().__init__()
        self._most = most
        self._changed = threading.Condition()
        self._unary = 0
        self._running = 0
        self._is_closed = False

    def close(self) -> None:
        """Refuse requests from now on; streams end after the request that they are at."""
        with self._changed:
            self._is_closed = True

    def wait_idle(self, timeout_s: float) -> bool:
        """Return when no request runs or waits, or False after `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout_s)

    def concerns(self, method: str) -> bool:
        """Tell whether a method runs a model."""
        return method in (INFER_METHOD, STREAM_METHOD)

    @contextmanager
    def around(self, method: str, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """Count a request while it is answered, or give a stream's requests one by one, each counted.

        Raises:
            ModelNotReady: the service is stopping.
            Busy: so many requests run and wait that another would take the threads of the rest of the service.
        """
        if method == STREAM_METHOD:
            self._refuse_if_closed()
            yield self._one_by_one(request, context)
            return
        self._enter(unary=1)
        try:
            yield request
        finally:
            self._leave(unary=1)

    def _enter(self, *, unary: int) -> None:
        with self._changed:
            if unary and self._unary >= self._most:
                raise Busy("the queue is full; try again later")
            self._refuse_if_closed()
            self._unary += unary
            self._running += 1

    def _leave(self, *, unary: int) -> None:
        with self._changed:
            self._unary -= unary
            self._running -= 1
            if not self._running:
                self._changed.notify_all()

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise ModelNotReady("the service is stopping; try again at another or later")

    def _one_by_one(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        reading = _Reading(requests)
        try:
            while (request := self._awaited(reading, context)) is not _END:
                self._enter(unary=0)
                try:
                    yield request
                finally:
                    self._leave(unary=0)
        finally:
            reading.end()

    def _awaited(self, reading: "_Reading", context: grpc.ServicerContext) -> Any:
        reading.ask()
        while (request := reading.within(_LOOK_S)) is None:
            self._refuse_if_closed()
            if not context.is_active():
                return _END
        return request


class _Reading:
    """Reads a stream on a thread of its own, one request when it is asked for: gRPC's wait for one cannot be ended."""

    def __init__(self, requests: Iterator[Any]) -> None:
        self._wanted = threading.Semaphore(0)
        self._arrived: SimpleQueue[Any] = SimpleQueue()
        self._is_over = False
        threading.Thread(target=self._read, args=(requests,), name="stream-reader", daemon=True).start()

    def ask(self) -> None:
        """Let one request be read."""
        self._wanted.release()

    def within(self, seconds: float) -> Any:
        """Give what arrived, `_END` at the stream's end, None where nothing did in time; raise what reading raised."""
        try:
            found = self._arrived.get(timeout=seconds)
        except Empty:
            return None
        if isinstance(found, ServiceError):
            raise found
        return found

    def end(self) -> None:
        """Read no more."""
        self._is_over = True
        self._wanted.release()

    def _read(self, requests: Iterator[Any]) -> None:
        request: Any = None
        while request is not _END:
            self._wanted.acquire()
            if self._is_over:
                return
            try:
                request = next(requests, _END)
            except grpc.RpcError:  # the client went away
                request = _END
            except ServiceError as error:  # what came is no request
                self._arrived.put(error)
                return
            self._arrived.put(request)
