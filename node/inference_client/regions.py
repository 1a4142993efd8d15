"""The door for tensors that do not travel in the message: a place in memory that client and server both know."""

from dataclasses import dataclass

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

REGION, OFFSET, BYTE_SIZE = "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"


@dataclass(frozen=True, slots=True)
class Region:
    """Where a tensor of a request lies: `byte_size` bytes from `offset` of the region `name` known to the server."""

    name: str
    offset: int
    byte_size: int
    room: NDArray[np.uint8] | None = None
    """Those bytes, where this process maps them; voxels are then written there."""

    def state_in(self, tensor: "Message") -> None:
        """Write the reference into a tensor of a request, in Triton's parameters."""
        parameters = tensor.parameters  # type: ignore[attr-defined]  # inputs and outputs share no type
        parameters[REGION].string_param = self.name
        parameters[OFFSET].int64_param = self.offset
        parameters[BYTE_SIZE].int64_param = self.byte_size
