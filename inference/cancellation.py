"""Run an imported function so that it stops between two ops once nobody waits for it: TensorFlow's private part.

TensorFlow offers cancellation only through `tensorflow.python.eager`. `CancellationManager.get_cancelable_function`
keeps the manager in one variable of the process, which is wrong with several threads; here the manager goes with the
call. Feeds view aligned numpy memory; TensorFlow copies what is misaligned. No other module imports these names.
"""

import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.eager import context, execute
from tensorflow.python.eager.cancellation import CancellationManager
from tensorflow.python.framework.ops import EagerTensor

from inference.call import Call

_POLL_S = 0.02
_LINGER_S = 1.0
"""The watching thread goes on looking so long after the last run: waking it for each would cost more than a run."""


class Watch:
    """One thread that cancels the runs whose call has ended or whose deadline has passed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watched: dict[int, tuple[Call, Any]] = {}
        self._thread: threading.Thread | None = None
        self._sleeps = False

    def begin(self, call: Call, manager: Any) -> None:
        """Watch one run until `end`."""
        with self._changed:
            self._watched[id(manager)] = (call, manager)
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="cancellation", daemon=True)
                self._thread.start()
            elif self._sleeps:
                self._changed.notify()

    def end(self, manager: Any) -> None:
        """Watch a run no longer; it may have been cancelled."""
        with self._changed:
            self._watched.pop(id(manager), None)

    def _look(self) -> None:
        until = time.monotonic() + _LINGER_S
        while True:
            with self._changed:
                self._cancel_unwanted()
                self._sleeps = not self._watched and time.monotonic() > until
                self._changed.wait(None if self._sleeps else _POLL_S)
                if self._sleeps or self._watched:
                    until = time.monotonic() + _LINGER_S
                self._sleeps = False

    def _cancel_unwanted(self) -> None:
        unwanted = [key for key, (call, _) in self._watched.items() if is_unwanted(call)]
        for key in unwanted:
            self._watched.pop(key)[1].start_cancel()


_WATCH = Watch()


def is_unwanted(call: Call) -> bool:
    """Tell whether the client is gone or its deadline has passed."""
    return call.ended.is_set() or (call.deadline is not None and time.monotonic() >= call.deadline)


class NativeFunction:
    """A concrete function without captures, called by its name in TensorFlow's runtime."""

    def __init__(self, function: Any, device: str | None = None) -> None:
        self._function = function  # TensorFlow forgets the name when this goes
        self._name = function.name.decode() if isinstance(function.name, bytes) else function.name
        self._outputs = len(function.outputs)
        self._device = device
        config = context.context().function_call_options.config_proto_serialized
        self._attributes = ("executor_type", "", "config_proto", config)

    def run(self, feeds: Sequence[NDArray[Any]], call: Call | None = None) -> list[NDArray[Any]]:
        """Give the outputs in order; an output on the CPU is a view of TensorFlow's memory.

        Raises:
            DeadlinePassed, RequestCancelled: the call ended while the function ran.
            tf.errors.OpError: the function failed.
        """
        manager = CancellationManager()
        if call is None:
            return self._run(feeds, manager)
        _WATCH.begin(call, manager)
        try:
            return self._run(feeds, manager)
        except tf.errors.CancelledError:
            call.stop_if_unwanted()
            raise
        finally:
            _WATCH.end(manager)

    def _run(self, feeds: Sequence[NDArray[Any]], manager: Any) -> list[NDArray[Any]]:
        eager = context.context()
        with tf.device(self._device) if self._device else nullcontext():
            # With a device's name each would be copied to that device by an op of its own, a shallow copy on the CPU
            tensors = [EagerTensor(_laid_out(array), None, None) for array in feeds]
            answers = execute.execute_with_cancellation(
                self._name, self._outputs, tensors, self._attributes, eager, manager
            )
            # np.asarray(answer) comes to the same by way of __getattr__, 25 us later; here it makes scalars arrays
            return [np.asarray(answer._numpy()) for answer in answers]  # noqa: SLF001


def _laid_out(array: NDArray[Any]) -> NDArray[Any]:
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)
