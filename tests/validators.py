"""Other people's tools on our objects: what they complain about, and what they read."""

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

_SCRIPTS = Path(sys.executable).parent


def program(name: str) -> str:
    """The path of a tool of this environment or of the system; skips where there is none."""
    found = shutil.which(name, path=f"{_SCRIPTS}") or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [program(name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def iod_errors(path: Path) -> list[str]:
    """Error lines of dciodvfy."""
    return _errors(run("dciodvfy", "-new", path))


def entity_errors(paths: Sequence[Path]) -> list[str]:
    """Error lines of dcentvfy over objects that share a study."""
    return _errors(run("dcentvfy", *paths))


def dumped_report(path: Path) -> str:
    """The SR as dsrdump prints it; asserts that it reads it without a complaint about the content."""
    finished = run("dsrdump", path)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def measurements(path: Path, directory: Path) -> dict[str, Any]:
    """The report as dcmqi's tid1500reader reads it."""
    target = directory / "report.json"
    finished = run("tid1500reader", "--inputDICOM", path, "--outputMetadata", target)
    assert finished.returncode == 0, finished.stderr
    read: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    return read


@dataclass(frozen=True)
class Nrrd:
    """A segment group as dcmqi writes it: labels [x, y, z] and the map from their index to LPS mm."""

    labels: NDArray[Any]
    directions: NDArray[np.float64]
    origin: NDArray[np.float64]

    def points(self) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Where the labelled voxels lie [n, 3] in LPS mm, and their labels [n]."""
        index = np.argwhere(self.labels)
        return index @ self.directions + self.origin, self.labels[tuple(index.T)]


def segment_images(path: Path, directory: Path) -> list[Nrrd]:
    """The SEG as dcmqi's segimage2itkimage reads it."""
    finished = run("segimage2itkimage", "--inputDICOM", path, "--outputDirectory", directory, "--outputType", "nrrd")
    assert finished.returncode == 0, finished.stderr
    return [_nrrd(file) for file in sorted(directory.glob("*.nrrd"))]


def _errors(finished: subprocess.CompletedProcess[str]) -> list[str]:
    lines = (finished.stdout + finished.stderr).splitlines()
    return [line for line in lines if line.startswith("Error")]


def _nrrd(path: Path) -> Nrrd:
    head, _, body = path.read_bytes().partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
    kinds = {"short": "<i2", "unsigned char": "u1", "int": "<i4", "unsigned short": "<u2"}
    sizes = [int(size) for size in fields["sizes"].split()]
    values = np.frombuffer(gzip.decompress(body) if fields["encoding"] == "gzip" else body, kinds[fields["type"]])
    assert fields["space"] == "left-posterior-superior"
    directions = np.array([_vector(text) for text in fields["space directions"].split(" ")])
    return Nrrd(values.reshape(sizes, order="F"), directions, np.array(_vector(fields["space origin"])))


def _vector(text: str) -> list[float]:
    return [float(value) for value in text.strip("()").split(",")]
