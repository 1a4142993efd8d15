"""One axial plane of the phantom and how soft shapes are painted on it.

Patient coordinates (LPS, mm): x grows to the patient's left (columns), y to the back (rows), z to the head (slices).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
"""[row, column] values of one plane."""
EDGE_MM = 1.1
"""Width of the ramp that stands for the point spread of scanner and pixel."""


@dataclass(frozen=True, slots=True)
class Plane:
    """Where the pixels of one slice lie."""

    x: Field
    """[column] LPS mm."""
    y: Field
    """[row] LPS mm."""
    z: float
    thickness: float
    """Slice thickness in mm: what lies within it is averaged."""

    @property
    def pixel(self) -> float:
        """Pixel spacing in mm."""
        return float(self.x[1] - self.x[0])

    @property
    def edge(self) -> float:
        """Width of a soft edge in mm: never narrower than a pixel."""
        return max(EDGE_MM, self.pixel)

    def sample_heights(self) -> NDArray[np.float64]:
        """Return the z of the sub-slices that partial volume through the slice is averaged over."""
        count = max(1, min(5, round(self.thickness)))
        return self.z + self.thickness * ((np.arange(count) + 0.5) / count - 0.5)


def plane_at(z: float, *, size: int, pixel: float, thickness: float) -> Plane:
    """Return the square plane of `size` x `size` pixels centred on the z axis."""
    axis = (np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)) * np.float32(pixel)
    return Plane(axis, axis, z, thickness)


def paint(image: Field, distance: Field, value: float | Field, edge: float) -> None:
    """Blend `value` over `image` where `distance` (signed, mm, negative inside) is inside, with a ramp of `edge` mm."""
    blend(image, np.clip(np.float32(0.5) - distance * np.float32(1 / edge), 0, 1), value)


def blend(image: Field, coverage: Field, value: float | Field) -> None:
    """Blend `value` over `image` by `coverage` (0 to 1)."""
    image += coverage * (np.float32(value) - image if isinstance(value, float) else value - image)


def superellipse(plane: Plane, center: tuple[float, float], radii: tuple[float, float], power: float) -> Field:
    """Return the approximate signed distance in mm to |x/a|^p + |y/b|^p = 1: exact at the outline, to first order."""
    u = np.abs(plane.x - np.float32(center[0])) * np.float32(1 / radii[0])
    v = np.abs(plane.y - np.float32(center[1])) * np.float32(1 / radii[1])
    u_less, v_less = u ** np.float32(power - 1), v ** np.float32(power - 1)
    level = (u * u_less)[None, :] + (v * v_less)[:, None] - np.float32(1)
    slope = ((u_less * (power / radii[0])) ** 2)[None, :] + ((v_less * (power / radii[1])) ** 2)[:, None]
    return np.asarray(level / np.sqrt(slope + np.float32(1e-6)), np.float32)


def ellipsoid_section(radii: tuple[float, float, float], height: float) -> tuple[float, float] | None:
    """Return the radii of the section of an ellipsoid `height` mm from its centre, or None where it is missed."""
    rest = 1 - (height / radii[2]) ** 2
    return None if rest <= 1e-3 else (radii[0] * rest**0.5, radii[1] * rest**0.5)
