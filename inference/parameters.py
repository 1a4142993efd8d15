"""Parameters of requests and tensors: which are read, which are refused by name; others are passed over."""

from collections.abc import Mapping
from dataclasses import dataclass

from inference.errors import RequestRefused
from protos.open_inference_pb2 import InferParameter, ModelInferRequest

REGION, REGION_BYTES, REGION_OFFSET = "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"
_SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")
_SIGNATURE = ("signature", "signature_name")
_SERVED = "serving_default"
_INTEGERS = ("int64_param", "uint64_param")
Parameters = Mapping[str, InferParameter]


@dataclass(frozen=True, slots=True)
class RegionSlice:
    """Bytes of a region that a tensor lies in."""

    region: str
    offset: int
    byte_size: int

    def overlaps(self, other: "RegionSlice") -> bool:
        """Tell whether both share a byte."""
        return (
            self.region == other.region
            and self.offset < other.offset + other.byte_size
            and other.offset < self.offset + self.byte_size
        )


@dataclass(frozen=True, slots=True)
class RequestTerms:
    """How urgent a request is (0: not said; 1: the most) and how long it may take by its own `timeout`."""

    priority: int = 0
    timeout_s: float | None = None


NO_TERMS = RequestTerms()


def region_slice(tensor: str, parameters: Parameters) -> RegionSlice | None:
    """Read where a tensor lies; None where it lies in no region.

    Raises:
        RequestRefused: the region is named without its size, or a parameter is of another kind.
    """
    if REGION not in parameters:
        stray = [name for name in (REGION_BYTES, REGION_OFFSET) if name in parameters]
        if stray:
            raise RequestRefused(f"tensor {tensor!r}: expected {REGION} beside {stray[0]}, got none")
        return None
    stated = parameters[REGION]
    if stated.WhichOneof("parameter_choice") != "string_param" or not stated.string_param:
        raise RequestRefused(f"tensor {tensor!r}: expected a name as string_param in {REGION}, got {_kind(stated)}")
    if REGION_BYTES not in parameters:
        raise RequestRefused(f"tensor {tensor!r}: expected {REGION_BYTES} beside {REGION}, got none")
    where = f"tensor {tensor!r}: "
    offset = _integer(parameters, REGION_OFFSET, where) if REGION_OFFSET in parameters else 0
    return RegionSlice(stated.string_param, offset, _integer(parameters, REGION_BYTES, where))


def request_terms(request: ModelInferRequest) -> RequestTerms:
    """Read `priority` and `timeout` (microseconds); refuse what would change the answer and is not offered.

    Raises:
        RequestRefused: a sequence, a classification, another signature, or a parameter of another kind.
    """
    parameters = request.parameters
    sequence = [name for name in _SEQUENCE if name in parameters] if parameters else []
    if sequence:
        raise RequestRefused(f"parameter {sequence[0]!r}: sequences are not offered, each request stands for itself")
    for output in request.outputs:
        if "classification" in output.parameters:
            raise RequestRefused(f"tensor {output.name!r}: the parameter 'classification' is not offered")
    if not parameters:
        return NO_TERMS
    _refuse_other_signature(parameters)
    priority = _integer(parameters, "priority") if "priority" in parameters else 0
    timeout = _integer(parameters, "timeout") if "timeout" in parameters else 0
    return RequestTerms(priority, timeout / 1e6 if timeout else None)


def _refuse_other_signature(parameters: Parameters) -> None:
    for name in _SIGNATURE:
        if name in parameters and parameters[name].string_param != _SERVED:
            stated = parameters[name].string_param or _kind(parameters[name])
            raise RequestRefused(
                f"parameter {name!r}: expected {_SERVED!r}, the signature that is served, got {stated!r:.80}"
            )


def _integer(parameters: Parameters, name: str, where: str = "") -> int:
    stated = parameters[name]
    kind = stated.WhichOneof("parameter_choice")
    value: int = getattr(stated, kind) if kind in _INTEGERS else -1
    if value < 0:
        raise RequestRefused(
            f"{where}parameter {name!r}: expected an integer of 0 or more as int64_param or uint64_param, "
            f"got {_kind(stated)}"
        )
    return value


def _kind(stated: InferParameter) -> str:
    kind = stated.WhichOneof("parameter_choice")
    if kind is None:
        return "no value"
    return f"{getattr(stated, kind)} as {kind}" if kind in (*_INTEGERS, "bool_param", "double_param") else kind
