"""A stand-in PACS: a storage SCP that keeps what it gets, counts copies and misbehaves on command."""

import hashlib
import re
import socket
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydicom import Dataset
from pynetdicom import evt
from pynetdicom._globals import ALL_TRANSFER_SYNTAXES
from pynetdicom.ae import ApplicationEntity
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import EventHandlerType
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from node.settings import Destination

_UID = re.compile(r"[0-9.]{1,64}")
SUCCESS = 0x0000
UNRECOGNIZED_OPERATION = 0x0211


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object that the PACS answered with success."""

    sop_instance_uid: str
    sop_class_uid: str
    calling_ae_title: str
    path: Path
    """Part 10 file with the data set as it came."""


@dataclass(slots=True)
class _Refusal:
    status: int
    comment: str
    times: int | None
    sop_class_uid: str | None


class StandInPacs:
    """Takes every storage SOP class; a context manager that listens while it is entered.

    Thread-safe. Without scripted faults each object is stored and answered with success; a second copy of a SOP
    instance replaces the file and is counted.
    """

    def __init__(
        self,
        directory: Path,
        *,
        ae_title: str = "PACS",
        port: int = 0,
        transfer_syntaxes: Sequence[str] = tuple(ALL_TRANSFER_SYNTAXES),
        sop_classes: Sequence[str] | None = None,
    ) -> None:
        """Store into `directory`; port 0 takes a free one, which stays the same when it goes away and returns."""
        self.directory = directory
        self.ae_title = ae_title
        self.host, self.port = "127.0.0.1", port
        self._syntaxes = list(transfer_syntaxes)
        self._sop_classes = sop_classes
        self._changed = threading.Condition()
        self._objects: dict[str, StoredObject] = {}
        self._copies: Counter[str] = Counter()
        self._arrivals = 0
        self._refusals: list[_Refusal] = []
        self._silences = 0
        self._open_gate = threading.Event()
        self._open_gate.set()
        self._entity: ApplicationEntity | None = None

    def __enter__(self) -> Self:
        """Listen."""
        self.come_back()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self.release()
        self.go_away()

    @property
    def objects(self) -> tuple[StoredObject, ...]:
        """What is stored, in the order of first arrival."""
        with self._changed:
            return tuple(self._objects.values())

    @property
    def copies(self) -> Counter[str]:
        """How many times each SOP Instance UID was stored."""
        with self._changed:
            return Counter(self._copies)

    @property
    def arrivals(self) -> int:
        """How many C-STORE requests came, those refused or left unanswered included."""
        with self._changed:
            return self._arrivals

    def destination(self, name: str = "pacs", **settings: float) -> Destination:
        """Return the settings of this PACS as a node's destination, e.g. with retry_first_s=0.1."""
        return Destination.model_validate(
            {"name": name, "ae_title": self.ae_title, "host": self.host, "port": self.port, **settings}
        )

    def wait_for(self, count: int, *, timeout_s: float = 60.0) -> bool:
        """Wait until `count` different objects are stored; False when the time is over first."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._objects) >= count, timeout_s)

    def wait_for_arrivals(self, count: int, *, timeout_s: float = 60.0) -> bool:
        """Wait until `count` C-STORE requests have come; False when the time is over first."""
        with self._changed:
            return self._changed.wait_for(lambda: self._arrivals >= count, timeout_s)

    def refuse(
        self, status: int, *, comment: str = "", times: int | None = None, sop_class_uid: str | None = None
    ) -> None:
        """Answer the next `times` requests (None: all until `accept`), or those of one class, with `status`."""
        with self._changed:
            self._refusals.append(_Refusal(status, comment, times, sop_class_uid))

    def accept(self) -> None:
        """Take objects again: forget refusals and silences."""
        with self._changed:
            self._refusals.clear()
            self._silences = 0

    def store_without_answer(self, times: int = 1) -> None:
        """Store the next `times` objects, but cut the connection instead of answering."""
        with self._changed:
            self._silences = times

    def hold(self) -> None:
        """Keep every answer back until `release`."""
        self._open_gate.clear()

    def release(self) -> None:
        """Give the answers held back, and no longer hold any."""
        self._open_gate.set()

    def go_away(self) -> None:
        """Stop listening and abort what is open; objects stay."""
        entity, self._entity = self._entity, None
        if entity is not None:
            entity.shutdown()

    def come_back(self) -> None:
        """Listen again, on the same port."""
        if self._entity is not None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        entity = self._make_entity()
        handlers: list[EventHandlerType] = [
            (evt.EVT_CONN_OPEN, _hurry),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_ECHO, _echo),
        ]
        server = entity.start_server((self.host, self.port), block=False, evt_handlers=handlers)
        if server is None:
            raise RuntimeError("the stand-in PACS did not start to listen")
        self.port = int(server.server_address[1])
        self._entity = entity

    def _make_entity(self) -> ApplicationEntity:
        entity = ApplicationEntity(ae_title=self.ae_title)
        entity.maximum_pdu_size = 1 << 17
        entity.maximum_associations = 100
        classes = self._sop_classes or [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
        for sop_class in classes:
            entity.add_supported_context(sop_class, self._syntaxes)
        entity.add_supported_context(Verification)
        return entity

    def _store(self, event: evt.Event) -> int | Dataset:
        request = event.request
        if not isinstance(request, C_STORE):
            return UNRECOGNIZED_OPERATION
        uid, sop_class = str(request.AffectedSOPInstanceUID), str(request.AffectedSOPClassUID)
        with self._changed:
            self._arrivals += 1
            self._changed.notify_all()
        self._open_gate.wait()
        refusal = self._next_refusal(sop_class)
        if refusal is not None:
            return _answer(refusal)
        path = self.directory / f"{uid if _UID.fullmatch(uid) else hashlib.sha256(uid.encode()).hexdigest()}.dcm"
        part = path.with_suffix(f".{threading.get_ident()}.part")
        part.write_bytes(event.encoded_dataset())
        part.replace(path)
        stored = StoredObject(uid, sop_class, str(event.assoc.requestor.ae_title), path)
        with self._changed:
            self._objects.setdefault(uid, stored)
            self._copies[uid] += 1
            silent = self._silences > 0
            self._silences -= silent
            self._changed.notify_all()
        if silent:
            _cut(event)
        return SUCCESS

    def _next_refusal(self, sop_class_uid: str) -> _Refusal | None:
        with self._changed:
            for refusal in self._refusals:
                if refusal.sop_class_uid in (None, sop_class_uid) and refusal.times != 0:
                    if refusal.times is not None:
                        refusal.times -= 1
                    return refusal
        return None


def _answer(refusal: _Refusal) -> Dataset:
    answer = Dataset()
    answer.Status = refusal.status
    if refusal.comment:
        answer.ErrorComment = refusal.comment
    return answer


def _hurry(event: evt.Event) -> None:
    connection = _connection(event)
    if connection is not None:
        # Nagle against the peer's delayed acknowledgement costs 40 ms an instance.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _cut(event: evt.Event) -> None:
    connection = _connection(event)
    if connection is not None:
        connection.shutdown(socket.SHUT_RDWR)


def _connection(event: evt.Event) -> socket.socket | None:
    wrapper = event.assoc.dul.socket
    return None if wrapper is None else wrapper.socket


def _echo(_: evt.Event) -> int:
    return SUCCESS
