"""The outbox: write-once directories of finished evidence sets, each named by its key.

A set is written into a directory of its own, flushed, and renamed to its key in one step; whoever comes second under
the same key adopts what is there. `evidence.json` in each set lets the index be rebuilt from the files.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from node.domain.evidence import EvidenceObject, EvidenceSet
from node.domain.instances import SopReference
from node.errors import EvidenceRejected, OutOfResources

DESCRIPTION_FILE = "evidence.json"
REASONS_FILE = "reasons.txt"
_SETS, _QUARANTINE, _WORK = "sets", "quarantine", "work"
_log = structlog.get_logger()


class Outbox:
    """Evidence sets below one directory: `sets/<key>`, `quarantine/<key>-<n>` and `work/` for what is being written."""

    def __init__(self, directory: Path) -> None:
        """Make the directories; what an interrupted writer left in `work` is swept by `sweep`."""
        self.directory = directory
        self._sets = directory / _SETS
        self._quarantine = directory / _QUARANTINE
        self._work = directory / _WORK
        for path in (self._sets, self._quarantine, self._work):
            path.mkdir(parents=True, exist_ok=True)

    def sweep(self) -> int:
        """Remove what interrupted writers left; call once at start, before anything writes. Returns how many."""
        left = list(self._work.iterdir())
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
        return len(left)

    def work_directory(self) -> Path:
        """Return a new empty directory on the outbox's file system, to be published, quarantined or dropped."""
        return Path(tempfile.mkdtemp(dir=self._work))

    def drop(self, work_directory: Path) -> None:
        """Remove a work directory that is not wanted any more."""
        shutil.rmtree(work_directory, ignore_errors=True)

    def find(self, key: str) -> EvidenceSet | None:
        """Return the set of a key, or None.

        Raises:
            EvidenceRejected: The set is there but its description cannot be read.
        """
        directory = self._sets / key
        return _read(directory) if directory.is_dir() else None

    def scan(self) -> Iterator[EvidenceSet | EvidenceRejected]:
        """Yield every set, by key, or why it cannot be read: what `hilum reindex` rebuilds the index from."""
        for directory in sorted(self._sets.iterdir()):
            try:
                yield _read(directory)
            except EvidenceRejected as error:
                yield error

    def adopt_or_publish(self, work_directory: Path, evidence: EvidenceSet) -> EvidenceSet:
        """Make a set durable under its key, or adopt the one that is there already.

        Args:
            work_directory: From `work_directory`, holding the files that `evidence.objects` name.
            evidence: The set; its `directory` is set here.

        Returns:
            The set as it lies in the outbox. An existing set is never changed; the new files are removed.

        Raises:
            OutOfResources: The files cannot be made durable.
        """
        target = self._sets / evidence.key
        try:
            (work_directory / DESCRIPTION_FILE).write_text(_described(evidence), encoding="utf-8")
            _flush(work_directory)
            adopted = not _renamed(work_directory, target)
            _flush_directory(self._sets)
        except OSError as error:
            raise OutOfResources(
                f"evidence {evidence.key} cannot be made durable: {error.strerror}. Remedy: free space on the disk."
            ) from error
        if adopted:
            self.drop(work_directory)
            return _read(target)
        return replace(evidence, directory=target)

    def quarantine(self, work_directory: Path, key: str, reasons: tuple[str, ...]) -> Path:
        """Move a rejected set aside together with its reasons, and return where it lies."""
        (work_directory / REASONS_FILE).write_text("".join(f"{reason}\n" for reason in reasons), encoding="utf-8")
        _flush(work_directory)
        number = 1
        while not _renamed(work_directory, self._quarantine / f"{key}-{number}"):
            number += 1
        _flush_directory(self._quarantine)
        _log.warning("evidence_quarantined", evidence_key=key, reason=reasons[0] if reasons else "", count=len(reasons))
        return self._quarantine / f"{key}-{number}"


def file_digest(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _renamed(source: Path, target: Path) -> bool:
    """Rename a directory; False where the target is there already (a directory is never replaced unless empty)."""
    if target.exists():
        return False
    try:
        source.rename(target)
    except OSError:
        if target.exists():
            return False
        raise
    return True


def _flush(directory: Path) -> None:
    for path in directory.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    _flush_directory(directory)


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _described(evidence: EvidenceSet) -> str:
    fields = asdict(evidence)
    del fields["directory"]
    fields["made_at"] = evidence.made_at.astimezone(UTC).isoformat()
    return json.dumps(fields, indent=1, sort_keys=True) + "\n"


def _read(directory: Path) -> EvidenceSet:
    try:
        fields = json.loads((directory / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        return EvidenceSet(
            key=fields["key"],
            directory=directory,
            study_uid=fields["study_uid"],
            generation=fields["generation"],
            profile=fields["profile"],
            objects=tuple(_read_object(item) for item in fields["objects"]),
            made_at=datetime.fromisoformat(fields["made_at"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvidenceRejected(
            f"{directory / DESCRIPTION_FILE} cannot be read ({type(error).__name__}: {error}). "
            f"Remedy: move the directory away and run the study again."
        ) from error


def _read_object(fields: dict[str, Any]) -> EvidenceObject:
    return EvidenceObject(**{**fields, "sop": SopReference(**fields["sop"])})
