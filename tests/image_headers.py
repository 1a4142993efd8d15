"""Headers of images that exist nowhere: for rules that look at headers only."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from node.domain.instances import EXPLICIT_VR_LITTLE_ENDIAN, ImageHeader, SopReference

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def axial_header(number: int, z: float, **attributes: Any) -> ImageHeader:
    """One axial CT slice of 4 x 6 pixels at height `z` mm."""
    header = ImageHeader(
        sop=SopReference(CT_IMAGE_STORAGE, f"2.25.1{number:04}"),
        study_uid="2.25.2",
        series_uid="2.25.3",
        path=Path(f"{number}.dcm"),
        transfer_syntax=EXPLICIT_VR_LITTLE_ENDIAN,
        modality="CT",
        body_part="CHEST",
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
        instance_number=number,
        patient_sex="F",
        patient_age_years=50.0,
        frame_of_reference_uid="2.25.4",
        rows=4,
        columns=6,
        photometric_interpretation="MONOCHROME2",
        bits_allocated=16,
        bits_stored=16,
        high_bit=15,
        pixel_representation=1,
        pixel_spacing=(0.7, 0.8),
        position=(-10.0, -20.0, z),
        orientation=AXIAL,
        rescale_slope=1.0,
        rescale_intercept=-1024.0,
        rescale_type="HU",
        pixel_offset=1000,
        pixel_length=48,
    )
    return replace(header, **attributes)


def axial_series(count: int, *, step: float = 2.5, start: float = -100.0, **attributes: Any) -> list[ImageHeader]:
    """An even stack of `count` slices from the feet up; `attributes` hold for every slice."""
    return [axial_header(index + 1, start + index * step, **attributes) for index in range(count)]


def cosines_about(axis: tuple[float, float, float], degrees: float) -> tuple[float, ...]:
    """Axial direction cosines turned by `degrees` about `axis`."""
    turn = rotation(axis, degrees)
    return tuple(float(value) for value in np.concatenate([turn[:, 0], turn[:, 1]]))


def rotation(axis: tuple[float, float, float], degrees: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Rodrigues' rotation matrix."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
