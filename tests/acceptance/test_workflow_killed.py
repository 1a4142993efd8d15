"""kill -9 of the process that runs the workflow: nothing lost, nothing twice, nobody held up."""

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import Engine, func, select

from node.index.engine import open_index
from node.index.history import StudyHistory, history_of
from node.index.tables import event
from tests.scripted_pacs import scripted_pacs
from tests.waiting import wait_until
from tests.workflow_doubles import add_study

ROOT = Path(__file__).resolve().parents[2]
STUDY = "2.25.200"
KILLS = 10


@contextmanager
def node_process(
    state: Path, port: int, version: str = "1", *, linger_s: float = 0.2
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.workflow_node", str(state), str(port), version],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HILUM_TEST_LINGER_S": str(linger_s)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def wait_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert any(line == "ready\n" for line in process.stdout)


def story(engine: Engine, study_uid: str) -> StudyHistory:
    history = history_of(engine, study_uid)
    assert history is not None
    return history


def made(state: Path, study_uid: str) -> int:
    ledger = state / "ledger.txt"
    return ledger.read_text().count(f"make {study_uid} ") if ledger.exists() else 0


def delivered_events(engine: Engine) -> int:
    with engine.connect() as connection:
        count = select(func.count()).select_from(event).where(event.c.name == "evidence_delivered")
        return int(connection.execute(count).scalar_one())


def test_killed_at_random_points_every_run_ends_and_every_delivery_is_recorded_once(tmp_path: Path) -> None:
    engine = open_index(tmp_path / "index.sqlite")
    dice = random.Random(20)
    studies = [f"{STUDY}.{number}" for number in range(3 * KILLS)]
    with scripted_pacs() as pacs:
        for kill in range(KILLS):
            with node_process(tmp_path, pacs.port) as process:
                wait_ready(process)
                for study_uid in studies[3 * kill : 3 * kill + 3]:
                    add_study(engine, study_uid)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=dice.uniform(0.1, 1.5))
        with node_process(tmp_path, pacs.port):
            wait_until(
                lambda: all(story(engine, uid).state == "DONE" for uid in studies), timeout_s=120, what="all studies"
            )
        contents = {uid: {content for sop, _, content in pacs.stored if sop == uid} for uid, _, _ in pacs.stored}
    assert len(contents) == 2 * len(studies)
    assert all(len(variants) == 1 for variants in contents.values())
    assert delivered_events(engine) == 2 * len(studies)
    assert all(len(story(engine, uid).runs) == 1 for uid in studies)
    engine.dispose()


def test_upgrade_in_the_middle_of_a_study_finishes(tmp_path: Path) -> None:
    engine = open_index(tmp_path / "index.sqlite")
    with scripted_pacs() as pacs:
        with node_process(tmp_path, pacs.port, "1", linger_s=60) as process:
            wait_ready(process)
            for number in range(3):
                add_study(engine, f"{STUDY}.{number}")
            wait_until(lambda: any(made(tmp_path, f"{STUDY}.{n}") for n in range(3)), what="a study in the middle")
        with node_process(tmp_path, pacs.port, "2"):
            wait_until(
                lambda: all(story(engine, f"{STUDY}.{n}").state == "DONE" for n in range(3)),
                timeout_s=60,
                what="all studies under the next version",
            )
        assert len({uid for uid, _, _ in pacs.stored}) == 6
    assert delivered_events(engine) == 6
    engine.dispose()


def test_poison_study_is_quarantined_after_three_crashes_while_others_finish(tmp_path: Path) -> None:
    engine = open_index(tmp_path / "index.sqlite")
    poison = f"{STUDY}.666"
    others = [f"{STUDY}.{number}" for number in range(6)]
    with scripted_pacs() as pacs:
        for study_uid in (others[0], poison, *others[1:]):
            add_study(engine, study_uid)
        starts = 0
        while story(engine, poison).state != "ATTENTION":
            starts += 1
            assert starts <= 4
            with node_process(tmp_path, pacs.port) as process:
                wait_until(
                    lambda child=process: child.poll() is not None or story(engine, poison).state == "ATTENTION",
                    timeout_s=60,
                    what="a crash or the quarantine",
                )
                if process.poll() is None:
                    wait_until(
                        lambda: all(story(engine, uid).state == "DONE" for uid in others),
                        timeout_s=60,
                        what="the others",
                    )
        run = story(engine, poison).runs[0]
    assert made(tmp_path, poison) == 3
    turns = [line.split()[1] for line in (tmp_path / "ledger.txt").read_text().splitlines() if line.startswith("make ")]
    assert turns[-2:] == [poison, poison], "after its first crash the poison stands behind the others"
    assert run.state == "QUARANTINED"
    assert "stopped 3 times" in run.reason
    assert len({uid for uid, _, _ in pacs.stored}) == 2 * len(others)
    engine.dispose()
