"""Turns: how many requests run at once, how many wait, and who is next."""

import itertools
import threading
from dataclasses import dataclass, field

from inference.call import Call
from inference.errors import Busy, ServiceError

_LOOK_S = 0.05
"""How often a waiting request looks whether its client is still there."""
SHARED_PLACES = 64
"""Requests at once that share runs; they wait in the batches' own queues."""


@dataclass(order=True, slots=True)
class _Ticket:
    """One waiting request; the least one is next: by priority, 0 (not said) last, then by arrival."""

    rank: tuple[bool, int, int]
    turn: threading.Event = field(default_factory=threading.Event, compare=False)


class WaitingLine:
    """Lets `concurrency` requests run, `queue` more wait, and `shared` others share runs; safe between threads."""

    def __init__(self, concurrency: int, queue: int, shared: int = SHARED_PLACES) -> None:
        self._lock = threading.Lock()
        self._places = {False: concurrency + queue, True: shared}
        self._free = concurrency
        self._waiting: list[_Ticket] = []
        self._arrivals = itertools.count()

    def enter(self, call: Call, *, shared: bool = False) -> None:
        """Take a place, having waited for the turn; `leave` must follow.

        Args:
            call: its priority says who goes first; the wait ends when the call does.
            shared: take one of the shared places and wait for nobody, as what runs is shared with others.

        Raises:
            Busy: every place is taken.
            DeadlinePassed, RequestCancelled: the call ended before its turn.
        """
        with self._lock:
            if not self._places[shared]:
                raise Busy("the queue is full; try again later")
            self._places[shared] -= 1
        try:
            if shared:
                call.stop_if_unwanted()
            else:
                self._await_turn(call)
        except ServiceError:
            self._give_place_back(shared=shared)
            raise

    def leave(self, *, shared: bool = False) -> None:
        """Give the place back, and the turn to the next."""
        if not shared:
            self._pass_on()
        self._give_place_back(shared=shared)

    def _give_place_back(self, *, shared: bool) -> None:
        with self._lock:
            self._places[shared] += 1

    def _await_turn(self, call: Call) -> None:
        call.stop_if_unwanted()
        with self._lock:
            if self._free:
                self._free -= 1
                return
            ticket = _Ticket((call.priority == 0, call.priority, next(self._arrivals)))
            self._waiting.append(ticket)
        came = False
        try:
            while not ticket.turn.wait(_pause_of(call)):
                call.stop_if_unwanted()
            came = True
        finally:
            if not came:
                self._leave(ticket)

    def _leave(self, ticket: _Ticket) -> None:
        with self._lock:
            waits = any(other is ticket for other in self._waiting)
            self._waiting = [other for other in self._waiting if other is not ticket]
        if not waits:  # the turn came while the request gave up
            self._pass_on()

    def _pass_on(self) -> None:
        with self._lock:
            if not self._waiting:
                self._free += 1
                return
            ticket = min(self._waiting)
            self._waiting = [other for other in self._waiting if other is not ticket]
            ticket.turn.set()


def _pause_of(call: Call) -> float:
    remaining = call.remaining_s()
    return _LOOK_S if remaining is None else max(0.0, min(_LOOK_S, remaining))
