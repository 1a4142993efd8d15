"""How long the service takes from the start of its process until its model answers, and where that time goes.

`python -m bench.serving_start` starts it again and again with a tiny model and with the one that ships, in turn with a
process that only imports TensorFlow: less than that it cannot be. `imports` ends when the service listens, `loading`
is what it logs for checking, importing and warming the model; between the two and after them lies the rest.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.serving_peers import MIB, memory_of
from bench.tables import print_machine, print_table
from inference.settings import BUNDLED_MODELS
from tests.part_bundles import TINY, part_bundles

_LATE_S = 300.0


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds of one start, and the private memory in bytes at its end."""

    ready_s: float
    imports_s: float = 0.0
    loading_s: float = 0.0
    private: int = 0


def tensorflow_alone() -> Start:
    """Import TensorFlow in a process of its own."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import tensorflow"], check=True, stderr=subprocess.DEVNULL)
    return Start(time.perf_counter() - begun)


def service_with(models: Path, name: str) -> Start:
    """Start the service with one model, and end it."""
    with tempfile.TemporaryDirectory(prefix="hilum-") as folder:
        ready, socket, log = (Path(folder) / name for name in ("ready", "s", "log"))
        command = [sys.executable, "-m", "inference", "--models", str(models), "--model", name]
        command += ["--listen", f"unix:{socket}", "--ready-file", str(ready)]
        begun = time.perf_counter()
        with log.open("wb") as output:
            process = subprocess.Popen(command, stderr=output)
        try:
            imports_s = _until_there(socket, process) - begun
            ready_s = _until_there(ready, process) - begun
            private = memory_of(process.pid)["RssAnon"]
        finally:
            process.terminate()
            process.wait(30)
        events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    loading_s = sum(event["seconds"] for event in events if event["event"] == "model_loaded")
    return Start(ready_s, imports_s, loading_s, private)


def _until_there(path: Path, process: "subprocess.Popen[bytes]") -> float:
    pause, deadline = threading.Event(), time.monotonic() + _LATE_S
    while not path.exists():
        assert process.poll() is None, f"the service ended with status {process.returncode}"
        assert time.monotonic() < deadline, f"{path.name} was not there in time"
        pause.wait(0.005)
    return time.perf_counter()


def report(found: dict[str, list[Start]]) -> None:
    """Print the table."""
    rows = []
    for what, starts in found.items():
        ready = [start.ready_s for start in starts]
        whole = f"{statistics.median(ready):.2f} ({min(ready):.2f}-{max(ready):.2f})"
        parts = [statistics.median(map(of, starts)) for of in (_imports, _loading, _rest)]
        private = statistics.median(start.private for start in starts) / MIB
        known = (*(f"{part:.2f}" for part in parts), f"{private:.0f}")
        rows.append((what, whole, *(known if private else "-" * len(known))))
    print_table(("", "ready, s", "imports, s", "loading, s", "rest, s", "private memory, MiB"), rows)


def _imports(start: Start) -> float:
    return start.imports_s


def _loading(start: Start) -> float:
    return start.loading_s


def _rest(start: Start) -> float:
    return start.ready_s - start.imports_s - start.loading_s


def main() -> None:
    """Start and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print_machine()
    tiny = part_bundles() / "good"
    ways: dict[str, Callable[[], Start]] = {
        "`import tensorflow` alone": tensorflow_alone,
        "the service with a tiny model": lambda: service_with(tiny, TINY.identity.name),
        "the service with `lung_nodule`": lambda: service_with(BUNDLED_MODELS, "lung_nodule"),
    }
    for once in ways.values():
        once()
    found: dict[str, list[Start]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, once in ways.items():
            found[name].append(once())
    report(found)


if __name__ == "__main__":
    main()
