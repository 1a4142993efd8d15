"""The benchmark runs, checks what it timed, and prints its table; its figures are not judged on a test machine."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.needs_program("storescu", "storescp")
def test_both_nodes_agree_with_the_phantom_and_every_stage_is_timed(tmp_path: Path) -> None:
    size = ("--rounds", "1", "--slices", "24", "--size", "128")
    command = [sys.executable, "-m", "bench.end_to_end", *size, "--directory", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    for stage in ("receive", "files to volume", "gRPC there and mask back", "SEG", "SR", "send", "**whole chain**"):
        assert f"| {stage} |" in done.stdout
    assert list(tmp_path.iterdir()) == []
