"""What an RPC leaves is done after its task, on its thread; elsewhere at once."""

import threading

import pytest

from inference.after_answer import AnswerThreads, after_answer


def test_what_is_left_is_done_when_the_task_is_over() -> None:
    order: list[tuple[str, str]] = []

    def note(what: str) -> None:
        order.append((what, threading.current_thread().name))

    def task(answer: str) -> str:
        after_answer(lambda: note("left"))
        note("task")
        return answer

    with AnswerThreads(1, thread_name_prefix="rpc") as threads:
        assert threads.submit(task, "answer").result(10) == "answer"
        threads.submit(note, "next").result(10)
    assert order == [("task", "rpc_0"), ("left", "rpc_0"), ("next", "rpc_0")]


def test_a_failed_task_leaves_nothing_to_the_next() -> None:
    done: list[str] = []

    def fails() -> None:
        after_answer(lambda: done.append("of the failed one"))
        raise KeyError

    with AnswerThreads(1) as threads:
        with pytest.raises(KeyError):
            threads.submit(fails).result(10)
        threads.submit(lambda: after_answer(lambda: done.append("of the next"))).result(10)
    assert done == ["of the failed one", "of the next"]


def test_on_a_thread_of_its_own_it_is_done_at_once() -> None:
    done: list[str] = []
    after_answer(lambda: done.append("now"))
    assert done == ["now"]
