"""One request as the parts behind the servicer see it: who asks, until when, how urgently, and whether still."""

import threading
import time
from dataclasses import dataclass, field

import grpc

from inference.errors import DeadlinePassed, RequestCancelled

NO_DEADLINE_S = 1e8
"""Beyond this (three years) a deadline is none: threading cannot wait that long."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request's terms; `ended` is set when the client cancelled, went away, or its deadline passed."""

    client: str = "local"
    """Subject of the client's certificate, else its address without the port ("unix" for a Unix socket)."""
    deadline: float | None = None
    """By `time.monotonic()`; None where the client set none."""
    priority: int = 0
    """0 is not said; else 1 is the most urgent, as Triton has it."""
    ended: threading.Event = field(default_factory=threading.Event)

    def remaining_s(self) -> float | None:
        """Seconds until the deadline, None where there is none."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def stop_if_unwanted(self) -> None:
        """Raise DeadlinePassed or RequestCancelled where nobody waits for the answer any more."""
        remaining = self.remaining_s()
        if remaining is not None and remaining <= 0:
            raise DeadlinePassed("the deadline passed before the answer was there")
        if self.ended.is_set():
            raise RequestCancelled("the client cancelled the request")


def call_of(context: grpc.ServicerContext, client: str, priority: int = 0) -> Call:
    """Make the call of a gRPC context; `ended` follows the RPC's end."""
    remaining: float | None = context.time_remaining()
    open_ended = remaining is None or remaining > NO_DEADLINE_S
    call = Call(client, None if open_ended else time.monotonic() + (remaining or 0.0), priority)
    if not context.add_callback(call.ended.set):
        call.ended.set()
    return call
