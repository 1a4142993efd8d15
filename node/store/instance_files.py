"""Durable files of received instances. Names are ours (SHA-256 of the SOP Instance UID), never a peer's.

<directory>/incoming/*.part      on the way in; removed at start
<directory>/instances/ab/*.dcm   Part 10: our file meta, then the data set exactly as received
<directory>/quarantine/*         refused bytes beside their reason
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from node.domain.instances import ReceivedInstance, SopReference
from node.store.part_file import PART_SUFFIX, PartFile, fsync_directory
from node.store.quarantine import Quarantine
from node.store.reception_record import ReceptionRecord, file_meta, read_record

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Arrival:
    """What is known of an instance before its data set arrives: the C-STORE command and its association."""

    sop: SopReference
    transfer_syntax: str
    calling_ae_title: str
    received_at: datetime


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """An instance with what the index also keeps of it."""

    instance: ReceivedInstance
    size: int
    """Bytes of the file."""
    derived: bool


class InstanceStore:
    """The directory of received instances. Safe for use by many threads of one process."""

    def __init__(self, directory: Path) -> None:
        """Make the directories where absent and remove what a crash left half received."""
        self.directory = directory.absolute()
        self._incoming = self.directory / "incoming"
        self._instances = self.directory / "instances"
        for path in (self.directory, self._incoming, self._instances):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for shard in range(256):
            (self._instances / f"{shard:02x}").mkdir(mode=0o700, exist_ok=True)
        fsync_directory(self._instances)
        fsync_directory(self.directory)
        for litter in self._incoming.glob(f"*{PART_SUFFIX}"):
            litter.unlink()
        self.quarantine = Quarantine(self.directory / "quarantine")

    def begin(self, arrival: Arrival) -> PartFile:
        """Open the file that an arriving data set is written to.

        Raises:
            OutOfResources: The disk is full or fails.
        """
        return PartFile(self._incoming, file_meta(arrival.sop, arrival.transfer_syntax, arrival.calling_ae_title))

    def publish(
        self, part: PartFile, arrival: Arrival, *, study_uid: str, series_uid: str, derived: bool
    ) -> StoredInstance:
        """Make a complete data set durable under its own name; `part` is gone afterwards, also on failure.

        Raises:
            OutOfResources: The disk is full or fails; nothing is left behind.
        """
        record = ReceptionRecord(
            sop_class_uid=arrival.sop.sop_class_uid,
            sop_instance_uid=arrival.sop.sop_instance_uid,
            study_uid=study_uid,
            series_uid=series_uid,
            transfer_syntax=arrival.transfer_syntax,
            calling_ae_title=arrival.calling_ae_title,
            data_set_digest=part.digest(),
            received_at=arrival.received_at.isoformat(),
            derived=derived,
        )
        target = self.path_of(arrival.sop.sop_instance_uid)
        stored = _stored(record, target, part.size)
        part.publish(record, target)
        return stored

    def write(
        self, data_set: bytes, arrival: Arrival, *, study_uid: str, series_uid: str, derived: bool = False
    ) -> StoredInstance:
        """Store a data set that is at hand whole; as `begin`, `write` and `publish`."""
        part = self.begin(arrival)
        part.write(data_set)
        return self.publish(part, arrival, study_uid=study_uid, series_uid=series_uid, derived=derived)

    def path_of(self, sop_instance_uid: str) -> Path:
        """Return where the instance of that UID lies or would lie."""
        name = hashlib.sha256(sop_instance_uid.encode()).hexdigest()
        return self._instances / name[:2] / f"{name}.dcm"

    def remove(self, path: Path) -> None:
        """Remove a published file that never came into the index."""
        path.unlink(missing_ok=True)

    def scan(self, *, verify: bool = True) -> Iterator[StoredInstance | Path]:
        """Give every stored instance from the record in its file, in the order of the file names.

        Args:
            verify: Read each file whole and compare its digest with the recorded one.

        Yields:
            The instance; or the bare path of a file that is damaged or not of the store's making.
        """
        for path in sorted(self._instances.glob("??/*.dcm")):
            try:
                record = self._sound_record(path, verify=verify)
                yield _stored(record, path, path.stat().st_size) if record else path
            except (OSError, ValueError):
                # Unreadable, or a record with nonsense in it: damaged all the same.
                yield path

    def _sound_record(self, path: Path, *, verify: bool) -> ReceptionRecord | None:
        with path.open("rb") as file:
            record = read_record(file.read)
            if record is None or self.path_of(record.sop_instance_uid) != path:
                return None
            digest = hashlib.sha256()
            while verify and (block := file.read(_BLOCK)):
                digest.update(block)
        return record if not verify or digest.hexdigest() == record.data_set_digest else None

    def free_bytes(self) -> int:
        """Return how many bytes an unprivileged writer still has on the store's file system."""
        status = os.statvfs(self.directory)
        return status.f_bavail * status.f_frsize


def _stored(record: ReceptionRecord, path: Path, size: int) -> StoredInstance:
    instance = ReceivedInstance(
        sop=SopReference(record.sop_class_uid, record.sop_instance_uid),
        study_uid=record.study_uid,
        series_uid=record.series_uid,
        transfer_syntax=record.transfer_syntax,
        calling_ae_title=record.calling_ae_title,
        path=path,
        data_set_digest=record.data_set_digest,
        received_at=datetime.fromisoformat(record.received_at),
    )
    return StoredInstance(instance, size, record.derived)
