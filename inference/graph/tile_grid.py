"""The grid on which a network sees an image: tiles of fixed size at fixed spacing. No tensor framework here."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Square tiles of `size` pixels at `spacing_mm`; neighbours overlap by at least `overlap` pixels.

    Values below `floor` (padding outside the reconstruction) are lifted to it before a tile is scaled by its own
    minimum and maximum.
    """

    size: int = 80
    spacing_mm: float = 0.8
    overlap: int = 20
    floor: float = -1024.0

    def __post_init__(self) -> None:
        """Hold the overlap to at most half a tile."""
        if not 0 <= self.overlap <= self.size // 2:
            raise ValueError(f"overlap {self.overlap} must lie in 0..{self.size // 2}")

    @property
    def extent_mm(self) -> float:
        """Distance between the centres of a tile's first and last pixel."""
        return (self.size - 1) * self.spacing_mm
