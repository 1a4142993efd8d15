"""Requests that try the inference service: one that is right, and ways to make it wrong."""

from collections.abc import Callable
from typing import Any

from node.inference_client.requests import build_request
from protos.open_inference_pb2 import ModelInferRequest
from tests.bundles import threshold_manifest
from tests.inference_service import bright_volume

Change = Callable[[ModelInferRequest], object]


def right_request(**fields: Any) -> ModelInferRequest:
    """Ask the threshold model for a volume of 4 x 32 x 32."""
    request = build_request(threshold_manifest(), bright_volume(), "11111111-2222-3333-4444-555555555555")
    request.MergeFrom(ModelInferRequest(**fields))
    return request


def changed(change: Change) -> ModelInferRequest:
    request = right_request()
    change(request)
    return request


def _set(place: str, value: Any, index: int = 0) -> Change:
    return lambda request: setattr(request.inputs[index], place, value)


def _shape(*sizes: int, index: int = 0) -> Change:
    def change(request: ModelInferRequest) -> None:
        del request.inputs[index].shape[:]
        request.inputs[index].shape.extend(sizes)

    return change


def _raw(content: bytes, index: int = 0) -> Change:
    def change(request: ModelInferRequest) -> None:
        request.raw_input_contents[index] = content

    return change


def _twice(request: ModelInferRequest) -> None:
    request.inputs[1].CopyFrom(request.inputs[0])


def _fewer_slopes(request: ModelInferRequest) -> None:
    _shape(3, index=1)(request)
    _raw(b"\0" * 12, index=1)(request)


def _into_region(request: ModelInferRequest, byte_size: int) -> None:
    request.inputs[0].parameters["shared_memory_region"].string_param = "nobodys"
    request.inputs[0].parameters["shared_memory_byte_size"].int64_param = byte_size
    request.raw_input_contents.pop(0)


