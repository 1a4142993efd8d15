"""Rows of studies and their generations: arriving, decided, ready to run."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Select, func, select

from node.domain.instances import ReceivedInstance
from node.domain.study import ReadyStudy, generation_of
from node.index.engine import store_directory_of, writing
from node.index.instances import received_from_row
from node.index.rows import as_row_time, as_time, insert_missing
from node.index.tables import generation, generation_member, instance, study


@dataclass(frozen=True, slots=True)
class StudyRow:
    """A study as the index knows it."""

    study_uid: str
    first_received_at: datetime
    last_received_at: datetime
    """Of the last instance that can trigger a run."""
    decided_generation: str | None
    """None while instances arrive."""
    instances: int
    """Instances that can trigger a run."""


def arriving(engine: Engine) -> tuple[StudyRow, ...]:
    """Return the studies that hold instances no decision has covered yet, longest quiet first."""
    query = _counted().where(study.c.decided_generation.is_(None)).order_by(study.c.last_received_at)
    return _rows(engine, query)


def studies(engine: Engine, *, most: int = 1000) -> tuple[StudyRow, ...]:
    """Return the studies that can trigger runs, newest first."""
    return _rows(engine, _counted().order_by(study.c.last_received_at.desc(), study.c.study_uid).limit(most))


def decide(
    engine: Engine, study_uid: str, reason: str, now: datetime, *, seen_last: datetime | None = None
) -> ReadyStudy | None:
    """Close the study as it stands as a generation.

    Args:
        engine: The index.
        study_uid: The study.
        reason: Why it is ready; stored and shown.
        now: Decision time, with its zone.
        seen_last: `last_received_at` that the decision rests on; where an instance arrived since, nothing is decided.

    Returns:
        The generation, or None where it was decided before (the same instances again) or an instance came between.
    """
    with writing(engine) as connection:
        last = connection.execute(select(study.c.last_received_at).where(study.c.study_uid == study_uid)).scalar()
        if last is None or (seen_last is not None and last != as_row_time(seen_last)):
            return None
        members = _members(connection, study_uid, store_directory_of(engine))
        digest = generation_of(members)
        ready = _insert_generation(connection, study_uid, digest, members, reason=reason, now=now)
        connection.execute(study.update().where(study.c.study_uid == study_uid).values(decided_generation=digest))
    return ready


def present_generation(engine: Engine, study_uid: str) -> str:
    """Return the generation that the study would be decided as now."""
    with engine.connect() as connection:
        return generation_of(_members(connection, study_uid, store_directory_of(engine)))


def _members(connection: Connection, study_uid: str, base: Path) -> list[ReceivedInstance]:
    query = select(instance).where(instance.c.study_uid == study_uid, instance.c.derived.is_(False))
    return [received_from_row(row, base) for row in connection.execute(query)]


def _insert_generation(
    connection: Connection,
    study_uid: str,
    digest: str,
    members: list[ReceivedInstance],
    *,
    reason: str,
    now: datetime,
) -> ReadyStudy | None:
    before = select(func.count()).select_from(generation).where(generation.c.study_uid == study_uid)
    count = connection.execute(before).scalar_one() + 1
    row = {
        "study_uid": study_uid,
        "generation": digest,
        "count": count,
        "instances": len(members),
        "reason": reason,
        "decided_at": as_row_time(now),
    }
    if not insert_missing(connection, generation, [row]):
        return None
    key = {"study_uid": study_uid, "generation": digest}
    connection.execute(
        generation_member.insert(), [{**key, "sop_instance_uid": item.sop.sop_instance_uid} for item in members]
    )
    return ReadyStudy(study_uid, digest, count, reason)


def _counted() -> Select[Any]:
    able = (instance.c.study_uid == study.c.study_uid) & instance.c.derived.is_(False)
    count = select(func.count()).select_from(instance).where(able).correlate(study).scalar_subquery()
    return select(
        study.c.study_uid,
        study.c.first_received_at,
        study.c.last_received_at,
        study.c.decided_generation,
        count.label("instances"),
    )


def _rows(engine: Engine, query: Select[Any]) -> tuple[StudyRow, ...]:
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    return tuple(
        StudyRow(
            row.study_uid,
            as_time(row.first_received_at),
            as_time(row.last_received_at),
            row.decided_generation,
            row.instances,
        )
        for row in rows
    )
