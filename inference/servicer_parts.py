"""What the servicer is made of: the parts behind it, and how a gRPC context becomes a call."""

import time
from dataclasses import dataclass, field, replace

import grpc

from inference.admission import Admission
from inference.call import Call, call_of
from inference.parameters import NO_TERMS, RequestTerms
from inference.ports import Models, Regions, Registrations
from inference.security import client_of
from inference.statistics import Statistics
from protos.open_inference_pb2_grpc import GRPCInferenceServiceServicer


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that answers; `model_control` lets clients load models, `has_regions` states regions as offered."""

    models: Models
    admission: Admission
    regions: Regions
    registrations: Registrations
    statistics: Statistics = field(default_factory=Statistics)
    model_control: bool = False
    has_regions: bool = False
    gpus: tuple[int, ...] = ()


class PartedServicer(GRPCInferenceServiceServicer):
    """Holds the parts for the groups of RPCs that make up the service."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts


def caller(context: grpc.ServicerContext) -> Call:
    """Make the call of an RPC, named after its client."""
    return call_of(context, client_of(context))


def on_terms(call: Call, terms: RequestTerms) -> Call:
    """Give the call the priority of one request, and its timeout where that ends before the deadline."""
    if terms == NO_TERMS:
        return call
    deadline = call.deadline
    if terms.timeout_s is not None:
        own = time.monotonic() + terms.timeout_s
        deadline = own if deadline is None else min(own, deadline)
    return replace(call, priority=terms.priority, deadline=deadline)
