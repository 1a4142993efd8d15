"""The peers of both nodes, processes of their own: DCMTK's storescu sends, its storescp is the PACS."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# Nagle against the delayed acknowledgement would cost both nodes 40 ms an instance and hide everything else.
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}
TOOLS = ("storescu", "storescp")


def missing_tools() -> list[str]:
    return [name for name in TOOLS if shutil.which(name) is None]


def send_study(files: Sequence[Path], port: int) -> None:
    """Send the files with storescu, one association; return when all are acknowledged."""
    command = ["storescu", "-aec", "NODE", "127.0.0.1", str(port), *map(str, files)]
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, timeout=300)


@contextmanager
def storescp(directory: Path) -> Iterator[int]:
    """Run a PACS that writes into `directory`; give its port."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = ["storescp", "-B", "-pdu", "131072", "-od", str(directory), str(port)]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await_port(port, process)
        yield port
    finally:
        process.terminate()
        process.wait()


@contextmanager
def ready_service(mask: Path, digest: str) -> Iterator[int]:
    """Run the service with the ready mask; give its port."""
    command = [sys.executable, "-m", "bench.ready_service", str(mask), digest]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(10)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _await_port(port: int, process: "subprocess.Popen[bytes]") -> None:
    pause, deadline = threading.Event(), time.monotonic() + 20
    while time.monotonic() < deadline:
        assert process.poll() is None, "the peer ended before it listened"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            pause.wait(0.05)
        else:
            return
    raise TimeoutError(f"nothing listens on port {port}")
