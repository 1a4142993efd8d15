"""Regions that clients own: seen by their client alone, copied under a guard, never a reason to die."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference.call import Call
from inference.errors import AlreadyRegistered, Busy, RegionNotFound, RequestRefused
from inference.regions.registered import RegisteredRegions

MINE, OTHERS = Call(client="mine"), Call(client="others")


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def regions(tmp_path: Path) -> Iterator[RegisteredRegions]:
    (tmp_path / "shared").write_bytes(bytes(range(200)))
    table = RegisteredRegions(directory=tmp_path, most_per_client=2)
    table.register("image", "/shared", 10, 100, MINE)
    yield table
    table.close()


def test_bytes_are_read_from_the_offset_of_region_and_tensor(regions: RegisteredRegions) -> None:
    with regions.view("image", 5, 20, MINE, writable=False) as view:
        assert bytes(view) == bytes(range(15, 35))


def test_an_answer_is_written_where_the_block_ends_well(regions: RegisteredRegions, tmp_path: Path) -> None:
    with regions.view("image", 0, 3, MINE, writable=True) as view:
        view[:] = b"abc"
    assert (tmp_path / "shared").read_bytes()[9:14] == b"\x09abc\x0d"


def test_nothing_is_written_where_the_block_fails(regions: RegisteredRegions, tmp_path: Path) -> None:
    def fail() -> None:
        with regions.view("image", 0, 3, MINE, writable=True) as view:
            view[:] = b"abc"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (tmp_path / "shared").read_bytes() == bytes(range(200))


@pytest.mark.parametrize("writable", [True, False])
def test_a_truncated_file_is_an_error_and_stays_short(
    regions: RegisteredRegions, tmp_path: Path, *, writable: bool
) -> None:
    os.truncate(tmp_path / "shared", 50)
    with (
        pytest.raises(RequestRefused, match=r"region 'image'"),
        regions.view("image", 0, 100, MINE, writable=writable),
    ):
        pass
    assert (tmp_path / "shared").stat().st_size == 50


@pytest.mark.parametrize(("offset", "size"), [(0, 101), (100, 1), (-1, 5), (5, -1), (1 << 63, 1)])
def test_out_of_bounds_is_refused_with_both_numbers(regions: RegisteredRegions, offset: int, size: int) -> None:
    with (
        pytest.raises(RequestRefused, match=f"within its 100, got {size} bytes at offset {offset}"),
        regions.view("image", offset, size, MINE, writable=False),
    ):
        pass


def test_another_client_does_not_see_it(regions: RegisteredRegions) -> None:
    with pytest.raises(RegionNotFound), regions.view("image", 0, 1, OTHERS, writable=False):
        pass
    with pytest.raises(RegionNotFound):
        regions.status("image", OTHERS)
    assert regions.status("", OTHERS) == ()
    regions.unregister("", OTHERS)
    assert [item.name for item in regions.status("", MINE)] == ["image"]


def test_a_name_is_registered_once_and_free_after_unregister(regions: RegisteredRegions) -> None:
    with pytest.raises(AlreadyRegistered):
        regions.register("image", "/shared", 0, 10, MINE)
    regions.register("image", "/shared", 0, 10, OTHERS)
    regions.unregister("image", MINE)
    regions.register("image", "shared", 0, 10, MINE)


def test_a_client_has_no_more_than_its_share(regions: RegisteredRegions) -> None:
    regions.register("second", "/shared", 0, 10, MINE)
    with pytest.raises(Busy, match="2 regions"):
        regions.register("third", "/shared", 0, 10, MINE)


@pytest.mark.parametrize("key", ["", "/", "..", "../shared", "/a/b", "absent", "x" * 300, "a\0b"])
def test_a_key_is_one_name_of_a_file_that_is_there(regions: RegisteredRegions, key: str) -> None:
    with pytest.raises(RequestRefused, match="key"):
        regions.register("new", key, 0, 1, MINE)


def test_links_folders_and_short_files_are_refused(regions: RegisteredRegions, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "shared")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for key in ("link", "folder", "pipe"):
        with pytest.raises(RequestRefused, match=key):
            regions.register("new", key, 0, 1, MINE)
    with pytest.raises(RequestRefused, match="at least 201 bytes, the shared memory has 200"):
        regions.register("new", "shared", 101, 100, MINE)


def test_a_region_in_use_outlives_its_unregistering(regions: RegisteredRegions, tmp_path: Path) -> None:
    with regions.view("image", 0, 3, MINE, writable=True) as view:
        regions.unregister("image", MINE)
        view[:] = b"end"
    assert (tmp_path / "shared").read_bytes()[10:13] == b"end"
    before = open_descriptors()
    regions.register("image", "/shared", 10, 100, MINE)
    regions.unregister("image", MINE)
    assert open_descriptors() == before
