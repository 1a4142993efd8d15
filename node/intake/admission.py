"""Who gets in: AE titles, places for associations, room on the disk, and the connections that have not asked yet."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from node.dimse.associate import DICOM_APPLICATION_CONTEXT, AssociationRequest
from node.settings import ListenerSettings

GRACE_S: Final = 1.0
"""An unasked connection younger than this is not put out for a newer one."""
MOST_WAITING: Final = 512


@dataclass(frozen=True, slots=True)
class Rejection:
    """An A-ASSOCIATE-RJ (PS3.8 9.3.4) with the sentence for the log."""

    result: int
    """1 permanent, 2 transient."""
    source: int
    """1 service user, 2 provider (ACSE), 3 provider (presentation)."""
    reason: int
    sentence: str


class Place:
    """A place among the associations; leave it by `with`."""

    def __init__(self, admission: "Admission", peer: str) -> None:
        """Only Admission makes places."""
        self._admission = admission
        self._peer = peer

    def __enter__(self) -> Self:
        """Hold the place."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Give the place back."""
        self._admission.leave(self._peer)


class Admission:
    """Judges association requests and counts the places taken."""

    def __init__(self, settings: ListenerSettings, *, free_bytes: Callable[[], int], low_disk_bytes: int) -> None:
        """Start with every place free."""
        self._settings = settings
        self._free_bytes = free_bytes
        self._low_disk_bytes = low_disk_bytes
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    def admit(self, request: AssociationRequest, peer: str) -> Place | Rejection:
        """Return a place for the peer (a network address), or why it gets none."""
        return self._refuse_for_good(request) or self._refuse_for_now() or self._take(peer)

    def leave(self, peer: str) -> None:
        """Give a place back."""
        with self._lock:
            self._taken[peer] -= 1
            if not self._taken[peer]:
                del self._taken[peer]

    def _refuse_for_good(self, request: AssociationRequest) -> Rejection | None:
        allowed = self._settings.calling_ae_titles
        if not request.protocol_version & 1:
            return Rejection(1, 2, 2, "protocol version not supported")
        if request.application_context != DICOM_APPLICATION_CONTEXT:
            return Rejection(1, 1, 2, "application context name not supported")
        if request.called_ae_title != self._settings.ae_title:
            return Rejection(1, 1, 7, f"called AE title is not {self._settings.ae_title}")
        if allowed and request.calling_ae_title not in allowed:
            return Rejection(1, 1, 3, "calling AE title is not in listener.calling_ae_titles")
        return None

    def _refuse_for_now(self) -> Rejection | None:
        free = self._free_bytes()
        if free < self._low_disk_bytes:
            return Rejection(2, 3, 1, f"disk low: {free} bytes free, store.low_disk_bytes is {self._low_disk_bytes}")
        return None

    def _take(self, peer: str) -> Place | Rejection:
        with self._lock:
            if self._taken.total() >= self._settings.max_associations:
                return Rejection(2, 3, 2, f"listener.max_associations = {self._settings.max_associations} reached")
            if self._taken[peer] >= self._settings.max_associations_per_peer:
                most = self._settings.max_associations_per_peer
                return Rejection(2, 3, 2, f"listener.max_associations_per_peer = {most} reached")
            self._taken[peer] += 1
        return Place(self, peer)


class Doorstep:
    """Connections that have not asked for an association. They take no place; too many put out the oldest.

    So a peer that opens connections and stays silent, on purpose or not, cannot keep others from being heard.
    """

    def __init__(self, *, most_per_peer: int) -> None:
        """Start empty."""
        self._most_per_peer = most_per_peer
        self._lock = threading.Lock()
        self._waiting: dict[socket.socket, tuple[str, float]] = {}

    def step_on(self, connection: socket.socket, peer: str) -> None:
        """Let a new connection wait here, putting out the peer's oldest where it has too many."""
        now = time.monotonic()
        with self._lock:
            self._waiting[connection] = (peer, now)
            mine = [other for other, (address, _) in self._waiting.items() if address == peer]
            if len(mine) > self._most_per_peer and now - self._waiting[mine[0]][1] > GRACE_S:
                self._put_out(mine[0])
            elif len(self._waiting) > MOST_WAITING:
                self._put_out(next(iter(self._waiting)))

    def step_off(self, connection: socket.socket) -> None:
        """The connection asked, or is gone."""
        with self._lock:
            self._waiting.pop(connection, None)

    def _put_out(self, connection: socket.socket) -> None:
        del self._waiting[connection]
        try:
            # Wakes the thread that waits on it; that thread closes it.
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return
