"""Every region that a request may name: leased from the server, or registered by a client."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from inference.call import Call
from inference.errors import RegionNotFound
from inference.ports import Regions
from inference.regions.registered import RegisteredRegions


class RegionTable:
    """Looks among leased regions first, then among registered ones. Implements `inference.ports.Regions`."""

    def __init__(self, leased: Regions, registered: RegisteredRegions) -> None:
        self._leased = leased
        self._registered = registered

    @contextmanager
    def view(self, name: str, offset: int, byte_size: int, call: Call, *, writable: bool) -> Iterator[memoryview]:
        """Hold bytes of a region while the block runs; see `inference.ports.Regions`."""
        with ExitStack() as held:
            try:
                place = held.enter_context(self._leased.view(name, offset, byte_size, call, writable=writable))
            except RegionNotFound:
                registered = self._registered.view(name, offset, byte_size, call, writable=writable)
                place = held.enter_context(registered)
            yield place
