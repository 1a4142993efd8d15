"""One association from A-ASSOCIATE-AC to its end: C-STORE and C-ECHO, one message at a time, on one thread."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

import structlog

from node.dimse.associate import AgreedContext
from node.dimse.command_set import MOST_COMMAND_BYTES, Command, CommandField, encode_response, parse_command
from node.dimse.pdu_stream import (
    AbortReason,
    Pdu,
    PduStream,
    PduType,
    Pdv,
    encode_abort,
    encode_command_pdus,
    encode_release_response,
    split_pdvs,
)
from node.errors import AssociationError
from node.intake.presentation import VERIFICATION
from node.intake.storage_scp import SUCCESS, Answer, IncomingInstance, StorageScp

log = structlog.get_logger()
SOP_CLASS_NOT_SUPPORTED: Final = Answer(0x0122, "no C-STORE or C-ECHO for this SOP class")
UNRECOGNIZED_OPERATION: Final = Answer(0x0211, "only C-STORE and C-ECHO are offered here")


class Ending(Enum):
    """How an association ended."""

    RELEASED = "released"
    ABORTED_BY_PEER = "aborted by the peer"
    ABORTED = "aborted"
    CLOSED = "connection closed by the peer"
    TIMED_OUT = "silent for too long"


@dataclass(frozen=True, slots=True)
class AssociationTerms:
    """What was agreed, and our limits."""

    calling_ae_title: str
    contexts: Mapping[int, AgreedContext]
    peer_limit: int
    """The maximum PDU length that the peer takes; 0 is no limit."""
    timeout_s: float
    most_instance_bytes: int


@dataclass(slots=True)
class _Message:
    """The DIMSE message that is arriving; its data set goes to `instance` or, where there is none, nowhere."""

    context_id: int
    command: Command
    instance: IncomingInstance | None
    data_set_bytes: int = 0


class Association:
    """Serves one established association."""

    def __init__(self, stream: PduStream, scp: StorageScp, terms: AssociationTerms) -> None:
        """Take over a stream on which the A-ASSOCIATE-AC was sent."""
        self.studies: set[str] = set()
        """Study Instance UIDs of the instances taken so far; only ever grows."""
        self.instances = 0
        self._stream = stream
        self._scp = scp
        self._terms = terms
        self._command = bytearray()
        self._command_context = 0
        self._message: _Message | None = None

    def serve(self) -> Ending:
        """Answer messages until the association ends; the connection is left open for the caller to close."""
        try:
            return self._serve()
        except AssociationError as error:
            log.warning("association_aborted", calling_ae_title=self._terms.calling_ae_title, reason=str(error))
            self._abort(error.abort_reason)
            return Ending.ABORTED
        except TimeoutError:
            self._abort(AbortReason.NOT_SPECIFIED)
            return Ending.TIMED_OUT
        except OSError:
            return Ending.CLOSED
        finally:
            if self._message and self._message.instance:
                self._message.instance.abandon()

    def carried_studies(self) -> frozenset[str]:
        """Return the studies that came over this association, with the one that is on its way; from any thread."""
        message = self._message
        coming = message.instance.carried_study() if message and message.instance else None
        return frozenset(self.studies) | ({coming} if coming else frozenset())

    def _serve(self) -> Ending:
        timeout_s = self._terms.timeout_s
        while (pdu := self._stream.read(idle_s=timeout_s, whole_s=timeout_s)) is not None:
            if pdu.type is PduType.P_DATA:
                self._take(pdu)
            elif pdu.type is PduType.RELEASE_RQ:
                self._stream.write(encode_release_response(), within_s=timeout_s)
                return Ending.RELEASED
            elif pdu.type is PduType.ABORT:
                return Ending.ABORTED_BY_PEER
            else:
                raise AssociationError(
                    f"{pdu.type.name} inside an association", abort_reason=AbortReason.UNEXPECTED_PDU
                )
        return Ending.CLOSED

    def _take(self, pdu: Pdu) -> None:
        for pdv in split_pdvs(pdu.body):
            if pdv.is_command:
                self._take_command(pdv)
            else:
                self._take_data_set(pdv)

    def _take_command(self, pdv: Pdv) -> None:
        if self._message or (self._command and pdv.context_id != self._command_context):
            raise _unexpected("a command inside another message")
        self._command_context = pdv.context_id
        self._command += pdv.fragment
        if len(self._command) > MOST_COMMAND_BYTES:
            raise _unexpected(f"a command set longer than {MOST_COMMAND_BYTES} bytes")
        if pdv.is_last:
            command = parse_command(bytes(self._command))
            self._command.clear()
            self._begin(command, pdv.context_id)

    def _begin(self, command: Command, context_id: int) -> None:
        context = self._terms.contexts.get(context_id)
        if context is None:
            raise _unexpected(f"presentation context {context_id}, which was not accepted")
        is_store = command.field == CommandField.C_STORE_RQ and context.abstract_syntax != VERIFICATION
        instance = self._scp.begin(command, context, self._terms.calling_ae_title) if is_store else None
        self._message = _Message(context_id, command, instance)
        if not command.has_data_set:
            self._end_message()

    def _take_data_set(self, pdv: Pdv) -> None:
        message = self._message
        if message is None or pdv.context_id != message.context_id:
            raise _unexpected("a data set without its command")
        message.data_set_bytes += len(pdv.fragment)
        if message.data_set_bytes > self._terms.most_instance_bytes:
            raise _unexpected(f"a data set longer than listener.max_instance_bytes = {self._terms.most_instance_bytes}")
        if message.instance:
            message.instance.write(pdv.fragment)
        if pdv.is_last:
            self._end_message()

    def _end_message(self) -> None:
        message = self._message
        if message is None or message.command.field == CommandField.C_CANCEL_RQ:
            self._message = None
            return
        started = time.monotonic()
        answer = self._answer(message)
        # Only now: until its study is among `studies` the instance carries it.
        self._message = None
        log.debug("message_answered", status=answer.status, seconds=time.monotonic() - started)
        response = encode_response(message.command, answer.status, answer.comment)
        self._stream.write(
            encode_command_pdus(message.context_id, response, peer_limit=self._terms.peer_limit),
            within_s=self._terms.timeout_s,
        )

    def _answer(self, message: _Message) -> Answer:
        if message.instance:
            answer = message.instance.finish()
            if answer is SUCCESS and message.instance.study_uid:
                self.instances += 1
                # A new set, so that whoever reads on another thread never sees one that changes.
                self.studies = self.studies | {message.instance.study_uid}
            return answer
        is_verification = self._terms.contexts[message.context_id].abstract_syntax == VERIFICATION
        if message.command.field == CommandField.C_ECHO_RQ:
            return SUCCESS if is_verification else SOP_CLASS_NOT_SUPPORTED
        return SOP_CLASS_NOT_SUPPORTED if message.command.field == CommandField.C_STORE_RQ else UNRECOGNIZED_OPERATION

    def _abort(self, reason: int) -> None:
        try:
            self._stream.write(encode_abort(reason), within_s=1.0)
        except OSError:
            return


def _unexpected(what: str) -> AssociationError:
    return AssociationError(what, abort_reason=AbortReason.INVALID_PARAMETER)
