"""gRPC status -> retry or final."""

import grpc

from node.errors import InferenceBroken, InferenceError, InferenceRejected, InferenceUnavailable

RETRIED = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,  # only this node cancels: it is stopping, and tries again when it is back
    }
)
BROKEN = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
"""What says of a service that took a request that it ended or fell silent over it."""
_TOO_LARGE = "larger than max"
"""gRPC answers RESOURCE_EXHAUSTED for a message over a limit too; that never gets better by trying again."""


def error_of(call: grpc.RpcError, endpoint: str, *, at_work: bool = False) -> InferenceError:
    """Build the node's error for a failed call, naming endpoint, status and the service's sentence.

    With `at_work`, the service had answered just before and the call was a request to work on.
    """
    code, details = call.code(), call.details() or "no reason given"
    sentence = f"inference service {endpoint}: {code.name}: {details}"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in details:
        return InferenceRejected(f"{sentence}. Remedy: raise inference.max_message_mb on the node and the service.")
    if at_work and code in BROKEN:
        return InferenceBroken(sentence)
    return InferenceUnavailable(sentence) if code in RETRIED else InferenceRejected(sentence)
