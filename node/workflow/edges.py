"""The steps' edges: where exceptions become recorded ends, and where clock, randomness and the index are met.

Every outcome is recorded in the index before DBOS checkpoints the step, so a step that runs again finds it there.
"""

import errno
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TypedDict

import structlog
from sqlalchemy import Engine

from node.delivery.retry_schedule import wait_s
from node.domain.evidence import EvidenceSet
from node.errors import (
    DecodingError,
    EvidenceRejected,
    HilumError,
    InferenceBroken,
    InferenceUnavailable,
    Refusal,
)
from node.index.deliveries import Attempt, pending_set, record_attempt, record_evidence, undelivered_of_run
from node.index.history import record_event
from node.index.runs import (
    RunEnd,
    RunRequest,
    begin_evidence,
    end_run,
    put_back,
    put_back_counted,
    record_verdicts,
    unfinished_run,
)
from node.workflow.courier import given_up
from node.workflow.identity import delivery_id_of
from node.workflow.reach import Reach
from node.workflow.steps import Selection, Steps, WorkflowTerms

MOST_CRASHES = 3
SELECT_WAITS_S = (0.5, 2.0, 8.0)
_PASSING_ERRNO = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO})

log = structlog.get_logger()


class Made(TypedDict):
    """What make_evidence leaves in the workflow's database."""

    wait_s: float | None
    """Seconds until another turn; None when the run has ended."""
    deliveries: list[list[str]]
    """[evidence key, destination] of what is to be delivered."""


