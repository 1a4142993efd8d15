"""A key is mapped only where it is certainly the region."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from node.inference_client.local_region import RegionUnreachable, held, map_region
from protos.tensor_regions_pb2 import LeaseResponse

PROOF, SIZE = b"p" * 16, 8192


def region(name: str = "hilum-region", *, sealed: bool = True) -> int:
    descriptor = os.memfd_create(name, os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, SIZE)
    os.pwrite(descriptor, PROOF, 0)
    if sealed:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return descriptor


@pytest.fixture
def descriptor(request: pytest.FixtureRequest) -> Iterator[int]:
    opened = region(**getattr(request, "param", {}))
    yield opened
    os.close(opened)


def granted(descriptor: int, **changed: object) -> LeaseResponse:
    stated = {"name": "0", "byte_size": SIZE, "key": f"/proc/{os.getpid()}/fd/{descriptor}", "proof": PROOF}
    return LeaseResponse(**{**stated, **changed})


def test_a_region_is_shared_with_its_owner(descriptor: int) -> None:
    mapped = map_region(granted(descriptor))
    mapped[-3:] = (1, 2, 3)
    assert os.pread(descriptor, 3, SIZE - 3) == b"\1\2\3"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"key": "", "not_local_because": "no memory"}, "no memory"),
        ({"key": "/etc/passwd"}, "no key"),
        ({"key": "/proc/1/fd/../environ"}, "no key"),
        ({"key": "/proc/999999999/fd/3"}, "No such file"),
        ({"byte_size": SIZE - 1}, "expected 8191 bytes, the file has 8192"),
        ({"proof": b"q" * 16}, "the proof is not there"),
        ({"proof": b""}, "the proof is not there"),
    ],
)
def test_what_is_not_the_region_is_left_alone(descriptor: int, changed: dict[str, object], reason: str) -> None:
    with pytest.raises(RegionUnreachable, match=reason):
        map_region(granted(descriptor, **changed))


@pytest.mark.parametrize(
    ("descriptor", "reason"),
    [({"name": "other"}, "is not a region"), ({"sealed": False}, "could be shortened")],
    indirect=["descriptor"],
)
def test_another_file_is_left_alone(descriptor: int, reason: str) -> None:
    with pytest.raises(RegionUnreachable, match=reason):
        map_region(granted(descriptor))


def test_a_file_on_disk_is_left_alone(tmp_path: Path) -> None:
    with (tmp_path / "memfd:hilum-region").open("w+b") as file:
        file.write(PROOF.ljust(SIZE, b"\0"))
        file.flush()
        with pytest.raises(RegionUnreachable, match="is not a region"):
            map_region(granted(file.fileno()))


def test_a_place_is_let_go_with_the_last_array_that_views_it() -> None:
    let_go: list[str] = []
    view = held(np.arange(100, dtype=np.uint8), lambda: let_go.append("gone"))
    part = view[10:20].view(np.int16).reshape(1, 5)[0, 1:]
    del view
    assert let_go == []
    del part
    assert let_go == ["gone"]
