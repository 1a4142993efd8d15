"""Ugly studies through the front door: each leaves a reason one can read, nothing crashes, nobody else waits."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from node.testing.modality import Modality, SendReport
from node.testing.phantom import PhantomTruth
from tests import ugly_studies
from tests.node_process import NodeProcess


def send(node: NodeProcess, folder: Path) -> SendReport:
    return Modality("HILUM", "127.0.0.1", node.port, timeout_s=15).send(folder)


def listed(node: NodeProcess) -> str:
    """What `hilum studies` prints, on one line."""
    command = [sys.executable, "-m", "node.cli", "studies", "--settings", str(node.settings_file)]
    shown = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"COLUMNS": "400", "PATH": "/usr/bin"}
    )
    return shown.stdout


REFUSED_AT_THE_DOOR = {
    "truncated": ugly_studies.truncated,
    "random bytes": ugly_studies.random_bytes,
    "escaping UID": ugly_studies.escaping_uid,
    "other patient": ugly_studies.other_patient,
}
# What the reason of the run must speak of.
REFUSED_BY_THE_MODEL = {
    "no pixel data": (ugly_studies.without_pixels, "Pixel Data"),
    "colour in a CT series": (ugly_studies.one_in_colour, "samples per pixel"),
    "12-bit JPEG": (ugly_studies.jpeg_of_12_bits, "1.2.840.10008.1.2.4.51"),
}


@pytest.fixture
def sound(small_study: Callable[[int], PhantomTruth]) -> PhantomTruth:
    return small_study(1)


# The sender's own library warns of the UIDs that are wrong on purpose.
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI", "ignore:Value exceeds the maximum length")
def test_every_ugly_study_leaves_a_reason_and_delays_nobody(
    tmp_path: Path,
    bright_node: NodeProcess,
    sound: PhantomTruth,
    small_study: Callable[[int], PhantomTruth],
) -> None:
    source = sound.files[0].parent
    with bright_node:
        assert not send(bright_node, source).of("FAILED")
        refusals: dict[str, str] = {}
        for name, make in REFUSED_AT_THE_DOOR.items():
            failed = send(bright_node, make(source, tmp_path / name.replace(" ", "-"))).of("FAILED")
            assert failed, name
            refusals[name] = failed[0].reason
        reasons: dict[str, str] = {}
        expected = {sound.study_uid}
        for name, (change, _) in REFUSED_BY_THE_MODEL.items():
            folder = ugly_studies.each_file(source, tmp_path / name.replace(" ", "-"), change)
            reasons[name] = str(pydicom.dcmread(min(folder.iterdir())).StudyInstanceUID)
            assert not send(bright_node, folder).of("FAILED"), name
        single = ugly_studies.each_file(source, tmp_path / "single", ugly_studies.unchanged)
        for path in sorted(single.iterdir())[1:]:
            path.unlink()
        reasons["one slice"] = str(pydicom.dcmread(min(single.iterdir())).StudyInstanceUID)
        assert not send(bright_node, single).of("FAILED")
        other = small_study(2)
        assert not send(bright_node, other.files[0].parent).of("FAILED")
        expected |= {*reasons.values(), other.study_uid}
        states = bright_node.wait_for_end(len(expected))
        table = listed(bright_node)
        histories = {name: bright_node.history(uid) for name, uid in reasons.items()}

    assert states[sound.study_uid] == states[other.study_uid] == "DONE"
    assert len(table.splitlines()) > len(REFUSED_AT_THE_DOOR)
    assert "2.25.424242" in table
    for name, uid in reasons.items():
        assert states[uid] == "REFUSED", name
        history = histories[name]
        assert history is not None
        said = " ".join([run.reason for run in history.runs] + [v.reason for run in history.runs for v in run.verdicts])
        speaks_of = REFUSED_BY_THE_MODEL.get(name, (None, "slice"))[1]
        assert speaks_of in said, f"{name}: {said}"
        print(f"{name}: {said}")
    for name, text in refusals.items():
        print(f"{name}: {text}")
    assert not (tmp_path.parent / "hilum-escaped").exists()
    assert not list(bright_node.directory.rglob("*escaped*"))
    assert "Traceback" not in bright_node.log()
