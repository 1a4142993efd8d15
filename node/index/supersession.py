"""A later generation of a study takes over: what an earlier one has not finished or delivered ends there.

Without this a result on a part of the study could reach a destination after the result on the whole of it, and stand
there as the last word.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, func, select, update

from node.index.history import add_event
from node.index.rows import as_row_time
from node.index.tables import delivery, evidence_set, generation, run


def end_older_runs(connection: Connection, study_uid: str, generation_digest: str, *, now: datetime) -> None:
    """End the unfinished runs of the generations before this one as REFUSED."""
    number = _number_of(connection, study_uid, generation_digest)
    text = f"superseded by generation {number}"
    open_runs = connection.execute(
        select(run.c.run_id, run.c.model_name, run.c.model_version).where(
            run.c.study_uid == study_uid,
            run.c.finished_at.is_(None),
            run.c.generation.in_(_before(study_uid, number)),
        )
    ).all()
    for row in open_runs:
        ended = update(run).where(run.c.run_id == row.run_id)
        connection.execute(ended.values(state="REFUSED", reason=text, finished_at=as_row_time(now)))
        add_event(connection, study_uid, "run_refused", f"{row.model_name} {row.model_version}: {text}", now=now)


def end_older_deliveries(connection: Connection, run_id: str, *, now: datetime) -> None:
    """End as SUPERSEDED what the same model made of earlier generations and no destination has taken."""
    this = connection.execute(select(run).where(run.c.run_id == run_id)).one()
    number = _number_of(connection, this.study_uid, this.generation)
    older_sets = select(run.c.evidence_key).where(
        run.c.study_uid == this.study_uid,
        run.c.model_name == this.model_name,
        run.c.evidence_key.is_not(None),
        run.c.generation.in_(_before(this.study_uid, number)),
    )
    text = f"superseded by the result of generation {number}"
    ended = connection.execute(
        update(delivery)
        .where(delivery.c.evidence_key.in_(older_sets), delivery.c.state.in_(("PENDING", "REFUSED")))
        .values(state="SUPERSEDED", last_comment=text, next_attempt_at=None)
    ).rowcount
    if ended:
        add_event(connection, this.study_uid, "delivery_superseded", f"{ended} deliveries {text}", now=now)


def superseding_generation(connection: Connection, study_uid: str, generation_digest: str) -> int | None:
    """Return the number of the last planned generation where it comes after this one, else None."""
    planned = (
        select(func.max(generation.c.count))
        .join(run, (run.c.study_uid == generation.c.study_uid) & (run.c.generation == generation.c.generation))
        .where(generation.c.study_uid == study_uid)
    )
    last: int | None = connection.execute(planned).scalar()
    return last if last is not None and last > _number_of(connection, study_uid, generation_digest) else None


def generations_with_later_results(study_uid: str) -> Select[Any]:
    """Select the generations of a study that come before another one with an evidence set."""
    last = (
        select(func.max(generation.c.count))
        .join(
            evidence_set,
            (evidence_set.c.study_uid == generation.c.study_uid)
            & (evidence_set.c.generation == generation.c.generation),
        )
        .where(generation.c.study_uid == study_uid)
        .scalar_subquery()
    )
    return select(generation.c.generation).where(generation.c.study_uid == study_uid, generation.c.count < last)


def _number_of(connection: Connection, study_uid: str, generation_digest: str) -> int:
    this = (generation.c.study_uid == study_uid) & (generation.c.generation == generation_digest)
    return connection.execute(select(generation.c.count).where(this)).scalar() or 0


def _before(study_uid: str, number: int) -> Select[Any]:
    return select(generation.c.generation).where(generation.c.study_uid == study_uid, generation.c.count < number)
