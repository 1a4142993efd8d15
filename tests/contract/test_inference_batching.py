"""Tiles of many clients run together in a real service; each client gets its own answer."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from protos import open_inference_pb2 as messages
from protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from protos.tensors import from_raw
from tests.inference_service import RunningService, running_service
from tests.part_bundles import part_bundles
from tests.waiting import wait_until

CLIENTS, ROUNDS = 32, 40
DATATYPES = {"uint8": "UINT8", "int16": "INT16", "float32": "FP32"}
LONG = 1_000_000.0
"""Turns of the narrow model's loop: minutes."""


@pytest.fixture(scope="module")
def batching_service() -> Iterator[RunningService]:
    with running_service(part_bundles() / "good") as running:
        yield running


@pytest.fixture
def stub(batching_service: RunningService) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(batching_service.unix) as channel:
        yield GRPCInferenceServiceStub(channel)


def request_of(model: str, image: NDArray[Any], priority: int = 0) -> messages.ModelInferRequest:
    request = messages.ModelInferRequest(model_name=model, raw_input_contents=[image.tobytes()])
    request.inputs.add(name="image", datatype=DATATYPES[image.dtype.name], shape=image.shape)
    if priority:
        request.parameters["priority"].int64_param = priority
    return request


def answer_of(response: messages.ModelInferResponse) -> NDArray[Any]:
    stated = response.outputs[0]
    return from_raw(response.raw_output_contents[0], stated.datatype, stated.shape)


def narrow(turns: float) -> messages.ModelInferRequest:
    return request_of("narrow", np.full((1, 256, 256), turns, np.float32))


def test_thirty_two_clients_at_once_all_get_their_own_answers(batching_service: RunningService) -> None:
    together = threading.Barrier(CLIENTS)

    def wrong_answers(client: int) -> int:
        drawn, wrong = np.random.default_rng(client), 0
        address = batching_service.tcp if client % 2 else batching_service.unix
        with grpc.insecure_channel(address, (("grpc.use_local_subchannel_pool", 1),)) as channel:
            ask = GRPCInferenceServiceStub(channel).ModelInfer
            together.wait(60)
            for turn in range(ROUNDS):
                image = drawn.integers(-9999, 9999, (1 + int(drawn.integers(12)), 8, 8), np.int16)
                answer = answer_of(ask(request_of("doubler", image, priority=turn % 3), timeout=120))
                wrong += not np.array_equal(answer, 2 * image)
        return wrong

    with ThreadPoolExecutor(CLIENTS) as pool:
        assert list(pool.map(wrong_answers, range(CLIENTS))) == [0] * CLIENTS
    assert CLIENTS * ROUNDS > 1000


def test_a_neighbour_without_a_finite_answer_fails_alone(stub: GRPCInferenceServiceStub) -> None:
    levels = [0, 40, 80, 0, 120, 160, 200, 240] * 8
    pending = [stub.ModelInfer.future(request_of("classifier", np.full((8, 8, 3), of, np.uint8))) for of in levels]
    for level, answer in zip(levels, pending, strict=True):
        if level:
            assert answer_of(answer.result(120))[:3] == pytest.approx(level / 255, rel=1e-5)
        else:
            assert answer.exception(120).code() is grpc.StatusCode.INTERNAL
            assert "NaN or infinity" in answer.exception().details()


def test_a_run_ends_with_its_deadline_and_the_next_is_answered(stub: GRPCInferenceServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as late:
        stub.ModelInfer(narrow(LONG), timeout=0.5)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert answer_of(stub.ModelInfer(narrow(1.0), timeout=60)).tolist() == [1.0]


def test_past_its_queue_a_model_is_busy_and_then_answers_again(stub: GRPCInferenceServiceStub) -> None:
    slow = [stub.ModelInfer.future(narrow(LONG)) for _ in range(9)]
    wait_until(lambda: sum(call.done() for call in slow) >= 6, timeout_s=60, what="refusals")
    refusals = [call for call in slow if call.done()]
    assert {call.code() for call in refusals} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert all("of 2 tiles" in call.details() for call in refusals)
    for call in slow:
        call.cancel()
    assert answer_of(stub.ModelInfer(narrow(1.0), timeout=60)).tolist() == [1.0]


def test_the_statistics_count_runs_of_the_network(stub: GRPCInferenceServiceStub) -> None:
    def figures() -> tuple[int, int, set[int]]:
        found = stub.ModelStatistics(messages.ModelStatisticsRequest(name="doubler")).model_stats[0]
        return found.inference_count, found.execution_count, {item.batch_size for item in found.batch_stats}

    requests, runs, _ = figures()
    for slices in (5, 5, 19):
        stub.ModelInfer(request_of("doubler", np.ones((slices, 8, 8), np.int16)), timeout=60)
    requests_after, runs_after, sizes = figures()
    assert (requests_after - requests, runs_after - runs) == (3, 1 + 1 + 3)
    assert {5, 8} <= sizes <= set(range(1, 9))
