"""Requests of an ingress that died are ended in the replicas that compute them."""

from inference.call import Call
from inference.scale.catalogue import SILENT_S
from inference.scale.running_calls import RunningCalls


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_calls_of_an_ingress_that_is_silent_are_ended_and_others_go_on() -> None:
    clock = Clock()
    calls, kept, lost = RunningCalls(clock), Call(), Call()
    with calls.running("alive", kept), calls.running("dead", lost):
        clock.now = SILENT_S - 1
        calls.hear(["alive"])
        assert not kept.ended.is_set()
        assert not lost.ended.is_set()
        clock.now = SILENT_S + 1
        calls.hear(["alive"])
        assert not kept.ended.is_set()
        assert lost.ended.is_set()


def test_a_call_ends_with_its_block_and_a_new_ingress_is_heard_by_its_first_request() -> None:
    clock = Clock()
    calls, first, second = RunningCalls(clock), Call(), Call()
    with calls.running("old", first):
        pass
    assert first.ended.is_set()
    clock.now = 3 * SILENT_S
    with calls.running("new", second):
        calls.hear([])
        assert not second.ended.is_set()
