"""The door for tensors that do not travel in the message: a place in memory that client and server both know."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Region:
    """Where the voxels of a request lie: `byte_size` bytes from `offset` of the region `name` known to the server."""

    name: str
    offset: int
    byte_size: int
