"""What the model answered."""

from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """The algorithm that answered; the digest is verified against the service's word where it states one."""

    name: str
    version: str
    title: str
    manufacturer: str
    digest: str
    """Hex SHA-256 of the bundle."""
    verified: Literal["digest", "unverified"]
    """"digest": the service stated the same digest; "unverified": a foreign server that states none."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Output tensors of one run; voxel maps lie on the grid of the volume that was sent."""

    outputs: dict[str, NDArray[Any]]
    model: ModelIdentity
    request_id: str
    seconds: float
    """Wall time of the request."""
