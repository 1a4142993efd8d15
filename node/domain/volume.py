"""A volume: stored values of a series on a proven geometry."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.domain.geometry import Geometry
from node.domain.instances import SopReference


@dataclass(frozen=True, slots=True)
class Volume:
    """Stored values [slice, row, column] with the rescale of each slice; value = stored * slope + intercept."""

    voxels: NDArray[np.int16] | NDArray[np.uint16] | NDArray[np.uint8] | NDArray[np.float32]
    slope: NDArray[np.float32]
    """[slice]"""
    intercept: NDArray[np.float32]
    """[slice]"""
    geometry: Geometry
    frame_of_reference_uid: str
    study_uid: str
    series_uid: str
    sources: tuple[SopReference, ...]
    """The instance of each slice, in slice order; empty where a turned volume's slices are no instances."""
    unit: str
    """UCUM code of the rescaled values: "[hnsf'U]", "g/ml{SUVbw}", "Bq/ml", "1" where nothing is stated."""
    padding: int | None = None
    """Stored value that fills voxels outside the reconstruction, where the series states one."""

    def __post_init__(self) -> None:
        """Hold voxels, rescale, sources and geometry to one another."""
        slices = self.geometry.shape[0]
        if self.voxels.shape != self.geometry.shape:
            raise ValueError(f"voxels {self.voxels.shape} do not fill the geometry {self.geometry.shape}")
        if not len(self.slope) == len(self.intercept) == slices or len(self.sources) not in (0, slices):
            raise ValueError(
                f"{slices} slices, but {len(self.slope)} slopes, {len(self.intercept)} intercepts, "
                f"{len(self.sources)} sources"
            )
