"""A real inference service as a child process, and volumes to ask it with."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.domain.geometry import Geometry
from node.domain.instances import SopReference
from node.domain.volume import Volume
from node.inference_client.client import InferenceClient
from node.settings import InferenceSettings
from tests.waiting import wait_until

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
START_S = 120.0


@dataclass(frozen=True, slots=True)
class RunningService:
    """What the ready file said, and the process behind it."""

    process: subprocess.Popen[bytes]
    ready: dict[str, Any]
    models: Path
    ready_file: Path

    @property
    def tcp(self) -> str:
        return str(self.ready["addresses"][0])

    @property
    def unix(self) -> str:
        return str(self.ready["addresses"][1])


@contextmanager
def running_service(models: Path, *options: str) -> Iterator[RunningService]:
    """Start `python -m inference` on a free port and a Unix socket, and end it with SIGTERM."""
    folder = Path(tempfile.mkdtemp(prefix="hilum-"))  # a Unix socket's path must be short
    ready_file = folder / "ready"
    process = start_service(
        "--models", str(models), "--listen", "127.0.0.1:0", "--listen", f"unix:{folder}/s", "--ready-file",
        str(ready_file), *options,
    )  # fmt: skip
    try:
        wait_until(lambda: ready_file.exists() or process.poll() is not None, timeout_s=START_S, what="the ready file")
        assert process.poll() is None, f"the service ended with status {process.returncode}"
        yield RunningService(process, json.loads(ready_file.read_text(encoding="utf-8")), models, ready_file)
    finally:
        end_process(process)
        shutil.rmtree(folder, ignore_errors=True)


def start_service(*options: str, **streams: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "inference", *options], **streams)


def end_process(process: subprocess.Popen[bytes], timeout_s: float = 15.0) -> int:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
    return process.returncode


def is_running(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and waits for its parent to notice does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextmanager
def client_of(endpoint: str, **settings: Any) -> Iterator[InferenceClient]:
    client = InferenceClient(InferenceSettings(endpoint=endpoint, **settings))
    try:
        yield client
    finally:
        client.close()


def volume_of(
    voxels: NDArray[Any],
    *,
    slope: float | Sequence[float] = 1.0,
    intercept: float | Sequence[float] = 0.0,
    padding: int | None = None,
) -> Volume:
    """Make an axial volume of 2 x 1 x 1 mm around given stored values [slice, row, column]."""
    slices = voxels.shape[0]
    geometry = Geometry(
        shape=voxels.shape,
        spacing=(2.0, 1.0, 1.0),
        origin=(0.0, 0.0, 0.0),
        slice_direction=(0.0, 0.0, 1.0),
        row_direction=(0.0, 1.0, 0.0),
        column_direction=(1.0, 0.0, 0.0),
    )
    return Volume(
        voxels=voxels,
        slope=np.broadcast_to(np.asarray(slope, np.float32), (slices,)).copy(),
        intercept=np.broadcast_to(np.asarray(intercept, np.float32), (slices,)).copy(),
        geometry=geometry,
        frame_of_reference_uid="2.25.10",
        study_uid="2.25.11",
        series_uid="2.25.12",
        sources=tuple(SopReference(CT_IMAGE_STORAGE, f"2.25.13.{number}") for number in range(slices)),
        unit="1",
        padding=padding,
    )


def bright_volume(slices: int = 4, size: int = 32) -> Volume:
    """A dark volume with one bright block of 2 x 4 x 4 voxels at [1:3, 10:14, 10:14]."""
    voxels = np.zeros((slices, size, size), np.int16)
    voxels[1:3, 10:14, 10:14] = 1000
    return volume_of(voxels, intercept=-1024.0)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
