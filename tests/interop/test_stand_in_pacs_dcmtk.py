import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.testing.pacs import StandInPacs
from node.testing.phantom import PhantomTruth, write_phantom


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> PhantomTruth:
    return write_phantom(tmp_path_factory.mktemp("phantom"), slices=4, size=64)


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[StandInPacs]:
    with StandInPacs(tmp_path / "pacs") as running:
        yield running


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.needs_program("echoscu")
def test_echoscu_is_answered(pacs: StandInPacs) -> None:
    assert run("echoscu", "-aec", "PACS", pacs.host, str(pacs.port)).returncode == 0


@pytest.mark.needs_program("storescu")
def test_storescu_stores_each_object(pacs: StandInPacs, phantom: PhantomTruth) -> None:
    done = run("storescu", "-xs", "-aec", "PACS", pacs.host, str(pacs.port), *phantom.files)
    assert done.returncode == 0, done.stderr
    assert len(pacs.objects) == 4


@pytest.mark.needs_program("dcmsend")
def test_dcmsend_stores_a_folder(pacs: StandInPacs, phantom: PhantomTruth) -> None:
    done = run("dcmsend", "+sd", "-aec", "PACS", pacs.host, str(pacs.port), phantom.files[0].parent)
    assert done.returncode == 0, done.stderr
    assert set(pacs.copies.values()) == {1}
    assert len(pacs.objects) == 4


@pytest.mark.needs_program("storescu")
def test_storescu_sees_a_scripted_refusal(pacs: StandInPacs, phantom: PhantomTruth) -> None:
    pacs.refuse(0xA700, comment="disk full")
    done = run("storescu", "-v", "-aec", "PACS", pacs.host, str(pacs.port), phantom.files[0])
    assert "OutOfResources" in done.stdout + done.stderr
    assert pacs.objects == ()
