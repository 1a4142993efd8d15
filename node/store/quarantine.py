"""Refused bytes, kept with the reason for as long as there is room: the oldest go first."""

import json
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from node.store.part_file import PART_SUFFIX, PartFile, writing_errors

MOST_RECORDS = 10_000
MOST_KEPT_BYTES = 2 << 30
_DATA, _REASON = ".dcm", ".json"


@dataclass(frozen=True, slots=True)
class RefusalRecord:
    """Why an instance was refused; lies beside its bytes."""

    sop_instance_uid: str
    """As the peer claimed it."""
    study_uid: str | None
    calling_ae_title: str
    reason: str
    received_at: str
    """ISO 8601 with zone."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Where a refused instance lies, and which older ones had to go for it."""

    path: Path
    """The bytes, or the reason where no bytes were kept."""
    dropped: tuple[Path, ...]


class Quarantine:
    """A bounded folder of refused instances: at most MOST_RECORDS reasons and `most_bytes` bytes."""

    def __init__(self, directory: Path, *, most_bytes: int = MOST_KEPT_BYTES, most_records: int = MOST_RECORDS) -> None:
        """Take over what the folder holds; remove what a crash left half written."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for litter in directory.glob(f"*{PART_SUFFIX}"):
            litter.unlink()
        self.directory = directory
        self._most_bytes = most_bytes
        self._most_records = most_records
        self._lock = threading.Lock()
        self._held = deque(sorted((path.stem, _size(path)) for path in directory.glob(f"*{_REASON}")))

    def keep(self, record: RefusalRecord, part: PartFile | None) -> Quarantined:
        """Keep the reason, and the bytes of `part` where they fit; `part` is gone afterwards.

        Raises:
            OutOfResources: The reason cannot be written.
        """
        with self._lock:
            size = part.size if part and part.size <= self._most_bytes else 0
            name = self._next_name()
            reason = self.directory / (name + _REASON)
            try:
                with writing_errors():
                    _write(reason, json.dumps(asdict(record)))
                if part and size:
                    part.move(reason.with_suffix(_DATA))
            finally:
                if part:
                    part.discard()
            self._held.append((name, size))
            return Quarantined(reason.with_suffix(_DATA) if size else reason, self._make_room())

    def records(self) -> Iterator[tuple[Path, RefusalRecord] | Path]:
        """Yield all records with the path as `keep` gave it, oldest first; or the bare path of an unreadable record."""
        with self._lock:
            names = list(self._held)
        for name, size in names:
            reason = self.directory / (name + _REASON)
            record = _read(reason)
            yield (reason.with_suffix(_DATA) if size else reason, record) if record else reason

    def _next_name(self) -> str:
        return f"{int(self._held[-1][0]) + 1 if self._held else 1:012d}"

    def _make_room(self) -> tuple[Path, ...]:
        dropped = []
        total = sum(size for _, size in self._held)
        while total > self._most_bytes or len(self._held) > self._most_records:
            name, size = self._held.popleft()
            total -= size
            path = self.directory / (name + _REASON)
            path.unlink(missing_ok=True)
            path.with_suffix(_DATA).unlink(missing_ok=True)
            dropped.append(path.with_suffix(_DATA) if size else path)
        return tuple(dropped)


def _write(reason: Path, text: str) -> None:
    part = reason.with_suffix(PART_SUFFIX)
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.rename(reason)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise


def _read(reason: Path) -> RefusalRecord | None:
    try:
        record = RefusalRecord(**json.loads(reason.read_text(encoding="utf-8")))
        datetime.fromisoformat(record.received_at)
    except (OSError, ValueError, TypeError):
        return None
    texts = (record.sop_instance_uid, record.study_uid or "", record.calling_ae_title, record.reason)
    return record if all(isinstance(text, str) for text in texts) else None


def _size(reason: Path) -> int:
    data = reason.with_suffix(_DATA)
    return data.stat().st_size if data.exists() else 0
