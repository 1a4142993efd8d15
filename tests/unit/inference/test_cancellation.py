"""A run stops between two ops when its call ends; memory at any address is taken."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from inference.call import Call
from inference.errors import DeadlinePassed, RequestCancelled

tf = pytest.importorskip("tensorflow")

from inference.cancellation import NativeFunction  # noqa: E402 - after the check that TensorFlow is there


def native(function: Callable[[Any], Any], dtype: Any) -> NativeFunction:
    spec = tf.TensorSpec(None, dtype)
    return NativeFunction(tf.function(function, autograph=False).get_concrete_function(spec))


@pytest.fixture
def endless() -> NativeFunction:
    return native(lambda start: tf.while_loop(lambda now: now >= 0, lambda now: now * 1, (start,))[0], tf.int32)


def test_a_deadline_stops_an_endless_run(endless: NativeFunction) -> None:
    with pytest.raises(DeadlinePassed):
        endless.run([np.array(1, np.int32)], Call(deadline=time.monotonic() + 0.2))


def test_a_client_that_goes_stops_its_own_run_only(endless: NativeFunction) -> None:
    call = Call()
    threading.Timer(0.1, call.ended.set).start()
    with pytest.raises(RequestCancelled):
        endless.run([np.array(1, np.int32)], call)
    assert endless.run([np.array(-1, np.int32)], Call())[0] == -1


@pytest.mark.parametrize("offset", [0, 1, 2, 64])
def test_memory_at_any_address_is_taken(offset: int) -> None:
    raw = np.arange(4096 + 64, dtype=np.uint8)
    values = raw[offset : offset + 4096].view(np.int16)
    values.flags.writeable = False
    doubled = native(lambda array: array + array, tf.int16).run([values])[0]
    np.testing.assert_array_equal(doubled, values + values)
