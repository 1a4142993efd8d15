"""What happened to a study and why, for people: the list of studies and the story of one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Engine, Row, Select, Table, exists, func, insert, select

from node.domain.study import REINDEXED
from node.index.engine import writing
from node.index.rows import as_optional_time, as_row_time, as_time
from node.index.tables import (
    delivery,
    event,
    evidence_object,
    evidence_set,
    generation,
    instance,
    quarantined_instance,
    run,
    study,
    verdict,
)

StudyState = Literal["ARRIVING", "WORKING", "DELIVERING", "DONE", "REFUSED", "ATTENTION"]


@dataclass(frozen=True, slots=True)
class StudyLine:
    """One study in the list."""

    study_uid: str
    state: StudyState
    """ATTENTION: a run failed or was quarantined, or a destination refused an object."""
    instances: int
    generations: int
    objects: int
    """Objects of evidence made."""
    sent: int
    """Deliveries (object and destination) that the peer confirmed."""
    last_received_at: datetime


@dataclass(frozen=True, slots=True)
class GenerationPart:
    """One decision that the study was ready."""

    generation: str
    count: int
    instances: int
    reason: str
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class VerdictPart:
    """What a run decided about one series."""

    series_uid: str
    taken: bool
    reason: str


@dataclass(frozen=True, slots=True)
class RunPart:
    """One run of one model and how it ended."""

    run_id: str
    generation: str
    model: str
    """Name and version."""
    attempt: int
    state: str
    reason: str
    started: int
    evidence_key: str | None
    finished_at: datetime | None
    verdicts: tuple[VerdictPart, ...]


@dataclass(frozen=True, slots=True)
class DeliveryPart:
    """How one object fares at one destination."""

    destination: str
    state: str
    attempts: int
    last_status: int | None
    last_comment: str
    next_attempt_at: datetime | None
    sent_at: datetime | None


@dataclass(frozen=True, slots=True)
class ObjectPart:
    """One object of evidence with its deliveries."""

    sop_instance_uid: str
    series_uid: str
    kind: str
    evidence_key: str
    path: str
    """Relative to the outbox."""
    deliveries: tuple[DeliveryPart, ...]


@dataclass(frozen=True, slots=True)
class EventPart:
    """One entry of the study's diary."""

    at: datetime
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class StudyHistory:
    """Everything the index knows of one study."""

    study_uid: str
    state: StudyState
    instances: int
    series: int
    quarantined: tuple[tuple[str, str], ...]
    """(SOP Instance UID as claimed, reason) of what was set aside."""
    generations: tuple[GenerationPart, ...]
    runs: tuple[RunPart, ...]
    objects: tuple[ObjectPart, ...]
    events: tuple[EventPart, ...]


def record_event(engine: Engine, study_uid: str, name: str, text: str, *, now: datetime) -> None:
    """Add one entry to a study's diary: `name` as in the log, `text` one sentence without patient data."""
    with writing(engine) as connection:
        add_event(connection, study_uid, name, text, now=now)


def add_event(connection: Connection, study_uid: str, name: str, text: str, *, now: datetime) -> None:
    """As `record_event`, inside the caller's transaction."""
    connection.execute(insert(event).values(study_uid=study_uid, at=as_row_time(now), name=name, text=text))


def study_lines(engine: Engine) -> tuple[StudyLine, ...]:
    """Return all studies, the one that received last first."""
    with engine.connect() as connection:
        instances = _counts(connection, instance)
        generations = _counts(connection, generation)
        runs = _states_of_runs(connection, select(run))
        joined = select(evidence_set.c.study_uid, delivery.c.state).join(
            delivery, delivery.c.evidence_key == evidence_set.c.evidence_key
        )
        deliveries = _states(connection, joined)
        made = select(evidence_set.c.study_uid, func.count()).join(evidence_object).group_by(evidence_set.c.study_uid)
        objects = {row[0]: int(row[1]) for row in connection.execute(made)}
        rows = connection.execute(_studies().order_by(study.c.last_received_at.desc())).all()
    return tuple(
        StudyLine(
            study_uid=row.study_uid,
            state=_state(row, runs.get(row.study_uid, ()), deliveries.get(row.study_uid, ())),
            instances=instances.get(row.study_uid, 0),
            generations=generations.get(row.study_uid, 0),
            objects=objects.get(row.study_uid, 0),
            sent=sum(state == "SENT" for state in deliveries.get(row.study_uid, ())),
            last_received_at=as_time(row.last_received_at),
        )
        for row in rows
    )


def history_of(engine: Engine, study_uid: str) -> StudyHistory | None:
    """Return the story of one study; None where the index has never heard of it."""
    with engine.connect() as connection:
        row = connection.execute(_studies().where(study.c.study_uid == study_uid)).first()
        quarantined = _of_study(connection, quarantined_instance, study_uid, quarantined_instance.c.received_at)
        if row is None and not quarantined:
            return None
        here = select(func.count(), func.count(func.distinct(instance.c.series_uid)))
        instances, series = connection.execute(here.where(instance.c.study_uid == study_uid)).one()
        runs = _runs(connection, study_uid)
        ends = _states_of_runs(connection, select(run).where(run.c.study_uid == study_uid))
        objects = _objects(connection, study_uid)
        sent = [part.state for item in objects for part in item.deliveries]
        return StudyHistory(
            study_uid=study_uid,
            state="REFUSED" if row is None else _state(row, ends.get(study_uid, ()), sent),
            instances=instances,
            series=series,
            quarantined=tuple((item.sop_instance_uid, item.reason) for item in quarantined),
            generations=_generations(connection, study_uid),
            runs=runs,
            objects=objects,
            events=_events(connection, study_uid),
        )


