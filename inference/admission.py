"""How many requests run and wait, and whether the memory that one needs is there.

On a CPU the kernel kills a process that takes too much before TensorFlow complains, so memory is asked for before a
request runs: the manifest's figures against what the machine or its control group has free.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inference.errors import Busy, DeadlinePassed, RequestTooLarge

MB = 1 << 20
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class MemoryState:
    """Bytes of memory that this process may use in all, and that are free now."""

    total: int
    free: int


def memory_state() -> MemoryState:
    """Read /proc/meminfo and the control group's limit, whichever leaves less (cgroup v2)."""
    rows = (line.split() for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    kib = {row[0].rstrip(":"): int(row[1]) for row in rows}
    total, free = kib["MemTotal"] * 1024, kib["MemAvailable"] * 1024
    limit = _cgroup_number("memory.max")
    if limit is not None and limit < total:
        used = (_cgroup_number("memory.current") or 0) - _reclaimable()
        total, free = limit, min(free, limit - used)
    return MemoryState(total, free)


def _cgroup_number(name: str) -> int | None:
    try:
        return int((_CGROUP / name).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _reclaimable() -> int:
    try:
        rows = (line.split() for line in (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
    except OSError:
        return 0
    return sum(int(row[1]) for row in rows if row[0] == "inactive_file")


class Admission:
    """Lets `concurrency` requests run, `queue` more wait, and none start without its memory."""

    def __init__(self, concurrency: int, queue: int, *, memory: Callable[[], MemoryState] = memory_state) -> None:
        self._places = threading.BoundedSemaphore(concurrency + queue)
        self._running = threading.BoundedSemaphore(concurrency)
        self._memory = memory
        self._lock = threading.Lock()
        self._reserved = 0

    @contextmanager
    def admitted(self, need_bytes: int, remaining_s: float | None) -> Iterator[None]:
        """Hold a place while the block runs, having waited for it no longer than `remaining_s`.

        Raises:
            Busy: the queue is full, or the memory is taken.
            RequestTooLarge: the machine never has that much memory.
            DeadlinePassed: no turn came in time.
        """
        if not self._places.acquire(blocking=False):
            raise Busy("the queue is full; try again later")
        try:
            if not self._running.acquire(timeout=remaining_s):
                raise DeadlinePassed("the deadline passed while the request waited for its turn")
            try:
                with self._reservation(need_bytes):
                    yield
            finally:
                self._running.release()
        finally:
            self._places.release()

    @contextmanager
    def _reservation(self, need_bytes: int) -> Iterator[None]:
        state = self._memory()
        if need_bytes > state.total:
            raise RequestTooLarge(
                f"the request needs about {need_bytes // MB} MiB by the model's manifest, "
                f"this machine has {state.total // MB} MiB in all"
            )
        with self._lock:
            free = state.free - self._reserved
            if need_bytes > free:
                raise Busy(
                    f"the request needs about {need_bytes // MB} MiB by the model's manifest, "
                    f"{max(0, free) // MB} MiB are free; try again later"
                )
            self._reserved += need_bytes
        try:
            yield
        finally:
            with self._lock:
                self._reserved -= need_bytes
