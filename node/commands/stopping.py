"""Stopping cleanly: SIGINT and SIGTERM set an event, a second one ends the process at once."""

import os
import signal
import threading
from types import FrameType


def stop_event() -> threading.Event:
    """Return an event that SIGINT (Ctrl-C) and SIGTERM set; the second signal leaves at once with 130."""
    event = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if event.is_set():
            os._exit(130)
        event.set()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    return event