NAN, INFINITY = b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f"
# name: (change, status, parts of the message)
WRONG: dict[str, tuple[Change, str, tuple[str, ...]]] = {
    "unknown model": (
        lambda r: setattr(r, "model_name", "nobody"),
        "NOT_FOUND",
        ("expected one of", "bright_regions", "got 'nobody'"),
    ),
    "no model named": (lambda r: setattr(r, "model_name", ""), "NOT_FOUND", ("got ''",)),
    "unknown version": (
        lambda r: setattr(r, "model_version", "7"),
        "NOT_FOUND",
        ("'bright_regions'", "expected a version of ['1']", "got '7'"),
    ),
    "version that is no number": (lambda r: setattr(r, "model_version", "../1"), "NOT_FOUND", ("got '../1'",)),
    "unknown input": (_set("name", "picture"), "INVALID_ARGUMENT", ("expected ['image'", "'picture'")),
    "missing input": (
        lambda r: (r.inputs.pop(), r.raw_input_contents.pop()),
        "INVALID_ARGUMENT",
        ("expected ['image', 'intercept', 'slope', 'spacing']", "got ['image', 'intercept', 'slope']"),
    ),
    "input given twice": (_twice, "INVALID_ARGUMENT", ("got ['image', 'image'",)),
    "unknown output": (
        lambda r: r.outputs.add(name="heat"),
        "INVALID_ARGUMENT",
        ("'heat'", "expected an output of ['probability']"),
    ),
    "other datatype": (
        _set("datatype", "FP32"),
        "INVALID_ARGUMENT",
        ("'image'", "expected INT16 [-1, -1, -1]", "got FP32 [4, 32, 32]"),
    ),
    "unknown datatype": (_set("datatype", "COMPLEX"), "INVALID_ARGUMENT", ("expected INT16", "got COMPLEX")),
    "other rank": (_shape(4, 1024), "INVALID_ARGUMENT", ("'image'", "got INT16 [4, 1024]")),
    "other size of a fixed dimension": (
        _shape(4, index=3),
        "INVALID_ARGUMENT",
        ("'spacing'", "expected FP32 [3]", "got FP32 [4]"),
    ),
    "negative dimension": (_shape(-4, 32, -32), "INVALID_ARGUMENT", ("'image'", "got shape [-4, 32, -32]")),
    "dimensions that overflow": (
        _shape(1 << 40, 1 << 40, 1 << 40),
        "INVALID_ARGUMENT",
        ("'image'", "got 8192 bytes"),
    ),
    "too few bytes": (
        _raw(b"\0" * 8190),
        "INVALID_ARGUMENT",
        ("'image'", "expected 8192 bytes", "got 8190 bytes"),
    ),
    "too many bytes": (_raw(b"\0" * 8193), "INVALID_ARGUMENT", ("expected 8192 bytes", "got 8193 bytes")),
    "no bytes": (_raw(b""), "INVALID_ARGUMENT", ("expected 8192 bytes", "got 0 bytes")),
    "typed contents": (
        lambda r: r.inputs[0].contents.int_contents.append(1),
        "INVALID_ARGUMENT",
        ("'image'", "expected typed contents for every input or for none", "got raw_input_contents too"),
    ),
    "fewer raw contents than inputs": (
        lambda r: r.raw_input_contents.pop(),
        "INVALID_ARGUMENT",
        ("raw_input_contents", "expected 4", "got 3"),
    ),
    "region without its size": (
        lambda r: setattr(r.inputs[0].parameters["shared_memory_region"], "string_param", "x"),
        "INVALID_ARGUMENT",
        ("'image'", "expected shared_memory_byte_size"),
    ),
    "output given twice": (
        lambda r: r.outputs.extend([r.InferRequestedOutputTensor(name="probability")] * 2),
        "INVALID_ARGUMENT",
        ("'probability'", "expected each output once"),
    ),
    "classification asked for": (
        lambda r: setattr(r.outputs.add(name="probability").parameters["classification"], "int64_param", 3),
        "INVALID_ARGUMENT",
        ("'probability'", "'classification' is not offered"),
    ),
    "sequence": (
        lambda r: setattr(r.parameters["sequence_id"], "int64_param", 3),
        "INVALID_ARGUMENT",
        ("'sequence_id'", "not offered"),
    ),
    "priority below zero": (
        lambda r: setattr(r.parameters["priority"], "int64_param", -1),
        "INVALID_ARGUMENT",
        ("'priority'", "expected an integer of 0 or more", "got -1"),
    ),
    "another signature": (
        lambda r: setattr(r.parameters["signature_name"], "string_param", "explain"),
        "INVALID_ARGUMENT",
        ("'signature_name'", "expected 'serving_default'", "got 'explain'"),
    ),
    "datatype BF16": (_set("datatype", "BF16"), "INVALID_ARGUMENT", ("expected INT16", "got BF16")),
    "datatype BYTES": (_set("datatype", "BYTES"), "INVALID_ARGUMENT", ("expected INT16", "got BYTES")),
    "region of another client, or of none": (
        lambda r: _into_region(r, 8192),
        "NOT_FOUND",
        ("region", "this client has none of that name"),
    ),
    "region slice of another size": (
        lambda r: _into_region(r, 8190),
        "INVALID_ARGUMENT",
        ("'image'", "expected shared_memory_byte_size 8192", "got 8190"),
    ),
    "NaN in": (_raw(NAN * 4, index=1), "INVALID_ARGUMENT", ("'slope'", "expected finite values")),
    "infinity in": (_raw(INFINITY * 3, index=3), "INVALID_ARGUMENT", ("'spacing'", "expected finite values")),
    "one slope too few": (_fewer_slopes, "INVALID_ARGUMENT", ("'slope'", "expected 4 values", "got 3")),
    "more memory than the machine has": (
        lambda r: setattr(r, "model_name", "hungry"),
        "FAILED_PRECONDITION",
        ("MiB by the model's manifest", "in all"),
    ),
}
