"""Messages on their way into a client stream that stays open: bounded, so that a slow line holds up who fills it."""

import threading
from collections import deque
from collections.abc import Iterator

from protos.region_wire import Framed
from protos.tensor_regions_pb2 import UploadRequest

Message = UploadRequest | Framed[UploadRequest]


class StreamCut(Exception):
    """Nobody reads the stream any more, or nobody read it in time."""


class MessageStream(Iterator[Message]):
    """What gRPC iterates over, on a thread of its own, while others put. Safe to share between threads."""

    def __init__(self, *, most: int, patience_s: float) -> None:
        """Hold at most `most` messages; wait at most `patience_s` for room for another."""
        self._most, self._patience_s = most, patience_s
        self._changed = threading.Condition()
        self._waiting: deque[Message] = deque()
        self._is_ended = self._is_cut = False

    def put(self, message: Message) -> None:
        """Add a message; StreamCut where it will not be sent."""
        with self._changed:
            has_room = self._changed.wait_for(self._takes_more, self._patience_s)
            if self._is_ended:
                raise StreamCut("the stream has ended")
            if not has_room:
                raise StreamCut(f"the line took nothing for {self._patience_s:g} s")
            self._waiting.append(message)
            self._changed.notify_all()

    def _takes_more(self) -> bool:
        return self._is_ended or len(self._waiting) < self._most

    def end(self) -> None:
        """Send what waits, and no more."""
        with self._changed:
            self._is_ended = True
            self._changed.notify_all()

    def cut(self) -> None:
        """Send nothing more, not even what waits."""
        with self._changed:
            self._is_ended = True
            self._waiting.clear()
            self._changed.notify_all()

    def __next__(self) -> Message:
        """Give the next message as soon as there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_ended)
            if not self._waiting:
                raise StopIteration
            message = self._waiting.popleft()
            self._changed.notify_all()
            return message
