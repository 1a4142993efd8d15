"""The service under its operator: metrics, health beside a full service, and an end that loses no request."""

import shutil
import signal
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from node.inference_client.requests import build_request
from protos.open_inference_pb2 import ModelInferRequest, ModelStreamInferResponse, ServerLiveRequest
from protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.inference_service import running_service, volume_of
from tests.odd_bundles import SLOW, odd_bundles
from tests.waiting import wait_until

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def turning(turns: int) -> ModelInferRequest:
    """Ask the slow model for about so many milliseconds of work."""
    return build_request(SLOW, volume_of(np.full((2, 4, 4), turns, np.int16)), "11111111-2222-3333-4444-555555555555")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    shutil.copytree(odd_bundles() / "good" / "slow", tmp_path / "models" / "slow")
    return tmp_path / "models"


def scraped(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as answer:
        return str(answer.read().decode())


def test_metrics_count_what_a_real_service_answered_and_hold_no_clients_words(models: Path) -> None:
    with running_service(models, "--metrics", "127.0.0.1:0") as service, grpc.insecure_channel(service.tcp) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for _ in range(3):
            stub.ModelInfer(turning(1), timeout=30)
        refused = turning(1)
        refused.model_name = "words_of_a_client"
        with pytest.raises(grpc.RpcError):
            stub.ModelInfer(refused, timeout=30)
        text = scraped(service.ready["metrics"])
    assert 'hilum_requests_total{model="slow",outcome="success",version="1"} 3.0' in text
    assert 'hilum_model_state{model="slow",state="READY",version="1"} 1.0' in text
    assert 'hilum_batch_size_count{model="slow",version="1"} 3.0' in text
    assert "words_of_a_client" not in text


def test_health_answers_while_every_place_is_taken(models: Path) -> None:
    with running_service(models, "--queue", "1") as service, grpc.insecure_channel(service.tcp) as channel:
        stub, health = GRPCInferenceServiceStub(channel), health_pb2_grpc.HealthStub(channel)
        asked = [stub.ModelInfer.future(turning(30_000), timeout=120) for _ in range(120)]
        wait_until(lambda: any(one.done() for one in asked), timeout_s=30, what="the first refusal")
        for name in ("", "slow", "inference.GRPCInferenceService"):
            assert health.Check(health_pb2.HealthCheckRequest(service=name), timeout=20).status == SERVING
        assert stub.ServerLive(ServerLiveRequest(), timeout=20).live
        with pytest.raises(grpc.RpcError) as unknown:
            health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=20)
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        for one in asked:
            one.cancel()


def test_sigterm_under_load_answers_or_refuses_every_request(models: Path) -> None:
    answered: SimpleQueue[bool] = SimpleQueue()

    def ask_until_refused(address: str) -> grpc.StatusCode:
        with grpc.insecure_channel(address) as channel:
            stub = GRPCInferenceServiceStub(channel)
            while True:
                try:
                    assert stub.ModelInfer(turning(50), timeout=60).outputs
                except grpc.RpcError as error:
                    return error.code()
                answered.put(item=True)

    options = ("--queue", "8", "--grace-s", "30")
    with running_service(models, *options) as service, ThreadPoolExecutor(4) as pool:
        clients: list[Future[grpc.StatusCode]] = [pool.submit(ask_until_refused, service.tcp) for _ in range(4)]
        for _ in range(4):
            assert answered.get(timeout=60)
        service.process.send_signal(signal.SIGTERM)
        assert [client.result(60) for client in clients] == [grpc.StatusCode.UNAVAILABLE] * 4
        assert service.process.wait(40) == 0
    assert not service.ready_file.exists()


def test_while_it_drains_health_says_so_and_a_stream_ends_after_its_request(models: Path) -> None:
    asked: SimpleQueue[ModelInferRequest | None] = SimpleQueue()

    def requests() -> Iterator[ModelInferRequest]:
        while (request := asked.get()) is not None:
            yield request

    options = ("--grace-s", "60", "--concurrency", "2")
    with running_service(models, *options) as service, grpc.insecure_channel(service.tcp) as channel:
        stub, health = GRPCInferenceServiceStub(channel), health_pb2_grpc.HealthStub(channel)
        answers: Iterator[ModelStreamInferResponse] = stub.ModelStreamInfer(requests(), timeout=120)
        asked.put(turning(1))
        assert not next(answers).error_message
        busy = stub.ModelInfer.future(turning(6000), timeout=120)
        assert stub.ModelInfer(turning(1), timeout=60).outputs  # came after the busy one, so that one was taken
        service.process.send_signal(signal.SIGTERM)
        check = health_pb2.HealthCheckRequest(service="")
        wait_until(lambda: health.Check(check, timeout=20).status == NOT_SERVING, timeout_s=20, what="the drain")
        with pytest.raises(grpc.RpcError) as ended:
            next(answers)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(turning(1), timeout=20)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        asked.put(None)
        assert busy.result().outputs
        assert service.process.wait(60) == 0
