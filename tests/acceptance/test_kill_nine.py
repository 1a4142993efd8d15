"""kill -9 of the node, again and again, in a stream of studies: nothing acknowledged is lost, nothing comes twice."""

import hashlib
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pydicom

from node.index.engine import open_index
from node.index.history import StudyHistory
from node.index.instances import find_instance
from node.testing.modality import Modality
from node.testing.pacs import StandInPacs
from node.testing.phantom import PhantomTruth
from tests.node_process import NodeProcess
from tests.scripted_pacs import data_set_bytes
from tests.waiting import wait_until

STUDIES, KILLS, SEED = 24, 20, 20261121


class Stream:
    """Sends studies one after another, each until all of its images are acknowledged; keeps the ledger."""

    def __init__(self, studies: Sequence[PhantomTruth], port: int) -> None:
        self.studies = studies
        self.acknowledged: set[Path] = set()
        self.done = threading.Event()
        self._modality = Modality("HILUM", "127.0.0.1", port, timeout_s=10)
        self._pause = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        for study in self.studies:
            while not set(study.files) <= self.acknowledged:
                report = self._modality.send(study.files[0].parent)
                self.acknowledged |= {item.path for item in report.of("SENT")}
                self._pause.wait(0.05)
        self.done.set()


def test_twenty_kills_lose_nothing_and_double_nothing(
    bright_node: NodeProcess, pacs: StandInPacs, small_study: Callable[[int], PhantomTruth]
) -> None:
    chance = random.Random(SEED)
    studies = [small_study(seed) for seed in range(1, STUDIES + 1)]
    stream = Stream(studies, bright_node.port)
    bright_node.start()
    stream.start()
    for _ in range(KILLS):
        # A moment of chance in this life of the node, wherever that is in its work.
        moment = threading.Event()
        threading.Timer(chance.uniform(0.02, 2.0), moment.set).start()
        moment.wait()
        bright_node.kill()
        bright_node.start()
    wait_until(stream.done.is_set, timeout_s=180, what="the acknowledgement of every image")
    states = bright_node.wait_for_end(STUDIES)
    set_aside = [uid for uid, state in states.items() if state == "ATTENTION"]
    for uid in set_aside:
        retry_what_three_kills_set_aside(bright_node, uid)
    wait_until(lambda: set(bright_node.states().values()) == {"DONE"}, timeout_s=180, what="the end of every study")
    states = bright_node.states()
    bright_node.stop()

    assert set(states) == {study.study_uid for study in studies}
    assert set(states.values()) == {"DONE"}
    engine = open_index(bright_node.state / "index.sqlite", store_directory=bright_node.state / "store")
    for study in studies:
        for path in study.files:
            received = find_instance(engine, sop_instance_uid_of(path))
            assert received is not None
            assert hashlib.sha256(data_set_bytes(received.path)).hexdigest() == received.data_set_digest
    engine.dispose()
    expected = {}
    for study in studies:
        history = bright_node.history(study.study_uid)
        assert history is not None
        newest = max(history.generations, key=lambda part: part.count)
        assert newest.instances == len(study.files)
        expected |= delivered(history, bright_node.state / "outbox")
    held = Counter(pydicom.dcmread(path).SOPInstanceUID for path in pacs.directory.iterdir())
    assert held == Counter(dict.fromkeys(expected, 1))
    for item in pacs.objects:
        assert data_set_bytes(item.path) == data_set_bytes(expected[item.sop_instance_uid])
    assert set(pacs.copies) == set(expected)
    resent = sum(count - 1 for count in pacs.copies.values())
    assert resent == pacs.arrivals - len(held), "each copy that came again is counted"
    print(
        f"{KILLS} kills, {len(stream.acknowledged)} images, {len(held)} objects at the PACS, {resent} sent again, "
        f"{len(set_aside)} studies set aside by three kills and retried"
    )


def retry_what_three_kills_set_aside(node: NodeProcess, study_uid: str) -> None:
    history = node.history(study_uid)
    assert history is not None
    assert [(run.state, run.started) for run in history.runs if run.state == "QUARANTINED"] == [("QUARANTINED", 3)]
    command = [sys.executable, "-m", "node.cli", "retry", study_uid, "--settings", str(node.settings_file)]
    subprocess.run(command, check=True, capture_output=True)


def sop_instance_uid_of(path: Path) -> str:
    from node.imaging.headers import read_header

    return read_header(path).sop.sop_instance_uid


def delivered(history: StudyHistory, outbox: Path) -> dict[str, Path]:
    """Return the files of what was sent; what was not was superseded by a later generation."""
    ends = {part: {way.state for way in part.deliveries} for part in history.objects}
    assert all(states in ({"SENT"}, {"SUPERSEDED"}) for states in ends.values())
    sent = {part.sop_instance_uid: outbox / part.path for part, states in ends.items() if states == {"SENT"}}
    assert sent
    return sent
