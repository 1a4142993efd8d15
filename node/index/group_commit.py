"""One COMMIT for all who wait for one: at four associations, one fsync of the log instead of four in a row."""

import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from node.index.engine import writing

_Result = TypeVar("_Result")
_groups: "weakref.WeakKeyDictionary[Engine, _Group]" = weakref.WeakKeyDictionary()
_making = threading.Lock()


def commit_together(engine: Engine, work: Callable[[Connection], _Result]) -> _Result:
    """Run `work` in a write transaction shared with whoever else is waiting; return once it is committed.

    Work must not depend on being alone in its transaction. Work that fails is undone and fails alone. Where the
    transaction itself fails, the error goes to the thread that led it, and the others try again without it.

    Raises:
        SQLAlchemyError: What `work` or the commit raised; then nothing of it is in the index.
    """
    with _making:
        group = _groups.setdefault(engine, _Group())
    return group.run(engine, work)


class _Job(Generic[_Result]):
    """One piece of work and what came of it."""

    def __init__(self, work: Callable[[Connection], _Result]) -> None:
        self.work = work
        self.result: _Result | SQLAlchemyError | None = None
        self.is_done = False

    def run(self, connection: Connection) -> None:
        try:
            with connection.begin_nested():
                self.result = self.work(connection)
        except SQLAlchemyError as error:
            self.result = error


class _Group:
    """Who comes first takes along whoever came meanwhile; they find their work done."""

    def __init__(self) -> None:
        self._leading = threading.Lock()
        self._queue_lock = threading.Lock()
        self._queue: list[_Job[object]] = []

    def run(self, engine: Engine, work: Callable[[Connection], _Result]) -> _Result:
        job = _Job(work)
        with self._queue_lock:
            self._queue.append(job)  # type: ignore[arg-type]  # a list of jobs of any result
        with self._leading:
            if not job.is_done:
                self._lead(engine, job)
        if isinstance(job.result, SQLAlchemyError):
            raise job.result
        return cast(_Result, job.result)

    def _lead(self, engine: Engine, own: "_Job[_Result]") -> None:
        with self._queue_lock:
            jobs, self._queue = self._queue, []
        try:
            with writing(engine) as connection:
                for job in jobs:
                    job.run(connection)
            for job in jobs:
                job.is_done = True
        finally:
            with self._queue_lock:
                self._queue = [job for job in jobs if not job.is_done and job is not own] + self._queue
