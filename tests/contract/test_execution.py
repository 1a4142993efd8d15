"""What a request that nobody waits for leaves behind at a running service: nothing, and its place at once."""

from collections.abc import Iterator

import grpc
import pytest

from node.inference_client.requests import build_request
from protos.open_inference_pb2 import ModelInferRequest, ModelStatisticsRequest
from protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.inference_service import running_service, volume_of
from tests.odd_bundles import SLOW, odd_bundles
from tests.waiting import wait_until

np = pytest.importorskip("numpy")
HALF_A_MINUTE = 32_000
"""Milliseconds at least: the model turns once for each unit of the highest stored value."""


@pytest.fixture(scope="module")
def stub() -> Iterator[GRPCInferenceServiceStub]:
    """Reach a service with one place and no queue, so that a taken place shows as RESOURCE_EXHAUSTED."""
    options = ("--queue", "0", "--model", "slow")
    with running_service(odd_bundles() / "good", *options) as service, grpc.insecure_channel(service.unix) as channel:
        yield GRPCInferenceServiceStub(channel)


def turning(turns: int) -> ModelInferRequest:
    return build_request(SLOW, volume_of(np.full((2, 4, 4), turns, np.int16)), "11111111-2222-3333-4444-555555555555")


def is_answered(stub: GRPCInferenceServiceStub) -> bool:
    try:
        return bool(stub.ModelInfer(turning(1), timeout=20).outputs)
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return False


def slow_request_at_work(stub: GRPCInferenceServiceStub, timeout_s: float) -> grpc.Future:
    """Send the slow request until it is seen to hold the place; a busy machine gets it with a longer deadline."""
    for _ in range(12):
        slow = stub.ModelInfer.future(turning(HALF_A_MINUTE), timeout=timeout_s)
        wait_until(lambda slow=slow: slow.done() or not is_answered(stub), what="the slow request's turn")
        if not slow.done():
            return slow
        # The one that looked had the place first, or the deadline passed before anyone looked.
        assert slow.code() in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}, slow.details()
        timeout_s *= 2 if slow.code() is grpc.StatusCode.DEADLINE_EXCEEDED else 1
        wait_until(lambda: is_answered(stub), what="the free place")
    raise AssertionError("the slow request was never seen at work")


def failures(stub: GRPCInferenceServiceStub) -> int:
    model = stub.ModelStatistics(ModelStatisticsRequest(name="slow")).model_stats[0]
    return int(model.inference_stats.fail.count)


def test_a_cancelled_request_gives_its_place_back(stub: GRPCInferenceServiceStub) -> None:
    slow = slow_request_at_work(stub, timeout_s=120)
    before = failures(stub)
    slow.cancel()
    wait_until(lambda: is_answered(stub), timeout_s=20, what="the place of the cancelled request")
    assert slow.code() == grpc.StatusCode.CANCELLED
    assert failures(stub) > before


def test_a_passed_deadline_gives_the_place_back(stub: GRPCInferenceServiceStub) -> None:
    slow = slow_request_at_work(stub, timeout_s=3)
    assert slow.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: is_answered(stub), timeout_s=20, what="the place of the request that ran out of time")


def test_a_requests_own_timeout_is_answered_by_the_service(stub: GRPCInferenceServiceStub) -> None:
    request = turning(HALF_A_MINUTE)
    request.parameters["timeout"].int64_param = 500_000
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request, timeout=60)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "the deadline passed before the answer was there" in caught.value.details()
    wait_until(lambda: is_answered(stub), timeout_s=20, what="the place of the request that ran out of time")
