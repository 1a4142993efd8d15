import grpc
import pytest

from node.errors import InferenceBroken, InferenceRejected, InferenceUnavailable
from node.inference_client.statuses import error_of


class Call(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: str | None = "why") -> None:
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details


@pytest.mark.parametrize("name", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "CANCELLED"])
def test_what_may_pass_is_tried_again(name: str) -> None:
    error = error_of(Call(grpc.StatusCode[name]), "host:1")
    assert type(error) is InferenceUnavailable
    assert error.retry
    assert str(error) == f"inference service host:1: {name}: why"


@pytest.mark.parametrize(
    "name",
    ["INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "INTERNAL", "UNKNOWN", "UNIMPLEMENTED", "DATA_LOSS"],
)
def test_what_stays_wrong_is_final(name: str) -> None:
    error = error_of(Call(grpc.StatusCode[name], None), "host:1")
    assert type(error) is InferenceRejected
    assert not error.retry


@pytest.mark.parametrize("side", ["SERVER: Received", "CLIENT: Sent"])
def test_a_message_over_a_limit_is_final_and_names_the_setting(side: str) -> None:
    error = error_of(Call(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{side} message larger than max (9 vs. 4)"), "host:1")
    assert type(error) is InferenceRejected
    assert "inference.max_message_mb" in str(error)


@pytest.mark.parametrize("name", ["UNAVAILABLE", "DEADLINE_EXCEEDED"])
def test_a_service_that_ends_or_falls_silent_at_work_is_broken_on_the_request(name: str) -> None:
    error = error_of(Call(grpc.StatusCode[name]), "host:1", at_work=True)
    assert type(error) is InferenceBroken
    assert error.retry


@pytest.mark.parametrize("name", ["RESOURCE_EXHAUSTED", "CANCELLED"])
def test_a_busy_service_and_a_closed_line_say_nothing_against_the_request(name: str) -> None:
    assert type(error_of(Call(grpc.StatusCode[name]), "host:1", at_work=True)) is InferenceUnavailable
