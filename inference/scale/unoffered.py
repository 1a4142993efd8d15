"""Tensor regions across a cluster: there are none, since the client's memory is not where the model runs."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Never

from inference.call import Call
from inference.errors import NotOffered
from inference.ports import RegionStatus
from inference.servicer_unoffered import not_offered


class NoRegions:
    """Is `inference.ports.Regions` and `Registrations`, and refuses all."""

    def view(
        self, name: str, offset: int, byte_size: int, call: Call, *, writable: bool
    ) -> AbstractContextManager[memoryview]:
        """Refuse a tensor that lies in a region."""
        del offset, byte_size, call, writable
        raise NotOffered(f"region {name!r:.80}: regions are not offered by this server; send the tensor in the message")

    def register(self, name: str, key: str, offset: int, byte_size: int, call: Call) -> Never:
        """Refuse."""
        del name, key, offset, byte_size, call
        not_offered("SystemSharedMemoryRegister")

    def unregister(self, name: str, call: Call) -> Never:
        """Refuse."""
        del name, call
        not_offered("SystemSharedMemoryUnregister")

    def status(self, name: str, call: Call) -> Sequence[RegionStatus]:
        """Refuse."""
        del name, call
        not_offered("SystemSharedMemoryStatus")
