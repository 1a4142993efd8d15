"""Memory that downloads are written to: used again once nobody views it, because fresh pages cost as much as a copy."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from node.inference_client.local_region import held

KEPT_MOST_BYTES = 256 << 20
"""A larger room goes back to the system with its answer."""
_WASTE_MOST = 2


class AnswerRooms:
    """Gives rooms and keeps the last one that came back; safe to share between threads."""

    def __init__(self) -> None:
        # Filled by finalizers, which may run inside any statement of any thread: no lock there.
        self._spare: deque[NDArray[np.uint8]] = deque(maxlen=1)

    def take(self, byte_size: int) -> NDArray[np.uint8]:
        """Give bytes [byte_size] of any content; they come back by themselves when no array views them any more."""
        room = self._fitting(byte_size)
        spare = self._spare

        def let_go() -> None:
            if room.nbytes <= KEPT_MOST_BYTES:
                spare.append(room)

        return held(room, let_go)[:byte_size]

    def _fitting(self, byte_size: int) -> NDArray[np.uint8]:
        try:
            room = self._spare.pop()
        except IndexError:
            return np.empty(byte_size, np.uint8)
        return room if byte_size <= room.nbytes <= _WASTE_MOST * byte_size else np.empty(byte_size, np.uint8)
