"""What ends a service from outside: signals, and the end of the process that started it."""

import os
import signal
import threading
from typing import Protocol

import structlog

_log = structlog.get_logger(__name__)
_PARENT_POLL_S = 0.25


class Stoppable(Protocol):
    """A service that can be asked to end."""

    def stop(self) -> None:
        """Ask the service to end; return at once."""


def stop_on_signals(service: Stoppable) -> None:
    """End the service on SIGTERM and SIGINT; a second one ends the process at once."""
    asked = threading.Event()

    def end(number: int, _frame: object) -> None:
        if asked.is_set():
            os._exit(128 + number)
        asked.set()
        service.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


def stop_with_parent(service: Stoppable, parent_pid: int) -> None:
    """End the service when the process that started it is gone; a child is then handed to another parent."""
    pause = threading.Event()

    def watch() -> None:
        while os.getppid() == parent_pid:
            pause.wait(_PARENT_POLL_S)
        _log.warning("parent_ended", pid=parent_pid)
        service.stop()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
