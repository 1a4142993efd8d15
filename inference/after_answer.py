"""Work that is left until an RPC's answer is on its way: no client waits for a line of the log."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

Work = Callable[[], object]
Given = ParamSpec("Given")
Made = TypeVar("Made")
_ON_THIS_THREAD = threading.local()


class AnswerThreads(ThreadPoolExecutor):
    """The threads of a gRPC server. Each does what was left for after the answer once gRPC has taken it."""

    def submit(self, fn: Callable[Given, Made], /, *args: Given.args, **kwargs: Given.kwargs) -> "Future[Made]":
        """Run an RPC, then what it left."""
        return super().submit(_run, fn, *args, **kwargs)


def _run(task: Callable[..., Made], /, *args: Any, **kwargs: Any) -> Made:
    left: list[Work] = []
    _ON_THIS_THREAD.left = left
    try:
        return task(*args, **kwargs)
    finally:
        del _ON_THIS_THREAD.left
        for work in left:
            work()


def after_answer(work: Work) -> None:
    """Do something when the answer of this thread's unary RPC was handed to gRPC; at once on any other thread."""
    left: list[Work] | None = getattr(_ON_THIS_THREAD, "left", None)
    if left is None:
        work()
    else:
        left.append(work)
