"""Who is away: the inference service (None) and destinations by name, so that a return ends the waits at once."""

import threading
from collections.abc import Callable


class Reach:
    """Remembers who did not answer, and tells once when one answers again."""

    def __init__(self, on_back: Callable[[str | None], None]) -> None:
        """Tell `on_back` the name of who is back."""
        self._on_back = on_back
        self._away: set[str | None] = set()
        self._lock = threading.Lock()

    def lost(self, name: str | None) -> None:
        """Note that `name` did not answer."""
        with self._lock:
            self._away.add(name)

    def found(self, name: str | None) -> None:
        """Note that `name` answered."""
        with self._lock:
            was_away = name in self._away
            self._away.discard(name)
        if was_away:
            self._on_back(name)
