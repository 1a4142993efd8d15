"""A data set on its way in: written as it arrives, hashed on the way, published whole or not at all."""

import hashlib
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from node.errors import OutOfResources
from node.store.reception_record import RECORD_BYTES, ReceptionRecord

PART_SUFFIX = ".part"


@contextmanager
def writing_errors() -> Iterator[None]:
    """Turn what the file system says (no space, quota, I/O error) into OutOfResources."""
    try:
        yield
    except OSError as error:
        raise OutOfResources(f"the store cannot write: {error.strerror or error}") from error


class PartFile:
    """One `.part` file. Use from one thread at a time; every method that writes raises OutOfResources."""

    def __init__(self, directory: Path, meta: bytes) -> None:
        """Open a new file in `directory` that begins with `meta`."""
        self.data_set_bytes = 0
        self._meta_bytes = len(meta)
        self._hash = hashlib.sha256()
        with writing_errors():
            self._fd, name = tempfile.mkstemp(suffix=PART_SUFFIX, dir=directory)
        self.path = Path(name)
        self._append(meta)

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self._meta_bytes + self.data_set_bytes

    def write(self, fragment: bytes | memoryview) -> None:
        """Append a fragment of the data set, exactly as received."""
        self._append(fragment)
        self._hash.update(fragment)
        self.data_set_bytes += len(fragment)

    def digest(self) -> str:
        """Return the hex SHA-256 of the data set so far."""
        return self._hash.hexdigest()

    @contextmanager
    def data_set(self) -> Iterator[memoryview]:
        """Give the data set as read-only memory, mapped from the file."""
        if not self.data_set_bytes:
            yield memoryview(b"")
            return
        with (
            mmap.mmap(self._fd, self.size, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as whole,
            whole[self._meta_bytes :] as view,
        ):
            yield view

    def publish(self, record: ReceptionRecord, target: Path) -> None:
        """Make the file durable under its final name: fsync, rename, fsync of the directory."""
        try:
            with writing_errors():
                os.pwrite(self._fd, record.encoded(), self._meta_bytes - RECORD_BYTES)
                os.fsync(self._fd)
                self.path.rename(target)
                fsync_directory(target.parent)
        except OutOfResources:
            with suppress(OSError):
                target.unlink()
            raise
        finally:
            self.discard()

    def move(self, target: Path) -> None:
        """Give the bytes another name without any promise of durability."""
        try:
            with writing_errors():
                self.path.rename(target)
        finally:
            self.discard()

    def discard(self) -> None:
        """Close and remove the file; harmless where it was published or discarded before."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self.path.unlink(missing_ok=True)

    def _append(self, piece: bytes | memoryview) -> None:
        rest = memoryview(piece)
        try:
            with writing_errors():
                while rest:
                    rest = rest[os.write(self._fd, rest) :]
        except OutOfResources:
            self.discard()
            raise


def fsync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
