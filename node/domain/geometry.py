"""The geometry of a volume: where its voxels lie in the patient (PS3.3 C.7.6.2, LPS coordinates, mm)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Geometry:
    """An evenly spaced grid of voxels [slice, row, column].

    The three directions are unit vectors in which the slice, row and column index grow; rows grow along the
    *column cosine* of (0020,0037), columns along its *row cosine*. A volume may be right- or left-handed.
    """

    shape: tuple[int, int, int]
    """Voxels along slice, row, column."""
    spacing: Vector
    """mm between voxel centres along slice, row, column."""
    origin: Vector
    """Centre of voxel [0, 0, 0], LPS mm."""
    slice_direction: Vector
    row_direction: Vector
    column_direction: Vector

    def __post_init__(self) -> None:
        """Refuse grids that are not a right-angled box: a Geometry is valid when constructed."""
        if min(self.shape) < 1 or min(self.spacing) <= 0:
            raise ValueError(f"shape {self.shape} and spacing {self.spacing} must be positive")
        directions = np.array([self.slice_direction, self.row_direction, self.column_direction])
        if not np.allclose(directions @ directions.T, np.eye(3), atol=1e-3):
            raise ValueError(f"directions {directions.tolist()} are not perpendicular unit vectors")

    @property
    def affine(self) -> NDArray[np.float64]:
        """4x4 matrix from (slice, row, column, 1) to (x, y, z, 1) in LPS mm."""
        matrix = np.eye(4)
        directions = (self.slice_direction, self.row_direction, self.column_direction)
        for axis, (direction, step) in enumerate(zip(directions, self.spacing, strict=True)):
            matrix[:3, axis] = np.multiply(direction, step)
        matrix[:3, 3] = self.origin
        return matrix

    def to_patient(self, index: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map voxel indices [n, 3] (slice, row, column; fractions allowed) to LPS mm [n, 3]."""
        return index @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, point: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map LPS mm [n, 3] to fractional voxel indices [n, 3]."""
        return (point - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(np.prod(self.spacing)) / 1000.0
