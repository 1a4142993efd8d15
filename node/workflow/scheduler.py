"""The thread that turns facts of the index into durable work, again and again: what is enqueued twice runs once."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import Engine

from node.index.deliveries import seconds_until, undelivered
from node.index.runs import unfinished_runs
from node.workflow.durable import DELIVERIES, RUNS, DurableQueues, is_delivery_to
from node.workflow.identity import delivery_id_of
from node.workflow.planning import plan_decided, replace_outdated, take_retry_requests
from node.workflow.steps import WorkflowTerms

TICK_S = 0.25
_SLOWEST_TICK_S = 8.0
_FORGET_EVERY_S = 3600.0
_KEEP = timedelta(days=1)

log = structlog.get_logger()


class Scheduler:
    """Asks completion, plans, enqueues, sweeps; the only caller of the queues outside the workflows' bodies."""

    def __init__(
        self,
        engine: Engine,
        queues: DurableQueues,
        terms: WorkflowTerms,
        *,
        decide_studies: Callable[[datetime], None],
    ) -> None:
        """Keep the parts.

        Args:
            engine: the index.
            queues: where work is enqueued; launched before `start`.
            terms: models and numbers.
            decide_studies: closes the studies that are ready at the time given.
        """
        self._engine = engine
        self._queues = queues
        self._terms = terms
        self._decide_studies = decide_studies
        self._woken = threading.Event()
        self._stopping = False
        self._sweep_due = 0.0
        self._forget_due = 0.0
        self._back: list[str | None] = []
        self._thread = threading.Thread(target=self._run, name="workflow-scheduler", daemon=True)

    def start(self) -> None:
        """Plan anew what no one can finish, enqueue everything unfinished, and go on ticking in a thread."""
        replace_outdated(self._engine, self._terms, _now())
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its present tick; nothing where it was never started."""
        self._stopping = True
        self._woken.set()
        if self._thread.ident is not None:
            self._thread.join()

    def wake(self) -> None:
        """Tick now."""
        self._woken.set()

    def note_back(self, name: str | None) -> None:
        """Let the work that waits for a destination (or, None, for the inference service) go on at once."""
        self._back.append(name)
        self._woken.set()

    def _run(self) -> None:
        pause, told = TICK_S, ""
        while not self._stopping:
            try:
                self._tick()
            except Exception as error:
                # The loop outlives whatever one tick meets (a full disk, a busy index); a later one tries again.
                cause = _cause_of(error)
                if cause != told:
                    log.exception("schedule_failed")
                pause, told = min(2 * pause, _SLOWEST_TICK_S), cause
            else:
                if told:
                    log.info("schedule_resumed")
                pause, told = TICK_S, ""
            self._woken.wait(pause)
            self._woken.clear()

    def _tick(self) -> None:
        now = _now()
        self._decide_studies(now)
        for item in plan_decided(self._engine, self._terms, now):
            log.info("run_planned", study_uid=item.study_uid, run_id=item.run_id)
            self._queues.enqueue_run(item.run_id)
        asked = take_retry_requests(self._engine, self._terms, now)
        if asked or time.monotonic() >= self._sweep_due:
            self._sweep_due = time.monotonic() + self._terms.sweep_s
            self._sweep(now)
        if asked:
            self._hasten_studies(asked)
        while self._back:
            self._hasten(self._back.pop())
        if time.monotonic() >= self._forget_due:
            self._forget_due = time.monotonic() + _FORGET_EVERY_S
            self._queues.forget_finished(now - _KEEP)

    def _sweep(self, now: datetime) -> None:
        """Enqueue what the index holds unfinished and the queues do not know.

        The queues are read first: work that ends in between is then missing in the index's answer, not enqueued again.
        """
        known = self._queues.unfinished()
        for run in unfinished_runs(self._engine):
            turn = None if run.run_id in known else self._queues.next_turn(run.run_id)
            if turn is not None:
                self._queues.enqueue_run(run.run_id, turn)
        for item in undelivered(self._engine):
            work_id = delivery_id_of(item.evidence_key, item.destination)
            turn = None if work_id in known else self._queues.next_turn(work_id)
            if turn is not None:
                delay_s = seconds_until(item.next_attempt_at, now)
                self._queues.enqueue_delivery(item.evidence_key, item.destination, turn, delay_s=delay_s)

    def _hasten_studies(self, study_uids: tuple[str, ...]) -> None:
        runs = {item.run_id for item in unfinished_runs(self._engine) if item.study_uid in study_uids}
        self._queues.hasten(RUNS, runs.__contains__)
        sets = {
            delivery_id_of(item.evidence_key, item.destination)
            for item in undelivered(self._engine)
            if item.study_uid in study_uids
        }
        self._queues.hasten(DELIVERIES, sets.__contains__)

    def _hasten(self, name: str | None) -> None:
        if name is None:
            self._queues.hasten(RUNS, lambda _run_id: True)
        else:
            self._queues.hasten(DELIVERIES, is_delivery_to(name))


def _cause_of(error: Exception) -> str:
    # SQLAlchemy's own text holds the statement and its values, which differ each time.
    return f"{type(error).__name__}: {getattr(error, 'orig', error)}"


def _now() -> datetime:
    return datetime.now(UTC)
