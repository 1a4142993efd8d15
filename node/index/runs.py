"""Runs: one model on one generation of a study, from planned to its end. Transitions only in a transaction.

    QUEUED <-> RUNNING -> EVIDENCE | REFUSED | QUARANTINED | FAILED

`started` counts how often make_evidence began without ending in order: what is left of it after a crash of the node,
or of the inference service while it worked on the run's request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Engine, Row, delete, exists, func, insert, select, update

from node.domain.study import REINDEXED, Verdict
from node.index.engine import writing
from node.index.history import add_event
from node.index.rows import as_row_time, as_time, insert_missing
from node.index.supersession import end_older_runs
from node.index.tables import generation, retry_request, run, verdict

RunEnd = Literal["REFUSED", "QUARANTINED", "FAILED"]
UNFINISHED = ("QUEUED", "RUNNING")
_EVENT_OF_END = {"REFUSED": "run_refused", "QUARANTINED": "run_quarantined", "FAILED": "run_failed"}


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """An installed model as the plan knows it."""

    name: str
    version: str
    digest: str
    """Hex SHA-256 of the bundle."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """Everything that says which run this is; its row exists before its workflow does."""

    run_id: str
    study_uid: str
    generation: str
    model: ModelVersion
    settings_digest: str
    attempt: int
    """0, or the number that `hilum retry` gave."""
    decided_at: datetime
    """The recorded decision time of the generation, UTC: what results carry."""


@dataclass(frozen=True, slots=True)
class DecidedGeneration:
    """A generation of a study as it was decided."""

    study_uid: str
    generation: str
    decided_at: datetime


def unplanned_generations(engine: Engine) -> tuple[DecidedGeneration, ...]:
    """Return the decided generations that have no run yet, oldest first.

    A generation is planned once, with the models of that moment: a model installed later does not run over the past.
    One that is known from its evidence alone runs only when a person asks.
    """
    planned = exists().where(run.c.study_uid == generation.c.study_uid, run.c.generation == generation.c.generation)
    query = select(generation).where(~planned, generation.c.reason != REINDEXED).order_by(generation.c.decided_at)
    with engine.connect() as connection:
        return tuple(_decided(row) for row in connection.execute(query))


def newest_generation(engine: Engine, study_uid: str) -> DecidedGeneration | None:
    """Return the generation of a study that was decided last."""
    query = select(generation).where(generation.c.study_uid == study_uid).order_by(generation.c.count.desc()).limit(1)
    with engine.connect() as connection:
        row = connection.execute(query).first()
    return None if row is None else _decided(row)


def plan_runs(engine: Engine, requests: Sequence[RunRequest], *, now: datetime) -> None:
    """Record runs as QUEUED, all or none; those that exist stay as they are.

    Unfinished runs of earlier generations of the same study end REFUSED with them: they would come too late.
    """
    rows = [
        {
            "run_id": item.run_id,
            "study_uid": item.study_uid,
            "generation": item.generation,
            "model_name": item.model.name,
            "model_version": item.model.version,
            "model_digest": item.model.digest,
            "settings_digest": item.settings_digest,
            "attempt": item.attempt,
            "state": "QUEUED",
            "reason": "waiting for its turn",
            "started": 0,
            "decided_at": as_row_time(item.decided_at),
        }
        for item in requests
    ]
    with writing(engine) as connection:
        insert_missing(connection, run, rows)
        for study_uid, digest in {(item.study_uid, item.generation) for item in requests}:
            end_older_runs(connection, study_uid, digest, now=now)


def unfinished_runs(engine: Engine) -> tuple[RunRequest, ...]:
    """Return the runs that are QUEUED or RUNNING: those that never crashed first, then the oldest decision."""
    query = select(run).where(run.c.state.in_(UNFINISHED)).order_by(run.c.started, run.c.decided_at, run.c.run_id)
    with engine.connect() as connection:
        return tuple(_request(row) for row in connection.execute(query))


def unfinished_run(engine: Engine, run_id: str) -> RunRequest | None:
    """Return the run while it is QUEUED or RUNNING; None once it has ended."""
    with engine.connect() as connection:
        row = connection.execute(select(run).where(run.c.run_id == run_id, run.c.state.in_(UNFINISHED))).first()
    return None if row is None else _request(row)


def crashed_runs(engine: Engine) -> frozenset[str]:
    """Return the unfinished runs whose make_evidence began and never ended: what a dead node was at."""
    query = select(run.c.run_id).where(run.c.state.in_(UNFINISHED), run.c.started > 0)
    with engine.connect() as connection:
        return frozenset(connection.execute(query).scalars())


def last_attempt(engine: Engine, decided: DecidedGeneration) -> int:
    """Return the highest attempt number among a generation's runs, -1 where it has none."""
    query = select(func.max(run.c.attempt)).where(
        run.c.study_uid == decided.study_uid, run.c.generation == decided.generation
    )
    with engine.connect() as connection:
        highest: int | None = connection.execute(query).scalar_one()
    return -1 if highest is None else highest


