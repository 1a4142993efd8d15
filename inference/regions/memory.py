"""The memory behind one leased region: a sealed memfd that a client on the same host can map, else anonymous memory.

The seals are why a view can be used without a copy: nobody can shrink the file, so no access ends in SIGBUS. A client
that punches a hole only makes its own bytes zero.
"""

import errno
import fcntl
import mmap
import os
import secrets
from collections.abc import Callable
from contextlib import suppress

from inference.admission import MB, MemoryState, memory_state
from inference.allocator import give_freed_memory_back
from inference.errors import Busy

MEMFD_NAME = "hilum-region"
PROOF_BYTES = 16
_MFD_NOEXEC_SEAL = 0x8
"""Linux 6.3 and later; earlier ones answer EINVAL."""
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_NO_ROOM = (errno.ENOMEM, errno.ENOSPC, errno.EFBIG)
_CLOSED = -1


class RegionMemory:
    """`byte_size` bytes of zeros, taken at once; where a client may map them they begin with `proof`."""

    def __init__(self, byte_size: int, *, local: bool, state: Callable[[], MemoryState] = memory_state) -> None:
        """Take the memory; `local` asks for a file that the client can map.

        Raises:
            Busy: the machine or its control group has not that much free.
        """
        _refuse_without_room(byte_size, state)
        self.key, self.proof, self.not_local_because = "", b"", ""
        self._file = _CLOSED
        try:
            file = _sealed_file(byte_size)
            self._map: mmap.mmap | None = _mapped(file, byte_size)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise Busy(f"a region of {byte_size // MB} MiB: the system has no memory for it now") from error
            self._map = mmap.mmap(-1, byte_size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if local:
                self.not_local_because = f"the server could not make a file of memory: {error.strerror}"
        else:
            self._offer(file, byte_size, local=local)
        self.view = memoryview(self._map)
        """All of it, writable. Its parts keep the memory after `close`."""
        self.view[: len(self.proof)] = self.proof

    def close(self) -> None:
        """Take the file away and give the memory back: now, or when the last part of the view is dropped."""
        if self._file != _CLOSED:
            os.close(self._file)
            self._file = _CLOSED
        view, self.view = self.view, memoryview(b"")
        kept, self._map = self._map, None
        with suppress(BufferError):  # an array still lies in it
            view.release()
            if kept is not None:
                kept.close()

    def _offer(self, file: int, byte_size: int, *, local: bool) -> None:
        if local and byte_size >= PROOF_BYTES:
            self._file = file
            self.key = f"/proc/{os.getpid()}/fd/{file}"
            self.proof = secrets.token_bytes(PROOF_BYTES)
            return
        os.close(file)  # the map has its own
        if local:
            self.not_local_because = f"a region below {PROOF_BYTES} bytes cannot hold the proof"


def _refuse_without_room(byte_size: int, state: Callable[[], MemoryState]) -> None:
    if byte_size <= state().free:
        return
    give_freed_memory_back()
    free = state().free
    if byte_size > free:
        raise Busy(f"a region of {byte_size // MB} MiB: {max(0, free) // MB} MiB are free; try again later")


def _sealed_file(byte_size: int) -> int:
    """Make the file at its full size; raise OSError where that cannot be."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        file = os.memfd_create(MEMFD_NAME, flags | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        file = os.memfd_create(MEMFD_NAME, flags)
    try:
        os.fchmod(file, 0o600)
        os.posix_fallocate(file, 0, byte_size)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(file)
        raise
    return file


def _mapped(file: int, byte_size: int) -> mmap.mmap:
    try:
        return mmap.mmap(file, byte_size)
    except OSError:
        os.close(file)
        raise
