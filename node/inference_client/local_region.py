"""A leased region as memory of this process: looked at before it is opened, mapped once, viewed by arrays.

A mapping is never closed: it goes when the last array that views it goes.
"""

import fcntl
import mmap
import os
import re
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.tensor_regions_pb2 import LeaseResponse

_KEY = re.compile(r"/proc/[0-9]{1,10}/fd/[0-9]{1,10}")
_TARGET = "/memfd:hilum-region"
_PROOF_LEAST = 16


class RegionUnreachable(Exception):
    """The key does not lead to the region: the service is on another host, in another container, or of another user."""


def map_region(granted: LeaseResponse) -> NDArray[np.uint8]:
    """Map a region and view it as bytes [byte_size], writable.

    Raises:
        RegionUnreachable: there is no key, or what it names is not certainly the region.
    """
    if not _KEY.fullmatch(granted.key):
        raise RegionUnreachable(granted.not_local_because[:200] or "the service gave no key")
    try:
        _look(granted.key)
        descriptor = os.open(granted.key, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise RegionUnreachable(f"{granted.key}: {error.strerror}") from error
    try:
        _check(descriptor, granted)
        mapping = mmap.mmap(descriptor, granted.byte_size)
    except OSError as error:
        raise RegionUnreachable(f"{granted.key}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    return np.frombuffer(mapping, np.uint8)


def _look(path: str) -> None:
    target = str(Path(path).readlink())
    if not target.startswith(_TARGET):
        raise RegionUnreachable(f"{path} is not a region on this host")


def _check(descriptor: int, granted: LeaseResponse) -> None:
    # The path could have come to mean another file since it was looked at.
    _look(f"/proc/self/fd/{descriptor}")
    size = os.fstat(descriptor).st_size
    if size != granted.byte_size:
        raise RegionUnreachable(f"{granted.key}: expected {granted.byte_size} bytes, the file has {size}")
    if len(granted.proof) < _PROOF_LEAST or os.pread(descriptor, len(granted.proof), 0) != granted.proof:
        raise RegionUnreachable(f"{granted.key}: the proof is not there")
    if not fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
        raise RegionUnreachable(f"{granted.key}: could be shortened while it is mapped")


class _Hold:
    """What every view of a place goes back to, however it was sliced; it dies with the last of them."""

    __slots__ = ("__array_interface__", "__weakref__", "_place")

    def __init__(self, place: NDArray[np.uint8]) -> None:
        self._place = place
        self.__array_interface__: dict[str, Any] = place.__array_interface__


def held(place: NDArray[np.uint8], let_go: Callable[[], object]) -> NDArray[np.uint8]:
    """View a place so that `let_go` is called when no array views it any more, on whatever thread that happens."""
    hold = _Hold(place)
    weakref.finalize(hold, let_go).atexit = False
    return np.asarray(hold)
