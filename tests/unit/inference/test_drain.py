import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from inference.client_limits import INFER_METHOD
from inference.drain import STREAM_METHOD, DrainGate
from inference.errors import Busy, ModelNotReady


class OpenContext:
    def is_active(self) -> bool:
        return True


CONTEXT: Any = OpenContext()


def test_the_gate_bounds_the_requests_that_hold_threads() -> None:
    gate = DrainGate(1)
    with (
        gate.around(INFER_METHOD, "first", CONTEXT) as seen,
        pytest.raises(Busy, match="queue is full"),
        gate.around(INFER_METHOD, "second", CONTEXT),
    ):
        pass
    assert seen == "first"
    with gate.around(INFER_METHOD, "third", CONTEXT):
        assert not gate.wait_idle(0)
    assert gate.wait_idle(0)


def test_a_closed_gate_refuses_and_its_end_waits_for_what_runs() -> None:
    gate = DrainGate(2)
    inside, leave = threading.Event(), threading.Event()

    def request() -> None:
        with gate.around(INFER_METHOD, "first", CONTEXT):
            inside.set()
            leave.wait(20)

    running = threading.Thread(target=request)
    running.start()
    assert inside.wait(20)
    gate.close()
    with pytest.raises(ModelNotReady, match="is stopping"), gate.around(INFER_METHOD, "second", CONTEXT):
        pass
    assert not gate.wait_idle(0)
    leave.set()
    assert gate.wait_idle(20)
    running.join()


def test_a_stream_ends_after_its_current_request_once_the_gate_is_closed() -> None:
    arriving: SimpleQueue[str] = SimpleQueue()

    def requests() -> Iterator[str]:
        while (item := arriving.get()) != "end":
            yield item

    gate = DrainGate(1)
    with gate.around(STREAM_METHOD, requests(), CONTEXT) as seen:
        arriving.put("first")
        assert next(seen) == "first"
        assert not gate.wait_idle(0)
        gate.close()
        with pytest.raises(ModelNotReady):
            next(seen)
    assert gate.wait_idle(0)
    arriving.put("end")


def test_a_stream_gives_its_requests_in_order_and_ends() -> None:
    with DrainGate(1).around(STREAM_METHOD, iter("abc"), CONTEXT) as seen:
        assert list(seen) == ["a", "b", "c"]