def record_verdicts(engine: Engine, run_id: str, verdicts: Sequence[Verdict]) -> None:
    """Replace the verdicts of a run."""
    rows = [
        {"run_id": run_id, "series_uid": item.series_uid, "taken": item.taken, "reason": item.reason}
        for item in verdicts
    ]
    with writing(engine) as connection:
        connection.execute(delete(verdict).where(verdict.c.run_id == run_id))
        if rows:
            connection.execute(insert(verdict), rows)


def begin_evidence(engine: Engine, run_id: str, *, most: int) -> bool:
    """Mark that make_evidence begins; False, and nothing marked, where it began `most` times without an end."""
    with writing(engine) as connection:
        changed = connection.execute(
            update(run)
            .where(run.c.run_id == run_id, run.c.state.in_(UNFINISHED), run.c.started < most)
            .values(state="RUNNING", reason="evidence is being made", started=run.c.started + 1)
        ).rowcount
    return changed > 0


def put_back(engine: Engine, run_id: str, reason: str) -> None:
    """End a begun make_evidence in order without a result: the run waits, and no crash is counted."""
    with writing(engine) as connection:
        connection.execute(
            update(run)
            .where(run.c.run_id == run_id, run.c.state == "RUNNING")
            .values(state="QUEUED", reason=reason, started=run.c.started - 1)
        )


def put_back_counted(engine: Engine, run_id: str, reason: str) -> int:
    """As `put_back`, for an end that the run may be to blame for; return how often it has begun without an end."""
    with writing(engine) as connection:
        this = (run.c.run_id == run_id) & (run.c.state == "RUNNING")
        connection.execute(update(run).where(this).values(state="QUEUED", reason=reason))
        return int(connection.execute(select(run.c.started).where(run.c.run_id == run_id)).scalar_one())


def end_run(engine: Engine, run_id: str, state: RunEnd, reason: str, *, now: datetime) -> None:
    """End a run that yields no evidence, with its reason; a run that has ended stays as it is."""
    with writing(engine) as connection:
        changed = connection.execute(
            update(run)
            .where(run.c.run_id == run_id, run.c.state.in_(UNFINISHED))
            .values(state=state, reason=reason, finished_at=as_row_time(now))
        ).rowcount
        if changed:
            row = connection.execute(select(run).where(run.c.run_id == run_id)).one()
            text = f"{row.model_name} {row.model_version}: {reason}"
            add_event(connection, row.study_uid, _EVENT_OF_END[state], text, now=now)


def end_run_with_evidence(connection: Connection, run_id: str, evidence_key: str, *, now: datetime) -> bool:
    """Tie a run to its evidence set inside the caller's transaction; False where the run had ended before."""
    changed = connection.execute(
        update(run)
        .where(run.c.run_id == run_id, run.c.state.in_(UNFINISHED))
        .values(state="EVIDENCE", reason="evidence made", evidence_key=evidence_key, finished_at=as_row_time(now))
    ).rowcount
    return changed > 0


def request_retry(engine: Engine, study_uid: str, *, now: datetime) -> None:
    """Ask the node that owns the index to work on a study again; it picks the row up within seconds."""
    with writing(engine) as connection:
        connection.execute(insert(retry_request).values(study_uid=study_uid, requested_at=as_row_time(now)))
        add_event(connection, study_uid, "retry_requested", "a person asked for another attempt", now=now)


def open_retry_requests(engine: Engine) -> tuple[tuple[int, str], ...]:
    """Return (request id, Study Instance UID) of the requests that no one has taken."""
    query = select(retry_request).where(retry_request.c.taken_at.is_(None)).order_by(retry_request.c.request_id)
    with engine.connect() as connection:
        return tuple((row.request_id, row.study_uid) for row in connection.execute(query))


def close_retry_request(engine: Engine, request_id: int, *, now: datetime) -> None:
    """Mark a request as taken."""
    with writing(engine) as connection:
        connection.execute(
            update(retry_request).where(retry_request.c.request_id == request_id).values(taken_at=as_row_time(now))
        )


def _decided(row: Row[Any]) -> DecidedGeneration:
    return DecidedGeneration(row.study_uid, row.generation, as_time(row.decided_at))


def _request(row: Row[Any]) -> RunRequest:
    return RunRequest(
        run_id=row.run_id,
        study_uid=row.study_uid,
        generation=row.generation,
        model=ModelVersion(row.model_name, row.model_version, row.model_digest),
        settings_digest=row.settings_digest,
        attempt=row.attempt,
        decided_at=as_time(row.decided_at),
    )
