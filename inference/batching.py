"""Which tiles run next: a queue of the tiles of several requests, without threads and without a clock of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from inference.errors import Busy
from protos.model_manifest import Batching

Ticket = TypeVar("Ticket")
AGED_S = 1.0
"""A request that waited this long goes before every priority."""


@dataclass(frozen=True, slots=True)
class Piece(Generic[Ticket]):
    """The tiles `start` to `stop` (without it) of one request."""

    ticket: Ticket
    start: int
    stop: int


@dataclass(slots=True)
class _Waiting(Generic[Ticket]):
    ticket: Ticket
    tiles: int
    urgency: float
    since: float
    taken: int = 0

    @property
    def left(self) -> int:
        return self.tiles - self.taken


class BatchQueue(Generic[Ticket]):
    """Holds requests in the order of their arrival and cuts them into batches of `terms.max_batch` tiles at most.

    Times are seconds of any one clock that never goes back.
    """

    def __init__(self, terms: Batching, unwanted: Callable[[Ticket], bool]) -> None:
        self._terms = terms
        self._unwanted = unwanted
        self._waiting: list[_Waiting[Ticket]] = []

    @property
    def tiles(self) -> int:
        """Count the tiles that wait."""
        return sum(item.left for item in self._waiting)

    def add(self, ticket: Ticket, tiles: int, priority: int, now: float) -> None:
        """Queue the tiles of one request; `priority` 1 is the most urgent, 0 is not said and goes last.

        A request of more tiles than the queue holds is taken while nothing else waits.

        Raises:
            Busy: the queue holds `max_queue` tiles and none of them is unwanted.
        """
        limit = self._terms.max_queue
        if self.tiles + tiles > limit:
            self._prune()
        if self._waiting and self.tiles + tiles > limit:
            raise Busy(f"the batch queue holds {self.tiles} of {limit} tiles, {tiles} more came; try again later")
        self._waiting.append(_Waiting(ticket, tiles, priority or float("inf"), now))

    def wait_s(self, now: float, expected: int) -> float | None:
        """Tell how long to wait for more before `take`; None where nothing waits.

        Args:
            now: the clock.
            expected: requests that are known to come soon; without any there is nothing to wait for.
        """
        if not self._waiting:
            return None
        if expected == 0 or self.tiles >= min((self._terms.max_batch, *self._terms.preferred)):
            return 0.0
        oldest = min(item.since for item in self._waiting)
        return max(0.0, oldest + self._terms.max_delay_ms / 1000 - now)

    def take(self, now: float) -> list[Piece[Ticket]]:
        """Take the next batch: one piece of each of its requests, the most urgent first, unwanted ones forgotten."""
        self._prune()
        room = self._terms.max_batch
        pieces = []
        for item in sorted(self._waiting, key=lambda item: _turn(item, now)):  # sorting keeps arrival among equals
            count = min(room, item.left)
            if count:
                pieces.append(Piece(item.ticket, item.taken, item.taken + count))
                item.taken += count
                room -= count
        self._waiting = [item for item in self._waiting if item.left]
        return pieces

    def clear(self) -> list[Ticket]:
        """Forget all requests and give their tickets."""
        tickets = [item.ticket for item in self._waiting]
        self._waiting = []
        return tickets

    def _prune(self) -> None:
        self._waiting = [item for item in self._waiting if not self._unwanted(item.ticket)]


def _turn(item: _Waiting[Ticket], now: float) -> tuple[bool, float]:
    aged = now - item.since >= AGED_S
    return not aged, 0.0 if aged else item.urgency
