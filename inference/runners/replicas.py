"""One runner on each of several accelerators; a request goes to the one that has least to do."""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import tensorflow as tf

from inference.call import Call
from inference.ports import Arrays, Outcome, Places, Runner


def replica_devices() -> tuple[str, ...]:
    """Name the devices that get a replica each: all GPUs where there are several, else none."""
    gpus = tf.config.list_physical_devices("GPU")
    return tuple(f"/GPU:{index}" for index in range(len(gpus))) if len(gpus) > 1 else ()


def on_every_device(load: Callable[[str | None], Runner], devices: Sequence[str] | None = None) -> Runner:
    """Load a runner on each device; without several devices one, where TensorFlow puts it.

    Args:
        load: makes a warmed runner on a device by TensorFlow's name, None where TensorFlow chooses.
        devices: those to use; None asks `replica_devices`.
    """
    wanted = replica_devices() if devices is None else devices
    return Replicas([load(device) for device in wanted]) if wanted else load(None)


class Replicas:
    """Several runners of one model, as one; safe to share between threads."""

    def __init__(self, runners: Sequence[Runner]) -> None:
        self._runners = tuple(runners)
        self._lock = threading.Lock()
        self._running = [0] * len(self._runners)
        self._last = [-1] * len(self._runners)
        self._choices = itertools.count()

    def run(self, inputs: Arrays, call: Call, places: Places) -> Outcome:
        """Answer as `inference.ports.Runner` says, by the least loaded runner; of equals by the longest idle."""
        with self._least_loaded() as runner:
            return runner.run(inputs, call, places)

    @contextmanager
    def _least_loaded(self) -> Iterator[Runner]:
        with self._lock:
            chosen = min(range(len(self._runners)), key=lambda index: (self._running[index], self._last[index]))
            self._running[chosen] += 1
            self._last[chosen] = next(self._choices)
        try:
            yield self._runners[chosen]
        finally:
            with self._lock:
                self._running[chosen] -= 1
