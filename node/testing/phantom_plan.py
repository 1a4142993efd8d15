"""What a phantom is made of: every value shows in its voxels, and the same values give the same UIDs."""

import hashlib
import uuid
from dataclasses import dataclass

from node.domain.geometry import Geometry
from node.testing.phantom_nodules import NoduleRequest

FIELD_OF_VIEW_MM = 370.0
CHEST_MM = 300.0
RESCALE_INTERCEPT = -1024.0
"""HU of the stored value 0."""


@dataclass(frozen=True, slots=True)
class PhantomPlan:
    """What a phantom is made of; every value shows in the voxels."""

    slices: int = 120
    size: int = 512
    """Rows and columns."""
    slice_spacing_mm: float | None = None
    """None: 2.5 mm, or less where more than 120 slices share the chest's 300 mm."""
    seed: int = 1
    nodules: tuple[NoduleRequest, ...] | None = None
    """None: DEFAULT_NODULES, without those that the covered part of the chest has no room for."""
    noise_hu: float = 14.0
    """Standard deviation."""

    def __post_init__(self) -> None:
        """Refuse what cannot be painted."""
        if not (1 <= self.slices <= 2000 and 32 <= self.size <= 2048 and (self.slice_spacing_mm or 1.0) > 0):
            raise ValueError(
                f"slices {self.slices} (1 to 2000), size {self.size} (32 to 2048) or slice spacing "
                f"{self.slice_spacing_mm} mm (above 0) is wrong"
            )

    @property
    def spacing(self) -> float:
        """Distance between slices in mm, and their thickness."""
        return self.slice_spacing_mm if self.slice_spacing_mm is not None else min(2.5, CHEST_MM / self.slices)

    @property
    def geometry(self) -> Geometry:
        """Slices toward the head, rows toward the back, columns toward the patient's left; centred on the hila."""
        pixel = FIELD_OF_VIEW_MM / self.size
        first = -pixel * (self.size - 1) / 2
        return Geometry(
            shape=(self.slices, self.size, self.size),
            spacing=(self.spacing, pixel, pixel),
            origin=(first, first, -self.spacing * (self.slices - 1) / 2),
            slice_direction=(0.0, 0.0, 1.0),
            row_direction=(0.0, 1.0, 0.0),
            column_direction=(1.0, 0.0, 0.0),
        )

    def uid(self, role: str) -> str:
        """Return the UID of `role` ("study", "series", "instance 7"): 2.25 and a UUID made from plan and role."""
        digest = hashlib.sha256(f"hilum phantom {self!r} {role}".encode()).digest()
        return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"
