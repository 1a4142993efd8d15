"""Runs the tiles of several requests together: one thread for each model, and the place where requests wait."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.batching import BatchQueue, Piece
from inference.call import Call
from inference.errors import ModelNotReady, ServiceError
from inference.ports import Arrays, StageTimes
from protos.model_manifest import Batching

Tiles = NDArray[Any]
Network = Callable[[Tiles, Call | None], Arrays]
"""Tiles [n, ...] -> answers, each [n, ...]; raises ServiceError. A call is given where one request runs alone."""
_POLL_S = 0.02
_FAILURES = (ServiceError, ValueError, TypeError, MemoryError, RuntimeError)


@dataclass(slots=True, eq=False)
class Job:
    """The tiles [n, ...] of one request, and its answers as they come; `answers` are whole once `done` is set."""

    tiles: Tiles
    call: Call
    since: float
    answers: Arrays = field(default_factory=dict)
    times: StageTimes = field(default_factory=lambda: StageTimes(batch_size=0, executions=0))
    """`batch_size` is the most tiles that ran together with these; of several requests in one run, one counts it."""
    done: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None
    answered: int = 0

    @property
    def is_unwanted(self) -> bool:
        """Tell whether nobody waits for the answers any more."""
        remaining = self.call.remaining_s()
        return self.done.is_set() or self.call.ended.is_set() or (remaining is not None and remaining <= 0)

    def fail(self, error: Exception) -> None:
        """End without answers."""
        self.error = error
        self.done.set()

    def receive(self, answers: Arrays, piece: "Piece[Job]") -> None:
        """Put the answers of a piece into their place."""
        if piece.stop - piece.start == len(self.tiles):
            self.answers = answers
        else:
            for name, part in answers.items():
                if name not in self.answers:
                    self.answers[name] = np.empty((len(self.tiles), *part.shape[1:]), part.dtype)
                self.answers[name][piece.start : piece.stop] = part
        self.answered += piece.stop - piece.start
        if self.answered == len(self.tiles):
            self.done.set()


class Dispatcher:
    """Takes tiles from requests' threads, runs them in batches on its own, and hands answers back.

    A batch that fails is run again request by request, so that only the one at fault fails.
    """

    def __init__(self, terms: Batching, network: Network, name: str) -> None:
        """Start the thread; `name` is the model's, for messages."""
        self._network = network
        self._name = name
        self._queue: BatchQueue[Job] = BatchQueue(terms, lambda job: job.is_unwanted)
        self._changed = threading.Condition()
        self._expected = 0
        self._stopped = False
        threading.Thread(target=self._work, name=f"batches {name}", daemon=True).start()

    @contextmanager
    def expected(self) -> Iterator[None]:
        """Say that a request prepares its tiles while the block runs and queues them in it, if all goes well."""
        with self._changed:
            self._expected += 1
        try:
            yield
        finally:
            with self._changed:
                self._expected -= 1
                self._changed.notify()

    def queue(self, tiles: Tiles, call: Call) -> Job:
        """Queue tiles [n, ...], n of 1 or more, inside `expected`.

        Raises:
            Busy: the queue is full.
            ModelNotReady: the dispatcher was stopped.
        """
        with self._changed:
            if self._stopped:
                raise self._is_stopping()
            now = time.monotonic()
            job = Job(tiles, call, now)
            self._queue.add(job, len(tiles), call.priority, now)
            return job

    def wait(self, job: Job) -> None:
        """Wait for the answers of a job.

        Raises:
            PredictionFailed, Busy: the run of these tiles failed.
            DeadlinePassed, RequestCancelled: nobody waits any more.
            ModelNotReady: the dispatcher was stopped.
        """
        while not job.done.wait(_POLL_S):
            job.call.stop_if_unwanted()
        if job.error is not None:
            raise job.error

    def stop(self) -> None:
        """Fail the jobs that wait and end the thread after the batch that runs."""
        with self._changed:
            self._stopped = True
            for job in self._queue.clear():
                job.fail(self._is_stopping())
            self._changed.notify()

    def _is_stopping(self) -> ModelNotReady:
        return ModelNotReady(f"{self._name} is being stopped; try again later")

    def _work(self) -> None:
        try:
            while self._step():
                pass
        finally:
            self.stop()

    def _step(self) -> bool:
        pieces = self._next()
        if pieces:
            self._run(pieces)
        return bool(pieces)

    def _next(self) -> list[Piece[Job]]:
        """Wait for a batch; empty once stopped."""
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                wait = self._queue.wait_s(now, self._expected)
                if wait != 0:
                    self._changed.wait(wait)
                elif pieces := self._queue.take(now):
                    return pieces
            return []

    def _run(self, pieces: list[Piece[Job]]) -> None:
        try:
            self._execute(pieces)
        except _FAILURES as error:
            if len(pieces) == 1:
                pieces[0].ticket.fail(error)
                return
            for piece in pieces:
                self._run([piece])

    def _execute(self, pieces: list[Piece[Job]]) -> None:
        parts = [piece.ticket.tiles[piece.start : piece.stop] for piece in pieces]
        tiles = parts[0] if len(parts) == 1 else np.concatenate(parts)
        began = time.monotonic()
        answers = self._network(tiles, pieces[0].ticket.call if len(pieces) == 1 else None)
        seconds = time.monotonic() - began
        place = 0
        for piece, part in zip(pieces, parts, strict=True):
            job = piece.ticket
            job.times = _with_run(job, began, seconds, len(tiles), first=place == 0)
            job.receive({name: answer[place : place + len(part)] for name, answer in answers.items()}, piece)
            place += len(part)


def _with_run(job: Job, began: float, seconds: float, tiles: int, *, first: bool) -> StageTimes:
    times = job.times
    return replace(
        times,
        queue_s=times.queue_s if job.answered else began - job.since,
        compute_s=times.compute_s + seconds,
        batch_size=max(times.batch_size, tiles),
        executions=times.executions + first,
    )
