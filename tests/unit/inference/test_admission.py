import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from inference.admission import Admission, MemoryState, memory_need, memory_state, slabs_at_once
from inference.call import Call
from inference.errors import Busy, DeadlinePassed, RequestCancelled, RequestTooLarge
from protos.model_manifest import Slabs, Tensor
from tests.bundles import threshold_manifest
from tests.waiting import wait_until


def within(seconds: float) -> Call:
    return Call(deadline=time.monotonic() + seconds)


def roomy() -> MemoryState:
    return MemoryState(total=1000, free=600)


def test_a_request_within_free_memory_runs() -> None:
    with Admission(1, 0, memory=roomy).admitted(600, Call()):
        pass


def test_a_request_that_needs_more_than_is_free_is_busy() -> None:
    with pytest.raises(Busy, match="are free; try again later"), Admission(1, 0, memory=roomy).admitted(601, Call()):
        pass


def test_a_request_that_never_fits_is_too_large() -> None:
    with pytest.raises(RequestTooLarge, match="in all"), Admission(1, 0, memory=roomy).admitted(1001, Call()):
        pass


def test_what_running_requests_may_still_take_counts_as_taken() -> None:
    admission = Admission(2, 0, memory=roomy)
    with admission.admitted(400, Call()):
        with pytest.raises(Busy), admission.admitted(300, Call()):
            pass
        with admission.admitted(200, Call()):
            pass
    with admission.admitted(600, Call()):
        pass


def test_requests_wait_for_their_turn_and_no_more_than_the_queue_holds() -> None:
    admission = Admission(1, 1, memory=roomy)
    done, waiting = threading.Event(), threading.Event()

    def wait_for_turn() -> str:
        waiting.set()
        with admission.admitted(0, within(30)):
            return "ran"

    with ThreadPoolExecutor(1) as pool:
        with admission.admitted(0, Call()):
            second = pool.submit(wait_for_turn)
            assert waiting.wait(10)
            refused = None
            while refused is None and not done.is_set():
                try:
                    with admission.admitted(0, within(0.01)):
                        done.set()
                except Busy as error:
                    refused = error
                except DeadlinePassed:
                    continue
            assert "queue is full" in str(refused)
        assert second.result(10) == "ran"


def test_a_turn_that_does_not_come_in_time_is_a_passed_deadline() -> None:
    admission = Admission(1, 1, memory=roomy)
    with admission.admitted(0, Call()), pytest.raises(DeadlinePassed), admission.admitted(0, within(0.01)):
        pass
    with admission.admitted(0, within(0.01)):
        pass


def test_places_come_back_after_a_failure() -> None:
    admission = Admission(1, 0, memory=roomy)
    for _ in range(3):
        with pytest.raises(KeyError), admission.admitted(500, Call()):
            raise KeyError


def test_this_machines_memory_is_read() -> None:
    state = memory_state()
    assert 0 < state.free <= state.total


def test_waiting_requests_go_by_priority_then_arrival() -> None:
    admission, order = Admission(1, 8, memory=roomy), list[str]()

    def ask(name: str, priority: int) -> None:
        with admission.admitted(0, Call(priority=priority)):
            order.append(name)

    with ThreadPoolExecutor(8) as pool, admission.admitted(0, Call()):
        for name, priority in (("unsaid", 0), ("low", 9), ("urgent", 1), ("also urgent", 1), ("last", 0)):
            before = len(admission._line._waiting)
            pool.submit(ask, name, priority)
            wait_until(lambda before=before: len(admission._line._waiting) > before, what="a waiting request")
    assert order == ["urgent", "also urgent", "low", "unsaid", "last"]


def test_a_client_that_goes_while_it_waits_gives_its_place_back() -> None:
    admission, call = Admission(1, 1, memory=roomy), Call()

    def ask() -> None:
        with admission.admitted(0, call):
            pass

    with ThreadPoolExecutor(1) as pool, admission.admitted(0, Call()):
        gone: Future[None] = pool.submit(ask)
        wait_until(lambda: bool(admission._line._waiting), what="a waiting request")
        call.ended.set()
        assert isinstance(gone.exception(10), RequestCancelled)
        with pytest.raises(DeadlinePassed), admission.admitted(0, within(0.01)):
            pass
    with admission.admitted(0, Call()):
        pass


def test_shared_requests_wait_for_nobody_and_hold_places() -> None:
    admission = Admission(1, 0, memory=roomy, shared=1)
    with (
        admission.admitted(0, Call()),
        admission.admitted(100, Call(), shared=True),
        pytest.raises(Busy),
        admission.admitted(0, Call(), shared=True),
    ):
        pass
    with pytest.raises(Busy), admission.admitted(601, Call(), shared=True):
        pass


def test_every_turn_is_taken_once_when_requests_give_up_at_any_moment() -> None:
    admission, most = Admission(2, 64, memory=roomy), list[int]()
    inside, lock = set[int](), threading.Lock()

    def ask(number: int) -> bool:
        try:
            with admission.admitted(0, within(0.002 * (number % 5) if number % 2 else 30)):
                with lock:
                    inside.add(number)
                    most.append(len(inside))
                with lock:
                    inside.discard(number)
        except DeadlinePassed:
            return False
        return True

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(ask, range(400)))
    assert all(answers[0::2])
    assert max(most) <= 2
    with admission.admitted(0, Call()), admission.admitted(0, Call()):
        pass


def test_a_model_in_slabs_needs_a_slabs_memory() -> None:
    whole = threshold_manifest()
    slabs = whole.model_copy(update={"slabs": Slabs(slices=8, halo=2)})
    inputs = {"image": np.zeros((100, 10, 10), np.int16), "slope": np.ones(100, np.float32)}
    base = 50_000_000
    assert memory_need(whole, inputs) == base + 16 * 10_000 + 20_000 + 400 + 3 * 10_000
    assert memory_need(whole, inputs, {"probability"}) == base + 16 * 10_000 + 20_000 + 400 + 10_000
    slab = 16 * 1200 + 2400 + 48 + 1200
    assert memory_need(slabs, inputs, {"probability"}) == base + 2 * slab
    assert memory_need(slabs, inputs) == base + 2 * slab + 3 * 10_000


def test_slabs_with_a_state_or_much_memory_run_one_at_a_time() -> None:
    inputs = {"image": np.zeros((100, 10, 10), np.int16), "slope": np.ones(100, np.float32)}
    described = threshold_manifest()
    state = (Tensor(name="state/sum", datatype="FP32", shape=()),)
    heavy = described.memory.model_copy(update={"bytes_per_voxel": 200_000})
    light = described.model_copy(update={"slabs": Slabs(slices=8, halo=2)})
    assert slabs_at_once(light, inputs) == 2
    assert slabs_at_once(described, inputs) == 1
    assert slabs_at_once(light.model_copy(update={"slabs": Slabs(slices=8, state=state)}), inputs) == 1
    assert slabs_at_once(light.model_copy(update={"memory": heavy}), inputs) == 1
    assert slabs_at_once(light, {"image": inputs["image"][:8], "slope": inputs["slope"][:8]}) == 1


def test_models_that_batch_have_places_of_their_own() -> None:
    admission, call = Admission(1, 0, memory=roomy, shared=2), Call()
    with (
        admission.admitted(0, call),
        admission.admitted(0, call, shared=True),
        admission.admitted(0, call, shared=True),
    ):
        with pytest.raises(Busy, match="queue is full"), admission.admitted(0, call, shared=True):
            pass
        with pytest.raises(Busy, match="queue is full"), admission.admitted(0, call):
            pass
