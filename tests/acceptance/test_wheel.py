"""The built wheel with the extra [node] alone: no TensorFlow comes along; a command that needs it says what to do."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# As scripts/setup: sites with a proxy of their own have its certificate in the system store.
SYSTEM_CERTIFICATES = {"UV_SYSTEM_CERTS": "1", **os.environ}
UV = Path(sys.executable).parent / "uv"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False,
        env=SYSTEM_CERTIFICATES | environment,
    )  # fmt: skip


@pytest.fixture(scope="module")
def node_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and requirements/node.lock."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    ignore = shutil.ignore_patterns(".venv", ".git", "__pycache__", "demo", "state", ".*_cache")
    shutil.copytree(ROOT, tree, ignore=ignore)
    built = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=tree)
    assert built.returncode == 0, built.stderr
    wheel = next(folder.glob("hilum-*.whl"))
    venv = folder / "venv"
    assert run(UV, "venv", "--python", sys.executable, venv, cwd=folder).returncode == 0
    python = venv / "bin" / "python"
    lock = ROOT / "requirements" / "node.lock"
    locked = run(UV, "pip", "install", "--python", python, "--require-hashes", "-r", lock, cwd=folder)
    assert locked.returncode == 0, locked.stderr
    installed = run(UV, "pip", "install", "--python", python, "--no-deps", wheel, cwd=folder)
    assert installed.returncode == 0, installed.stderr
    return venv / "bin"


def test_no_tensorflow_comes_along(node_only: Path, tmp_path: Path) -> None:
    listed = run(UV, "pip", "list", "--python", node_only / "python", cwd=tmp_path).stdout.lower()
    assert "pynetdicom" in listed
    assert "tensorflow" not in listed
    assert "keras" not in listed


@pytest.mark.parametrize("terminal", [{}, {"FORCE_COLOR": "1", "COLUMNS": "40"}], ids=["none", "narrow and coloured"])
def test_help_works_and_a_missing_extra_is_named(node_only: Path, tmp_path: Path, terminal: dict[str, str]) -> None:
    shown = run(node_only / "hilum", "--help", cwd=tmp_path, **terminal)
    assert shown.returncode == 0, shown.stderr
    for name in ("up", "node", "inference", "demo", "run", "send", "studies", "study", "retry", "reindex", "doctor"):
        assert f" {name} " in COLOUR.sub("", shown.stdout)
    refused = run(node_only / "hilum", "inference", "--models", tmp_path, cwd=tmp_path, **terminal)
    assert refused.returncode == 1
    assert "  pip install 'hilum[inference]'\n" in COLOUR.sub("", refused.stderr)
    assert "Traceback" not in refused.stderr


def test_the_models_and_migrations_travel_in_the_wheel(node_only: Path, tmp_path: Path) -> None:
    listed = run(node_only / "hilum", "models", "list", cwd=tmp_path)
    assert "lung_nodule" in listed.stdout, listed.stderr
    opened = run(
        node_only / "python", "-c",
        "from node.index.engine import open_index; open_index('i.sqlite'); print('opened')", cwd=tmp_path,
    )  # fmt: skip
    assert opened.stdout.strip() == "opened", opened.stderr
