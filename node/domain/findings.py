"""Findings: coded, measured, tracked. No bare strings or floats cross from here to the results."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept (PS3.3 8.8): value, scheme designator, meaning."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Measurement:
    """A number with its concept and UCUM unit (TID 300)."""

    concept: Code
    value: float
    unit: Code


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the model found, as a set of voxels of the source grid."""

    ordinal: int
    """1, 2, 3 ... after the stated sort: largest volume first, then position."""
    label: str
    """What a reader sees: "Nodule 1"."""
    category: Code
    type: Code
    site: Code | None
    color_rgb: tuple[int, int, int]
    probability: float | None
    """0 to 1; None where the model gives none."""
    measurements: tuple[Measurement, ...]
    bounds: tuple[slice, slice, slice]
    """Bounding box on the source grid [slice, row, column]."""
    center_mm: tuple[float, float, float]
    """Centre of gravity in the patient, LPS mm."""
    per_instance: bool = True
    """A segment of its own; False: one segment with all others of its class."""


@dataclass(frozen=True, slots=True)
class Findings:
    """All findings of one model in one series, and the label volume they came from."""

    items: tuple[Finding, ...]
    labels: NDArray[np.uint16]
    """[slice, row, column] on the source grid: 0 background, else the finding's ordinal."""
    candidates_dropped: int
    """Components that the manifest's minimum size or probability dropped."""
    beyond_limit: int = 0
    """Findings that met every limit but came after the largest `max_findings`: they are left out, and said so."""
