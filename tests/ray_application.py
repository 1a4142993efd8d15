"""The application on Ray Serve as a child process, with a process group of its own: Ctrl-C reaches all of it."""

import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.inference_service import is_running
from tests.orthanc import free_port
from tests.waiting import wait_until

IS_INSTALLED = importlib.util.find_spec("ray") is not None
START_S = 240.0
STOP_S = 60.0


@dataclass(frozen=True, slots=True)
class RunningApplication:
    """What the ready file said, the process behind it, and where it writes."""

    process: subprocess.Popen[bytes]
    ready: dict[str, Any]
    folder: Path

    @property
    def tcp(self) -> str:
        return str(self.ready["addresses"][0])

    @property
    def unix(self) -> str:
        return str(self.ready["addresses"][1])

    @property
    def ready_file(self) -> Path:
        return self.folder / "ready"

    def events(self, name: str) -> list[dict[str, Any]]:
        """Read the events of a name from the command's log."""
        lines = (self.folder / "log").read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [event for event in found if event["event"] == name]

    def replicas(self, model: str) -> list[int]:
        """Give the processes of a model's replicas."""
        return replicas_below(self.process.pid, model)


@dataclass(frozen=True, slots=True)
class RunningCluster:
    """A Ray cluster on loopback that the test started for itself."""

    process: subprocess.Popen[bytes]
    address: str
    opens: Mapping[str, str]
    """Environment that lets a process in."""
    folder: Path

    def answered_by(self, pid: int) -> int:
        """Count the requests that a replica answered, by its own log."""
        logs = self.folder.glob(f"session_2*/logs/worker-*-{pid}.err")
        return sum(path.read_text(encoding="utf-8").count('"request_answered"') for path in logs)


@contextmanager
def running_application(
    models: Path, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[RunningApplication]:
    """Start `hilum inference-scale` on a free port and a Unix socket, and end it with SIGTERM where it still runs."""
    folder = Path(tempfile.mkdtemp(prefix="h-", dir="/tmp"))  # Unix sockets lie deep below it
    process = start_application(
        folder, "--models", str(models), "--listen", "127.0.0.1:0", "--listen", f"unix:{folder}/s",
        *options, environment=environment,
    )  # fmt: skip
    ready_file = folder / "ready"
    try:
        wait_until(lambda: ready_file.exists() or process.poll() is not None, timeout_s=START_S, what="the ready file")
        assert process.poll() is None, (folder / "log").read_text(encoding="utf-8")
        yield RunningApplication(process, json.loads(ready_file.read_text(encoding="utf-8")), folder)
    finally:
        end_application(process)
        shutil.rmtree(folder, ignore_errors=True)


def start_application(
    folder: Path, *options: str, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "inference.scale", "--ready-file", str(folder / "ready"), *options]
    if "--address" not in options:
        command += ["--temp-dir", str(folder / "ray"), "--object-store-mb", "100"]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **(environment or {})}
        )


@contextmanager
def running_cluster(gpus: int) -> Iterator[RunningCluster]:
    """Start `ray start --head` on loopback; end it and what it started, and nothing else of Ray."""
    folder = Path(tempfile.mkdtemp(prefix="r-", dir="/tmp"))
    port, key = free_port(), secrets.token_hex(32)
    opens = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": key, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={port}", "--num-cpus=2",
        f"--num-gpus={gpus}", "--include-dashboard=false", f"--object-store-memory={100 << 20}",
        f"--temp-dir={folder}", "--disable-usage-stats",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **opens})
    try:
        wait_until(lambda: is_there(port) or process.poll() is not None, timeout_s=START_S, what="the cluster")
        assert process.poll() is None, (folder / "log").read_text(encoding="utf-8")
        yield RunningCluster(process, f"127.0.0.1:{port}", opens, folder)
    finally:
        end_application(process)
        shutil.rmtree(folder, ignore_errors=True)


def is_there(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def end_application(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
    if process.poll() is None:
        family = below(process.pid)
        process.send_signal(number)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            for pid in (process.pid, *family):
                kill_if_there(pid)
            process.wait()
            raise
    return process.returncode


def kill_if_there(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def replicas_below(pid: int, model: str) -> list[int]:
    """Give the replicas of a model among the processes that a process started."""
    return [child for child in below(pid) if command_of(child) == f"ray::ServeReplica:hilum:{model}"]


def below(pid: int) -> list[int]:
    """Give the processes that a process started, and those that they started, which still run."""
    parents = {int(entry.name): parent_of(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    found: list[int] = []
    layer = [pid]
    while layer:
        layer = [child for child, parent in parents.items() if parent in layer]
        found += layer
    return [child for child in found if is_running(child)]


def parent_of(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[1])


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").strip("\0 ")
    except OSError:
        return ""


def listening(pids: list[int]) -> set[str]:
    """Give the TCP addresses (hexadecimal, as the kernel writes them) that any of the processes listens on."""
    sockets = {name for pid in pids for name in _sockets_of(pid)}
    rows = [
        line.split()
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text(encoding="ascii").splitlines()[1:]
    ]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}


def _sockets_of(pid: int) -> set[str]:
    found = set()
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            found.add(str(entry.readlink()))
    except OSError:
        return found
    return {name for name in found if name.startswith("socket:")}
