"""C-STORE as SCP (PS3.4 B.2): bytes are written as received, never decoded; Success means durable and findable.

The answer 0x0000 is given after the file's fsync, its rename, the directory's fsync and the index's COMMIT.
"""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, TypeVar

import structlog
from pydicom.uid import RE_VALID_UID
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from node.dimse.associate import AgreedContext
from node.dimse.command_set import Command
from node.domain.derived import is_derived
from node.domain.instances import ReceivedInstance, SopReference
from node.errors import DataSetMismatch, InstanceConflict, NotUnderstood, OutOfResources, ReceptionError
from node.index.instances import (
    QuarantinedInstance,
    Reception,
    find_instance,
    is_known_result,
    is_known_variant,
    record_instance,
    record_quarantined,
    record_variant,
)
from node.intake.data_set_walk import MOST_BEGINNING_BYTES, DataSetOutline, study_of_beginning, walk
from node.intake.resend import note_of_variant
from node.store.instance_files import Arrival, InstanceStore, StoredInstance
from node.store.part_file import PartFile
from node.store.quarantine import RefusalRecord

log = structlog.get_logger()
_LOCKS: Final = 64
_Argument = TypeVar("_Argument")


@dataclass(frozen=True, slots=True)
class Answer:
    """Status (0000,0900) and Error Comment (0000,0902) of a response."""

    status: int
    comment: str = ""


SUCCESS: Final = Answer(0x0000)


class StorageScp:
    """Receives instances into a store and an index. Safe for use by many threads."""

    def __init__(self, store: InstanceStore, engine: Engine, *, on_stored: Callable[[ReceivedInstance], None]) -> None:
        """Tell `on_stored` of every new instance once it is durable, on the thread of its association."""
        self.store = store
        self.engine = engine
        self._on_stored = on_stored
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))

    def begin(self, command: Command, context: AgreedContext, calling_ae_title: str) -> "IncomingInstance":
        """Prepare for the data set of a C-STORE; what is wrong already is answered when the data set has passed."""
        return IncomingInstance(self, command, context, calling_ae_title)

    def lock_of(self, sop_instance_uid: str) -> threading.Lock:
        """Return the lock that keeps two receptions of one SOP Instance UID apart."""
        return self._locks[hash(sop_instance_uid) % _LOCKS]

    def tell(self, instance: ReceivedInstance) -> None:
        """Tell of a new instance."""
        notify(self._on_stored, instance)