class StepEdges:
    """The three steps as the workflows call them: strings in, JSON out, no exception but the index's own."""

    def __init__(
        self, engine: Engine, steps: Steps, terms: WorkflowTerms, *, on_back: Callable[[str | None], None]
    ) -> None:
        """Keep the parts.

        Args:
            engine: the index.
            steps: the heavy steps.
            terms: numbers and destinations.
            on_back: called with a destination's name, or None for the inference service, when it answers again after
                it was away: what waits for it need not wait longer.
        """
        self._engine = engine
        self._steps = steps
        self._terms = terms
        self._reach = Reach(on_back)
        # Jitter, not cryptography.
        self._random = Random()  # noqa: S311
        self._at_work: set[str] = set()
        self._lock = threading.Lock()

    def select(self, run_id: str) -> str | None:
        """Judge the series of the run's generation; return the one taken, None when the run has ended without."""
        run = unfinished_run(self._engine, run_id)
        if run is None:
            return None
        try:
            selection = self._select_patiently(run)
        except HilumError as error:
            self._end(run, "REFUSED" if isinstance(error, Refusal) else "FAILED", str(error))
            return None
        except Exception as error:  # noqa: BLE001 (the step's edge)
            self._end(run, "FAILED", _unexpected("select", run_id, error))
            return None
        record_verdicts(self._engine, run_id, selection.verdicts)
        if selection.series_uid is None:
            self._end(run, "REFUSED", f"none of {len(selection.verdicts)} series is what the model takes")
        return selection.series_uid

    def _select_patiently(self, run: RunRequest) -> Selection:
        """Select, and try again within the step where the machine is short of something for a moment."""
        for pause_s in SELECT_WAITS_S:
            try:
                return self._steps.select(run)
            except OSError as error:
                if not _passes(error):
                    raise
                log.warning("run_postponed", study_uid=run.study_uid, run_id=run.run_id, reason=str(error.strerror))
                threading.Event().wait(pause_s)
        return self._steps.select(run)

    def make_evidence(self, run_id: str, series_uid: str, turn: int) -> Made:
        """Make the run's evidence set and record it with its deliveries; or record why there is none, or a wait."""
        run = unfinished_run(self._engine, run_id)
        if run is None:
            return self._made(run_id)
        if not begin_evidence(self._engine, run_id, most=MOST_CRASHES):
            self._end(run, "QUARANTINED", _set_aside("the node, or the inference service, stopped"))
            return {"wait_s": None, "deliveries": []}
        with self._working_on(run_id):
            try:
                evidence = self._steps.make_evidence(run, series_uid)
            except (HilumError, OSError) as error:
                if _passes(error):
                    return self._wait(run, turn, error)
                self._end(run, *_end_of(error))
            except Exception as error:  # noqa: BLE001 (the step's edge)
                self._end(run, "FAILED", _unexpected("make_evidence", run_id, error))
            else:
                self._record(run, evidence)
                self._reach.found(None)
        return self._made(run_id)

    def deliver(self, evidence_key: str, destination: str, turn: int) -> float | None:
        """Try once to deliver a set; return the seconds until another turn, None when nothing is left to send."""
        work_id = delivery_id_of(evidence_key, destination)
        with self._working_on(work_id):
            try:
                record = self._steps.deliver_once(evidence_key, destination)
            except Exception as error:  # noqa: BLE001 (the step's edge)
                text = _unexpected("deliver", work_id, error)
                return self._postpone_delivery(evidence_key, destination, turn, text)
        if record.answered:
            self._reach.found(destination)
        elif record.wait_s is not None:
            self._reach.lost(destination)
        return record.wait_s

    @property
    def busy(self) -> bool:
        """Whether a step is at work."""
        return bool(self._at_work)

    def settle(self) -> None:
        """Put back the runs that the node's stop cut off, so that they do not count as crashes."""
        with self._lock:
            cut_off = tuple(self._at_work)
        for run_id in cut_off:
            put_back(self._engine, run_id, "the node was stopped; goes on at its next start")

    @contextmanager
    def _working_on(self, work_id: str) -> Iterator[None]:
        with self._lock:
            self._at_work.add(work_id)
        try:
            yield
        finally:
            with self._lock:
                self._at_work.discard(work_id)

    def _record(self, run: RunRequest, evidence: EvidenceSet) -> None:
        directory = os.path.relpath(evidence.directory, self._terms.outbox_directory)
        names = [item.name for item in self._terms.destinations]
        record_evidence(self._engine, evidence, directory, run_id=run.run_id, destinations=names, now=_now())
        log.info("evidence_made", study_uid=run.study_uid, evidence_key=evidence.key, count=len(evidence.objects))

    def _made(self, run_id: str) -> Made:
        return {"wait_s": None, "deliveries": [list(item) for item in undelivered_of_run(self._engine, run_id)]}

    def _wait(self, run: RunRequest, turn: int, error: Exception) -> Made:
        if isinstance(error, InferenceUnavailable):
            self._reach.lost(None)
        seconds = self._seconds(turn)
        text = f"waiting to try again: {error}"
        if not isinstance(error, InferenceBroken):
            put_back(self._engine, run.run_id, text)
        elif put_back_counted(self._engine, run.run_id, text) >= MOST_CRASHES:
            self._end(
                run, "QUARANTINED", f"{_set_aside('the inference service ended or gave no answer')}. Last: {error}"
            )
            return {"wait_s": None, "deliveries": []}
        if turn == 0:
            record_event(self._engine, run.study_uid, "run_postponed", text, now=_now())
        log.warning("run_postponed", study_uid=run.study_uid, run_id=run.run_id, reason=str(error), seconds=seconds)
        return {"wait_s": seconds, "deliveries": []}

    def _seconds(self, turn: int) -> float:
        first, most = self._terms.inference_wait_first_s, self._terms.inference_wait_most_s
        return round(wait_s(turn + 1, first_s=first, most_s=most, random=self._random), 3)

    def _end(self, run: RunRequest, state: RunEnd, reason: str) -> None:
        end_run(self._engine, run.run_id, state, reason, now=_now())
        log.info("run_ended", study_uid=run.study_uid, run_id=run.run_id, state=state, reason=reason)

    def _postpone_delivery(self, evidence_key: str, destination: str, turn: int, text: str) -> float | None:
        pending = pending_set(self._engine, evidence_key, destination)
        if pending is None:
            return None
        peer = next((item for item in self._terms.destinations if item.name == destination), None)
        end = None if peer is None else given_up(pending, peer, text)
        seconds = min(900.0, 60.0 * (turn + 1))
        due = _now() + timedelta(seconds=seconds)
        for item, _path in pending.objects:
            uid = item.sop.sop_instance_uid
            postponed = Attempt(uid, destination, "PENDING", None, text, due)
            attempt = postponed if end is None else Attempt(uid, destination, "REFUSED", None, end)
            record_attempt(self._engine, pending.study_uid, attempt, now=_now())
        return seconds if end is None else None


def _set_aside(what: str) -> str:
    return f"{what} {MOST_CRASHES} times while it worked on this study; set aside so that others go on"


def _now() -> datetime:
    return datetime.now(UTC)


def _passes(error: Exception) -> bool:
    """Whether the same step may succeed later: the error's own rule, or a machine that is full for the moment."""
    if isinstance(error, HilumError):
        return error.retry
    return isinstance(error, OSError) and error.errno in _PASSING_ERRNO


def _end_of(error: Exception) -> tuple[RunEnd, str]:
    if isinstance(error, Refusal | DecodingError):
        return "REFUSED", str(error)
    if isinstance(error, EvidenceRejected):
        return "QUARANTINED", str(error)
    if isinstance(error, OSError):
        return "FAILED", f"files of the study or the outbox: {error.strerror or type(error).__name__}"
    return "FAILED", str(error)


def _unexpected(step: str, work_id: str, error: Exception) -> str:
    """Log where an unforeseen exception came from; its own message may hold anything, so it stays out."""
    where = traceback.format_tb(error.__traceback__)[-3:]
    log.error("step_failed", step=step, work_id=work_id, reason=type(error).__name__, where="".join(where))
    return f"unexpected {type(error).__name__} in {step}; the log says where. Remedy: report it, then hilum retry"
