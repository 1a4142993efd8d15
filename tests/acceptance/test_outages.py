"""PACS away, inference service away, an object refused: the work waits, and is done once when they are back."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from node.index.history import DeliveryPart, StudyHistory
from node.testing.modality import Modality
from node.testing.pacs import StandInPacs
from node.testing.phantom import PhantomTruth
from tests.inference_service import end_process, start_service
from tests.node_process import NodeProcess
from tests.orthanc import free_port
from tests.waiting import wait_until


def send(node: NodeProcess, study: PhantomTruth) -> None:
    report = Modality("HILUM", "127.0.0.1", node.port, timeout_s=30).send(study.files[0].parent)
    assert len(report.of("SENT")) == len(study.files)


def story(node: NodeProcess, study: PhantomTruth) -> StudyHistory:
    history = node.history(study.study_uid)
    assert history is not None
    return history


def ways(node: NodeProcess, study: PhantomTruth) -> list[DeliveryPart]:
    return [way for part in story(node, study).objects for way in part.deliveries]


def assert_delivered_once(node: NodeProcess, pacs: StandInPacs, studies: Sequence[PhantomTruth]) -> None:
    made = {part.sop_instance_uid for study in studies for part in story(node, study).objects}
    assert len(made) == 2 * len(studies)
    assert dict(pacs.copies) == dict.fromkeys(made, 1)


def test_what_finished_while_the_pacs_was_away_is_delivered_once_when_it_is_back(
    bright_node: NodeProcess, pacs: StandInPacs, small_study: Callable[[int], PhantomTruth]
) -> None:
    studies = [small_study(1), small_study(2)]
    with bright_node:
        pacs.go_away()
        for study in studies:
            send(bright_node, study)
        wait_until(
            lambda: (
                all(
                    ways(bright_node, study) and all(way.attempts > 1 for way in ways(bright_node, study))
                    for study in studies
                    if bright_node.history(study.study_uid)
                )
                and len(bright_node.states()) == len(studies)
            ),
            timeout_s=120,
            what="two attempts at each object",
        )
        assert set(bright_node.states().values()) == {"DELIVERING"}
        assert {way.state for study in studies for way in ways(bright_node, study)} == {"PENDING"}
        assert "refused" in ways(bright_node, studies[0])[0].last_comment.lower()
        pacs.come_back()
        states = bright_node.wait_for_end(len(studies))
        assert set(states.values()) == {"DONE"}
        assert_delivered_once(bright_node, pacs, studies)
    assert "Traceback" not in bright_node.log()


@contextmanager
def service_at(address: str, models: Path) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready"
        process = start_service("--models", str(models), "--listen", address, "--ready-file", str(ready))
        try:
            wait_until(lambda: ready.exists() or process.poll() is not None, timeout_s=120, what="the ready file")
            assert process.poll() is None
            yield process
        finally:
            end_process(process)


def test_studies_that_came_while_the_service_was_away_finish_when_it_is_back(
    tmp_path: Path, bright_models: Path, pacs: StandInPacs, small_study: Callable[[int], PhantomTruth]
) -> None:
    address = f"127.0.0.1:{free_port()}"
    studies = [small_study(seed) for seed in (1, 2, 3)]
    node = NodeProcess(tmp_path / "node", address, models=bright_models, destinations=(pacs.destination(),))
    with node:
        with service_at(address, bright_models) as service:
            send(node, studies[0])
            node.wait_for_end(1)
            service.kill()
            service.wait()
        for study in studies[1:]:
            send(node, study)
        wait_until(
            lambda: node.log().count('"run_postponed"') >= 3,
            timeout_s=120,
            what="three runs put off, on a service away",
        )
        waiting = story(node, studies[1])
        assert waiting.state == "WORKING"
        assert any(address in event.text for event in waiting.events)
        with service_at(address, bright_models):
            states = node.wait_for_end(len(studies))
        assert set(states.values()) == {"DONE"}
        assert_delivered_once(node, pacs, studies)
    assert "Traceback" not in node.log()


@pytest.mark.parametrize("status", [0xA900, 0xC000])
def test_retry_delivers_what_a_destination_had_refused(
    status: int, bright_node: NodeProcess, pacs: StandInPacs, small_study: Callable[[int], PhantomTruth]
) -> None:
    study = small_study(1)
    pacs.refuse(status, comment="not today")
    with bright_node:
        send(bright_node, study)
        assert bright_node.wait_for_end(1) == {study.study_uid: "ATTENTION"}
        assert {(way.state, way.last_status, way.attempts) for way in ways(bright_node, study)} == {
            ("REFUSED", status, 1)
        }
        assert "not today" in ways(bright_node, study)[0].last_comment
        first = {part.sop_instance_uid for part in story(bright_node, study).objects}
        pacs.accept()
        command = [sys.executable, "-m", "node.cli", "retry", study.study_uid]
        asked = subprocess.run(
            [*command, "--settings", str(bright_node.settings_file)], capture_output=True, text=True, check=False
        )
        assert asked.returncode == 0, asked.stderr
        assert pacs.wait_for(len(first), timeout_s=120)
        wait_until(
            lambda: bright_node.states() == {study.study_uid: "DONE"},
            timeout_s=60,
            what="the end of the second attempt",
        )
        assert_delivered_once(bright_node, pacs, [study])
        assert {part.sop_instance_uid for part in story(bright_node, study).objects} == first
    assert "Traceback" not in bright_node.log()
