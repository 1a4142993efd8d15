"""What the benchmarks of the service share: a running service, a volume, and what a process has in memory."""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node.domain.geometry import Geometry
from node.domain.instances import SopReference
from node.domain.volume import Volume

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
MIB = 1 << 20
START_S = 300.0


@dataclass(frozen=True, slots=True)
class Service:
    """A service as a process of its own."""

    pid: int
    tcp: str
    unix: str
    seconds_to_ready: float


@contextmanager
def service(models: Path, *options: str, program: str = "inference") -> Iterator[Service]:
    """Run `python -m PROGRAM` on a free port and a Unix socket until the block ends; its log goes to a file."""
    with tempfile.TemporaryDirectory(prefix="hilum-") as folder:
        ready = Path(folder) / "ready"
        command = [sys.executable, "-m", program, "--models", str(models), "--listen", "127.0.0.1:0"]
        command += ["--listen", f"unix:{folder}/s", "--ready-file", str(ready), *options]
        log = Path(folder) / "log"
        begun = time.perf_counter()
        with log.open("wb") as output:
            process = subprocess.Popen(command, stderr=output)
        try:
            _await_file(ready, process, log)
            took = time.perf_counter() - begun
            addresses = json.loads(ready.read_text(encoding="utf-8"))["addresses"]
            yield Service(process.pid, addresses[0], addresses[1], took)
        finally:
            process.terminate()
            process.wait(30)


def _await_file(path: Path, process: "subprocess.Popen[bytes]", log: Path) -> None:
    pause, deadline = threading.Event(), time.monotonic() + START_S
    while not path.exists():
        assert process.poll() is None, f"the service ended with {process.returncode}: {log.read_text()[-2000:]}"
        assert time.monotonic() < deadline, "the service was not ready in time"
        pause.wait(0.01)


def volume_of(voxels: NDArray[np.int16]) -> Volume:
    """Give voxels [slice, row, column] an axial geometry of 1 mm."""
    slices = voxels.shape[0]
    return Volume(
        voxels=voxels,
        slope=np.ones(slices, np.float32),
        intercept=np.full(slices, -1024, np.float32),
        geometry=Geometry(
            shape=voxels.shape,
            spacing=(1.0, 1.0, 1.0),
            origin=(0.0, 0.0, 0.0),
            slice_direction=(0.0, 0.0, 1.0),
            row_direction=(0.0, 1.0, 0.0),
            column_direction=(1.0, 0.0, 0.0),
        ),
        frame_of_reference_uid="2.25.10",
        study_uid="2.25.11",
        series_uid="2.25.12",
        sources=tuple(SopReference(CT_IMAGE_STORAGE, f"2.25.13.{number}") for number in range(slices)),
        unit="[hnsf'U]",
    )


def memory_of(pid: int) -> dict[str, int]:
    """Read a process's memory in bytes: `RssAnon` is its own, `RssShmem` is shared (regions), `VmRSS` is all."""
    rows = (line.split() for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines())
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if len(row) == 3 and row[2] == "kB"}


class PeakMemory:
    """The greatest private memory of a process while the block runs, looked at every 5 ms."""

    def __init__(self, pid: int) -> None:
        self._pid, self._stop = pid, threading.Event()
        self.bytes = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.bytes = max(self.bytes, memory_of(self._pid)["RssAnon"])
            if self._stop.wait(0.005):
                return
