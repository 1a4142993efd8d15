"""The node's errors. Every class says whether trying again can help and which DIMSE status it answers.

    HilumError
    ├── SettingsError            settings refuse to start the node            final
    ├── AssociationError         the peer breaks the upper layer protocol   A-ABORT
    ├── ReceptionError           a C-STORE cannot be accepted
    │   ├── OutOfResources       disk full or I/O error            0xA700     retry
    │   ├── DataSetMismatch      data set is not its SOP class     0xA900     final
    │   ├── NotUnderstood        data set cannot be understood     0xC000     final
    │   └── InstanceConflict     same SOP UID, other content       0xC001     final
    ├── Refusal                  a series or study is not what a model takes  final
    │   └── GeometryRefusal      slices do not make an even volume            final
    ├── DecodingError            pixel data cannot be decoded                 final
    ├── InferenceError
    │   ├── InferenceUnavailable service away, busy or too slow               retry
    │   │   └── InferenceBroken  it ended or fell silent at work on a request  retry, counted
    │   └── InferenceRejected    request, model or answer is wrong            final
    ├── EvidenceRejected         the linter refuses our own result            final
    └── DeliveryError
        ├── DeliveryDelayed      destination away or out of resources         retry
        └── DeliveryRefused      destination refuses the object               final

Messages name the field, the value and the remedy, and never hold patient data: UIDs are the most they carry.
"""

from typing import ClassVar


class HilumError(Exception):
    """Base of all errors that the node raises on purpose."""

    retry: ClassVar[bool] = False


class SettingsError(HilumError):
    """Settings are missing, unknown, of the wrong type or contradict each other."""


class AssociationError(HilumError):
    """The peer breaks the upper layer protocol; the association is aborted with `abort_reason` of PS3.8 9.3.8."""

    def __init__(self, message: str, *, abort_reason: int) -> None:
        """Keep the reason that the A-ABORT PDU states."""
        super().__init__(message)
        self.abort_reason = abort_reason


class ReceptionError(HilumError):
    """A received instance is not accepted; `status` is the C-STORE status of PS3.4 B.2.3."""

    status: ClassVar[int] = 0xC000


class OutOfResources(ReceptionError):
    """The store has no room or cannot write: PS3.4 B.2.3 A7xx."""

    retry = True
    status = 0xA700


class DataSetMismatch(ReceptionError):
    """The data set is not an instance of the SOP class or UID that the command names: PS3.4 B.2.3 A9xx."""

    status = 0xA900


class NotUnderstood(ReceptionError):
    """The data set cannot be understood: PS3.4 B.2.3 Cxxx."""


class InstanceConflict(ReceptionError):
    """The SOP Instance UID is known with other pixels, geometry or rescale, another patient or another study."""

    status = 0xC001


class Refusal(HilumError):
    """A series or study is not what a model takes; the message is the stored reason."""


class GeometryRefusal(Refusal):
    """The slices of a series do not make one evenly spaced volume; the message names the positions."""


class DecodingError(HilumError):
    """Pixel data of an instance cannot be decoded."""


class InferenceError(HilumError):
    """The inference service gave no usable answer."""


class InferenceUnavailable(InferenceError):
    """The service is away, busy or too slow (UNAVAILABLE, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED)."""

    retry = True


class InferenceBroken(InferenceUnavailable):
    """The service was there, took the request, and ended or gave no answer: the request itself may be why."""


class InferenceRejected(InferenceError):
    """The service refuses the request, or its answer is not what the manifest says."""


class EvidenceRejected(HilumError):
    """The linter refuses an evidence set; the message lists the rules that it breaks."""


class DeliveryError(HilumError):
    """An object did not reach a destination; `dimse_status` is the peer's answer where it gave one."""

    def __init__(self, message: str, *, dimse_status: int | None = None) -> None:
        """Keep the peer's status beside the message."""
        super().__init__(message)
        self.dimse_status = dimse_status


class DeliveryDelayed(DeliveryError):
    """The destination is away, rejects transiently or is out of resources; another attempt may succeed."""

    retry = True


class DeliveryRefused(DeliveryError):
    """The destination refuses the object for good."""
