"""The child service on a machine that is out of descriptors or memory: it is started when that has passed."""

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from node.inference_client import service as rooms
from node.inference_client.service import ServiceProcess
from node.settings import InferenceSettings
from tests.waiting import wait_until

READY = (
    'import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(\'{"addresses": ["127.0.0.1:9"]}\'); sys.stdin.read()'
)


def test_watcher_outlives_a_machine_that_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "BACKOFF_FIRST_S", 0.05)
    real, refusals = (
        subprocess.Popen,
        [OSError(errno.EMFILE, "Too many open files"), OSError(errno.ENOMEM, "no memory")],
    )
    started: list[Any] = []

    def start(_command: list[str], **_options: object) -> subprocess.Popen[bytes]:
        if started and refusals:
            raise refusals.pop(0)
        command = [sys.executable, "-c", READY, str(tmp_path / rooms.READY_FILE)]
        started.append(real(command, stdin=subprocess.PIPE, start_new_session=True))
        return started[-1]

    monkeypatch.setattr(rooms.subprocess, "Popen", start)
    process = ServiceProcess(InferenceSettings(endpoint="127.0.0.1:0"), tmp_path, tmp_path)
    try:
        assert process.start() == "127.0.0.1:9"
        started[0].kill()
        wait_until(lambda: process.restarts == 1, what="the second start")
        assert not refusals
        assert process.pid == started[1].pid
    finally:
        process.stop()
        for item in started:
            item.stdin.close()
            item.wait()