def _counts(connection: Connection, table: Table) -> dict[str, int]:
    query = select(table.c.study_uid, func.count()).group_by(table.c.study_uid)
    return {row[0]: int(row[1]) for row in connection.execute(query)}


def _states(connection: Connection, query: Select[Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for study_uid, state in connection.execute(query):
        found.setdefault(study_uid, []).append(state)
    return found


def _states_of_runs(connection: Connection, query: Select[Any]) -> dict[str, list[str]]:
    """Return by study where each model's last run stands; earlier attempts and generations are history."""
    last: dict[str, dict[str, str]] = {}
    for row in connection.execute(query.order_by(run.c.decided_at, run.c.attempt)):
        last.setdefault(row.study_uid, {})[row.model_name] = row.state
    return {study_uid: list(states.values()) for study_uid, states in last.items()}


def _studies() -> Select[Any]:
    this = (generation.c.study_uid == study.c.study_uid) & (generation.c.generation == study.c.decided_generation)
    return select(study, exists().where(this, generation.c.reason == REINDEXED).label("is_reindexed"))


def _state(row: Row[Any], runs: Iterable[str], deliveries: Sequence[str]) -> StudyState:
    states = set(runs)
    if row.decided_generation is None:
        return "ARRIVING"
    if row.is_reindexed and not states:
        return "DONE"
    if not states or states & {"QUEUED", "RUNNING"}:
        return "WORKING"
    if "PENDING" in deliveries:
        return "DELIVERING"
    if states & {"FAILED", "QUARANTINED"} or "REFUSED" in deliveries:
        return "ATTENTION"
    return "DONE" if "EVIDENCE" in states else "REFUSED"


def _of_study(connection: Connection, table: Table, study_uid: str, order: Any) -> Sequence[Row[Any]]:
    return connection.execute(select(table).where(table.c.study_uid == study_uid).order_by(order)).all()


def _generations(connection: Connection, study_uid: str) -> tuple[GenerationPart, ...]:
    query = select(generation).where(generation.c.study_uid == study_uid).order_by(generation.c.count)
    return tuple(
        GenerationPart(row["generation"], row["count"], row["instances"], row["reason"], as_time(row["decided_at"]))
        for row in connection.execute(query).mappings()
    )


def _runs(connection: Connection, study_uid: str) -> tuple[RunPart, ...]:
    judged = select(verdict).join(run, run.c.run_id == verdict.c.run_id).where(run.c.study_uid == study_uid)
    verdicts: dict[str, list[VerdictPart]] = {}
    for row in connection.execute(judged.order_by(verdict.c.taken.desc(), verdict.c.series_uid)):
        verdicts.setdefault(row.run_id, []).append(VerdictPart(row.series_uid, row.taken, row.reason))
    return tuple(
        RunPart(
            run_id=row.run_id,
            generation=row.generation,
            model=f"{row.model_name} {row.model_version}",
            attempt=row.attempt,
            state=row.state,
            reason=row.reason,
            started=row.started,
            evidence_key=row.evidence_key,
            finished_at=as_optional_time(row.finished_at),
            verdicts=tuple(verdicts.get(row.run_id, ())),
        )
        for row in _of_study(connection, run, study_uid, run.c.decided_at)
    )


def _objects(connection: Connection, study_uid: str) -> tuple[ObjectPart, ...]:
    keys = select(evidence_set.c.evidence_key).where(evidence_set.c.study_uid == study_uid)
    deliveries: dict[str, list[DeliveryPart]] = {}
    rows = connection.execute(
        select(delivery).where(delivery.c.evidence_key.in_(keys)).order_by(delivery.c.destination)
    )
    for row in rows:
        deliveries.setdefault(row.sop_instance_uid, []).append(_delivery_part(row))
    made = (
        select(evidence_object, evidence_set.c.directory)
        .join(evidence_set)
        .where(evidence_set.c.study_uid == study_uid)
        .order_by(evidence_set.c.made_at, evidence_object.c.kind)
    )
    return tuple(
        ObjectPart(
            sop_instance_uid=row.sop_instance_uid,
            series_uid=row.series_uid,
            kind=row.kind,
            evidence_key=row.evidence_key,
            path=f"{row.directory}/{row.file_name}",
            deliveries=tuple(deliveries.get(row.sop_instance_uid, ())),
        )
        for row in connection.execute(made)
    )


def _delivery_part(row: Row[Any]) -> DeliveryPart:
    return DeliveryPart(
        destination=row.destination,
        state=row.state,
        attempts=row.attempts,
        last_status=row.last_status,
        last_comment=row.last_comment,
        next_attempt_at=as_optional_time(row.next_attempt_at),
        sent_at=as_optional_time(row.sent_at),
    )


def _events(connection: Connection, study_uid: str) -> tuple[EventPart, ...]:
    rows = connection.execute(select(event).where(event.c.study_uid == study_uid).order_by(event.c.event_id)).all()
    return tuple(EventPart(as_time(row.at), row.name, row.text) for row in rows)
