"""The child's confinement, tried from inside: no network, no other files, no programs, bounded memory, dies with us."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.inference_service import is_running
from tests.waiting import wait_until
from training.importing.messages import received, send

TRIES = """
import json, os, socket, subprocess, sys
from pathlib import Path
from training.importing.isolation import Limits, isolate

work, parent, port = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
granted = isolate(work, Limits(2 << 30, 60), parent)

def tried(action):
    try:
        action()
    except (OSError, MemoryError) as error:
        return type(error).__name__
    return "possible"

print(json.dumps({
    "network": granted.network_refusal,
    "files": granted.files_refusal,
    "connect": tried(lambda: socket.create_connection(("127.0.0.1", port), 5)),
    "datagram": tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", port))),
    "lookup": tried(lambda: socket.getaddrinfo("example.org", 80)),
    "read": tried(lambda: Path("/etc/passwd").read_bytes()),
    "read_ours": tried(lambda: (work / "mine").read_bytes()),
    "write": tried(lambda: Path(work.parent, "outside").write_bytes(b"x")),
    "write_ours": tried(lambda: (work / "made").write_bytes(b"x")),
    "run": tried(lambda: subprocess.run(["/bin/true"])),
    "memory": tried(lambda: bytearray(3 << 30)),
    "import": tried(lambda: __import__("numpy")),
}), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    work = tmp_path_factory.mktemp("isolation") / "work"
    work.mkdir()
    (work / "mine").write_bytes(b"x")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-P", "-c", TRIES, str(work), str(_own_pid()), str(listener.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, check=False, input="")
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


def _own_pid() -> int:
    return int(Path("/proc/self").resolve().name)


def test_the_child_reaches_no_network(tried: dict[str, Any]) -> None:
    if tried["network"]:
        pytest.skip(f"the kernel refuses a network namespace: {tried['network']}")
    assert tried["connect"] != "possible"
    assert tried["datagram"] != "possible"
    assert tried["lookup"] != "possible"


def test_the_child_reaches_its_own_files_alone_and_runs_nothing(tried: dict[str, Any]) -> None:
    if tried["files"]:
        pytest.skip(f"the kernel confines no files: {tried['files']}")
    assert (tried["read"], tried["write"], tried["run"]) == ("PermissionError",) * 3


def test_the_child_can_work_and_is_bounded(tried: dict[str, Any]) -> None:
    assert (tried["read_ours"], tried["write_ours"], tried["import"]) == ("possible",) * 3
    assert tried["memory"] == "MemoryError"


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    starter = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-P', '-c', sys.argv[1], sys.argv[2], str(os.getpid()), '9'],"
        " stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-P", "-c", starter, TRIES, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert is_running(child)
    parent.kill()
    parent.communicate()
    wait_until(lambda: not is_running(child), timeout_s=20, what="the end of the child")


def test_messages_show_no_control_characters_and_rubbish_is_none(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    with pipe.open("wb") as file:
        send(file.fileno(), "note", "red \x1b[31m and\nnext" + "x" * 5000)
    message = received(pipe.read_bytes())
    assert message is not None
    assert message.text.startswith("red  [31m and next")
    assert len(message.text) == 2000
    for line in (b"", b"[]", b"{", b'{"said": "run", "text": ""}', b"[" * 100_000, b"\xff"):
        assert received(line) is None
