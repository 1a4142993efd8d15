"""Which report a corrected result supersedes."""

from datetime import datetime

from sqlalchemy import Engine, func, select

from node.domain.evidence import PreviousReport
from node.domain.instances import SopReference
from node.index.rows import as_row_time
from node.index.tables import evidence_object, evidence_set


def previous_report(engine: Engine, series_uid: str, *, before: datetime) -> PreviousReport | None:
    """Return the newest SR of a result series that was decided earlier than `before`, None where there is none."""
    joined = evidence_object.join(evidence_set, evidence_object.c.evidence_key == evidence_set.c.evidence_key)
    earlier = (
        evidence_object.c.series_uid == series_uid,
        evidence_object.c.kind == "SR",
        evidence_set.c.made_at < as_row_time(before),
    )
    newest = (
        select(evidence_object.c.sop_class_uid, evidence_object.c.sop_instance_uid, evidence_set.c.study_uid)
        .select_from(joined)
        .where(*earlier)
        .order_by(evidence_set.c.made_at.desc(), evidence_object.c.sop_instance_uid)
        .limit(1)
    )
    with engine.connect() as connection:
        row = connection.execute(newest).first()
        if row is None:
            return None
        count = connection.execute(select(func.count()).select_from(joined).where(*earlier)).scalar_one()
    sop = SopReference(row.sop_class_uid, row.sop_instance_uid)
    return PreviousReport(sop, row.study_uid, series_uid, instance_number=count)
