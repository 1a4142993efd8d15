"""What tests look up in the index and no part of the node needs."""

from sqlalchemy import Engine, select

from node.domain.instances import ReceivedInstance
from node.domain.study import ReadyStudy
from node.index import instances, studies
from node.index.studies import StudyRow
from node.index.tables import generation, instance, study


def instances_of_study(engine: Engine, study_uid: str) -> tuple[ReceivedInstance, ...]:
    """Return all instances of a study, derived ones too, ordered by SOP Instance UID."""
    return instances._instances(engine, select(instance).where(instance.c.study_uid == study_uid))


def find_study(engine: Engine, study_uid: str) -> StudyRow | None:
    """Return the study, or None where no instance of it can trigger a run."""
    found = studies._rows(engine, studies._counted().where(study.c.study_uid == study_uid))
    return found[0] if found else None


def ready_generations(engine: Engine) -> tuple[ReadyStudy, ...]:
    """Return every decided generation, oldest decision first."""
    columns = generation.c
    query = select(columns.study_uid, columns.generation, columns["count"], columns.reason).order_by(
        columns.decided_at, columns.study_uid, columns["count"]
    )
    with engine.connect() as connection:
        return tuple(ReadyStudy(*row) for row in connection.execute(query))
