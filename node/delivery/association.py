"""Associations to a destination, as requestor (PS3.8): opened within a time, cut when a peer stands still."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from ssl import SSLContext

from pydicom.uid import UID
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.events import EVT_CONN_OPEN, EVT_PDU_RECV, Event
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation, AssociationSocket

from node.dimse.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.errors import DeliveryDelayed, DeliveryRefused
from node.settings import Destination

MAX_CONTEXTS = 128
"""Presentation context IDs are the odd numbers up to 255 (PS3.8 9.3.2.2)."""
_GRACE_S = 2.0
_PROVIDER_PRESENTATION = 3
_TRANSIENT = 2


class Line:
    """An association together with its socket, which can be cut from outside.

    pynetdicom blocks for ever in send() and recv() on a peer that stands still or drips; a shut socket ends both.
    """

    def __init__(self, association: Association, connections: list[socket.socket]) -> None:
        """Tie an established association to its connection."""
        self.association = association
        self.broken = False
        """The peer left a request without an answer: nothing more can be sent here."""
        self._connections = connections

    @property
    def usable(self) -> bool:
        """Another request may be sent."""
        return self.association.is_established and not self.broken

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Answer the peer's silence after `seconds` by an abort, and its standing still a little later by a cut."""
        self.association.dimse_timeout = seconds
        with _cut_after(self._connections, seconds + _GRACE_S):
            yield


@contextmanager
def open_line(
    destination: Destination, calling_ae_title: str, contexts: Sequence[PresentationContext]
) -> Iterator[Line]:
    """Open an association that offers `contexts`; release it at the end.

    Raises:
        DeliveryDelayed: no connection, no answer, aborted, or rejected for now.
        DeliveryRefused: rejected permanently, or none of the contexts is accepted.
    """
    peer = peer_text(destination)
    entity = _Requestor(ae_title=calling_ae_title)
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = destination.timeout_s
    # Silence is our own business: see Line.within.
    entity.network_timeout = None
    try:
        association = _associate(entity, destination, contexts)
        if not association.is_established:
            _raise_why_not(association, peer, entity, timeout_s=destination.timeout_s)
        yield Line(association, entity.connections)
        with _cut_after(entity.connections, destination.timeout_s + _GRACE_S):
            association.release()
    finally:
        entity.close()


class _Requestor(ApplicationEntity):
    """An application entity that keeps hold of its connection: pynetdicom leaves one that failed unclosed."""

    def __init__(self, ae_title: str) -> None:
        super().__init__(ae_title=ae_title)
        self.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        self.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self.connections: list[socket.socket] = []
        self.connected = False
        self.rejection: A_ASSOCIATE_RJ | None = None

    def close(self) -> None:
        for connection in self.connections:
            connection.close()

    def note_connected(self, _event: Event) -> None:
        self.connected = True

    def note_rejected(self, event: Event) -> None:
        """Keep a rejection as it arrives: pynetdicom reads one that comes at once, now and then, as no connection."""
        if isinstance(event.pdu, A_ASSOCIATE_RJ):
            self.rejection = event.pdu

    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: tuple[SSLContext, str] | None
    ) -> AssociationSocket:
        wrapper = super()._create_socket(assoc, address, tls_args)
        if wrapper.socket is not None:
            # Nagle against the peer's delayed acknowledgement costs 40 ms an instance.
            wrapper.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections.append(wrapper.socket)
        return wrapper


def _associate(entity: _Requestor, destination: Destination, contexts: Sequence[PresentationContext]) -> Association:
    with _cut_after(entity.connections, 2 * destination.timeout_s + _GRACE_S):
        try:
            return entity.associate(
                destination.host,
                destination.port,
                contexts=list(contexts),
                ae_title=destination.ae_title,
                evt_handlers=[(EVT_CONN_OPEN, entity.note_connected), (EVT_PDU_RECV, entity.note_rejected)],
            )
        except OSError as error:
            peer, why = peer_text(destination), error.strerror or error
            raise DeliveryDelayed(f"{peer}: the host name cannot be resolved ({why})") from error


def peer_text(destination: Destination) -> str:
    """Name a destination as people need it: name, AE title and address."""
    return f"{destination.name} ({destination.ae_title}@{destination.host}:{destination.port})"


@contextmanager
def _cut_after(connections: list[socket.socket], seconds: float) -> Iterator[None]:
    def cut() -> None:
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _raise_why_not(association: Association, peer: str, entity: _Requestor, *, timeout_s: float) -> None:
    if not entity.connected:
        raise DeliveryDelayed(f"{peer} takes no connection: refused, unreachable or silent for {timeout_s:g} s")
    if entity.rejection is not None:
        _raise_rejected(entity.rejection, peer)
    if association.rejected_contexts:
        offered = sorted({UID(context.abstract_syntax or "").name for context in association.rejected_contexts})
        raise DeliveryRefused(
            f"{peer} accepts no presentation context for {', '.join(offered)}; allow the SOP class there, then retry"
        )
    raise DeliveryDelayed(f"{peer} aborted the association or gave no answer within {timeout_s:g} s")


def _raise_rejected(answer: A_ASSOCIATE_RJ, peer: str) -> None:
    text = f"{peer} rejected the association: {answer.result_str}, {answer.source_str}, {answer.reason_str}"
    # Congestion and local limits pass, whatever the peer calls them (PS3.8 table 9-21).
    if answer.result == _TRANSIENT or answer.source == _PROVIDER_PRESENTATION:
        raise DeliveryDelayed(text)
    raise DeliveryRefused(f"{text}; make the AE titles known to each other, then retry")
