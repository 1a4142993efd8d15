"""A service without tensor regions: none is there, and none can be registered."""
# ruff: noqa: ARG002 - parameters are those of the seams

from contextlib import AbstractContextManager
from typing import Never

from inference.call import Call
from inference.errors import NotOffered, RegionNotFound
from inference.ports import RegionStatus


class NoRegions:
    """Both `inference.ports.Regions` and `inference.ports.Registrations`, and empty."""

    def view(
        self, name: str, offset: int, byte_size: int, call: Call, *, writable: bool
    ) -> AbstractContextManager[memoryview]:
        """Refuse; raise RegionNotFound."""
        raise RegionNotFound(f"region {name!r}: this client has none of that name")

    def register(self, name: str, key: str, offset: int, byte_size: int, call: Call) -> Never:
        """Refuse; raise NotOffered."""
        raise NotOffered("SystemSharedMemoryRegister is switched off at this server")

    def unregister(self, name: str, call: Call) -> None:
        """Forget nothing; raise RegionNotFound where one is named."""
        self.status(name, call)

    def status(self, name: str, call: Call) -> tuple[RegionStatus, ...]:
        """Give none; raise RegionNotFound where one is named."""
        if name:
            raise RegionNotFound(f"region {name!r}: this client has none of that name")
        return ()
