"""The listener: accepts connections, lets associations in, serves each on a thread of its own.

pynetdicom reads and negotiates associations; the sockets, threads, deadlines and limits are ours, so that a silent,
slow or hostile peer costs one blocked thread for a bounded time and nothing else.
"""

import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Engine

from node.dimse.associate import AssociationRequest, accept, decode_request
from node.dimse.pdu_stream import AbortReason, PduStream, PduType, encode_abort, encode_reject
from node.domain.instances import ReceivedInstance
from node.errors import AssociationError, SettingsError
from node.intake.admission import Admission, Doorstep, Rejection
from node.intake.association import Association, AssociationTerms
from node.intake.presentation import supported_contexts
from node.intake.storage_scp import StorageScp, notify
from node.settings import ListenerSettings
from node.store.instance_files import InstanceStore

log = structlog.get_logger()
BACKLOG: Final = 128
LINGER_S: Final = 2.0
STOP_S: Final = 10.0
_PAUSE_AFTER_ERROR_S: Final = 0.2


class Listener:
    """The node's C-STORE and C-ECHO provider."""

    def __init__(
        self,
        settings: ListenerSettings,
        store: InstanceStore,
        engine: Engine,
        *,
        low_disk_bytes: int,
        on_stored: Callable[[ReceivedInstance], None],
        on_closed: Callable[[frozenset[str]], None],
    ) -> None:
        """Prepare; nothing listens before `start`.

        Args:
            settings: Address, AE titles and limits.
            store: Where instances go.
            engine: The index.
            low_disk_bytes: Below this much free space new associations are rejected transiently.
            on_stored: Told of every new durable instance, on its association's thread.
            on_closed: Told, when an association is over, of the studies it carried (Study Instance UIDs).
        """
        self._settings = settings
        self._scp = StorageScp(store, engine, on_stored=on_stored)
        self._on_closed = on_closed
        self._admission = Admission(settings, free_bytes=store.free_bytes, low_disk_bytes=low_disk_bytes)
        self._doorstep = Doorstep(most_per_peer=settings.max_associations_per_peer)
        self._supported = partial(supported_contexts, unknown_sop_classes=settings.unknown_sop_classes)
        self._lock = threading.Lock()
        self._open: set[Association] = set()
        self._conversations: dict[threading.Thread, socket.socket] = {}
        self._stopping = threading.Event()
        self._server: socket.socket | None = None
        self._acceptor = threading.Thread(target=self._accept_all, name="hilum-listener", daemon=True)

    def start(self) -> tuple[str, int]:
        """Listen; return host and port (the real one where the settings say 0).

        Raises:
            SettingsError: The address cannot be listened on.
        """
        host, port = self._settings.host, self._settings.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._server = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            raise SettingsError(f"listener.host = {host}, port = {port}: cannot listen there: {error}") from error
        self._acceptor.start()
        address = self._server.getsockname()
        log.info("listener_started", host=address[0], port=address[1], called_ae_title=self._settings.ae_title)
        return str(address[0]), int(address[1])

    def stop(self) -> None:
        """Take nothing more, let each instance that is complete get its answer, abort the associations; idempotent."""
        self._stopping.set()
        if self._server is None:
            return
        _shut(self._server, socket.SHUT_RDWR)
        self._acceptor.join()
        self._server.close()
        with self._lock:
            conversations = dict(self._conversations)
        for connection in conversations.values():
            _shut(connection, socket.SHUT_RD)
        deadline = time.monotonic() + STOP_S
        for thread in conversations:
            thread.join(max(0.0, deadline - time.monotonic()))
        log.info("listener_stopped")

    def open_studies(self) -> frozenset[str]:
        """Return the Study Instance UIDs that associations still open have carried, or are carrying in now."""
        with self._lock:
            open_now = tuple(self._open)
        return frozenset().union(*(association.carried_studies() for association in open_now))

    def _accept_all(self) -> None:
        server = self._server
        while server is not None and not self._stopping.is_set():
            try:
                connection, address = server.accept()
            except OSError as error:
                if not self._stopping.wait(_PAUSE_AFTER_ERROR_S):
                    log.warning("connection_not_accepted", reason=str(error))
                continue
            self._start_conversation(connection, str(address[0]))

    def _start_conversation(self, connection: socket.socket, peer: str) -> None:
        thread = threading.Thread(target=self._converse, args=(connection, peer), name=f"hilum-{peer}", daemon=True)
        self._doorstep.step_on(connection, peer)
        with self._lock:
            self._conversations[thread] = connection
        try:
            thread.start()
        except RuntimeError as error:
            log.warning("connection_not_accepted", peer=peer, reason=str(error))
            self._doorstep.step_off(connection)
            with self._lock:
                del self._conversations[thread]
            connection.close()

    def _converse(self, connection: socket.socket, peer: str) -> None:
        try:
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                stream = PduStream(connection, p_data_limit=self._settings.max_pdu_bytes)
                self._let_in(stream, connection, peer)
        except OSError as error:
            log.info("connection_lost", peer=peer, reason=str(error))
        finally:
            self._doorstep.step_off(connection)
            with self._lock:
                del self._conversations[threading.current_thread()]

    def _let_in(self, stream: PduStream, connection: socket.socket, peer: str) -> None:
        try:
            request = self._request(stream)
        except AssociationError as error:
            log.warning("connection_refused", peer=peer, reason=str(error))
            stream.write(encode_abort(error.abort_reason), within_s=LINGER_S)
            stream.end(linger_s=LINGER_S)
            return
        if request is None:
            return
        place = self._admission.admit(request, peer)
        if isinstance(place, Rejection):
            log.warning(
                "association_rejected", peer=peer, calling_ae_title=request.calling_ae_title, reason=place.sentence
            )
            stream.write(encode_reject(place.result, place.source, place.reason), within_s=LINGER_S)
            stream.end(linger_s=LINGER_S)
            return
        with place:
            self._doorstep.step_off(connection)
            self._serve(stream, request, peer)
        stream.end(linger_s=LINGER_S)

    def _request(self, stream: PduStream) -> AssociationRequest | None:
        half_s = self._settings.acse_timeout_s / 2
        try:
            pdu = stream.read(idle_s=half_s, whole_s=half_s)
        except TimeoutError:
            return None
        if pdu is None:
            return None
        if pdu.type is not PduType.ASSOCIATE_RQ:
            raise AssociationError(f"{pdu.type.name} before an association", abort_reason=AbortReason.UNEXPECTED_PDU)
        return decode_request(pdu)

    def _serve(self, stream: PduStream, request: AssociationRequest, peer: str) -> None:
        answer, contexts = accept(request, self._supported, own_limit=self._settings.max_pdu_bytes)
        terms = AssociationTerms(
            calling_ae_title=request.calling_ae_title,
            contexts=contexts,
            peer_limit=request.peer_limit,
            timeout_s=self._settings.network_timeout_s,
            most_instance_bytes=self._settings.max_instance_bytes,
        )
        association = Association(stream, self._scp, terms)
        with self._lock:
            self._open.add(association)
        try:
            stream.write(answer, within_s=self._settings.acse_timeout_s)
            log.info("association_accepted", peer=peer, calling_ae_title=request.calling_ae_title)
            ending = association.serve()
            if self._stopping.is_set():
                stream.write(encode_abort(AbortReason.NOT_SPECIFIED), within_s=LINGER_S)
        finally:
            with self._lock:
                self._open.discard(association)
            if association.studies:
                notify(self._on_closed, frozenset(association.studies))
        log.info(
            "association_closed",
            peer=peer,
            calling_ae_title=request.calling_ae_title,
            count=association.instances,
            reason=ending.value,
        )


def _shut(connection: socket.socket, how: int) -> None:
    try:
        connection.shutdown(how)
    except OSError:
        # Closed in the meantime: just what is wanted.
        return
