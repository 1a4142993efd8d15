"""A-ASSOCIATE-RQ in, A-ASSOCIATE-AC out (PS3.8 9.3.2, 9.3.3); pynetdicom reads, negotiates and writes them."""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor

from node.dimse.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.dimse.pdu_stream import AbortReason, Pdu
from node.errors import AssociationError

DICOM_APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
# What pynetdicom's decoders raise on bytes that are no A-ASSOCIATE-RQ; its own length checks are assertions.
_DECODING_ERRORS = (
    *(ValueError, TypeError, LookupError, AttributeError, AssertionError, struct.error, NotImplementedError),
)


@dataclass(frozen=True, slots=True)
class AssociationRequest:
    """What a peer asks for."""

    calling_ae_title: str
    called_ae_title: str
    application_context: str
    protocol_version: int
    peer_limit: int
    """The maximum PDU length that the peer takes; 0 is no limit."""
    primitive: A_ASSOCIATE

    @property
    def contexts(self) -> Sequence[PresentationContext]:
        """The presentation contexts asked for."""
        return list(self.primitive.presentation_context_definition_list)


@dataclass(frozen=True, slots=True)
class AgreedContext:
    """A presentation context as both sides agreed on it."""

    abstract_syntax: str
    transfer_syntax: str


def decode_request(pdu: Pdu) -> AssociationRequest:
    """Read an A-ASSOCIATE-RQ.

    Raises:
        AssociationError: It is malformed, asks for no context, or repeats or empties one.
    """
    request = A_ASSOCIATE_RQ()
    try:
        request.decode(pdu.header + bytes(pdu.body))
        primitive = request.to_primitive()
        contexts = primitive.presentation_context_definition_list
        ids = [context.context_id for context in contexts]
        sound = all(context.abstract_syntax and all(context.transfer_syntax) for context in contexts)
        sound = sound and all(context.transfer_syntax for context in contexts)
        found = AssociationRequest(
            calling_ae_title=str(primitive.calling_ae_title).strip(),
            called_ae_title=str(primitive.called_ae_title).strip(),
            application_context=str(primitive.application_context_name or ""),
            protocol_version=int(request.protocol_version),
            peer_limit=int(primitive.maximum_length_received or 0),
            primitive=primitive,
        )
    except _DECODING_ERRORS as error:
        raise _malformed(f"it cannot be read ({type(error).__name__})") from error
    if not ids or len(set(ids)) != len(ids) or not sound:
        raise _malformed("its presentation contexts are absent, repeated or without a transfer syntax")
    return found


def accept(
    request: AssociationRequest,
    supported: Callable[[Sequence[PresentationContext]], list[PresentationContext]],
    *,
    own_limit: int,
) -> tuple[bytes, Mapping[int, AgreedContext]]:
    """Negotiate the presentation contexts and return the encoded A-ASSOCIATE-AC with what was agreed, by context ID.

    Args:
        request: What the peer asks for.
        supported: Gives our contexts for those asked for; their transfer syntaxes in our order of preference.
        own_limit: The maximum PDU length that we state.
    """
    results, _ = negotiate_as_acceptor(list(request.contexts), supported(request.contexts))
    answer = A_ASSOCIATE()
    answer.application_context_name = UID(DICOM_APPLICATION_CONTEXT)
    answer.calling_ae_title = request.primitive.calling_ae_title
    answer.called_ae_title = request.primitive.called_ae_title
    answer.result = 0
    answer.result_source = 1
    answer.presentation_context_definition_results_list = results
    answer.user_information = [_maximum_length(own_limit), _implementation_class(), _implementation_version()]
    agreed = {
        int(context.context_id or 0): AgreedContext(str(context.abstract_syntax), str(context.transfer_syntax[0]))
        for context in results
        if context.result == 0
    }
    return A_ASSOCIATE_AC(answer).encode(), agreed


def _maximum_length(own_limit: int) -> MaximumLengthNotification:
    item = MaximumLengthNotification()
    item.maximum_length_received = own_limit
    return item


def _implementation_class() -> ImplementationClassUIDNotification:
    item = ImplementationClassUIDNotification()
    item.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    return item


def _implementation_version() -> ImplementationVersionNameNotification:
    item = ImplementationVersionNameNotification()
    item.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return item


def _malformed(why: str) -> AssociationError:
    return AssociationError(f"the A-ASSOCIATE-RQ is malformed: {why}", abort_reason=AbortReason.INVALID_PARAMETER)
