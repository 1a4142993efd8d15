"""Evidence sets and their deliveries: one state per object and destination.

    PENDING -> SENT | REFUSED        (REFUSED -> PENDING only by a retry that a person asks for)
    PENDING | REFUSED -> SUPERSEDED  (a later generation of the study has its own result)

SENT is written from the peer's answer alone, never from the attempt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Engine, Row, case, func, null, select, update

from node.domain.evidence import EvidenceObject, EvidenceSet
from node.domain.instances import SopReference
from node.index.engine import writing
from node.index.history import add_event
from node.index.rows import as_optional_time, as_row_time, as_time, insert_missing
from node.index.runs import end_run_with_evidence
from node.index.supersession import end_older_deliveries, generations_with_later_results, superseding_generation
from node.index.tables import delivery, evidence_object, evidence_set, retry_request, run

AttemptState = Literal["PENDING", "SENT", "REFUSED"]
_EVENT_OF_STATE = {"SENT": "evidence_delivered", "REFUSED": "delivery_refused", "PENDING": "delivery_delayed"}


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A set of which at least one object is still to reach a destination."""

    study_uid: str
    evidence_key: str
    destination: str
    next_attempt_at: datetime | None
    """None: at once."""


@dataclass(frozen=True, slots=True)
class PendingSet:
    """What one attempt has to send."""

    study_uid: str
    objects: tuple[tuple[EvidenceObject, Path], ...]
    """The pending objects in the order of their making, with their files relative to the outbox."""
    attempts: int
    waiting_since: datetime
    """When the set was made, or when a person last asked for another attempt: giving up counts from here."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one object fared in one attempt at one destination."""

    sop_instance_uid: str
    destination: str
    state: AttemptState
    status: int | None
    comment: str
    next_attempt_at: datetime | None = None


def record_evidence(
    engine: Engine,
    evidence: EvidenceSet,
    directory: str,
    *,
    run_id: str | None,
    destinations: Sequence[str],
    now: datetime,
) -> None:
    """Record a durable set, its objects, a PENDING delivery per object and destination, and its run's end.

    A set that was made while a later generation took over is kept, and delivered nowhere.

    Args:
        engine: the index.
        evidence: the set as it lies in the outbox; a set that is known stays as it is.
        directory: its directory relative to the outbox.
        run_id: the run that made or adopted it; None when the index is rebuilt from the files.
        destinations: names of the destinations it is to reach.
        now: time of the recording.
    """
    with writing(engine) as connection:
        insert_missing(connection, evidence_set, [_set_row(evidence, directory)])
        insert_missing(connection, evidence_object, [_object_row(evidence.key, item) for item in evidence.objects])
        later = superseding_generation(connection, evidence.study_uid, evidence.generation)
        ways = [_delivery_row(evidence.key, item, name, later) for name in destinations for item in evidence.objects]
        insert_missing(connection, delivery, ways)
        if run_id is not None and end_run_with_evidence(connection, run_id, evidence.key, now=now):
            kinds = " + ".join(item.kind for item in evidence.objects)
            add_event(connection, evidence.study_uid, "evidence_made", f"{kinds} in the outbox", now=now)
            end_older_deliveries(connection, run_id, now=now)


def pending_set(engine: Engine, evidence_key: str, destination: str) -> PendingSet | None:
    """Return what is still to be sent of a set to a destination; None when nothing is."""
    query = (
        select(evidence_object, delivery.c.attempts, evidence_set.c.directory, evidence_set.c.study_uid)
        .add_columns(evidence_set.c.made_at)
        .join(delivery, delivery.c.sop_instance_uid == evidence_object.c.sop_instance_uid)
        .join(evidence_set, evidence_set.c.evidence_key == evidence_object.c.evidence_key)
        .where(evidence_object.c.evidence_key == evidence_key, delivery.c.destination == destination)
        .where(delivery.c.state == "PENDING")
        .order_by(evidence_object.c.kind, evidence_object.c.file_name)
    )
    with engine.connect() as connection:
        rows = connection.execute(query).all()
        if not rows:
            return None
        asked = connection.execute(
            select(func.max(retry_request.c.taken_at)).where(retry_request.c.study_uid == rows[0].study_uid)
        ).scalar_one()
    since = rows[0].made_at if asked is None else max(asked, rows[0].made_at)
    objects = tuple((_evidence_object(row), Path(row.directory) / row.file_name) for row in rows)
    return PendingSet(rows[0].study_uid, objects, max(row.attempts for row in rows), as_time(since))


