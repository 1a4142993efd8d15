"""Messages, enums and RPCs of protocol buffers as plain values, which two processes can compare."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto


def described(files: Sequence[FileDescriptor]) -> dict[str, Any]:
    """Give {full name: what it is on the wire} of everything in the files."""
    found: dict[str, Any] = {}
    for file in files:
        for message in file.message_types_by_name.values():
            _add_message(message, found)
        for enum in file.enum_types_by_name.values():
            _add_enum(enum, found)
        for service in file.services_by_name.values():
            for method in service.methods:
                types = [method.input_type.full_name, method.output_type.full_name]
                found[method.full_name] = [*types, bool(method.client_streaming), bool(method.server_streaming)]
    return found


def _add_message(message: Descriptor, found: dict[str, Any]) -> None:
    proto = DescriptorProto()
    message.CopyToProto(proto)
    labels = {stated.name: stated.label for stated in proto.field}
    for field in message.fields:
        found[field.full_name] = _field(field, labels[field.name])
    for nested in message.nested_types:
        _add_message(nested, found)
    for enum in message.enum_types:
        _add_enum(enum, found)
    found[message.full_name] = "message"


def _add_enum(enum: EnumDescriptor, found: dict[str, Any]) -> None:
    found[enum.full_name] = {value.name: value.number for value in enum.values}


def _field(field: FieldDescriptor, label: int) -> dict[str, Any]:
    kind = field.message_type or field.enum_type
    return {
        "number": field.number,
        "type": field.type,
        "label": label,
        "of": kind.full_name if kind else "",
        "oneof": field.containing_oneof.name if field.containing_oneof else "",
    }