class IncomingInstance:
    """One C-STORE: `write` every fragment, then `finish`; or `abandon`."""

    def __init__(self, scp: StorageScp, command: Command, context: AgreedContext, calling_ae_title: str) -> None:
        """Open the file, unless the command is refused already."""
        self.study_uid: str | None = None
        self._scp = scp
        self._command = command
        self._arrival = Arrival(
            sop=SopReference(command.sop_class_uid, command.sop_instance_uid),
            transfer_syntax=context.transfer_syntax,
            calling_ae_title=calling_ae_title,
            received_at=datetime.now(UTC),
        )
        self._beginning = bytearray()
        self._part: PartFile | None = None
        self._error: ReceptionError | None = None
        try:
            _check_command(command, context)
            self._part = scp.store.begin(self._arrival)
        except ReceptionError as error:
            self._error = error

    def write(self, fragment: memoryview) -> None:
        """Take the next fragment of the data set; after an error the rest is let pass."""
        if self._part and not self._error:
            try:
                self._part.write(fragment)
                self._beginning += fragment[: MOST_BEGINNING_BYTES - len(self._beginning)]
            except OutOfResources as error:
                self._error = error

    def finish(self) -> Answer:
        """Decide over the complete data set; on return it is durable and findable, or refused with a reason."""
        # The end counts: an image that took a minute to come is as fresh as one that took none.
        self._arrival = replace(self._arrival, received_at=datetime.now(UTC))
        try:
            self._receive()
        except ReceptionError as error:
            return self._refuse(error)
        except (SQLAlchemyError, OSError) as error:
            log.warning("index_write_failed", reason=type(error).__name__)
            return self._refuse(OutOfResources("the index or the store cannot be used"))
        except Exception:
            # The process edge: whatever a data set provokes becomes an answer.
            log.exception("reception_failed", sop_instance_uid=self._command.sop_instance_uid)
            return self._refuse(NotUnderstood("internal error; the log of the node says more"))
        finally:
            self.abandon()
        return SUCCESS

    def abandon(self) -> None:
        """Leave nothing behind; harmless after `finish`."""
        if self._part:
            self._part.discard()

    def carried_study(self) -> str | None:
        """Return the study that is on its way here, as soon as its data set names it; from any thread."""
        if self.study_uid is None and self._error is None:
            # Read on demand only: whoever asks does so rarely, and most instances are here before anyone does.
            found = study_of_beginning(bytes(self._beginning), self._arrival.transfer_syntax)
            return found if is_uid(found) else None
        return self.study_uid

    def _receive(self) -> None:
        if self._error or not self._part:
            raise self._error or NotUnderstood("the command has no data set")
        part = self._part
        with part.data_set() as encoded:
            outline = walk(encoded, self._arrival.transfer_syntax)
        self._check(outline)
        uid = outline.sop_instance_uid
        with self._scp.lock_of(uid):
            known = find_instance(self._scp.engine, uid)
            is_same = known is not None and known.data_set_digest == part.digest()
            if known is None or (is_same and not known.path.exists()):
                self._store_new(part, outline)
            elif is_same:
                log.info("instance_resent", sop_instance_uid=uid, study_uid=known.study_uid)
            elif not known.path.exists():
                raise InstanceConflict("SOP Instance UID is known with another data set, now lost")
            else:
                self._note_variant(known, part, outline)

    def _check(self, outline: DataSetOutline) -> None:
        if is_uid(outline.study_uid):
            self.study_uid = outline.study_uid
        for name, stated, commanded in (
            ("SOP Class UID", outline.sop_class_uid, self._command.sop_class_uid),
            ("SOP Instance UID", outline.sop_instance_uid, self._command.sop_instance_uid),
        ):
            if not stated:
                raise DataSetMismatch(f"{name} is empty in the data set")
            if stated != commanded:
                raise DataSetMismatch(f"{name} of data set and command differ")
        for name, uid in (("Study", outline.study_uid), ("Series", outline.series_uid)):
            if not is_uid(uid):
                raise NotUnderstood(f"{name} Instance UID is {'no valid UID' if uid else 'empty or absent'}")

    def _store_new(self, part: PartFile, outline: DataSetOutline) -> None:
        sop = self._arrival.sop
        derived = is_derived(sop.sop_class_uid, outline.modality) or is_known_result(
            self._scp.engine, sop.sop_instance_uid
        )
        stored = self._scp.store.publish(
            part, self._arrival, study_uid=outline.study_uid, series_uid=outline.series_uid, derived=derived
        )
        self._index(stored)
        log.debug(
            "instance_stored",
            sop_instance_uid=sop.sop_instance_uid,
            study_uid=outline.study_uid,
            series_uid=outline.series_uid,
            calling_ae_title=self._arrival.calling_ae_title,
            bytes=stored.size,
        )
        self._scp.tell(stored.instance)

    def _index(self, stored: StoredInstance) -> None:
        try:
            reception = record_instance(self._scp.engine, stored.instance, size=stored.size, derived=stored.derived)
        except SQLAlchemyError as error:
            self._scp.store.remove(stored.instance.path)
            log.warning("index_write_failed", reason=type(error).__name__)
            raise OutOfResources("the index cannot be written") from error
        if reception not in (Reception.NEW, Reception.SAME):
            self._scp.store.remove(stored.instance.path)
            raise InstanceConflict("SOP Instance UID is known with another data set")

    def _note_variant(self, known: ReceivedInstance, part: PartFile, outline: DataSetOutline) -> None:
        again = ReceivedInstance(
            sop=self._arrival.sop,
            study_uid=outline.study_uid,
            series_uid=outline.series_uid,
            transfer_syntax=self._arrival.transfer_syntax,
            calling_ae_title=self._arrival.calling_ae_title,
            path=part.path,
            data_set_digest=part.digest(),
            received_at=self._arrival.received_at,
        )
        uid = known.sop.sop_instance_uid
        if not is_known_variant(self._scp.engine, uid, again.data_set_digest):
            note = note_of_variant(known, again)
            record_variant(self._scp.engine, again, note=note)
            log.info("instance_variant_noted", sop_instance_uid=uid, study_uid=known.study_uid, reason=note)

    def _refuse(self, error: ReceptionError) -> Answer:
        log.warning(
            "instance_refused",
            sop_instance_uid=self._command.sop_instance_uid[:64],
            calling_ae_title=self._arrival.calling_ae_title,
            reason=str(error),
        )
        if not isinstance(error, OutOfResources):
            self._keep_refused(str(error))
        return Answer(error.status, str(error))

    def _keep_refused(self, reason: str) -> None:
        uid, calling = self._command.sop_instance_uid, self._arrival.calling_ae_title
        at = self._arrival.received_at
        try:
            record = RefusalRecord(uid, self.study_uid, calling, reason, at.isoformat())
            kept = self._scp.store.quarantine.keep(record, self._part)
            refused = QuarantinedInstance(kept.path, uid, self.study_uid, calling, reason, at)
            record_quarantined(self._scp.engine, refused, dropped=kept.dropped)
        except (OutOfResources, SQLAlchemyError) as failure:
            log.warning("quarantine_write_failed", sop_instance_uid=uid[:64], reason=str(failure)[:200])


def is_uid(value: str) -> bool:
    """Return whether a value is a UID by its syntax (PS3.5 9.1)."""
    return 0 < len(value) <= 64 and re.fullmatch(RE_VALID_UID, value) is not None


def notify(callback: Callable[[_Argument], None], argument: _Argument) -> None:
    """Call back; what goes wrong there is logged and does not touch the association."""
    try:
        callback(argument)
    except Exception:
        # The process edge: the instance is durable, whoever listens.
        log.exception("callback_failed")


def _check_command(command: Command, context: AgreedContext) -> None:
    if command.sop_class_uid != context.abstract_syntax:
        raise DataSetMismatch("SOP class of the command is not the one of its context")
    if not is_uid(command.sop_instance_uid):
        raise NotUnderstood("SOP Instance UID of the command is no valid UID")
