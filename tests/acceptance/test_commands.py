"""The commands as people type them: what they print, where things lie, how they end."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from PIL import Image

from node.testing.pacs import StandInPacs
from tests.inference_service import is_running
from tests.node_process import NodeProcess
from tests.orthanc import free_port

DEMO_BOUND_S = 300
"""Far above the 60 s that a free machine of two cores needs: the suite may share its cores."""


@dataclass(frozen=True)
class Ended:
    status: int
    text: str

    @property
    def words(self) -> str:
        """The text without the frames of tables and line breaks."""
        return " ".join(re.sub(r"[│┃|]", " ", self.text).split())


def hilum(*command: object, cwd: Path | None = None, timeout_s: float = 120) -> Ended:
    full = [sys.executable, "-P", "-m", "node.cli", *map(str, command)]
    environment = {**os.environ, "COLUMNS": "240"}
    done = subprocess.run(
        full, capture_output=True, text=True, timeout=timeout_s, check=False, cwd=cwd, env=environment
    )
    ended = Ended(done.returncode, done.stdout + done.stderr)
    assert "Traceback" not in ended.text, ended.text
    return ended


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "kept"


@pytest.fixture(scope="module")
def demo(kept: Path) -> Ended:
    began = time.monotonic()
    shown = hilum("demo", "--slices", 40, "--keep", kept, timeout_s=DEMO_BOUND_S)
    print(f"hilum demo --slices 40: {time.monotonic() - began:.1f} s")
    return shown


@pytest.fixture
def settings(tmp_path: Path) -> NodeProcess:
    """A node that is not started, for its settings file."""
    return NodeProcess(tmp_path / "node", "127.0.0.1:1")


def test_the_demo_shows_report_and_truth_and_says_where_things_lie(demo: Ended, kept: Path) -> None:
    assert demo.status == 0, demo.text
    assert "Report beside truth" in demo.text
    assert re.search(r"found|Nodule \d+", demo.words)
    assert "Imaging Measurement Report" in demo.text or "Measurement Group" in demo.text
    assert "research use" in demo.text
    named = [Path(found) for found in re.findall(rf"{re.escape(str(kept))}\S*", demo.text)]
    assert {path.suffix for path in named} >= {".dcm", ".png"}
    assert all(path.exists() for path in named), named
    (picture,) = (kept / "pictures").glob("*.png")
    with Image.open(picture) as opened:
        opened.verify()
        assert min(opened.size) > 100


def test_run_on_a_folder_makes_what_the_node_makes_as_instances_of_its_own(
    demo: Ended, kept: Path, tmp_path: Path
) -> None:
    assert demo.status == 0
    out = tmp_path / "out"
    for _ in range(2):
        done = hilum("run", kept / "phantom", "--out", out, timeout_s=DEMO_BOUND_S)
        assert done.status == 0, done.text
        assert "finding(s)" in done.text
    assert len(list(out.glob("*.png"))) == len(list(out.glob("*.txt"))) == 1
    offline = {item.Modality: item for item in map(pydicom.dcmread, out.rglob("*.dcm"))}
    online = {item.Modality: item for item in map(pydicom.dcmread, (kept / "pacs").glob("*.dcm"))}
    assert set(offline) == set(online) == {"SEG", "SR"}
    assert len(list(out.rglob("*.dcm"))) == 2
    assert offline["SEG"].PixelData == online["SEG"].PixelData
    for kind, item in offline.items():
        assert item.SeriesInstanceUID == online[kind].SeriesInstanceUID
        assert item.SOPInstanceUID != online[kind].SOPInstanceUID


def test_a_damaged_file_keeps_the_series_beside_it_from_being_taken(demo: Ended, kept: Path, tmp_path: Path) -> None:
    assert demo.status == 0
    folder = tmp_path / "study"
    shutil.copytree(kept / "phantom", folder)
    torn = min(folder.rglob("*.dcm"))
    torn.write_bytes(torn.read_bytes()[:700])
    (folder / "notes.txt").write_text("no DICOM")
    done = hilum("run", folder, "--out", tmp_path / "out", timeout_s=DEMO_BOUND_S)
    assert done.status == 1
    assert f"damaged: {torn}" in done.words
    assert "an instance cannot be read" in done.words
    assert "1 file(s) are no DICOM" in done.words


def test_the_demo_leaves_a_directory_of_others_alone(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    kept_file = tmp_path / "state" / "index.sqlite"
    kept_file.write_text("somebody's")
    done = hilum("demo", "--keep", tmp_path)
    assert done.status == 2
    assert "holds files of others" in done.words
    assert kept_file.read_text() == "somebody's"


def uid_and_kind(path: Path) -> tuple[str, str]:
    result = pydicom.dcmread(path, stop_before_pixels=True)
    return str(result.SOPInstanceUID), str(result.Modality)


def test_reindex_brings_instances_and_evidence_back(demo: Ended, kept: Path, settings: NodeProcess) -> None:
    assert demo.status == 0
    shutil.copytree(kept / "state", settings.state)
    for path in settings.state.glob("index.sqlite*"):
        path.unlink()
    file = settings.write_settings()
    lost = hilum("studies", "--settings", file)
    assert lost.status == 2
    assert "holds no index" in lost.words
    rebuilt = hilum("reindex", "--settings", file)
    assert rebuilt.status == 0, rebuilt.text
    assert "40 instance(s), 40 of them new to the index" in rebuilt.words
    assert "1 evidence set(s)" in rebuilt.words
    (study_uid,) = settings.states()
    history = settings.history(study_uid)
    assert history is not None
    assert history.instances == 40
    made = {(part.sop_instance_uid, part.kind) for part in history.objects}
    assert made == {uid_and_kind(path) for path in (kept / "pacs").glob("*.dcm")}
    assert study_uid in hilum("studies", "--settings", file).text


def children_of(pid: int) -> list[int]:
    return [int(text) for path in Path(f"/proc/{pid}/task").glob("*/children") for text in path.read_text().split()]


def test_ctrl_c_ends_service_and_node_and_a_second_node_is_refused_meanwhile(
    tmp_path: Path, bright_models: Path
) -> None:
    node = NodeProcess(tmp_path / "node", "127.0.0.1:0", models=bright_models, command="up")
    with node:
        assert node.process is not None
        children = children_of(node.process.pid)
        assert children
        second = hilum("node", "--settings", node.settings_file)
        assert second.status == 2
        assert "belongs to a node that is running" in second.words
        assert "Remedy" in second.words
        assert node.stop() in {0, 128 + signal.SIGINT}
    assert [pid for pid in children if is_running(pid)] == []
    assert "Traceback" not in node.log()


def test_doctor_names_a_remedy_for_a_port_in_use_and_a_destination_that_is_away(
    tmp_path: Path, settings: NodeProcess
) -> None:
    with StandInPacs(tmp_path / "pacs") as pacs:
        settings.port = pacs.port
        closed = pacs.destination("away").model_copy(update={"port": free_port()})
        settings.destinations = (pacs.destination("here"), closed)
        told = hilum("doctor", "--settings", settings.write_settings())
    assert told.status == 1
    lines = {line.split("│")[1].strip(): line.split("│") for line in told.text.splitlines() if line.count("│") > 3}
    assert {name: lines[name][2].strip() for name in ("listener", "destination here", "destination away")} == {
        "listener": "wrong",
        "destination here": "ok",
        "destination away": "wrong",
    }
    assert "listener.port" in lines["listener"][4]
    assert "host and port" in lines["destination away"][4]


def test_an_empty_folder_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = hilum("run", tmp_path / "empty", "--out", tmp_path / "out")
    assert done.status == 1
    assert "holds no readable DICOM image" in done.words
    assert "Remedy" in done.words


def test_a_wrong_settings_file_is_refused_with_file_and_key(tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text("[listener]\nprot = 11112\n")
    for command in ("up", "node", "studies"):
        done = hilum(command, "--settings", file)
        assert done.status == 2
        assert "listener.prot" in done.words
        assert "'port'" in done.words
        assert file.name in done.words


def test_sending_to_a_closed_port_says_so(tmp_path: Path) -> None:
    image = pydicom.data.get_testdata_file("CT_small.dcm", download=False)
    shutil.copy(str(image), tmp_path / "image.dcm")
    done = hilum("send", tmp_path, f"HILUM@127.0.0.1:{free_port()}")
    assert done.status == 1
    assert "0 of 1 files sent" in done.words
    assert "refused" in done.words
