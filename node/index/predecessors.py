"""Which report a corrected result supersedes."""

from sqlalchemy import Engine, func, select

from node.domain.evidence import PreviousReport
from node.domain.instances import SopReference
from node.index.tables import evidence_object, evidence_set, generation


def previous_report(engine: Engine, series_uid: str, *, other_than: str) -> PreviousReport | None:
    """Return the last SR of a result series, None where there is none.

    The last is that of the latest generation, and within it the one recorded last. Times would tie: results of one
    generation carry its decision time, whatever settings or writer made them.

    Args:
        engine: the index.
        series_uid: Series Instance UID of the result series.
        other_than: evidence key of the set that looks for its predecessor; it never is its own.
    """
    same_generation = (generation.c.study_uid == evidence_set.c.study_uid) & (
        generation.c.generation == evidence_set.c.generation
    )
    joined = evidence_object.join(evidence_set).outerjoin(generation, same_generation)
    others = (
        evidence_object.c.series_uid == series_uid,
        evidence_object.c.kind == "SR",
        evidence_set.c.evidence_key != other_than,
    )
    last = (
        select(evidence_object.c.sop_class_uid, evidence_object.c.sop_instance_uid, evidence_set.c.study_uid)
        .select_from(joined)
        .where(*others)
        .order_by(func.coalesce(generation.c.count, 0).desc(), evidence_set.c.recorded_number.desc())
        .limit(1)
    )
    with engine.connect() as connection:
        row = connection.execute(last).first()
        if row is None:
            return None
        count = connection.execute(select(func.count()).select_from(joined).where(*others)).scalar_one()
    sop = SopReference(row.sop_class_uid, row.sop_instance_uid)
    return PreviousReport(sop, row.study_uid, series_uid, instance_number=count)
