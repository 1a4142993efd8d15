"""Rows of received instances, their variants and what was quarantined."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, exists, func, select
from sqlalchemy.dialects.sqlite import insert

from node.domain.instances import ReceivedInstance, SopReference
from node.index.engine import store_directory_of, writing
from node.index.group_commit import commit_together
from node.index.rows import as_row_time, as_time, insert_missing
from node.index.tables import (
    evidence_object,
    generation_member,
    instance,
    quarantined_instance,
    study,
    variant,
)


class Reception(Enum):
    """What a received instance is to the index (architecture 7)."""

    NEW = "new"
    SAME = "same"
    """The very same data set again: nothing new."""
    VARIANT = "variant"
    """The same pixels in another transfer syntax or with coerced demographics: the first is kept."""
    CONFLICT = "conflict"
    """The SOP Instance UID is taken by other content."""


@dataclass(frozen=True, slots=True)
class QuarantinedInstance:
    """What was refused at the front door, and why."""

    path: Path
    """Absolute: the refused bytes, or the record of the reason where no bytes were kept."""
    sop_instance_uid: str
    """As the peer claimed it; may be no UID at all."""
    study_uid: str | None
    calling_ae_title: str
    reason: str
    received_at: datetime


def record_instance(engine: Engine, received: ReceivedInstance, *, size: int, derived: bool) -> Reception:
    """Record a durable instance; an instance that is not derived opens its study for a decision.

    Args:
        engine: The index.
        received: The instance; its file is already durable.
        size: Bytes of the file.
        derived: The instance can never trigger a run (SEG, SR, KO, PR, our own).

    Returns:
        NEW, or SAME or CONFLICT where the SOP Instance UID is known; then nothing changes.
    """
    row = _instance_row(engine, received, size=size, derived=derived)

    def insert_row(connection: Connection) -> Reception:
        if insert_missing(connection, instance, [row]):
            if not derived:
                _open_study(connection, received.study_uid, as_row_time(received.received_at))
            return Reception.NEW
        known = connection.execute(
            select(instance.c.data_set_digest).where(instance.c.sop_instance_uid == received.sop.sop_instance_uid)
        ).scalar_one()
        return Reception.SAME if known == received.data_set_digest else Reception.CONFLICT

    return commit_together(engine, insert_row)


def record_variant(engine: Engine, received: ReceivedInstance, *, note: str) -> None:
    """Note that the known instance came again as another encoding of the same pixels."""
    row = {
        "sop_instance_uid": received.sop.sop_instance_uid,
        "data_set_digest": received.data_set_digest,
        "transfer_syntax": received.transfer_syntax,
        "note": note,
        "received_at": as_row_time(received.received_at),
    }
    with writing(engine) as connection:
        insert_missing(connection, variant, [row])


def record_quarantined(engine: Engine, refused: QuarantinedInstance, *, dropped: Iterable[Path] = ()) -> None:
    """Record a refused instance with its reason; forget those whose records were `dropped` to keep bounds."""
    row = {
        "path": _relative(engine, refused.path),
        "sop_instance_uid": refused.sop_instance_uid[:256],
        "study_uid": refused.study_uid,
        "calling_ae_title": refused.calling_ae_title,
        "reason": refused.reason,
        "received_at": as_row_time(refused.received_at),
    }
    gone = [_relative(engine, path) for path in dropped]
    with writing(engine) as connection:
        insert_missing(connection, quarantined_instance, [row])
        if gone:
            connection.execute(quarantined_instance.delete().where(quarantined_instance.c.path.in_(gone)))


def find_instance(engine: Engine, sop_instance_uid: str) -> ReceivedInstance | None:
    """Return the instance of that UID, or None."""
    found = _instances(engine, select(instance).where(instance.c.sop_instance_uid == sop_instance_uid))
    return found[0] if found else None


def is_known_variant(engine: Engine, sop_instance_uid: str, data_set_digest: str) -> bool:
    """Return whether this encoding of the instance was noted before."""
    wanted = (variant.c.sop_instance_uid == sop_instance_uid) & (variant.c.data_set_digest == data_set_digest)
    with engine.connect() as connection:
        return bool(connection.execute(select(exists().where(wanted))).scalar())


def is_known_result(engine: Engine, sop_instance_uid: str) -> bool:
    """Return whether this node made the object itself."""
    wanted = evidence_object.c.sop_instance_uid == sop_instance_uid
    with engine.connect() as connection:
        return bool(connection.execute(select(exists().where(wanted))).scalar())


def instances_of_generation(engine: Engine, study_uid: str, generation: str) -> tuple[ReceivedInstance, ...]:
    """Return the instances that were in the study when that generation was decided, ordered by SOP Instance UID."""
    member = generation_member.c
    query = (
        select(instance)
        .join(generation_member, member.sop_instance_uid == instance.c.sop_instance_uid)
        .where(member.study_uid == study_uid, member.generation == generation)
    )
    return _instances(engine, query)


def quarantined(engine: Engine, *, most: int = 1000) -> tuple[QuarantinedInstance, ...]:
    """Return what was refused at the front door, newest first."""
    query = select(quarantined_instance).order_by(quarantined_instance.c.received_at.desc()).limit(most)
    base = store_directory_of(engine)
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    return tuple(
        QuarantinedInstance(
            path=base / row.path,
            sop_instance_uid=row.sop_instance_uid,
            study_uid=row.study_uid,
            calling_ae_title=row.calling_ae_title,
            reason=row.reason,
            received_at=as_time(row.received_at),
        )
        for row in rows
    )


def _open_study(connection: Connection, study_uid: str, at: datetime) -> None:
    new = insert(study).values(study_uid=study_uid, first_received_at=at, last_received_at=at, decided_generation=None)
    connection.execute(
        new.on_conflict_do_update(
            index_elements=[study.c.study_uid],
            set_={
                "first_received_at": func.min(study.c.first_received_at, new.excluded.first_received_at),
                "last_received_at": func.max(study.c.last_received_at, new.excluded.last_received_at),
                "decided_generation": None,
            },
        )
    )


def _instances(engine: Engine, query: Select[Any]) -> tuple[ReceivedInstance, ...]:
    base = store_directory_of(engine)
    with engine.connect() as connection:
        rows = connection.execute(query.order_by(instance.c.sop_instance_uid)).all()
    return tuple(received_from_row(row, base) for row in rows)


def received_from_row(row: Row[Any], base: Path) -> ReceivedInstance:
    """Return the instance of a row; `base` is the directory of the store."""
    return ReceivedInstance(
        sop=SopReference(row.sop_class_uid, row.sop_instance_uid),
        study_uid=row.study_uid,
        series_uid=row.series_uid,
        transfer_syntax=row.transfer_syntax,
        calling_ae_title=row.calling_ae_title,
        path=base / row.path,
        data_set_digest=row.data_set_digest,
        received_at=as_time(row.received_at),
    )


def _instance_row(engine: Engine, received: ReceivedInstance, *, size: int, derived: bool) -> dict[str, object]:
    return {
        "sop_instance_uid": received.sop.sop_instance_uid,
        "sop_class_uid": received.sop.sop_class_uid,
        "study_uid": received.study_uid,
        "series_uid": received.series_uid,
        "transfer_syntax": received.transfer_syntax,
        "calling_ae_title": received.calling_ae_title,
        "path": _relative(engine, received.path),
        "data_set_digest": received.data_set_digest,
        "size": size,
        "derived": derived,
        "received_at": as_row_time(received.received_at),
    }


def _relative(engine: Engine, path: Path) -> str:
    base = store_directory_of(engine)
    return str(path.relative_to(base)) if path.is_relative_to(base) else str(path)
