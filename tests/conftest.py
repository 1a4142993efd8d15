"""Fixtures of the whole suite: real studies where they are at hand, else a skip that says why."""

import os
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
DIRECTORY_MARKS = ("acceptance",)
# Python 3.11.2, which Debian 12 has, knows no filter yet; later ones warn where none is given.
SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in DIRECTORY_MARKS:
            if f"/tests/{mark}/" in str(item.path):
                item.add_marker(mark)
    for item in [item for item in items if item.get_closest_marker("ends_its_service")]:
        items.remove(item)
        last = max((place for place, other in enumerate(items) if other.path == item.path), default=len(items) - 1)
        items.insert(last + 1, item)


def pytest_configure(config: pytest.Config) -> None:
    # DCMTK and Orthanc leave Nagle on by default: 40 ms an instance on loopback.
    os.environ.setdefault("TCP_NODELAY", "1")
    # Nodes and services start by the dozen: each would compile some thousand modules anew, 2 to 4 s of a core.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    config.addinivalue_line("markers", "needs_program(name): skipped where the program is not installed")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs_program"):
        for name in mark.args:
            if shutil.which(name) is None:
                pytest.skip(f"{name} is not installed (scripts/system-packages installs it where it may)")


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give a function from the name of a shared data set to the folder it was unpacked into."""
    source = Path(os.environ.get("HILUM_SHARED_DATA", ROOT.parent / "shared" / "data"))
    target = tmp_path_factory.mktemp("shared")

    def unpacked(name: str) -> Path:
        archives = [*source.glob(f"{name}.tar"), *source.glob(f"*/{name}.tar.gz")]
        if not archives:
            pytest.skip(f"the data set {name} is not at hand (HILUM_SHARED_DATA names the folder that holds it)")
        if not (target / name).exists():
            with tarfile.open(archives[0]) as archive:
                archive.extractall(target, **SAFELY)  # noqa: S202 (our own data; filtered where Python can)
        return target / name

    return unpacked


@pytest.fixture(scope="session")
def shared_file() -> Callable[[str], Path]:
    """Give a function from a path inside the shared data folder to that file."""
    source = Path(os.environ.get("HILUM_SHARED_DATA", ROOT.parent / "shared" / "data"))

    def found(relative: str) -> Path:
        if not (source / relative).is_file():
            pytest.skip(f"{relative} is not at hand (HILUM_SHARED_DATA names the folder that holds it)")
        return source / relative

    return found
