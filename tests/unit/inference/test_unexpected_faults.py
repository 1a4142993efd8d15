"""An exception that nobody foresaw, behind a real gRPC server: it must answer INTERNAL and tell nothing."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Never

import grpc
import pytest
from structlog.testing import capture_logs

from inference.admission import Admission
from inference.error_interceptor import ErrorInterceptor
from inference.regions.registered import RegisteredRegions
from inference.servicer import InferenceServicer
from inference.servicer_parts import Parts
from protos import open_inference_pb2 as messages
from protos.open_inference_pb2_grpc import GRPCInferenceServiceStub, add_GRPCInferenceServiceServicer_to_server

QUOTED = "Doe^Jane 41.5"
BLAND = "the service failed over this request; its log says where"


class BrokenModels:
    """A repository with a fault that quotes the request."""

    is_ready = True

    def lease(self, *_: Any) -> Never:
        raise ZeroDivisionError(QUOTED)

    def index(self) -> Never:
        raise KeyError(QUOTED)

    versions = load = unload = lease


@pytest.fixture
def stub() -> Iterator[GRPCInferenceServiceStub]:
    server = grpc.server(ThreadPoolExecutor(2), interceptors=[ErrorInterceptor()])
    regions = RegisteredRegions()
    parts = Parts(BrokenModels(), Admission(1, 1), regions, regions)
    add_GRPCInferenceServiceServicer_to_server(InferenceServicer(parts), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield GRPCInferenceServiceStub(channel)
    finally:
        server.stop(0).wait()


@pytest.mark.parametrize("rpc", ["ModelInfer", "ModelReady", "ModelMetadata", "ModelConfig", "RepositoryIndex"])
def test_an_unforeseen_exception_is_internal_and_tells_nothing(stub: GRPCInferenceServiceStub, rpc: str) -> None:
    with capture_logs() as logged, pytest.raises(grpc.RpcError) as refusal:
        getattr(stub, rpc)(getattr(messages, f"{rpc}Request")(), timeout=30)
    assert (refusal.value.code(), refusal.value.details()) == (grpc.StatusCode.INTERNAL, BLAND)
    (entry,) = (item for item in logged if item["event"] == "request_failed")
    assert QUOTED not in str(logged)
    assert entry["error"] in ("ZeroDivisionError", "KeyError")
    assert "test_unexpected_faults.py" in str(entry["trace"])


def test_a_stream_outlives_an_unforeseen_exception(stub: GRPCInferenceServiceStub) -> None:
    requests = iter([messages.ModelInferRequest(id="a"), messages.ModelInferRequest(id="b")])
    answers = list(stub.ModelStreamInfer(requests, timeout=30))
    assert [(answer.error_message, answer.infer_response.id) for answer in answers] == [(BLAND, "a"), (BLAND, "b")]
