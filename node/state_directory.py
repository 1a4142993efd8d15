"""The state directory: one running node owns it, by an exclusive lock that ends with its process."""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from node.errors import SettingsError


class StateDirectory:
    """Paths inside the directory, and its lock. Two processes on one workflow database would run steps twice."""

    def __init__(self, directory: Path) -> None:
        """Name the directory; nothing is made or locked yet."""
        self.directory = directory.absolute()
        self._lock: int | None = None

    @property
    def store(self) -> Path:
        """Instance files."""
        return self.directory / "store"

    @property
    def outbox(self) -> Path:
        """Evidence sets."""
        return self.directory / "outbox"

    @property
    def index(self) -> Path:
        """The index database."""
        return self.directory / "index.sqlite"

    @property
    def run(self) -> Path:
        """What only the running process needs."""
        return self.directory / "run"

    def acquire(self) -> Self:
        """Make the directory and lock it.

        Raises:
            SettingsError: another process holds it, or it cannot be made or written.
        """
        try:
            for path in (self.directory, self.run):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise SettingsError(
                f"store.state_directory: {self.directory} belongs to a node that is running. "
                "Remedy: stop that one, or give this one a directory of its own."
            ) from error
        except OSError as error:
            self.release()
            raise SettingsError(f"store.state_directory: {self.directory} cannot be used: {error.strerror}") from error
        return self

    def is_held(self) -> bool:
        """Tell whether some process holds the directory now."""
        if not (self.directory / "lock").exists():
            return False
        try:
            self.acquire()
        except SettingsError:
            return True
        self.release()
        return False

    def release(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    __enter__ = acquire

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock."""
        self.release()
