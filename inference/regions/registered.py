"""Triton's system shared memory: regions that clients own, under /dev/shm.

A client can truncate its file while a request runs, and touching a mapping beyond a file's end kills a process by
SIGBUS. So the file is never mapped: its bytes are copied by pread and pwrite, where a short file is a short count.
"""

import mmap
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inference.call import Call
from inference.errors import AlreadyRegistered, Busy, RegionNotFound, RequestRefused
from inference.ports import RegionStatus

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lies on Linux
NAME_LENGTH_MOST = 256
_CHUNK = 1 << 20
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class _Registered:
    status: RegionStatus
    descriptor: int


class RegisteredRegions:
    """Regions by client and name; one client does not see another's. Implements `inference.ports.Registrations`."""

    def __init__(self, *, most_per_client: int = 64, directory: Path = SHARED_MEMORY) -> None:
        self._most = most_per_client
        self._directory = directory
        self._regions: dict[tuple[str, str], _Registered] = {}
        self._lock = threading.Lock()

    def register(self, name: str, key: str, offset: int, byte_size: int, call: Call) -> None:
        """Open the client's shared memory and keep it under a name.

        Raises:
            AlreadyRegistered: this client has a region of the name.
            RequestRefused: no such key, not a file of this service's user, or fewer bytes than stated.
            Busy: the client has as many regions as it may.
        """
        if len(name) > NAME_LENGTH_MOST:
            raise RequestRefused(f"name: expected at most {NAME_LENGTH_MOST} characters, got {len(name)}")
        with self._lock:
            self._refuse_one_more(name, call)
            descriptor = self._opened(key, offset, byte_size)
            self._regions[call.client, name] = _Registered(RegionStatus(name, key, offset, byte_size), descriptor)

    def unregister(self, name: str, call: Call) -> None:
        """Forget a region; with an empty name all of this client's. Raise RegionNotFound where it has none so named."""
        with self._lock:
            for region in self._of(name, call):
                del self._regions[call.client, region.status.name]
                os.close(region.descriptor)

    def status(self, name: str, call: Call) -> tuple[RegionStatus, ...]:
        """Give a region; with an empty name all of this client's. Raise RegionNotFound where it has none so named."""
        with self._lock:
            return tuple(region.status for region in self._of(name, call))

    def close(self) -> None:
        """Forget every region of every client."""
        with self._lock:
            for region in self._regions.values():
                os.close(region.descriptor)
            self._regions.clear()

    @contextmanager
    def view(self, name: str, offset: int, byte_size: int, call: Call, *, writable: bool) -> Iterator[memoryview]:
        """Hold a private copy of bytes of a region; a writable one is written back where the block ends well.

        Raises:
            RegionNotFound: this client has none of that name.
            RequestRefused: out of bounds, or the client's file is shorter than what it registered.
        """
        descriptor, start = self._placed(name, offset, byte_size, call)
        try:
            copy = memoryview(mmap.mmap(-1, max(byte_size, 1)))[:byte_size]
            if not writable:
                _read(descriptor, start, copy, name)
            yield copy
            if writable:
                _write(descriptor, start, copy, name)
        finally:
            os.close(descriptor)

    def _placed(self, name: str, offset: int, byte_size: int, call: Call) -> tuple[int, int]:
        """Return a descriptor of the caller's own, which an unregister meanwhile does not close, and where to begin."""
        with self._lock:
            if not name:
                raise RegionNotFound("region: expected a name, got none")
            (region,) = self._of(name, call)
            check_bounds(name, offset, byte_size, region.status.byte_size)
            return os.dup(region.descriptor), region.status.offset + offset

    def _of(self, name: str, call: Call) -> list[_Registered]:
        mine = [region for (client, _), region in self._regions.items() if client == call.client]
        found = [region for region in mine if name in ("", region.status.name)]
        if name and not found:
            raise RegionNotFound(f"region {name[:NAME_LENGTH_MOST]!r}: this client has none of that name")
        return found

    def _refuse_one_more(self, name: str, call: Call) -> None:
        if (call.client, name) in self._regions:
            raise AlreadyRegistered(f"region {name!r}: registered already. Remedy: unregister it first.")
        if sum(client == call.client for client, _ in self._regions) >= self._most:
            raise Busy(f"region {name!r}: this client has {self._most} regions, as many as it may. Unregister some.")

    def _opened(self, key: str, offset: int, byte_size: int) -> int:
        plain = key.removeprefix("/")
        if not plain or "/" in plain or "\0" in plain or plain in (".", "..") or len(plain) > NAME_LENGTH_MOST:
            raise RequestRefused(f"key: expected a name below {self._directory}, got {key[:NAME_LENGTH_MOST]!r}")
        try:
            descriptor = os.open(self._directory / plain, _OPEN)
        except OSError as error:
            raise RequestRefused(f"key {key!r}: cannot be opened as shared memory: {error.strerror}") from error
        try:
            _refuse_unfit(os.fstat(descriptor), key, offset + byte_size)
        except RequestRefused:
            os.close(descriptor)
            raise
        return descriptor


def check_bounds(name: str, offset: int, byte_size: int, length: int) -> None:
    """Raise RequestRefused unless `byte_size` bytes from `offset` lie in a region of `length` bytes."""
    if offset < 0 or byte_size < 0 or offset + byte_size > length:
        raise RequestRefused(
            f"region {name!r}: expected bytes within its {length}, got {byte_size} bytes at offset {offset}"
        )


def _refuse_unfit(found: os.stat_result, key: str, needed: int) -> None:
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        raise RequestRefused(f"key {key!r}: expected shared memory of the service's own user, got another's or no file")
    if needed > found.st_size:
        raise RequestRefused(f"key {key!r}: expected at least {needed} bytes, the shared memory has {found.st_size}")


def _read(descriptor: int, start: int, into: memoryview, name: str) -> None:
    done = 0
    while done < len(into):
        got = os.preadv(descriptor, [into[done : done + _CHUNK]], start + done)
        if not got:
            raise RequestRefused(f"region {name!r}: expected {len(into)} bytes, its file ends after {done}")
        done += got


def _write(descriptor: int, start: int, content: memoryview, name: str) -> None:
    # A write beyond the end would lengthen a file that its owner has shortened.
    if os.fstat(descriptor).st_size < start + len(content):
        raise RequestRefused(f"region {name!r}: its file became shorter than the {len(content)} bytes of the answer")
    done = 0
    while done < len(content):
        done += os.pwrite(descriptor, content[done : done + _CHUNK], start + done)
