"""Slices are ordered by position, and what makes no even stack is refused with the positions named."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from node.domain.instances import ImageHeader, SopReference
from node.domain.slice_order import stack_of
from node.errors import GeometryRefusal, Refusal
from node.imaging.headers import read_header
from tests.image_headers import axial_header, axial_series, cosines_about, rotation
from tests.series_factory import SeriesPlan, write_series


def refusal(headers: list[ImageHeader]) -> str:
    with pytest.raises(Refusal) as caught:
        stack_of(headers)
    return str(caught.value)


def geometry_refusal(headers: list[ImageHeader]) -> str:
    with pytest.raises(GeometryRefusal) as caught:
        stack_of(headers)
    return str(caught.value)


def test_slices_ascend_along_the_normal_whatever_their_instance_numbers() -> None:
    headers = axial_series(12)
    shuffled = [replace(header, instance_number=100 - index) for index, header in enumerate(headers)]
    random.Random(3).shuffle(shuffled)
    stack = stack_of(shuffled)
    assert [header.sop for header in stack.headers] == [header.sop for header in headers]
    assert stack.geometry.spacing == (2.5, 0.7, 0.8)
    assert stack.geometry.origin == (-10.0, -20.0, -100.0)
    assert stack.geometry.shape == (12, 4, 6)
    assert stack.geometry.slice_direction == (0.0, 0.0, 1.0)
    assert stack.geometry.row_direction == (0.0, 1.0, 0.0)
    assert stack.geometry.column_direction == (1.0, 0.0, 0.0)


def test_positions_rounded_by_the_device_are_even() -> None:
    headers = [axial_header(index, round(index * 0.625, 2)) for index in range(60)]
    assert stack_of(headers).geometry.spacing[0] == pytest.approx(0.625, abs=1e-3)


def test_a_missing_slice_is_refused_and_its_neighbours_are_named() -> None:
    headers = axial_series(12)
    del headers[4]
    assert geometry_refusal(headers) == ("slices are missing: 1 between -92.50 mm and -87.50 mm (spacing 2.500 mm)")


def test_several_gaps_are_listed() -> None:
    headers = axial_series(30)
    del headers[20:23]
    del headers[4]
    assert "1 between -92.50 mm and -87.50 mm, 3 between -52.50 mm and -42.50 mm" in geometry_refusal(headers)


def test_uneven_spacing_is_refused_and_named() -> None:
    headers = axial_series(10)
    headers[3:] = [replace(header, position=(-10.0, -20.0, header.position[2] + 0.6)) for header in headers[3:]]
    reason = geometry_refusal(headers)
    assert reason.startswith("slices are unevenly spaced: 3.100 mm from -95.00 mm to -91.90 mm")


def test_spacing_that_drifts_slowly_is_refused() -> None:
    headers = [axial_header(index, index * 2.0 + 0.001 * index**2) for index in range(60)]
    assert "off the even grid" in geometry_refusal(headers)


def test_a_duplicate_slice_is_refused_with_its_position() -> None:
    headers = axial_series(10)
    headers.append(replace(headers[3], sop=SopReference(headers[3].sop.sop_class_uid, "2.25.99")))
    assert geometry_refusal(headers) == ("several images at one position: 2 at -92.50 mm, where the others stand alone")


def test_phases_in_one_series_are_refused_as_several_stacks() -> None:
    headers = [*axial_series(10), *axial_series(10), *axial_series(10)]
    assert geometry_refusal(headers).startswith("3 images at each of 10 positions from -100.00 mm to -77.50 mm")


def test_images_all_at_one_position_are_no_stack() -> None:
    assert geometry_refusal([axial_header(index, 5.0) for index in range(4)]) == (
        "all 4 images lie at one position, 5.00 mm: no stack"
    )


def test_a_localizer_in_the_series_is_refused_as_another_orientation() -> None:
    coronal = axial_header(90, 0.0, orientation=(1.0, 0.0, 0.0, 0.0, 0.0, -1.0))
    reason = geometry_refusal([*axial_series(10), coronal])
    assert "2 orientations" in reason
    assert "10 images axial" in reason
    assert "1 images coronal" in reason


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_slices_make_no_volume(count: int) -> None:
    assert f"{count} image(s)" in geometry_refusal(axial_series(count))


@pytest.mark.parametrize("degrees", [3.0, 15.0, -22.5])
def test_gantry_tilt_is_refused_with_its_angle(degrees: float) -> None:
    # The table runs along z, while the planes are tilted about x: origins do not run along the normal.
    tilted = cosines_about((1, 0, 0), degrees)
    headers = [axial_header(index, index * 5.0, orientation=tilted) for index in range(10)]
    assert f"sheared by {abs(degrees):.2f} degrees" in geometry_refusal(headers)


def test_a_slice_displaced_in_its_plane_is_refused_with_its_position() -> None:
    headers = axial_series(10)
    headers[6] = replace(headers[6], position=(-4.0, -20.0, -85.0))
    assert geometry_refusal(headers) == (
        "slices are displaced within their plane: the one at -85.00 mm by 6.00 mm against the first"
    )


def test_an_oblique_stack_along_its_normal_is_taken() -> None:
    turn = rotation((1.0, 2.0, 0.5), 17.0)
    cosines = cosines_about((1.0, 2.0, 0.5), 17.0)
    headers = [
        axial_header(index, 0.0, orientation=cosines, position=tuple(3.0 * index * turn[:, 2])) for index in range(9)
    ]
    geometry = stack_of(headers[::-1]).geometry
    assert geometry.spacing[0] == pytest.approx(3.0)
    assert np.allclose(geometry.slice_direction, turn[:, 2])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rows": 8, "pixel_length": 96}, "Rows x Columns"),
        ({"bits_stored": 12, "high_bit": 11}, "Bits Stored (0028,0101) differs within the series: 16 in 9 images, 12"),
        ({"pixel_representation": 0}, "Pixel Representation"),
        ({"frame_of_reference_uid": "2.25.77"}, "Frame of Reference UID"),
        ({"pixel_spacing": (0.7, 0.9)}, "Pixel Spacing"),
        ({"rescale_type": "US"}, "Rescale Type"),
        ({"patient_key": "ab" * 32}, "Patient ID"),
        ({"study_uid": "2.25.78"}, "Study Instance UID"),
    ],
)
def test_what_differs_within_a_series_is_refused_with_the_position(change: dict[str, Any], named: str) -> None:
    headers = axial_series(10)
    headers[7] = replace(headers[7], **change)
    reason = geometry_refusal(headers)
    assert named in reason
    assert "-82.50 mm" in reason


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"position": None}, "Image Position (Patient)"),
        ({"orientation": None}, "Image Orientation (Patient)"),
        ({"orientation": (1.0, 0.0, 0.0, 0.5, 0.5, 0.0)}, "perpendicular unit vectors"),
        ({"orientation": (0.0,) * 6}, "perpendicular unit vectors"),
        ({"pixel_spacing": None}, "Pixel Spacing (0028,0030) is absent"),
        ({"pixel_spacing": (0.0, 0.7)}, "Pixel Spacing"),
        ({"frame_of_reference_uid": ""}, "Frame of Reference UID (0020,0052) is absent"),
    ],
)
def test_images_without_a_place_in_the_patient_are_refused(change: dict[str, Any], named: str) -> None:
    assert named in geometry_refusal(axial_series(5, **change))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"samples_per_pixel": 3, "photometric_interpretation": "RGB"}, "3 samples per pixel (RGB)"),
        ({"photometric_interpretation": "MONOCHROME1"}, "MONOCHROME1"),
        ({"photometric_interpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"has_modality_lut": True}, "Modality LUT Sequence"),
        ({"number_of_frames": 40}, "Number of Frames (0028,0008) is 40"),
        ({"pixel_length": 0, "pixel_offset": None}, "no Pixel Data"),
        ({"pixel_length": 46}, "holds 46 bytes, where Rows x Columns need 48"),
        ({"bits_allocated": 32}, "Bits Allocated (0028,0100) is 32"),
        ({"bits_stored": 17}, "Bits Stored 17"),
        ({"high_bit": 3}, "High Bit 3"),
        ({"rows": 0}, "Rows x Columns"),
        ({"rescale_slope": 0.0}, "Rescale Slope"),
        ({"sop": SopReference("1.2.840.10008.5.1.4.1.1.2.1", "2.25.5")}, "single-frame CT, MR and PET"),
        ({"sop": SopReference("1.2.840.10008.5.1.4.1.1.2", "")}, "SOP Instance UID (0008,0018) is empty"),
        ({"sop": SopReference("1.2.840.10008.5.1.4.1.1.2", "../../etc")}, "which is no UID"),
        ({"series_uid": ""}, "Series Instance UID"),
    ],
)
def test_images_that_are_no_slices_of_linear_values_are_refused(change: dict[str, Any], named: str) -> None:
    headers = axial_series(5)
    headers[2] = replace(headers[2], **change)
    assert named in refusal(headers)


def test_two_padding_values_are_refused_and_one_is_enough_for_all() -> None:
    headers = axial_series(5)
    headers[2] = replace(headers[2], padding=-2000)
    stack_of(headers)
    headers[3] = replace(headers[3], padding=-1024)
    assert "Pixel Padding Value" in refusal(headers)


def test_two_patients_in_one_series_are_refused_and_neither_is_named(tmp_path: Path) -> None:
    paths = write_series(SeriesPlan(np.full((6, 8, 8), 24, np.int16)), tmp_path)
    for path in paths[4:]:
        dataset = pydicom.dcmread(path)
        dataset.PatientID = "OTHER-1"
        dataset.save_as(path)
    reason = geometry_refusal([read_header(path) for path in paths])
    assert reason.startswith("Patient ID (0010,0020) or its issuer differs within the series: one in 4 images, 1 other")
    assert not any(said in reason for said in ("OTHER-1", "PHANTOM-7", read_header(paths[0]).patient_key))


def test_another_issuer_is_another_patient_and_another_spelling_of_the_name_is_not(tmp_path: Path) -> None:
    paths = write_series(SeriesPlan(np.full((3, 8, 8), 24, np.int16)), tmp_path)
    keys = []
    for path, attributes in zip(
        paths, ({}, {"PatientName": "PHANTOM^SERIES"}, {"IssuerOfPatientID": "B"}), strict=True
    ):
        dataset = pydicom.dcmread(path)
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)
        keys.append(read_header(path).patient_key)
    assert keys[0] == keys[1] != keys[2]
