"""The ledger of deliveries: what one transition may do and what it may not."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from node.domain.evidence import EvidenceSet
from node.index.deliveries import Attempt, pending_set, record_attempt, record_evidence, reopen_refused, undelivered
from node.index.engine import open_index, writing
from node.index.history import DeliveryPart, history_of
from node.index.tables import delivery
from tests.scripted_pacs import evidence_files
from tests.workflow_doubles import add_study

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STUDY, SEG, SR = "2.25.5", "2.25.77.1", "2.25.77.2"


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = open_index(tmp_path / "index.sqlite")
    add_study(engine, STUDY)
    objects = tuple(item for item, _ in evidence_files(tmp_path))
    evidence = EvidenceSet("k" * 64, tmp_path, STUDY, "g" * 64, "standard", objects, NOW)
    for _ in range(2):
        record_evidence(engine, evidence, "k", run_id=None, destinations=["pacs"], now=NOW)
    return engine


def attempt(uid: str, state: str, status: int | None = None, comment: str = "said") -> Attempt:
    due = NOW + timedelta(seconds=9) if state == "PENDING" else None
    return Attempt(uid, "pacs", state, status, comment, due)  # type: ignore[arg-type]


def part(engine: Engine, uid: str) -> DeliveryPart:
    history = history_of(engine, STUDY)
    assert history is not None
    return next(item.deliveries[0] for item in history.objects if item.sop_instance_uid == uid)


def test_set_recorded_twice_is_one_set_with_one_delivery_per_object(engine: Engine) -> None:
    pending = pending_set(engine, "k" * 64, "pacs")
    assert pending is not None
    assert [path.as_posix() for _, path in pending.objects] == ["k/2.25.77.1.dcm", "k/2.25.77.2.dcm"]
    assert pending.waiting_since == NOW
    assert len(undelivered(engine)) == 1


def test_sent_stays_sent_whatever_a_late_attempt_says(engine: Engine) -> None:
    record_attempt(engine, STUDY, attempt(SEG, "SENT", 0), now=NOW)
    record_attempt(engine, STUDY, attempt(SEG, "PENDING"), now=NOW)
    record_attempt(engine, STUDY, attempt(SEG, "REFUSED", 0xC000), now=NOW)
    found = part(engine, SEG)
    assert (found.state, found.attempts, found.last_status, found.sent_at) == ("SENT", 1, 0, NOW)


def test_delay_that_says_the_same_is_counted_and_told_once(engine: Engine) -> None:
    for _ in range(3):
        record_attempt(engine, STUDY, attempt(SR, "PENDING", comment="takes no connection"), now=NOW)
    record_attempt(engine, STUDY, attempt(SR, "PENDING", 0xA700, "answered A700"), now=NOW)
    history = history_of(engine, STUDY)
    assert history is not None
    assert part(engine, SR).attempts == 4
    assert [event.name for event in history.events] == ["delivery_delayed", "delivery_delayed"]
    assert undelivered(engine)[0].next_attempt_at is None, "the other object has not been tried yet"


def test_only_refused_deliveries_are_opened_again(engine: Engine) -> None:
    record_attempt(engine, STUDY, attempt(SEG, "SENT", 0), now=NOW)
    record_attempt(engine, STUDY, attempt(SR, "REFUSED", 0xC000), now=NOW)
    assert pending_set(engine, "k" * 64, "pacs") is None
    assert reopen_refused(engine, STUDY) == 1
    assert (part(engine, SEG).state, part(engine, SR).state) == ("SENT", "PENDING")


def test_what_arrived_though_it_was_superseded_is_sent(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(delivery.update().values(state="SUPERSEDED"))
    record_attempt(engine, STUDY, attempt(SEG, "SENT", 0), now=NOW)
    record_attempt(engine, STUDY, attempt(SR, "PENDING"), now=NOW)
    assert (part(engine, SEG).state, part(engine, SR).state) == ("SENT", "SUPERSEDED")
    assert reopen_refused(engine, STUDY) == 0
