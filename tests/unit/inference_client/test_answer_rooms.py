"""Memory of downloads: used again once nobody views it, and never while somebody does."""

import gc

import numpy as np
import pytest

from node.inference_client import answer_rooms
from node.inference_client.answer_rooms import AnswerRooms


def address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def test_a_room_that_nobody_views_is_used_again() -> None:
    rooms = AnswerRooms()
    first = rooms.take(1000)
    place = address(first)
    del first
    gc.collect()
    again = rooms.take(900)
    assert (address(again), len(again)) == (place, 900)


def test_a_room_is_not_given_while_a_part_of_it_is_viewed() -> None:
    rooms = AnswerRooms()
    part = rooms.take(1000)[10:20].reshape(2, 5)
    part[...] = 7
    gc.collect()
    other = rooms.take(1000)
    other[...] = 1
    assert np.all(part == 7)


@pytest.mark.parametrize("size", [1001, 400], ids=["too small", "mostly unused"])
def test_a_room_that_does_not_fit_is_given_up(size: int) -> None:
    rooms = AnswerRooms()
    rooms.take(1000)
    gc.collect()
    assert [room.nbytes for room in rooms._spare] == [1000]
    assert len(rooms.take(size)) == size
    gc.collect()
    assert [room.nbytes for room in rooms._spare] == [size]


def test_one_room_is_kept_and_no_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_rooms, "KEPT_MOST_BYTES", 1000)
    rooms = AnswerRooms()
    held = [rooms.take(size) for size in (999, 1000, 1001)]
    held.clear()
    gc.collect()
    assert len(rooms._spare) == 1
    assert rooms._spare[0].nbytes <= 1000
