"""What a child leaves is taken only as what was asked for."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from protos.model_manifest import MANIFEST_FILE, ModelBundle, write_digest_list, write_manifest
from tests.bundles import threshold_bundle
from training.importing.errors import ConversionFailed, ImportRefused, IsolationRefused
from training.importing.messages import Message
from training.importing.parent import Terms, _checked, _raise_refusal, _watch


@pytest.fixture
def left(tmp_path: Path) -> ModelBundle:
    return threshold_bundle(tmp_path)


def test_a_bundle_as_asked_for_is_taken(left: ModelBundle) -> None:
    asked = left.manifest.model_copy(update={"golden": None})
    assert _checked(left.directory, asked) == left.directory


@pytest.mark.parametrize(
    "changes",
    [
        {"licence": "another"},
        {"golden": None},
        {"memory": {"base_mb": float("nan"), "bytes_per_voxel": 1.0}},
        {"memory": {"base_mb": 0.0, "bytes_per_voxel": 1.0}},
    ],
)
def test_another_manifest_is_not(changes: dict[str, Any], left: ModelBundle) -> None:
    asked = left.manifest.model_copy(update={"golden": None})
    written = type(left.manifest).model_validate({**left.manifest.model_dump(), **changes})
    write_manifest(written, left.directory / MANIFEST_FILE)
    write_digest_list(left.directory)
    with pytest.raises(ConversionFailed):
        _checked(left.directory, asked)


def test_more_files_links_and_damage_are_not(left: ModelBundle) -> None:
    asked = left.manifest.model_copy(update={"golden": None})
    extra = left.directory / "run.py"
    extra.write_text("print()", encoding="utf-8")
    write_digest_list(left.directory)
    with pytest.raises(ConversionFailed, match="another bundle"):
        _checked(left.directory, asked)
    extra.unlink()
    with pytest.raises(ConversionFailed, match="no sound bundle"):
        _checked(left.directory, asked)
    extra.symlink_to("/etc/hostname")
    with pytest.raises(ConversionFailed, match="no sound bundle"):
        _checked(left.directory, asked)


def test_a_child_that_holds_too_much_is_killed() -> None:
    program = "import sys; print('x', flush=True); sys.stdin.read(1); held = b'x' * (300 << 20); sys.stdin.read()"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.read(1)
        ended = threading.Event()
        watch = threading.Thread(target=_watch, args=(child.pid, 200 << 20, ended))
        watch.start()
        assert child.poll() is None
        child.stdin.write(b"x")
        child.stdin.flush()
        assert child.wait(30) == -9
        watch.join(30)
        assert not watch.is_alive()


def test_how_a_child_ended_is_said(tmp_path: Path) -> None:
    (tmp_path / "child.log").write_text("first\nstd::bad_alloc\x1b[2J\n", encoding="utf-8")
    with pytest.raises(ConversionFailed, match=r"by signal SIGKILL .*2 GiB \(--memory-gb\).*std::bad_alloc \[2J"):
        _raise_refusal(None, -9, tmp_path, Terms(memory_gb=2))
    with pytest.raises(ConversionFailed, match="by status 1"):
        _raise_refusal(Message("done", ""), 1, tmp_path, Terms())
    with pytest.raises(ImportRefused, match="a sentence"):
        _raise_refusal(Message("refused", "a sentence"), 3, tmp_path, Terms())
    with pytest.raises(IsolationRefused, match="--allow-network-unisolated"):
        _raise_refusal(Message("unisolated", "unshare: Operation not permitted"), 3, tmp_path, Terms())
    _raise_refusal(Message("done", ""), 0, tmp_path, Terms())
