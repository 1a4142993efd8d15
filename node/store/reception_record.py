"""File meta of a stored instance (PS3.10 7.1), with a record of its reception in the private part.

The record lies in Private Information (0002,0102), the last element of the meta, so that a file tells by itself
what the index needs to know of it. It has a fixed length and is filled in when the data set is complete.
"""

import json
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass

from node.dimse.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.domain.instances import SopReference

RECORD_BYTES = 768
PREAMBLE = b"\0" * 128 + b"DICM"
PRIVATE_INFORMATION_CREATOR_UID = "2.25.144284180233712391871037842406150632401"
_GROUP_LENGTH_END = len(PREAMBLE) + 12
_LONGEST_META = 4096


@dataclass(frozen=True, slots=True)
class ReceptionRecord:
    """What a stored file says of its own reception."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    transfer_syntax: str
    calling_ae_title: str
    data_set_digest: str
    received_at: str
    """ISO 8601 with zone."""
    derived: bool

    def encoded(self) -> bytes:
        """Return the record as JSON, padded with spaces to RECORD_BYTES."""
        return json.dumps(asdict(self), separators=(",", ":")).encode().ljust(RECORD_BYTES)


def file_meta(sop: SopReference, transfer_syntax: str, calling_ae_title: str) -> bytes:
    """Return preamble, prefix and file meta with room for the record as its last RECORD_BYTES bytes."""
    body = b"".join(
        (
            struct.pack("<HH2s2xI", 2, 0x0001, b"OB", 2) + b"\0\1",
            _short(0x0002, b"UI", sop.sop_class_uid, b"\0"),
            _short(0x0003, b"UI", sop.sop_instance_uid, b"\0"),
            _short(0x0010, b"UI", transfer_syntax, b"\0"),
            _short(0x0012, b"UI", IMPLEMENTATION_CLASS_UID, b"\0"),
            _short(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME, b" "),
            _short(0x0017, b"AE", calling_ae_title, b" "),
            _short(0x0100, b"UI", PRIVATE_INFORMATION_CREATOR_UID, b"\0"),
            struct.pack("<HH2s2xI", 2, 0x0102, b"OB", RECORD_BYTES) + b" " * RECORD_BYTES,
        )
    )
    return PREAMBLE + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(body)) + body


def read_record(read: Callable[[int], bytes]) -> ReceptionRecord | None:
    """Read the record from the start of a file.

    Args:
        read: `read(n)` of a file at its beginning.

    Returns:
        The record, or None where the file is not one that the store published.
    """
    head = read(_GROUP_LENGTH_END)
    if len(head) < _GROUP_LENGTH_END or not head.startswith(PREAMBLE):
        return None
    length = struct.unpack_from("<I", head, _GROUP_LENGTH_END - 4)[0]
    if not RECORD_BYTES < length <= _LONGEST_META:
        return None
    try:
        return ReceptionRecord(**json.loads(read(length)[-RECORD_BYTES:]))
    except (ValueError, TypeError):
        return None


def _short(element: int, vr: bytes, value: str, padding: bytes) -> bytes:
    encoded = value.encode("ascii")
    encoded += padding * (len(encoded) % 2)
    return struct.pack("<HH2sH", 2, element, vr, len(encoded)) + encoded
