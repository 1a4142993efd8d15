import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from node.domain.instances import ReceivedInstance, SopReference
from node.domain.study import generation_of
from node.index.engine import open_index, writing
from node.index.group_commit import commit_together
from node.index.instances import (
    Reception,
    find_instance,
    instances_of_generation,
    is_known_result,
    is_known_variant,
    record_instance,
    record_variant,
)
from node.index.studies import arriving, decide, studies
from node.index.tables import evidence_object, evidence_set
from tests.index_views import find_study, instances_of_study, ready_generations

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_index(tmp_path / "index.sqlite")
    yield opened
    opened.dispose()


def received(
    engine: Engine, number: int, *, study: str = "1.1", digest: str = "a", seconds: float = 0
) -> ReceivedInstance:
    base = Path(str(engine.url.database)).parent / "store"
    return ReceivedInstance(
        sop=SopReference("1.2.840.10008.5.1.4.1.1.2", f"1.2.{number}"),
        study_uid=study,
        series_uid=f"{study}.1",
        transfer_syntax="1.2.840.10008.1.2.1",
        calling_ae_title="MODALITY",
        path=base / "instances" / "00" / f"{number}.dcm",
        data_set_digest=digest * 64,
        received_at=START + timedelta(seconds=seconds),
    )


def record(engine: Engine, instance: ReceivedInstance, *, derived: bool = False) -> Reception:
    return record_instance(engine, instance, size=1, derived=derived)


def test_first_is_new_again_is_same_other_is_conflict(engine: Engine) -> None:
    first = received(engine, 1)
    assert record(engine, first) is Reception.NEW
    assert record(engine, replace(first, received_at=START + timedelta(hours=1))) is Reception.SAME
    assert record(engine, received(engine, 1, digest="b")) is Reception.CONFLICT
    assert find_instance(engine, "1.2.1") == first


def test_paths_move_with_the_state_directory(engine: Engine, tmp_path: Path) -> None:
    record(engine, received(engine, 1))
    engine.dispose()
    (tmp_path / "moved").mkdir()
    (tmp_path / "index.sqlite").rename(tmp_path / "moved" / "index.sqlite")
    moved = open_index(tmp_path / "moved" / "index.sqlite")
    found = find_instance(moved, "1.2.1")
    moved.dispose()
    assert found is not None
    assert found.path == tmp_path / "moved" / "store" / "instances" / "00" / "1.dcm"


def test_variants_are_noted_once(engine: Engine) -> None:
    record(engine, received(engine, 1))
    for _ in range(2):
        record_variant(engine, received(engine, 1, digest="c"), note="same pixels")
    assert is_known_variant(engine, "1.2.1", "c" * 64)
    assert not is_known_variant(engine, "1.2.1", "a" * 64)


def test_own_results_are_known(engine: Engine) -> None:
    a_set = {"evidence_key": "k", "study_uid": "1.1", "generation": "g", "profile": "standard", "directory": "d"}
    an_object = {
        "sop_class_uid": "1",
        "series_uid": "1",
        "kind": "SR",
        "transfer_syntax": "1",
        "file_name": "f",
        "file_digest": "x",
    }
    with writing(engine) as connection:
        connection.execute(evidence_set.insert(), {**a_set, "made_at": datetime(2026, 1, 1)})  # noqa: DTZ001 - as rows
        connection.execute(
            evidence_object.insert(),
            {**an_object, "sop_instance_uid": "2.25.1", "evidence_key": "k"},
        )
    assert is_known_result(engine, "2.25.1")
    assert not is_known_result(engine, "2.25.2")


def test_generation_is_the_hash_of_what_can_trigger(engine: Engine) -> None:
    able = [received(engine, number, seconds=number) for number in range(3)]
    for instance in able:
        record(engine, instance)
    record(engine, received(engine, 9), derived=True)
    (row,) = arriving(engine)
    assert (row.instances, row.first_received_at, row.last_received_at) == (3, START, START + timedelta(seconds=2))
    ready = decide(engine, "1.1", "quiet", START)
    assert ready is not None
    assert ready.generation == generation_of(able)
    assert (ready.generation_count, ready.reason) == (1, "quiet")
    assert set(instances_of_generation(engine, "1.1", ready.generation)) == set(able)
    assert len(instances_of_study(engine, "1.1")) == 4
    assert find_study(engine, "1.1") == replace(row, decided_generation=ready.generation)


def test_same_instances_are_never_decided_twice(engine: Engine) -> None:
    record(engine, received(engine, 1))
    assert decide(engine, "1.1", "quiet", START) is not None
    assert decide(engine, "1.1", "quiet", START) is None
    record(engine, received(engine, 1))
    assert arriving(engine) == ()
    assert len(ready_generations(engine)) == 1


def test_derived_late_comers_open_nothing_others_open_the_next(engine: Engine) -> None:
    record(engine, received(engine, 1))
    decide(engine, "1.1", "quiet", START)
    record(engine, received(engine, 2), derived=True)
    assert arriving(engine) == ()
    record(engine, received(engine, 3, seconds=9))
    second = decide(engine, "1.1", "quiet again", START)
    assert second is not None
    assert second.generation_count == 2
    assert len(instances_of_generation(engine, "1.1", ready_generations(engine)[0].generation)) == 1


def test_instance_between_evidence_and_decision_postpones_it(engine: Engine) -> None:
    record(engine, received(engine, 1))
    (row,) = arriving(engine)
    record(engine, received(engine, 2, seconds=1))
    assert decide(engine, "1.1", "quiet", START, seen_last=row.last_received_at) is None
    assert len(arriving(engine)) == 1


def test_unknown_study_is_not_decided(engine: Engine) -> None:
    assert decide(engine, "9.9", "quiet", START) is None
    assert find_study(engine, "9.9") is None


def test_studies_are_listed_newest_first(engine: Engine) -> None:
    for number in range(3):
        record(engine, received(engine, number, study=f"1.{number}", seconds=number))
    assert [row.study_uid for row in studies(engine, most=2)] == ["1.2", "1.1"]


def test_many_threads_commit_together_and_each_gets_its_own_answer(engine: Engine) -> None:
    answers: dict[int, Reception] = {}

    def recording(part: range) -> None:
        for number in part:
            answers[number] = record(engine, received(engine, number // 2))

    threads = [threading.Thread(target=recording, args=(range(start * 20, start * 20 + 20),)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(instances_of_study(engine, "1.1")) == 80
    assert sorted(answer.name for answer in answers.values()) == ["NEW"] * 80 + ["SAME"] * 80


def test_failing_work_fails_alone(engine: Engine) -> None:
    failures: list[int] = []

    def storing(number: int) -> None:
        bad = "INSERT INTO variant VALUES ('no such instance', 'd', 't', 'n', '2026-01-01')"
        try:
            if number % 4 == 0:
                commit_together(engine, lambda connection: connection.execute(text(bad)))
            else:
                record(engine, received(engine, number))
        except IntegrityError:
            failures.append(number)

    threads = [threading.Thread(target=storing, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(failures) == [0, 4, 8, 12, 16, 20]
    assert len(instances_of_study(engine, "1.1")) == 18
