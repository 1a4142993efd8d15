"""Order, waiting and limits of the batch queue, by a clock that the tests hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.batching import AGED_S, BatchQueue
from inference.errors import Busy
from protos.model_manifest import Batching


def queue_of(unwanted: set[str] | None = None, **terms: object) -> BatchQueue[str]:
    gone = unwanted if unwanted is not None else set()
    return BatchQueue(Batching.model_validate(terms), gone.__contains__)


def taken(queue: BatchQueue[str], now: float = 0.0) -> list[tuple[str, int, int]]:
    return [(piece.ticket, piece.start, piece.stop) for piece in queue.take(now)]


def test_nothing_waits() -> None:
    queue = queue_of()
    assert queue.wait_s(0.0, 3) is None
    assert taken(queue) == []


def test_waits_for_those_expected_until_the_delay_of_the_oldest() -> None:
    queue = queue_of(max_batch=8, max_delay_ms=10)
    queue.add("a", 1, 0, 5.0)
    queue.add("b", 1, 0, 5.004)
    assert queue.wait_s(5.004, expected=1) == pytest.approx(0.006)
    assert queue.wait_s(5.010, expected=1) == 0.0
    assert queue.wait_s(5.5, expected=1) == 0.0


def test_waits_for_nobody_where_nobody_is_expected() -> None:
    queue = queue_of(max_batch=8, max_delay_ms=10)
    queue.add("a", 1, 0, 5.0)
    assert queue.wait_s(5.0, expected=0) == 0.0


@pytest.mark.parametrize(("tiles", "terms"), [(8, {}), (3, {"preferred": (3, 6)}), (5, {"preferred": (3, 6)})])
def test_a_full_or_preferred_batch_runs_at_once(tiles: int, terms: dict[str, object]) -> None:
    queue = queue_of(max_batch=8, max_delay_ms=10, **terms)
    queue.add("a", tiles - 1, 0, 5.0)
    queue.add("b", 1, 0, 5.0)
    assert queue.wait_s(5.0, expected=9) == 0.0


def test_fewer_than_preferred_wait() -> None:
    queue = queue_of(max_batch=8, max_delay_ms=10, preferred=(3,))
    queue.add("a", 2, 0, 5.0)
    assert queue.wait_s(5.0, expected=1) == pytest.approx(0.01)


def test_the_most_urgent_goes_first_and_the_unsaid_last() -> None:
    queue = queue_of(max_batch=3)
    for name, priority in (("unsaid", 0), ("two", 2), ("one", 1), ("second one", 1)):
        queue.add(name, 1, priority, 0.0)
    assert taken(queue) == [("one", 0, 1), ("second one", 0, 1), ("two", 0, 1)]
    assert taken(queue) == [("unsaid", 0, 1)]


def test_one_that_waited_a_second_goes_first() -> None:
    queue = queue_of(max_batch=1)
    queue.add("unsaid", 1, 0, 0.0)
    queue.add("urgent", 1, 1, AGED_S)
    assert taken(queue, AGED_S) == [("unsaid", 0, 1)]


def test_a_large_request_runs_in_pieces() -> None:
    queue = queue_of(max_batch=4)
    queue.add("a", 6, 0, 0.0)
    queue.add("b", 1, 0, 0.0)
    assert taken(queue) == [("a", 0, 4)]
    assert taken(queue) == [("a", 4, 6), ("b", 0, 1)]


def test_past_its_limit_the_queue_is_busy_until_someone_is_gone() -> None:
    gone: set[str] = set()
    queue = queue_of(gone, max_queue=4)
    queue.add("a", 3, 0, 0.0)
    with pytest.raises(Busy, match="holds 3 of 4 tiles, 2 more came"):
        queue.add("b", 2, 0, 0.0)
    gone.add("a")
    queue.add("b", 2, 0, 0.0)
    assert taken(queue) == [("b", 0, 2)]


def test_a_request_larger_than_the_queue_is_taken_where_nothing_waits() -> None:
    queue = queue_of(max_queue=4, max_batch=8)
    queue.add("a", 6, 0, 0.0)
    assert taken(queue) == [("a", 0, 6)]


def test_who_is_gone_is_forgotten_between_pieces_too() -> None:
    gone: set[str] = set()
    queue = queue_of(gone, max_batch=2)
    queue.add("a", 3, 0, 0.0)
    queue.add("b", 1, 0, 0.0)
    assert taken(queue) == [("a", 0, 2)]
    gone.add("a")
    assert taken(queue) == [("b", 0, 1)]
    assert queue.tiles == 0


def test_clear_gives_who_waited() -> None:
    queue = queue_of(max_batch=2)
    queue.add("a", 3, 0, 0.0)
    queue.add("b", 1, 0, 0.0)
    assert queue.clear() == ["a", "b"]
    assert queue.wait_s(0.0, 0) is None


requests = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 3), st.floats(0, 3)), max_size=12)


@given(requests, st.integers(1, 9))
def test_every_tile_is_taken_once_and_in_order(waiting: list[tuple[int, int, float]], max_batch: int) -> None:
    queue: BatchQueue[int] = BatchQueue(Batching(max_batch=max_batch), lambda _: False)
    for ticket, (tiles, priority, since) in enumerate(waiting):
        queue.add(ticket, tiles, priority, since)
    reached = [0] * len(waiting)
    while queue.tiles:
        before = queue.tiles
        pieces = queue.take(3.0)
        assert sum(piece.stop - piece.start for piece in pieces) == min(before, max_batch)
        assert len({piece.ticket for piece in pieces}) == len(pieces)
        for piece in pieces:
            assert reached[piece.ticket] == piece.start < piece.stop
            reached[piece.ticket] = piece.stop
    assert reached == [tiles for tiles, _, _ in waiting]
