"""DCMTK's tools send to the listener."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from node.index.instances import quarantined
from tests.index_views import instances_of_study
from tests.receiving import STUDY, Receiver, ct_image, receiver
from tests.waiting import wait_until

pytestmark = pytest.mark.needs_program("storescu", "dcmsend", "echoscu")
# DCMTK leaves Nagle's algorithm on unless told otherwise.
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}


@pytest.fixture
def to(tmp_path: Path) -> Iterator[Receiver]:
    with receiver(tmp_path / "node") as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    for number in range(6):
        ct_image(seed=number).save_as(made / f"{number}.dcm", enforce_file_format=True)
    return made


def run(*command: object) -> subprocess.CompletedProcess[str]:
    arguments = [str(part) for part in command]
    return subprocess.run(arguments, capture_output=True, text=True, env=ENVIRONMENT, timeout=120, check=False)


def test_echoscu(to: Receiver) -> None:
    assert run("echoscu", "-aec", "HILUM", to.host, to.port).returncode == 0
    assert run("echoscu", "-aec", "ELSE", to.host, to.port).returncode != 0


def test_storescu_with_nagle_on_is_not_slow(to: Receiver, folder: Path) -> None:
    sent = subprocess.run(
        ["storescu", "-aec", "HILUM", "+sd", to.host, str(to.port), str(folder)],
        env={key: value for key, value in os.environ.items() if key != "TCP_NODELAY"},
        timeout=120,
        check=False,
    )
    assert sent.returncode == 0
    assert len(instances_of_study(to.engine, STUDY)) == 6


@pytest.mark.parametrize("proposal", ["-x=", "-xe", "-xi", "-xb", "-xd", "-xr", "-xs", "-xv"])
def test_storescu_in_every_proposal(to: Receiver, folder: Path, proposal: str) -> None:
    sent = run("storescu", proposal, "-aec", "HILUM", "+sd", to.host, to.port, folder)
    assert sent.returncode == 0, sent.stderr
    assert len(instances_of_study(to.engine, STUDY)) == 6


def test_several_associations_one_after_another_are_one_study(to: Receiver, folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        assert run("storescu", "-aec", "HILUM", to.host, to.port, path).returncode == 0
    assert len(instances_of_study(to.engine, STUDY)) == 6
    wait_until(lambda: len(to.closed) == 6, what="the close of six associations")


def test_dcmsend_sends_mixed_syntaxes_and_its_report_counts_them(to: Receiver, folder: Path, tmp_path: Path) -> None:
    compressed = ct_image(seed=7)
    compressed.compress(RLELossless, generate_instance_uid=False)
    compressed.save_as(folder / "rle.dcm", enforce_file_format=True)
    implicit = ct_image(seed=8)
    implicit.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    implicit.save_as(folder / "implicit.dcm", enforce_file_format=True)
    report = tmp_path / "report.txt"
    sent = run("dcmsend", "-aec", "HILUM", "+sd", "--decompress-never", "+crf", report, to.host, to.port, folder)
    assert sent.returncode == 0, sent.stderr
    kept = instances_of_study(to.engine, STUDY)
    assert len(kept) == 8
    # dcmsend turned the implicit one into explicit, which we prefer.
    assert sorted(item.transfer_syntax for item in kept) == [ExplicitVRLittleEndian] * 7 + [RLELossless]


def test_conflict_reaches_the_sender(to: Receiver, tmp_path: Path) -> None:
    uid = ct_image().SOPInstanceUID
    for name, seed in (("one.dcm", 1), ("two.dcm", 2)):
        ct_image(uid=uid, seed=seed).save_as(tmp_path / name, enforce_file_format=True)
    assert run("storescu", "-aec", "HILUM", to.host, to.port, tmp_path / "one.dcm").returncode == 0
    refused = run("storescu", "-v", "-aec", "HILUM", to.host, to.port, tmp_path / "two.dcm")
    assert "Error: CannotUnderstand" in refused.stderr
    assert [item.reason for item in quarantined(to.engine)] == ["SOP Instance UID is known with other content"]


@pytest.mark.parametrize("name", ["wg04_compressed", "pet_suyash", "highdicom_test_files"])
def test_real_sets_arrive_whole(to: Receiver, shared_data: Callable[[str], Path], name: str) -> None:
    files = [path for path in shared_data(name).rglob("*") if path.is_file() and path.read_bytes()[128:132] == b"DICM"]
    sent = run(
        "dcmsend", "-aec", "HILUM", "+sd", "+r", "--no-halt", "--decompress-never", to.host, to.port, shared_data(name)
    )
    assert sent.returncode == 0, sent.stderr
    assert to.stored
    assert len(to.stored) + len(quarantined(to.engine)) <= len(files)
    for instance in to.stored:
        assert run("dcmdump", "-q", "+L", "+P", "0008,0018", instance.path).returncode == 0
