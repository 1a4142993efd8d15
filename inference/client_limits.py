"""Limits of each client, so that one cannot take the service from the others."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from inference.errors import Busy, DeadlinePassed, RequestCancelled, ServiceError, SettingsRefused
from inference.interception import AroundInterceptor
from inference.security import client_of

MB = 1 << 20
INFER_METHOD = "/inference.GRPCInferenceService/ModelInfer"
STREAM_METHODS = frozenset(
    {
        "/inference.GRPCInferenceService/ModelStreamInfer",
        "/hilum.inference.TensorRegions/Lease",
        "/hilum.inference.TensorRegions/Upload",
        "/hilum.inference.TensorRegions/Download",
    }
)
_POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What one client (certificate subject, address, or "unix") may hold at once."""

    concurrency: int = 64
    """Inference requests that run."""
    queue: int = 64
    """Inference requests that wait for that."""
    inflight_mb: int = 4096
    """MiB of the messages of its inference requests, running and waiting."""
    streams: int = 32
    """Open streams: leases, uploads, downloads, streamed inference."""

    def __post_init__(self) -> None:
        """Refuse what cannot be right; raise SettingsRefused."""
        for option, value, least in (
            ("--client-concurrency", self.concurrency, 1),
            ("--client-queue", self.queue, 0),
            ("--client-inflight-mb", self.inflight_mb, 1),
            ("--client-streams", self.streams, 1),
        ):
            if value < least:
                raise SettingsRefused(f"{option} {value}: must be at least {least}")


@dataclass(slots=True)
class _Held:
    running: int = 0
    waiting: int = 0
    inflight: int = 0
    streams: int = 0

    @property
    def is_idle(self) -> bool:
        return not (self.running or self.waiting or self.inflight or self.streams)


class ClientLimiter(AroundInterceptor):
    """Refuses with RESOURCE_EXHAUSTED what exceeds a client's limits, naming the limit; lets requests take turns."""

    def __init__(self, limits: ClientLimits) -> None:
        super().__init__()
        self._limits = limits
        self._held: dict[str, _Held] = {}
        self._changed = threading.Condition()

    def concerns(self, method: str) -> bool:
        """Tell whether a method costs computing or holds a stream."""
        return method == INFER_METHOD or method in STREAM_METHODS

    @contextmanager
    def around(self, method: str, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """Hold the client's place while the RPC runs.

        Raises:
            Busy: one of the limits is reached.
            DeadlinePassed, RequestCancelled: no turn came in time.
        """
        client = client_of(context)
        if method in STREAM_METHODS:
            self._count(client, "streams", 1, self._limits.streams, "--client-streams")
            try:
                yield request
            finally:
                self._uncount(client, "streams", 1)
            return
        size = request.ByteSize()
        self._enter(client, size, context)
        try:
            yield request
        finally:
            self._leave(client, size)

    def _enter(self, client: str, size: int, context: grpc.ServicerContext) -> None:
        most = self._limits.inflight_mb * MB
        with self._changed:
            held = self._count(client, "inflight", size, most, "--client-inflight-mb (in bytes)")
            if held.running >= self._limits.concurrency:
                try:
                    self._wait_for_turn(held, context)
                except ServiceError:
                    self._uncount(client, "inflight", size)
                    raise
            held.running += 1

    def _leave(self, client: str, size: int) -> None:
        with self._changed:
            held = self._held[client]
            held.running -= 1
            if held.waiting:
                self._changed.notify_all()
            self._uncount(client, "inflight", size)

    def _count(self, client: str, what: str, amount: int, most: int, limit: str) -> _Held:
        with self._changed:
            held = self._held.get(client) or self._held.setdefault(client, _Held())
            now = getattr(held, what)
            if now + amount > most:
                self._forget_idle(client)
                raise Busy(f"this client's limit {limit} is {most}; it holds {now}, this asks for {amount} more")
            setattr(held, what, now + amount)
            return held

    def _uncount(self, client: str, what: str, amount: int) -> None:
        with self._changed:
            held = self._held[client]
            setattr(held, what, getattr(held, what) - amount)
            self._forget_idle(client)

    def _wait_for_turn(self, held: _Held, context: grpc.ServicerContext) -> None:
        if held.waiting >= self._limits.queue:
            raise Busy(
                f"this client's limit --client-queue is {self._limits.queue} beyond --client-concurrency "
                f"{self._limits.concurrency}; try again later"
            )
        remaining: float | None = context.time_remaining()
        deadline = None if remaining is None else time.monotonic() + remaining
        held.waiting += 1
        try:
            while held.running >= self._limits.concurrency:
                self._changed.wait(_POLL_S if deadline is None else max(0.0, min(_POLL_S, deadline - time.monotonic())))
                if deadline is not None and time.monotonic() >= deadline:
                    raise DeadlinePassed("the deadline passed while the request waited for its client's turn")
                if not context.is_active():
                    raise RequestCancelled("the client went away while its request waited")
        finally:
            held.waiting -= 1

    def _forget_idle(self, client: str) -> None:
        if self._held[client].is_idle:
            del self._held[client]
