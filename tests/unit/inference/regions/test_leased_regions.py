"""Regions that are lent: who finds them, when they die, and what is given back then."""

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.admission import MemoryState
from inference.call import Call
from inference.errors import Busy, RegionNotFound, RegionNotReady, RequestRefused, RequestTooLarge
from inference.regions.leased import LeasedRegion, LeasedRegions, RegionCounts, RegionLease, RegionLimits
from inference.regions.memory import PROOF_BYTES, RegionMemory
from inference.regions.upload import Slots

PAGE = 4096
HERE, ELSEWHERE = Call("here"), Call("elsewhere")
LIMITS = RegionLimits(
    region_max_bytes=4 * PAGE, client_quota_bytes=6 * PAGE, client_regions=3, leases_most=2, expiry_s=10.0
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def regions(clock: Clock) -> LeasedRegions:
    return LeasedRegions(LIMITS, clock=clock)


@pytest.fixture
def lease(regions: LeasedRegions) -> RegionLease:
    return regions.open_lease("here", lambda: None)


def is_known(regions: LeasedRegions, name: str, call: Call = HERE) -> bool:
    try:
        with regions.view(name, 0, 1, call, writable=False):
            return True
    except RegionNotFound:
        return False


def view_of(region: LeasedRegion, regions: LeasedRegions, held: ExitStack, *, writable: bool = True) -> memoryview:
    return held.enter_context(regions.view(region.name, 0, region.byte_size, HERE, writable=writable))


def test_a_region_is_found_by_its_client_alone(regions: LeasedRegions, lease: RegionLease) -> None:
    region = regions.create(lease, PAGE, local=False)
    assert is_known(regions, region.name)
    assert not is_known(regions, region.name, ELSEWHERE)
    assert not is_known(regions, "")
    assert not is_known(regions, region.name[:-1])


def test_a_region_is_zeros_and_writable_where_that_was_asked(regions: LeasedRegions, lease: RegionLease) -> None:
    region = regions.create(lease, PAGE, local=False)
    with ExitStack() as held:
        assert not any(view_of(region, regions, held))
        view_of(region, regions, held)[8:10] = b"ab"
        seen = view_of(region, regions, held, writable=False)
        assert seen.readonly
        assert seen[7:11] == b"\0ab\0"


@pytest.mark.parametrize(("offset", "size"), [(0, PAGE + 1), (PAGE, 1), (1 << 63, 1), (-1, 2), (2, -1)])
def test_bytes_beyond_the_region_are_refused(
    regions: LeasedRegions, lease: RegionLease, offset: int, size: int
) -> None:
    region = regions.create(lease, PAGE, local=False)
    with pytest.raises(RequestRefused, match=str(PAGE)), regions.view(region.name, offset, size, HERE, writable=False):
        pass
    regions.release(lease, region.name)
    assert regions.counts().regions == 0


def test_a_region_expires_unless_it_is_renewed(regions: LeasedRegions, lease: RegionLease, clock: Clock) -> None:
    kept, lost = (regions.create(lease, PAGE, local=False) for _ in range(2))
    clock.now += 9
    regions.renew(lease, kept.name)
    clock.now += 1
    assert is_known(regions, kept.name)
    assert not is_known(regions, lost.name), "an expired region must not answer before it is swept either"
    regions.sweep()
    assert regions.counts() == RegionCounts(leases=1, regions=1, bytes=PAGE, created=2, expired=1)
    with pytest.raises(RegionNotFound):
        regions.renew(lease, lost.name)


def test_an_empty_name_means_the_whole_lease(regions: LeasedRegions, lease: RegionLease, clock: Clock) -> None:
    names = [regions.create(lease, PAGE, local=False).name for _ in range(3)]
    clock.now += 9
    regions.renew(lease, "")
    clock.now += 9
    assert all(is_known(regions, name) for name in names)
    regions.release(lease, "")
    assert not any(is_known(regions, name) for name in names)


def test_a_lease_cannot_touch_another_one_s_regions(regions: LeasedRegions, lease: RegionLease) -> None:
    region = regions.create(lease, PAGE, local=False)
    other = regions.open_lease("here", lambda: None)
    for change in (regions.renew, regions.release):
        with pytest.raises(RegionNotFound):
            change(other, region.name)
    regions.end(other)
    assert is_known(regions, region.name)


def test_quotas_are_the_client_s_and_come_back(regions: LeasedRegions, lease: RegionLease) -> None:
    with pytest.raises(RequestTooLarge, match=str(4 * PAGE)):
        regions.create(lease, 4 * PAGE + 1, local=False)
    with pytest.raises(RequestRefused, match="1 or more"):
        regions.create(lease, 0, local=False)
    big = regions.create(lease, 4 * PAGE, local=False)
    with pytest.raises(Busy, match="do not fit"):
        regions.create(lease, 2 * PAGE + 1, local=False)
    foreign = regions.open_lease("elsewhere", lambda: None)
    regions.create(foreign, 4 * PAGE, local=False)
    for _ in range(2):
        regions.create(lease, 1, local=False)
    with pytest.raises(Busy, match="3 regions of 3"):
        regions.create(lease, 1, local=False)
    regions.release(lease, big.name)
    regions.create(lease, 4 * PAGE, local=False)
    assert regions.counts().refused == 3


def test_leases_are_bounded_and_none_opens_after_the_close(regions: LeasedRegions, lease: RegionLease) -> None:
    closed: list[str] = []
    second = regions.open_lease("here", lambda: closed.append("second"))
    with pytest.raises(Busy, match="2 of 2"):
        regions.open_lease("here", lambda: None)
    regions.end(lease)
    region = regions.create(second, PAGE, local=False)
    regions.close()
    assert closed == ["second"]
    assert not is_known(regions, region.name)
    with pytest.raises(Busy):
        regions.open_lease("here", lambda: None)


@pytest.mark.parametrize("death", ["release", "end", "expiry", "close"])
def test_a_region_in_use_lives_until_its_view_ends(
    regions: LeasedRegions, lease: RegionLease, clock: Clock, death: str
) -> None:
    region = regions.create(lease, PAGE, local=True)
    key = Path(region.memory.key)
    with ExitStack() as held:
        array = np.frombuffer(view_of(region, regions, held), np.uint8)
        die(regions, lease, clock, death)
        assert not is_known(regions, region.name)
        array[:] = 7
        assert int(array.sum()) == 7 * PAGE
        assert key.is_symlink()
        assert regions.counts().bytes == PAGE
    assert not key.is_symlink()
    assert (regions.counts().regions, regions.counts().bytes) == (0, 0)
    assert int(array[-1]) == 7, "memory stays for whoever still refers to it"


def die(regions: LeasedRegions, lease: RegionLease, clock: Clock, death: str) -> None:
    ways: dict[str, Callable[[], None]] = {
        "release": lambda: regions.release(lease, ""),
        "end": lambda: regions.end(lease),
        "close": regions.close,
        "expiry": regions.sweep,
    }
    clock.now += LIMITS.expiry_s if death == "expiry" else 0
    ways[death]()


def test_a_region_created_for_a_lease_that_has_ended_is_given_back(regions: LeasedRegions, lease: RegionLease) -> None:
    regions.end(lease)
    region = regions.create(lease, PAGE, local=False)
    assert not is_known(regions, region.name)
    assert regions.counts().regions == 0


def test_a_region_under_upload_is_for_the_upload_alone(regions: LeasedRegions, lease: RegionLease) -> None:
    region = regions.create(lease, PAGE, local=False)
    with regions.writing(region.name, HERE, lambda: None) as held:
        held.slots = Slots(held.memory.view, 8)
        with pytest.raises(RegionNotReady), regions.view(region.name, 0, 1, HERE, writable=False):
            pass
        with pytest.raises(RegionNotReady), regions.writing(region.name, HERE, lambda: None):
            pass
    with pytest.raises(RegionNotReady, match="commit"), regions.view(region.name, 0, 1, HERE, writable=False):
        pass
    region.slots = None
    with (
        regions.view(region.name, 0, 1, HERE, writable=False),
        pytest.raises(RegionNotReady, match="1 request"),
        regions.writing(region.name, HERE, lambda: None),
    ):
        pass


def test_a_dying_region_tells_its_upload_and_its_download(regions: LeasedRegions, lease: RegionLease) -> None:
    told: list[str] = []
    for number, name in enumerate(("upload", "download")):
        region = regions.create(lease, PAGE, local=False)
        with ExitStack() as held:
            if number:
                held.enter_context(regions.reading(region.name, 0, 1, HERE, lambda: told.append("download")))
            else:
                held.enter_context(regions.writing(region.name, HERE, lambda: told.append("upload")))
            regions.release(lease, region.name)
            assert told[-1] == name
    assert (told, regions.counts().regions) == (["upload", "download"], 0)


def test_local_memory_is_sealed_private_and_begins_with_its_proof() -> None:
    memory = RegionMemory(PAGE + 1, local=True)
    key = Path(memory.key)
    assert str(key.readlink()).startswith("/memfd:hilum-region")
    assert (key.stat().st_size, key.stat().st_mode & 0o777) == (PAGE + 1, 0o600)
    with key.open("r+b", buffering=0) as file:
        assert file.read(PROOF_BYTES) == memory.proof
        for size in (0, 1 << 20):
            with pytest.raises(PermissionError):
                os.ftruncate(file.fileno(), size)
        file.write(b"hello")
        assert memory.view[PROOF_BYTES : PROOF_BYTES + 5] == b"hello"
    memory.close()
    assert not key.is_symlink()


def test_no_room_is_said_before_memory_is_taken() -> None:
    with pytest.raises(Busy, match="1 MiB are free"):
        RegionMemory(4 << 20, local=False, state=lambda: MemoryState(8 << 20, 1 << 20))


@pytest.mark.parametrize(
    ("size", "reason"), [(PROOF_BYTES - 1, "cannot hold the proof"), (PAGE, os.strerror(errno.EMFILE))]
)
def test_memory_that_cannot_be_mapped_says_why(size: int, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_file(*_: Any) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    if size == PAGE:
        monkeypatch.setattr(os, "memfd_create", no_file)
    memory = RegionMemory(size, local=True)
    assert (memory.key, memory.proof) == ("", b"")
    assert reason in memory.not_local_because
    memory.view[-1:] = b"x"
    assert memory.view.nbytes == size


def test_an_older_kernel_gets_no_flag_that_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    create = os.memfd_create

    def older(name: str, flags: int) -> int:
        if flags & 0x8:
            raise OSError(errno.EINVAL, "unknown flag")
        return create(name, flags)

    monkeypatch.setattr(os, "memfd_create", older)
    memory = RegionMemory(PAGE, local=True)
    assert memory.key.startswith("/proc/")
    memory.close()


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.ENOSPC])
def test_memory_that_the_system_refuses_leaves_no_file(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))

    def full(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(Busy, match="no memory"):
        RegionMemory(PAGE, local=True)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_memory_is_given_back_at_once_though_an_ended_upload_is_remembered(
    regions: LeasedRegions, lease: RegionLease
) -> None:
    region = regions.create(lease, PAGE, local=False)
    with regions.writing(region.name, HERE, lambda: None) as held:
        remembered = held.slots = Slots(held.memory.view, 8)
        remembered.put(0, 0, b"12345678")
    regions.release(lease, region.name)
    with pytest.raises(ValueError, match="released"):
        remembered.put(0, 0, b"1")
