"""Requests go to the replica that has least to do."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from inference.call import Call
from inference.errors import PredictionFailed
from inference.ports import Arrays, Outcome, Places

pytest.importorskip("tensorflow")

from inference.runners.replicas import Replicas, on_every_device, replica_devices


class Held:
    """A runner that answers when it may."""

    def __init__(self) -> None:
        self.calls = 0
        self.may_end = threading.Event()

    def run(self, inputs: Arrays, call: Call, places: Places) -> Outcome:
        del call, places
        self.calls += 1
        if "fail" in inputs:
            raise PredictionFailed("as asked")
        assert self.may_end.wait(30)
        return Outcome({})


def test_a_request_goes_to_the_replica_with_least_to_do() -> None:
    first, second = Held(), Held()
    replicas = Replicas([first, second])
    second.may_end.set()
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(replicas.run, {}, Call(), {})
        while not first.calls:
            assert not held.done()
        for _ in range(5):
            replicas.run({}, Call(), {})
        assert (first.calls, second.calls) == (1, 5)
        first.may_end.set()
        held.result(30)
    replicas.run({}, Call(), {})
    assert (first.calls, second.calls) == (2, 5)


def test_a_failed_request_leaves_no_load_behind() -> None:
    runners = [Held(), Held()]
    replicas = Replicas(runners)
    for _ in range(6):
        with pytest.raises(PredictionFailed):
            replicas.run({"fail": None}, Call(), {})  # type: ignore[dict-item]
    assert [runner.calls for runner in runners] == [3, 3]


def test_without_several_accelerators_there_is_one_runner() -> None:
    only = Held()
    devices: list[str | None] = []

    def load(device: str | None) -> Held:
        devices.append(device)
        return only

    assert len(replica_devices()) != 1
    assert on_every_device(load, []) is only
    assert devices == [None]
