"""The requests that a replica computes, and for which ingress: Ray does not cancel them when that process dies."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from inference.call import Call
from inference.scale.catalogue import SILENT_S


class RunningCalls:
    """Ends the calls of an ingress that is not heard any more; safe to share between threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._calls: dict[int, tuple[str, Call]] = {}
        self._heard: dict[str, float] = {}

    @contextmanager
    def running(self, ingress: str, call: Call) -> Iterator[None]:
        """Hold a call while the block runs; it ends with the block, whatever becomes of it."""
        with self._lock:
            self._calls[id(call)] = (ingress, call)
            self._heard[ingress] = self._clock()
        try:
            yield
        finally:
            call.ended.set()
            with self._lock:
                del self._calls[id(call)]

    def hear(self, ingresses: Iterable[str]) -> None:
        """Note who answered just now, and end the calls of those that did not for `SILENT_S`."""
        now = self._clock()
        with self._lock:
            self._heard |= dict.fromkeys(ingresses, now)
            self._heard = {name: at for name, at in self._heard.items() if now - at < SILENT_S}
            for ingress, call in self._calls.values():
                if ingress not in self._heard:
                    call.ended.set()
