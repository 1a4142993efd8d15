"""Command sets of DIMSE messages (PS3.7 6.3, E.1): implicit little endian, group 0000 only."""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from node.dimse.pdu_stream import AbortReason
from node.errors import AssociationError

MOST_COMMAND_BYTES: Final = 1 << 16
NO_DATA_SET: Final = 0x0101
MOST_COMMENT: Final = 64
"""Characters of an Error Comment (0000,0902), VR LO."""
_RESPONSE: Final = 0x8000


class CommandField(IntEnum):
    """Command Field (0000,0100) of the requests that we know."""

    C_STORE_RQ = 0x0001
    C_ECHO_RQ = 0x0030
    C_CANCEL_RQ = 0x0FFF


@dataclass(frozen=True, slots=True)
class Command:
    """A request as its command set states it; absent elements are 0 or empty."""

    field: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    has_data_set: bool


def parse_command(encoded: bytes) -> Command:
    """Read the command set of a request.

    Raises:
        AssociationError: It is no command set.
    """
    elements = dict(_elements(encoded))
    try:
        field = struct.unpack("<H", elements[0x0100])[0]
        data_set_type = struct.unpack("<H", elements[0x0800])[0]
        message_id = struct.unpack("<H", elements.get(0x0110, b"\0\0"))[0]
    except (KeyError, struct.error) as error:
        raise _broken("Command Field, Message ID or Command Data Set Type is absent or malformed") from error
    return Command(
        field=field,
        message_id=message_id,
        sop_class_uid=_uid(elements.get(0x0002, b"")),
        sop_instance_uid=_uid(elements.get(0x1000, b"")),
        has_data_set=data_set_type != NO_DATA_SET,
    )


def encode_response(request: Command, status: int, comment: str = "") -> bytes:
    """Return the command set of the response to `request` (PS3.7 9.3.1.2, 9.3.5.2), without data set.

    Args:
        request: What is answered.
        status: Status (0000,0900).
        comment: Error Comment (0000,0902); cut to 64 characters, other than printable ASCII becomes "?".
    """
    text = "".join(character if " " <= character <= "~" and character != "\\" else "?" for character in comment)
    elements = [
        _text(0x0002, request.sop_class_uid, b"\0"),
        _number(0x0100, (request.field | _RESPONSE) & 0xFFFF),
        _number(0x0120, request.message_id),
        _number(0x0800, NO_DATA_SET),
        _number(0x0900, status),
        _text(0x0902, text[:MOST_COMMENT], b" "),
        _text(0x1000, request.sop_instance_uid, b"\0"),
    ]
    body = b"".join(elements)
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def _elements(encoded: bytes) -> list[tuple[int, bytes]]:
    found = []
    position = 0
    while position < len(encoded):
        if len(encoded) - position < 8:
            raise _broken("it ends inside an element")
        group, element, length = struct.unpack_from("<HHI", encoded, position)
        position += 8
        if group != 0 or length > len(encoded) - position:
            raise _broken(f"element ({group:04x},{element:04x}) of {length} bytes does not belong there")
        found.append((element, encoded[position : position + length]))
        position += length
    return found


def _uid(value: bytes) -> str:
    return value.decode("ascii", errors="replace").rstrip("\0 ")


def _number(element: int, value: int) -> bytes:
    return struct.pack("<HHIH", 0, element, 2, value)


def _text(element: int, value: str, padding: bytes) -> bytes:
    if not value:
        return b""
    encoded = value.encode("ascii", errors="replace")
    encoded += padding * (len(encoded) % 2)
    return struct.pack("<HHI", 0, element, len(encoded)) + encoded


def _broken(why: str) -> AssociationError:
    return AssociationError(f"the command set cannot be read: {why}", abort_reason=AbortReason.INVALID_PARAMETER)
