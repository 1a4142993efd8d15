import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from inference.admission import Admission, MemoryState, memory_state
from inference.errors import Busy, DeadlinePassed, RequestTooLarge


def roomy() -> MemoryState:
    return MemoryState(total=1000, free=600)


def test_a_request_within_free_memory_runs() -> None:
    with Admission(1, 0, memory=roomy).admitted(600, None):
        pass


def test_a_request_that_needs_more_than_is_free_is_busy() -> None:
    with pytest.raises(Busy, match="are free; try again later"), Admission(1, 0, memory=roomy).admitted(601, None):
        pass


def test_a_request_that_never_fits_is_too_large() -> None:
    with pytest.raises(RequestTooLarge, match="in all"), Admission(1, 0, memory=roomy).admitted(1001, None):
        pass


def test_what_running_requests_may_still_take_counts_as_taken() -> None:
    admission = Admission(2, 0, memory=roomy)
    with admission.admitted(400, None):
        with pytest.raises(Busy), admission.admitted(300, None):
            pass
        with admission.admitted(200, None):
            pass
    with admission.admitted(600, None):
        pass


def test_requests_wait_for_their_turn_and_no_more_than_the_queue_holds() -> None:
    admission = Admission(1, 1, memory=roomy)
    done, waiting = threading.Event(), threading.Event()

    def wait_for_turn() -> str:
        waiting.set()
        with admission.admitted(0, 30):
            return "ran"

    with ThreadPoolExecutor(1) as pool:
        with admission.admitted(0, None):
            second = pool.submit(wait_for_turn)
            assert waiting.wait(10)
            refused = None
            while refused is None and not done.is_set():
                try:
                    with admission.admitted(0, 0.01):
                        done.set()
                except Busy as error:
                    refused = error
                except DeadlinePassed:
                    continue
            assert "queue is full" in str(refused)
        assert second.result(10) == "ran"


def test_a_turn_that_does_not_come_in_time_is_a_passed_deadline() -> None:
    admission = Admission(1, 1, memory=roomy)
    with admission.admitted(0, None), pytest.raises(DeadlinePassed), admission.admitted(0, 0.01):
        pass
    with admission.admitted(0, 0.01):
        pass


def test_places_come_back_after_a_failure() -> None:
    admission = Admission(1, 0, memory=roomy)
    for _ in range(3):
        with pytest.raises(KeyError), admission.admitted(500, None):
            raise KeyError


def test_this_machines_memory_is_read() -> None:
    state = memory_state()
    assert 0 < state.free <= state.total
