"""A real node in a process of its own, as `hilum node` or `hilum up` runs it, for acceptance tests."""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import tomli_w

from node.delivery.echo import c_echo
from node.index.engine import open_index
from node.index.history import StudyHistory, history_of, study_lines
from node.settings import Destination
from tests.orthanc import free_port
from tests.waiting import wait_until


@dataclass
class NodeProcess:
    """One node; `start`, `kill` and `stop` may be called again and again, the state directory stays."""

    directory: Path
    endpoint: str
    models: Path | None = None
    destinations: tuple[Destination, ...] = ()
    command: str = "node"
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    ae_title: str = "HILUM"
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def settings_file(self) -> Path:
        return self.directory / "hilum.toml"

    @property
    def log_file(self) -> Path:
        return self.directory / "node.log"

    def write_settings(self) -> Path:
        tables: dict[str, Any] = {
            "listener": {"ae_title": self.ae_title, "port": self.port},
            "store": {"state_directory": str(self.state), "low_disk_bytes": 1 << 20},
            "completion": {"settle_s": 0.5},
            "inference": {"endpoint": self.endpoint},
            "log": {"format": "json"},
        }
        if self.models is not None:
            tables["inference"]["models_directory"] = str(self.models)
        for section, keys in self.changes.items():
            tables.setdefault(section, {}).update(keys)
        tables["destinations"] = [
            item.model_dump(mode="json", exclude_none=True, exclude_defaults=True) for item in self.destinations
        ]
        self.directory.mkdir(parents=True, exist_ok=True)
        self.settings_file.write_text(tomli_w.dumps(tables))
        return self.settings_file

    def start(self, *, wait: bool = True) -> Self:
        command = [sys.executable, "-P", "-m", "node.cli", self.command, "--settings", str(self.write_settings())]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"COLUMNS": "200"})
        if wait:
            wait_until(self.answers, timeout_s=90, what=f"C-ECHO of the node ({self.log_file})")
        return self

    def answers(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise AssertionError(f"the node ended:\n{self.log()[-3000:]}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.port)):
                return False
        target = Destination(name="node", ae_title=self.ae_title, host="127.0.0.1", port=self.port, timeout_s=5)
        return c_echo(target, "TEST").answered

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)
        self.process = None

    def stop(self, timeout_s: float = 60) -> int:
        """Ctrl-C; return the exit status."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout_s)
        finally:
            self.process.kill()
            self.process = None

    __enter__ = start

    def __exit__(self, *_: object) -> None:
        self.stop()

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def rss_bytes(self) -> int:
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(row for row in status.splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def history(self, study_uid: str) -> StudyHistory | None:
        engine = open_index(self.state / "index.sqlite", store_directory=self.state / "store")
        try:
            return history_of(engine, study_uid)
        finally:
            engine.dispose()

    def states(self) -> dict[str, str]:
        """Return the state of every study."""
        engine = open_index(self.state / "index.sqlite", store_directory=self.state / "store")
        try:
            return {line.study_uid: line.state for line in study_lines(engine)}
        finally:
            engine.dispose()

    def wait_for_end(self, count: int, *, timeout_s: float = 180) -> dict[str, str]:
        """Wait until `count` studies are known and none is at work any more."""
        busy = {"ARRIVING", "WORKING", "DELIVERING"}
        wait_until(
            lambda: len(self.states()) >= count and not busy & set(self.states().values()),
            timeout_s=timeout_s,
            what=f"the end of {count} studies: {self.states}",
        )
        return self.states()
