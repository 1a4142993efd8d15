"""C-STORE as SCU (PS3.4 B): objects of evidence from the outbox to a destination.

Explicit and Implicit VR Little Endian are offered for every object (PS3.5 10.1) beside the file's own transfer
syntax. Where the peer takes the file's, the bytes go out as they lie; else the object is re-encoded in flight. The
file itself never changes, and its digest is checked before it leaves.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import _config
from pynetdicom.presentation import PresentationContext, build_context

from node.delivery.answers import SendResult, answer_text, outcome_of, printable
from node.delivery.association import MAX_CONTEXTS, Line, open_line, peer_text
from node.domain.evidence import EvidenceObject
from node.errors import DeliveryDelayed, DeliveryError, DeliveryRefused
from node.settings import Destination

# send_c_store(path) then streams the file's own bytes instead of decoding and encoding them.
_config.STORE_SEND_CHUNKED_DATASET = True

SLOWEST_BYTES_PER_S = 1 << 18
"""A peer that takes fewer bytes per second is treated as silent."""
_BROKEN_ASSOCIATIONS = 3
_PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)

Item = tuple[EvidenceObject, Path]
OnResult = Callable[[SendResult], None]


def send_objects(destination: Destination, calling_ae_title: str, objects: Sequence[Item], on_result: OnResult) -> None:
    """Send each object once; tell `on_result` of each as soon as its outcome is known, exactly once.

    A set that needs more than 128 presentation contexts goes out in several associations. An object on which the
    association breaks does not keep the ones behind it from their own attempt, until three have broken.
    """
    for batch in _batches(objects):
        left: Sequence[Item] = batch
        for _ in range(_BROKEN_ASSOCIATIONS):
            left = _send_batch(destination, calling_ae_title, left, on_result)
            if not left:
                break
        for item, _path in left:
            text = f"{peer_text(destination)} broke {_BROKEN_ASSOCIATIONS} associations in a row"
            on_result(SendResult(item.sop.sop_instance_uid, "DELAYED", None, text))


def contexts_for(objects: Sequence[Item]) -> tuple[PresentationContext, ...]:
    """Return one presentation context per SOP class and transfer syntax, the file's own syntax first."""
    pairs: dict[tuple[str, str], None] = {}
    for item, _path in objects:
        pairs.update(dict.fromkeys(_pairs(item)))
    return tuple(build_context(sop_class, syntax) for sop_class, syntax in pairs)


def _pairs(item: EvidenceObject) -> tuple[tuple[str, str], ...]:
    syntaxes = dict.fromkeys((item.transfer_syntax, *_PLAIN))
    return tuple((item.sop.sop_class_uid, str(syntax)) for syntax in syntaxes)


def _batches(objects: Sequence[Item]) -> Iterator[list[Item]]:
    batch: list[Item] = []
    pairs: set[tuple[str, str]] = set()
    for entry in objects:
        wanted = pairs | set(_pairs(entry[0]))
        if len(wanted) > MAX_CONTEXTS:
            yield batch
            batch, wanted = [], set(_pairs(entry[0]))
        batch.append(entry)
        pairs = wanted
    if batch:
        yield batch


def _send_batch(
    destination: Destination, calling_ae_title: str, objects: Sequence[Item], on_result: OnResult
) -> Sequence[Item]:
    """Send within one association; return what is left because it broke."""
    try:
        with open_line(destination, calling_ae_title, contexts_for(objects)) as line:
            for number, (item, path) in enumerate(objects):
                if not line.usable:
                    return objects[number:]
                on_result(_send(line, destination, item, path, number + 1))
    except DeliveryError as error:
        for item, _path in objects:
            on_result(_without_answer(item, error))
    return ()


def _send(line: Line, destination: Destination, item: EvidenceObject, path: Path, number: int) -> SendResult:
    peer = peer_text(destination)
    try:
        content = _to_send(line, item, path, peer)
        answer = _store(line, content, peer, timeout_s=_time_for(destination, path), message_id=number & 0xFFFF)
    except DeliveryError as error:
        return _without_answer(item, error)
    status, said = answer.Status, printable(str(answer.get("ErrorComment", "")))
    return SendResult(item.sop.sop_instance_uid, outcome_of(status)[0], status, answer_text(peer, status), said)


def _without_answer(item: EvidenceObject, error: DeliveryError) -> SendResult:
    return SendResult(item.sop.sop_instance_uid, "DELAYED" if error.retry else "REFUSED", None, str(error))


def _to_send(line: Line, item: EvidenceObject, path: Path, peer: str) -> Path | Dataset:
    """Return the file where its bytes can go out as they lie, else its data set to be encoded anew."""
    _check_digest(item, path)
    accepted = {
        context.transfer_syntax[0]
        for context in line.association.accepted_contexts
        if context.abstract_syntax == item.sop.sop_class_uid
    }
    sop_class = UID(item.sop.sop_class_uid).name
    if not accepted:
        raise DeliveryRefused(f"{peer} accepts no presentation context for {sop_class}; allow it there, then retry")
    if item.transfer_syntax in accepted:
        return path
    if UID(item.transfer_syntax).is_compressed:
        raise DeliveryRefused(f"{peer} does not take {UID(item.transfer_syntax).name}, and pixels are not recompressed")
    return dcmread(path)


def _check_digest(item: EvidenceObject, path: Path) -> None:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise DeliveryRefused(f"{path.name} is gone from the outbox; restore it, then retry") from error
    except OSError as error:
        raise DeliveryDelayed(f"{path.name} in the outbox cannot be read: {error.strerror}") from error
    if digest != item.file_digest:
        raise DeliveryRefused(f"{path.name} in the outbox is not what was made (SHA-256 differs); it was not sent")


def _store(line: Line, content: Path | Dataset, peer: str, *, timeout_s: float, message_id: int) -> Dataset:
    begun = time.monotonic()
    try:
        with line.within(timeout_s):
            answer = line.association.send_c_store(content, msg_id=message_id)
    except RuntimeError as error:
        line.broken = True
        raise DeliveryDelayed(f"{peer} ended the association before the object went out") from error
    except ValueError as error:
        raise DeliveryRefused(f"{peer}: the object cannot be encoded in the transfer syntax it takes") from error
    if "Status" in answer:
        return answer
    line.broken = True
    if time.monotonic() - begun >= timeout_s:
        raise DeliveryDelayed(f"{peer} gave no answer within {timeout_s:g} s; whether it stored the object is unknown")
    raise DeliveryDelayed(f"{peer} aborted or closed before it answered; whether it stored the object is unknown")


def _time_for(destination: Destination, path: Path) -> float:
    return round(destination.timeout_s + path.stat().st_size / SLOWEST_BYTES_PER_S, 1)
