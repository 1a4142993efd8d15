"""Waiting on what happens elsewhere (a database row, a peer's answer) without sleeping a guessed time."""

import threading
import time
from collections.abc import Callable

POLL_S = 0.02


def wait_until(predicate: Callable[[], object], *, timeout_s: float = 30.0, what: str = "the condition") -> None:
    """Return as soon as `predicate()` is true; fail after `timeout_s`, naming `what`."""
    pause = threading.Event()
    deadline = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {timeout_s:g} s")
        pause.wait(POLL_S)
