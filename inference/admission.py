"""How many requests run and wait, and whether the memory that one needs is there.

On a CPU the kernel kills a process that takes too much before TensorFlow complains, so memory is asked for before a
request runs: the manifest's figures against what the machine or its control group has free.
"""

import math
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from inference.call import Call
from inference.errors import Busy, RequestTooLarge
from inference.waiting_line import SHARED_PLACES, WaitingLine
from protos.model_manifest import ModelManifest
from protos.tensors import dtype_of

MB = 1 << 20
_COPIES = 3
"""Copies of an output that exist at once: TensorFlow's, the raw contents, the serialised message."""
_LIGHT_SLAB_BYTES = 128 * MB
"""Slabs that take more have work enough for all cores by themselves."""
_CGROUP = Path("/sys/fs/cgroup")
_READING_S = 0.1


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


def memory_need(
    manifest: ModelManifest, inputs: Mapping[str, NDArray[Any]], placed: Collection[str] = frozenset()
) -> int:
    """Estimate the bytes that a request takes: the manifest's figures, TensorFlow's input copy and the outputs.

    A model that runs in slabs takes a slab's memory, and beyond that its outputs as a whole where they have no place.

    Args:
        manifest: of the model.
        inputs: the request's arrays; those in memory already count once more, for TensorFlow's copy.
        placed: names of the outputs that are written into a region of their own.
    """
    run, at_once = _of_one_run(manifest, inputs), slabs_at_once(manifest, inputs)
    largest, largest_run = _largest(inputs), _largest(run) * at_once
    own = manifest.memory.base_mb * 1e6 + manifest.memory.bytes_per_voxel * largest_run
    outputs = 0
    for tensor in manifest.outputs:
        itemsize, fixed = dtype_of(tensor.datatype).itemsize, -1 not in tensor.shape
        whole = made = itemsize * math.prod(tensor.shape) if fixed else 0
        if not fixed:
            whole, made = itemsize * largest, itemsize * largest_run
        if manifest.slabs is None:
            outputs += made if tensor.name in placed else _COPIES * whole
        else:
            outputs += made if tensor.name in placed else made + _COPIES * whole
    return int(own) + at_once * sum(array.nbytes for array in run.values()) + outputs


def slabs_at_once(manifest: ModelManifest, inputs: Mapping[str, NDArray[Any]]) -> int:
    """Tell how many slabs of a request run at a time: two where they have no state and take little memory."""
    if manifest.slabs is None or manifest.slabs.state:
        return 1
    run = _of_one_run(manifest, inputs)
    need = manifest.memory.bytes_per_voxel * _largest(run) + sum(array.nbytes for array in run.values())
    return 2 if need <= _LIGHT_SLAB_BYTES and _largest(run) < _largest(inputs) else 1


def _of_one_run(manifest: ModelManifest, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
    """View what the graph gets at once: all, or a slab with its halo."""
    slabs = manifest.slabs
    if slabs is None:
        return inputs
    most = slabs.slices + 2 * slabs.halo
    return {name: array[:most] if name in slabs.along and array.ndim else array for name, array in inputs.items()}


def _largest(arrays: Mapping[str, NDArray[Any]]) -> int:
    return max((array.size for array in arrays.values()), default=0)


class Readings:
    """Readings of the machine's memory; one serves again for a short while, since it costs as much as a small model."""

    def __init__(self, read: Callable[[], MemoryState]) -> None:
        self._read = read
        self._last = (float("-inf"), MemoryState(0, 0))

    def recent(self) -> MemoryState:
        """Give a reading of 0.1 s ago at most."""
        read_at, state = self._last
        return state if time.monotonic() - read_at < _READING_S else self.now()

    def now(self) -> MemoryState:
        """Read."""
        state = self._read()
        self._last = (time.monotonic(), state)
        return state


class Admission:
    """Lets `concurrency` requests run, `queue` more wait, and none start without its memory."""

    def __init__(
        self,
        concurrency: int,
        queue: int,
        *,
        memory: Callable[[], MemoryState] = memory_state,
        shared: int = SHARED_PLACES,
        relieve: Callable[[int], bool] = lambda _missing_bytes: False,
    ) -> None:
        """Ask `relieve` for missing bytes of memory before a request is refused for them; it tells whether any came."""
        self._line = WaitingLine(concurrency, queue, shared)
        self._memory = Readings(memory)
        self._relieve = relieve
        self._lock = threading.Lock()
        self._reserved = 0

    @contextmanager
    def admitted(self, need_bytes: int, call: Call, *, shared: bool = False) -> Iterator[None]:
        """Hold a place while the block runs, having waited for it in order of priority and arrival.

        Args:
            need_bytes: what the request takes, by `memory_need`.
            call: priority 1 goes first, 0 (not said) last; the wait ends when the call does.
            shared: the request waits for nobody, because its run is shared with others that wait in a batch; it
                takes one of the `shared` places, and its memory.

        Raises:
            Busy: the queue is full, or the memory is taken.
            RequestTooLarge: the machine never has that much memory.
            DeadlinePassed, RequestCancelled: the call ended before its turn came.
        """
        self._line.enter(call, shared=shared)
        try:
            if not self._reserved_of(need_bytes, self._memory.recent()):  # an old reading may admit, never refuse
                self._reserve(need_bytes)
            try:
                yield
            finally:
                with self._lock:
                    self._reserved -= need_bytes
        finally:
            self._line.leave(shared=shared)

    def _reserve(self, need_bytes: int) -> None:
        state = self._memory.now()
        if need_bytes > state.total:
            raise RequestTooLarge(
                f"the request needs about {need_bytes // MB} MiB by the model's manifest, "
                f"this machine has {state.total // MB} MiB in all"
            )
        missing = need_bytes - (state.free - self._reserved)
        if missing > 0 and self._relieve(missing):
            state = self._memory.now()
        if not self._reserved_of(need_bytes, state):
            free = max(0, state.free - self._reserved)
            raise Busy(
                f"the request needs about {need_bytes // MB} MiB by the model's manifest, "
                f"{free // MB} MiB are free; try again later"
            )

    def _reserved_of(self, need_bytes: int, state: MemoryState) -> bool:
        """Reserve where there is room; tell whether there was."""
        with self._lock:
            fits = need_bytes <= state.free - self._reserved
            self._reserved += need_bytes if fits else 0
            return fits
