"""The dispatcher hands the right answers to the right request, and each failure to the request at fault."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inference.call import Call
from inference.dispatcher import Dispatcher, Job
from inference.errors import Busy, DeadlinePassed, ModelNotReady, PredictionFailed, RequestCancelled
from inference.ports import Arrays
from protos.model_manifest import Batching

WAIT_S = 20.0


class Network:
    """Doubles its tiles; fails over a negative one; runs wait for `gate`."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.sizes: list[int] = []

    def __call__(self, tiles: NDArray[Any], _call: Call | None) -> Arrays:
        self.sizes.append(len(tiles))
        self.entered.set()
        assert self.gate.wait(WAIT_S)
        if (tiles < 0).any():
            raise PredictionFailed("a negative tile")
        return {"answers": tiles * 2, "sums": tiles.sum(axis=1)}


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def dispatcher(network: Network) -> Iterator[Dispatcher]:
    made = Dispatcher(Batching(max_batch=4, max_delay_ms=1000, max_queue=8), network, "model test")
    yield made
    network.gate.set()
    made.stop()


def queued(dispatcher: Dispatcher, *values: int, call: Call | None = None) -> Job:
    tiles = np.repeat(np.array(values, np.int64)[:, None], 3, axis=1)
    with dispatcher.expected():
        return dispatcher.queue(tiles, call or Call())


def held(dispatcher: Dispatcher, network: Network) -> Job:
    """Let one job run until the gate opens, so that later ones wait together."""
    network.gate.clear()
    job = queued(dispatcher, 1)
    assert network.entered.wait(WAIT_S)
    return job


def test_a_lone_request_does_not_wait_for_others(network: Network) -> None:
    an_hour = Batching(max_batch=4).model_copy(update={"max_delay_ms": 3.6e6})
    patient = Dispatcher(an_hour, network, "model test")
    for value in range(3):
        assert queued(patient, value).done.wait(WAIT_S)
    patient.stop()
    assert network.sizes == [1, 1, 1]


def test_a_request_waits_for_one_that_is_known_to_come(network: Network) -> None:
    an_hour = Batching(max_batch=4).model_copy(update={"max_delay_ms": 3.6e6})
    patient = Dispatcher(an_hour, network, "model test")
    with patient.expected():
        first = queued(patient, 1)
        second = patient.queue(np.ones((1, 3), np.int64), Call())
    assert first.done.wait(WAIT_S)
    assert second.done.wait(WAIT_S)
    patient.stop()
    assert network.sizes == [2]


def test_a_request_waits_no_longer_for_one_that_gave_up(network: Network) -> None:
    an_hour = Batching(max_batch=4).model_copy(update={"max_delay_ms": 3.6e6})
    patient = Dispatcher(an_hour, network, "model test")
    with patient.expected():
        first = queued(patient, 1)
    assert first.done.wait(WAIT_S)
    patient.stop()


def test_those_that_wait_run_together_and_get_their_own_answers(dispatcher: Dispatcher, network: Network) -> None:
    first = held(dispatcher, network)
    jobs = [queued(dispatcher, 5), queued(dispatcher, 6, 7), queued(dispatcher, 8, 9, 10)]
    network.gate.set()
    for job in (first, *jobs):
        dispatcher.wait(job)
    assert network.sizes == [1, 4, 2]
    assert [job.answers["sums"].tolist() for job in jobs] == [[15], [18, 21], [24, 27, 30]]
    assert [job.answers["answers"][:, 0].tolist() for job in jobs] == [[10], [12, 14], [16, 18, 20]]
    assert [(job.times.batch_size, job.times.executions) for job in jobs] == [(4, 1), (4, 0), (4, 1)]


def test_a_request_that_fails_takes_nobody_with_it(dispatcher: Dispatcher, network: Network) -> None:
    held(dispatcher, network)
    good, bad, other = queued(dispatcher, 5), queued(dispatcher, -6), queued(dispatcher, 7)
    network.gate.set()
    dispatcher.wait(good)
    dispatcher.wait(other)
    with pytest.raises(PredictionFailed, match="a negative tile"):
        dispatcher.wait(bad)
    assert (good.answers["sums"].tolist(), other.answers["sums"].tolist()) == ([15], [21])


def test_ended_and_late_requests_are_never_run(dispatcher: Dispatcher, network: Network) -> None:
    held(dispatcher, network)
    gone, late = Call(), Call(deadline=time.monotonic())
    jobs = queued(dispatcher, 5, call=gone), queued(dispatcher, 6, call=late), queued(dispatcher, 7)
    gone.ended.set()
    with pytest.raises(RequestCancelled):
        dispatcher.wait(jobs[0])
    with pytest.raises(DeadlinePassed):
        dispatcher.wait(jobs[1])
    network.gate.set()
    dispatcher.wait(jobs[2])
    assert network.sizes == [1, 1]


def test_the_urgent_run_first(dispatcher: Dispatcher, network: Network) -> None:
    held(dispatcher, network)
    later = queued(dispatcher, 5, 6, 7, 8)
    urgent = queued(dispatcher, 9, call=Call(priority=1))
    network.gate.set()
    dispatcher.wait(urgent)
    dispatcher.wait(later)
    assert network.sizes == [1, 4, 1]
    assert urgent.times.queue_s <= later.times.queue_s + later.times.compute_s
    assert later.answers["sums"].tolist() == [15, 18, 21, 24]


def test_a_full_queue_is_busy(dispatcher: Dispatcher, network: Network) -> None:
    held(dispatcher, network)
    queued(dispatcher, *range(8))
    with pytest.raises(Busy, match="8 of 8 tiles"):
        queued(dispatcher, 1)


def test_stopping_fails_those_that_wait(dispatcher: Dispatcher, network: Network) -> None:
    running = held(dispatcher, network)
    waiting = queued(dispatcher, 5)
    dispatcher.stop()
    with pytest.raises(ModelNotReady, match="model test is being stopped"):
        dispatcher.wait(waiting)
    with pytest.raises(ModelNotReady):
        queued(dispatcher, 6)
    network.gate.set()
    dispatcher.wait(running)


def test_many_threads_get_their_own_answers(network: Network) -> None:
    dispatcher = Dispatcher(Batching(max_batch=4, max_delay_ms=1), network, "model test")

    def ask(value: int) -> list[int]:
        job = queued(dispatcher, *range(value, value + 1 + value % 7))
        dispatcher.wait(job)
        return [int(item) for item in job.answers["sums"]]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(300)))
    dispatcher.stop()
    assert answers == [[3 * item for item in range(value, value + 1 + value % 7)] for value in range(300)]
