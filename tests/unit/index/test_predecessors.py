"""Which report a new one supersedes: the last one of its series that is not itself."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, text

from node.domain.evidence import EvidenceObject, EvidenceSet
from node.domain.instances import SopReference
from node.index.deliveries import record_evidence
from node.index.engine import open_index, writing
from node.index.predecessors import previous_report
from node.index.rows import as_row_time
from node.index.tables import generation
from tests.workflow_doubles import add_study

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
STUDY, SERIES = "2.25.7", "2.25.77"


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = open_index(tmp_path / "index.sqlite")
    add_study(engine, STUDY)
    with writing(engine) as connection:
        for count in (1, 2, 3):
            connection.execute(
                insert(generation).values(
                    study_uid=STUDY,
                    generation=f"g{count}",
                    count=count,
                    instances=count,
                    reason="quiet",
                    decided_at=as_row_time(FIRST),
                )
            )
    return engine


def record(engine: Engine, key: str, generation_digest: str, made_at: datetime = FIRST) -> None:
    sop = SopReference("1.2.840.10008.5.1.4.1.1.88.34", sop_of(key))
    report = EvidenceObject("SR", sop, SERIES, "1.2.840.10008.1.2.1", "sr-1.dcm", "0" * 64)
    evidence = EvidenceSet(key * 64, Path("x"), STUDY, generation_digest, "standard", (report,), made_at)
    record_evidence(engine, evidence, key, run_id=None, destinations=(), now=made_at)


def sop_of(key: str) -> str:
    return f"2.25.{ord(key)}"


def found(engine: Engine, key: str) -> tuple[str, int] | None:
    previous = previous_report(engine, SERIES, other_than=key * 64)
    return None if previous is None else (previous.sop.sop_instance_uid, previous.instance_number)


def test_first_report_supersedes_none(engine: Engine) -> None:
    assert found(engine, "a") is None
    record(engine, "a", "g1")
    assert found(engine, "a") is None


def test_retry_with_changed_settings_supersedes_the_report_of_the_same_decision(engine: Engine) -> None:
    for key in ("z", "m", "a"):
        record(engine, key, "g1")
    assert found(engine, "b") == (sop_of("a"), 3)


def test_later_generation_supersedes_the_last_report_whatever_the_clock_says(engine: Engine) -> None:
    record(engine, "a", "g1", FIRST + timedelta(hours=1))
    record(engine, "b", "g2", FIRST)
    assert found(engine, "c") == (sop_of("b"), 2)


def test_report_of_an_older_generation_that_came_late_is_nobodys_predecessor(engine: Engine) -> None:
    record(engine, "b", "g2")
    record(engine, "a", "g1")
    assert found(engine, "c") == (sop_of("b"), 2)


def test_sets_of_an_index_of_the_first_form_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    engine = open_index(path)
    for key in ("z", "a"):
        record(engine, key, "g1")
    record(engine, "k", "g1", FIRST - timedelta(days=1))
    with writing(engine) as connection:
        connection.execute(text("ALTER TABLE evidence_set DROP COLUMN recorded_number"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    engine.dispose()
    engine = open_index(path)
    assert found(engine, "b") == (sop_of("a"), 3)
    record(engine, "c", "g1")
    assert found(engine, "b") == (sop_of("c"), 4)
    engine.dispose()
