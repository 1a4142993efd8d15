"""After the index is lost: what `hilum reindex` finds in the files, and what runs then."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from node.cli import build
from node.domain.evidence import EvidenceObject, EvidenceSet
from node.domain.instances import SopReference
from node.index.engine import open_index
from node.index.history import history_of, study_lines
from node.index.runs import newest_generation, unplanned_generations
from node.index.studies import arriving, decide
from node.store.instance_files import Arrival, InstanceStore
from node.store.outbox import Outbox, file_digest
from node.store.quarantine import RefusalRecord

CT = "1.2.840.10008.5.1.4.1.1.2"
MADE_AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
_numbers = itertools.count(1)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "hilum.toml"
    path.write_text(f'[store]\nstate_directory = "{tmp_path / "state"}"\n')
    return path


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def engine(state: Path) -> Iterator[Engine]:
    """The index, opened when a test asks for it first."""
    opened = open_index(state / "index.sqlite")
    yield opened
    opened.dispose()


def hilum(*arguments: str, settings: Path) -> Result:
    return CliRunner().invoke(build(), [*arguments, "--settings", str(settings)])


def store_images(state: Path, study: str, count: int = 2) -> None:
    for _ in range(count):
        arrival = Arrival(SopReference(CT, f"1.9.{next(_numbers)}"), "1.2.840.10008.1.2.1", "CT", MADE_AT)
        InstanceStore(state / "store").write(b"\x08\0\x60\0CS\2\0CT", arrival, study_uid=study, series_uid="1.8")


def reindexed(state: Path, settings: Path) -> Result:
    for path in state.glob("index.sqlite*"):
        path.unlink()
    return hilum("reindex", settings=settings)


def decided(state: Path, study: str) -> str:
    """Decide a study as the node would, in an index that is lost afterwards."""
    engine = open_index(state / "index.sqlite")
    ready = decide(engine, study, "quiet", MADE_AT)
    engine.dispose()
    assert ready is not None
    return ready.generation


def publish(state: Path, study: str, generation: str) -> EvidenceSet:
    outbox = Outbox(state / "outbox")
    work = outbox.work_directory()
    (work / "sr-1.dcm").write_bytes(generation.encode())
    sop = SopReference("1.2.3", f"2.25.{next(_numbers)}")
    item = EvidenceObject("SR", sop, "1.2.5", "1.2.6", "sr-1.dcm", file_digest(work / "sr-1.dcm"))
    key = f"{next(_numbers):064x}"
    return outbox.adopt_or_publish(work, EvidenceSet(key, work, study, generation, "standard", (item,), MADE_AT))


def test_study_whose_results_lie_in_the_outbox_does_not_run_again_and_others_do(state: Path, settings: Path) -> None:
    for study in ("1.1", "1.2", "1.3"):
        store_images(state, study)
    assert reindexed(state, settings).exit_code == 0
    publish(state, "1.1", decided(state, "1.1"))
    publish(state, "1.2", decided(state, "1.2"))
    store_images(state, "1.2", count=1)
    done = reindexed(state, settings)
    assert done.exit_code == 0, done.output
    assert "2 evidence set(s); 1 study" in done.output
    engine = open_index(state / "index.sqlite")
    assert {row.study_uid for row in arriving(engine)} == {"1.2", "1.3"}
    assert unplanned_generations(engine) == ()
    assert {line.study_uid: line.state for line in study_lines(engine)} == {
        "1.1": "DONE",
        "1.2": "ARRIVING",
        "1.3": "ARRIVING",
    }
    history = history_of(engine, "1.1")
    assert history is not None
    assert [(part.reason.split(":")[0], part.decided_at) for part in history.generations] == [("reindexed", MADE_AT)]
    assert history.objects[0].deliveries == ()
    assert newest_generation(engine, "1.1") is not None, "`hilum retry` finds what to run"
    assert decide(engine, "1.3", "quiet", MADE_AT) is not None
    assert [item.study_uid for item in unplanned_generations(engine)] == ["1.3"]
    engine.dispose()
    told = hilum("study", "1.1", settings=settings).output
    assert "found again" in told
    assert history.objects[0].sop_instance_uid in told


def test_reindex_of_an_index_that_is_there_changes_no_decision(state: Path, settings: Path) -> None:
    store_images(state, "1.1")
    reindexed(state, settings)
    publish(state, "1.1", decided(state, "1.1"))
    assert hilum("reindex", settings=settings).exit_code == 0
    engine = open_index(state / "index.sqlite")
    history = history_of(engine, "1.1")
    assert history is not None
    assert [part.reason for part in history.generations] == ["quiet"]
    assert len(unplanned_generations(engine)) == 1
    engine.dispose()


def test_what_cannot_be_read_is_named_and_the_rest_is_found(state: Path, settings: Path) -> None:
    store_images(state, "1.1")
    refusal = RefusalRecord("1.2.3", None, "MODALITY", "because", MADE_AT.isoformat())
    quarantine = InstanceStore(state / "store").quarantine
    torn, _ = quarantine.keep(refusal, None), quarantine.keep(refusal, None)
    torn.path.write_text("")
    (Outbox(state / "outbox").directory / "sets" / "aaa").mkdir()
    done = reindexed(state, settings)
    assert done.exit_code == 1
    assert "2 instance(s), 2 of them new to the index; 1 refused" in done.output
    assert f"skipped: {torn.path}" in done.output
    assert "sets/aaa/evidence.json cannot be read" in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("command", [("studies",), ("study", "1.1"), ("retry", "1.1")])
def test_commands_do_not_migrate_the_index(settings: Path, engine: Engine, command: tuple[str, ...]) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    done = hilum(*command, settings=settings)
    assert "Remedy: start the node of this version once" in str(done.exception)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == "0001"


def test_retry_writes_its_request(state: Path, settings: Path) -> None:
    store_images(state, "1.1")
    reindexed(state, settings)
    done = hilum("retry", "1.1", settings=settings)
    assert done.exit_code == 0, done.output
    engine = open_index(state / "index.sqlite")
    history = history_of(engine, "1.1")
    engine.dispose()
    assert history is not None
    assert [event.name for event in history.events] == ["retry_requested"]
