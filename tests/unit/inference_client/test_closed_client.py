"""A client that was closed counts as a service that is away: the work waits for the node's next start."""

import pytest

from node.errors import InferenceUnavailable
from node.inference_client.client import InferenceClient
from node.settings import InferenceSettings
from protos import open_inference_pb2 as messages


@pytest.fixture
def client() -> InferenceClient:
    return InferenceClient(InferenceSettings(endpoint="127.0.0.1:1"))


def test_a_call_after_the_close_is_unavailable(client: InferenceClient) -> None:
    client.close()
    with pytest.raises(InferenceUnavailable, match="closed"):
        client.endpoints[0].call(client.endpoints[0].stub.ModelInfer, messages.ModelInferRequest(), timeout_s=1)
    with pytest.raises(InferenceUnavailable):
        client.wait_ready("lung_nodule", "1", timeout_s=0.1)


def test_a_close_between_the_look_and_the_call_is_unavailable(client: InferenceClient) -> None:
    def method(_request: object, *, timeout: float) -> None:
        client.close()
        client.endpoints[0].stub.ServerLive(messages.ServerLiveRequest(), timeout=timeout)

    with pytest.raises(InferenceUnavailable, match="closed"):
        client.endpoints[0].call(method, messages.ServerLiveRequest(), timeout_s=1)


def test_health_of_a_closed_client_is_unreachable(client: InferenceClient) -> None:
    client.close()
    health = client.health()
    assert health.status == "unreachable"
    assert "closed" in health.detail


def test_another_value_error_is_not_taken_for_the_close(client: InferenceClient) -> None:
    def method(_request: object, **_options: float) -> None:
        raise ValueError("a mistake of ours")

    with pytest.raises(ValueError, match="a mistake of ours"):
        client.endpoints[0].call(method, messages.ServerLiveRequest(), timeout_s=1)
    client.close()