def record_attempt(engine: Engine, study_uid: str, attempt: Attempt, *, now: datetime) -> None:
    """Record the outcome of one attempt for one object; an object that is SENT stays SENT.

    What was on its way when it was superseded and arrived is SENT.
    A delay that says the same as the one before is counted, not told again.
    """
    this = (delivery.c.sop_instance_uid == attempt.sop_instance_uid) & (delivery.c.destination == attempt.destination)
    changeable = ("PENDING", "SUPERSEDED") if attempt.state == "SENT" else ("PENDING",)
    with writing(engine) as connection:
        said_before = connection.execute(select(delivery.c.last_comment).where(this)).scalar_one_or_none()
        changed = connection.execute(
            update(delivery)
            .where(this, delivery.c.state.in_(changeable))
            .values(
                state=attempt.state,
                attempts=delivery.c.attempts + 1,
                last_status=attempt.status,
                last_comment=attempt.comment,
                next_attempt_at=None if attempt.next_attempt_at is None else as_row_time(attempt.next_attempt_at),
                sent_at=as_row_time(now) if attempt.state == "SENT" else None,
            )
        ).rowcount
        if changed and (attempt.state != "PENDING" or attempt.comment != said_before):
            text = f"{attempt.sop_instance_uid} to {attempt.destination}: {attempt.comment}"
            add_event(connection, study_uid, _EVENT_OF_STATE[attempt.state], text, now=now)


def undelivered(engine: Engine) -> tuple[Undelivered, ...]:
    """Return every (set, destination) with a PENDING object, oldest set first."""
    due = delivery.c.next_attempt_at
    # An object that was never tried, or was opened again, makes the whole set due at once.
    soonest = case((func.count(due) == func.count(), func.min(due)), else_=null()).label("next")
    pending = (
        select(delivery.c.evidence_key, delivery.c.destination, soonest)
        .where(delivery.c.state == "PENDING")
        .group_by(delivery.c.evidence_key, delivery.c.destination)
        .subquery()
    )
    query = (
        select(pending, evidence_set.c.study_uid)
        .join(evidence_set, evidence_set.c.evidence_key == pending.c.evidence_key)
        .order_by(evidence_set.c.made_at)
    )
    with engine.connect() as connection:
        return tuple(
            Undelivered(row.study_uid, row.evidence_key, row.destination, as_optional_time(row.next))
            for row in connection.execute(query)
        )


def undelivered_of_run(engine: Engine, run_id: str) -> tuple[tuple[str, str], ...]:
    """Return (evidence key, destination) of what a run's evidence set still has to reach."""
    query = (
        select(delivery.c.evidence_key, delivery.c.destination)
        .join(run, run.c.evidence_key == delivery.c.evidence_key)
        .where(run.c.run_id == run_id, delivery.c.state == "PENDING")
        .distinct()
        .order_by(delivery.c.destination)
    )
    with engine.connect() as connection:
        return tuple((row.evidence_key, row.destination) for row in connection.execute(query))


def reopen_refused(engine: Engine, study_uid: str) -> int:
    """Make the refused deliveries of a study's newest results PENDING again, at once; return how many there were."""
    keys = select(evidence_set.c.evidence_key).where(
        evidence_set.c.study_uid == study_uid,
        evidence_set.c.generation.not_in(generations_with_later_results(study_uid)),
    )
    with writing(engine) as connection:
        return connection.execute(
            update(delivery)
            .where(delivery.c.evidence_key.in_(keys), delivery.c.state == "REFUSED")
            .values(state="PENDING", next_attempt_at=None)
        ).rowcount


def seconds_until(moment: datetime | None, now: datetime) -> float:
    """Return the wait until `moment`, 0 where it has passed or is not set."""
    return 0.0 if moment is None else max(0.0, (moment - now) / timedelta(seconds=1))


def _set_row(evidence: EvidenceSet, directory: str) -> dict[str, Any]:
    return {
        "evidence_key": evidence.key,
        "study_uid": evidence.study_uid,
        "generation": evidence.generation,
        "profile": evidence.profile,
        "directory": directory,
        "made_at": as_row_time(evidence.made_at),
        "recorded_number": select(func.coalesce(func.max(evidence_set.c.recorded_number), 0) + 1).scalar_subquery(),
    }


def _object_row(evidence_key: str, item: EvidenceObject) -> dict[str, Any]:
    return {
        "sop_instance_uid": item.sop.sop_instance_uid,
        "evidence_key": evidence_key,
        "sop_class_uid": item.sop.sop_class_uid,
        "series_uid": item.series_uid,
        "kind": item.kind,
        "transfer_syntax": item.transfer_syntax,
        "file_name": item.file_name,
        "file_digest": item.file_digest,
    }


def _delivery_row(evidence_key: str, item: EvidenceObject, destination: str, later: int | None) -> dict[str, Any]:
    return {
        "sop_instance_uid": item.sop.sop_instance_uid,
        "destination": destination,
        "evidence_key": evidence_key,
        "state": "PENDING" if later is None else "SUPERSEDED",
        "attempts": 0,
        "last_comment": "" if later is None else f"superseded by generation {later}",
    }


def _evidence_object(row: Row[Any]) -> EvidenceObject:
    return EvidenceObject(
        kind=row.kind,
        sop=SopReference(row.sop_class_uid, row.sop_instance_uid),
        series_uid=row.series_uid,
        transfer_syntax=row.transfer_syntax,
        file_name=row.file_name,
        file_digest=row.file_digest,
    )
