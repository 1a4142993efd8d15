"""Processes that this one started, and those that they started: none may outlive the command."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_LOOK_S = 0.05


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, so that they stay known; Linux alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> frozenset[int]:
    """Give the processes below this one that still run."""
    parents = dict(filter(None, (_parent_of(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())))
    below: set[int] = set()
    layer = {os.getpid()}
    while layer:
        layer = {pid for pid, parent in parents.items() if parent in layer} - below
        below |= layer
    return frozenset(below)


def _parent_of(pid: str) -> tuple[int, int] | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else (int(pid), int(fields[1]))


def end_descendants(patience_s: float, *, pause: Callable[[float], object] = time.sleep) -> int:
    """Wait for them to end, then kill those that do not; give the number killed."""
    until = time.monotonic() + patience_s
    while (left := descendants()) and time.monotonic() < until:
        _reap()
        pause(_LOOK_S)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    _reap()
    return len(left)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return
