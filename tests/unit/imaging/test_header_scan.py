"""The fast scanner says what pydicom says, attribute by attribute, on every DICOM file at hand."""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from node.domain.instances import ImageHeader
from node.errors import NotUnderstood
from node.imaging.explicit_scan import Unscannable, scan_data_set, scan_meta
from node.imaging.headers import read_header, read_headers
from node.imaging.image_attributes import Elements
from node.imaging.pydicom_scan import read_elements

WHEEL_FILES = Path(pydicom.__file__).parent / "data"
SHARED_SETS = (
    "ct_abdomen_totalseg20",
    "ct_chest_LIDC-IDRI-0001",
    "ct_chest_LIDC-IDRI-0002",
    "ct_head_philips28",
    "mr_brain_PGBM-003",
    "mr_brain_PGBM-002_HippoCrop",
    "pydicom_data",
    "dcm_qa_ts",
    "dcm_qa_enh",
    "dcmqi_seg_sr",
    "highdicom_test_files",
    "pet_suyash",
    "wg04_compressed",
)


def files_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def scanned(path: Path) -> Elements | None:
    """What the fast scanner alone says; None where it leaves the file to pydicom."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return scan_data_set(descriptor, scan_meta(descriptor))
    except Unscannable:
        return None
    finally:
        os.close(descriptor)


def by_pydicom(path: Path) -> Dataset | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return pydicom.dcmread(path, stop_before_pixels=True)
        except (pydicom.errors.InvalidDicomError, AttributeError, NotImplementedError):
            return None


def stated(elements: Elements) -> Elements:
    """Without empty fields, which say as much as absent ones, and without the padding that pydicom drops from one."""
    kept = {keyword: raw for keyword, raw in elements.fields.items() if raw}
    if "SpecificCharacterSet" in kept:
        kept["SpecificCharacterSet"] = kept["SpecificCharacterSet"].rstrip(b" \0")
    return replace(elements, fields=kept)


def check_elements(folder: Path) -> int:
    """Hold the scanner's raw elements against pydicom's; return how many files it scanned."""
    count = 0
    for path in files_below(folder):
        found = scanned(path)
        if found is not None:
            count += 1
            assert stated(found) == stated(read_elements(path)), path
    return count


def test_scanner_and_pydicom_give_the_same_raw_elements_in_the_files_of_the_pydicom_wheel() -> None:
    assert check_elements(WHEEL_FILES) > 40


@pytest.mark.parametrize("name", SHARED_SETS)
def test_scanner_and_pydicom_give_the_same_raw_elements_in_shared_data(
    name: str, shared_data: Callable[[str], Path]
) -> None:
    assert check_elements(shared_data(name)) > 0


def check_headers(folder: Path) -> int:
    count = 0
    for path in files_below(folder):
        data_set = by_pydicom(path)
        if data_set is None or not data_set:
            continue
        header = understood(path)
        if isinstance(header, NotUnderstood):
            assert is_rubbish(data_set, str(header)), path
            continue
        count += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert_same(header, data_set, path)
    return count


def understood(path: Path) -> ImageHeader | NotUnderstood:
    try:
        return read_header(path)
    except NotUnderstood as refusal:
        return refusal


def is_rubbish(data_set: Dataset, reason: str) -> bool:
    """Tell whether the attribute that the refusal names is one that pydicom cannot convert either, or has no values."""
    keyword = reason.split(" ", 1)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            getattr(data_set, keyword)
        except (ValueError, TypeError, OverflowError, UserWarning):
            return True
    return False


def assert_same(header: ImageHeader, data_set: Dataset, path: Path) -> None:
    for name, keyword in SAME_TEXT.items():
        assert getattr(header, name) == text_of(data_set, keyword), (path, keyword)
    for name, (keyword, default) in SAME_NUMBER.items():
        value = number_of(data_set, keyword)
        assert getattr(header, name) == (default if value is None else value), (path, keyword)
    for name, keyword in SAME_NUMBERS.items():
        assert getattr(header, name) == numbers_of(data_set, keyword), (path, keyword)
    counts = [number_of(data_set, keyword) for keyword in COUNTS]
    assert header.stated_images == max((count for count in counts if count is not None), default=None), path
    assert header.patient_key == patient_key_of(data_set), path
    assert header.sop.sop_class_uid == text_of(data_set, "SOPClassUID"), path
    assert header.sop.sop_instance_uid == text_of(data_set, "SOPInstanceUID"), path
    assert header.has_modality_lut == ("ModalityLUTSequence" in data_set), path


SAME_TEXT = {
    "study_uid": "StudyInstanceUID",
    "series_uid": "SeriesInstanceUID",
    "modality": "Modality",
    "body_part": "BodyPartExamined",
    "study_description": "StudyDescription",
    "series_description": "SeriesDescription",
    "protocol_name": "ProtocolName",
    "patient_sex": "PatientSex",
    "frame_of_reference_uid": "FrameOfReferenceUID",
    "photometric_interpretation": "PhotometricInterpretation",
    "rescale_type": "RescaleType",
    "units": "Units",
    "suv_type": "SUVType",
}
SAME_NUMBER: dict[str, tuple[str, float | None]] = {
    "instance_number": ("InstanceNumber", None),
    "temporal_positions": ("NumberOfTemporalPositions", None),
    "number_of_frames": ("NumberOfFrames", 1),
    "rows": ("Rows", 0),
    "columns": ("Columns", 0),
    "samples_per_pixel": ("SamplesPerPixel", 1),
    "bits_allocated": ("BitsAllocated", 0),
    "bits_stored": ("BitsStored", 0),
    "high_bit": ("HighBit", 0),
    "pixel_representation": ("PixelRepresentation", 0),
    "rescale_slope": ("RescaleSlope", 1.0),
    "rescale_intercept": ("RescaleIntercept", 0.0),
}
COUNTS = ("NumberOfSeriesRelatedInstances", "ImagesInAcquisition", "NumberOfSlices")
SAME_NUMBERS = {
    "pixel_spacing": "PixelSpacing",
    "position": "ImagePositionPatient",
    "orientation": "ImageOrientationPatient",
}


def text_of(data_set: Dataset, keyword: str) -> str:
    value = data_set.get(keyword)
    if isinstance(value, MultiValue):
        value = "\\".join(str(part) for part in value)
    return "" if value is None else str(value).strip(" \0")


def patient_key_of(data_set: Dataset) -> str:
    stated = text_of(data_set, "PatientID")
    issued = f"{stated}\x1f{text_of(data_set, 'IssuerOfPatientID')}"
    return hashlib.sha256(issued.encode()).hexdigest() if stated else ""


def number_of(data_set: Dataset, keyword: str) -> Any:
    value = data_set.get(keyword)
    return None if value is None or value == "" else float(value)


def numbers_of(data_set: Dataset, keyword: str) -> tuple[float, ...] | None:
    value = data_set.get(keyword)
    return tuple(float(part) for part in value) if value else None


def test_headers_say_what_pydicom_says_in_the_files_of_the_pydicom_wheel() -> None:
    assert check_headers(WHEEL_FILES) > 80


@pytest.mark.parametrize("name", SHARED_SETS)
def test_headers_say_what_pydicom_says_in_shared_data(name: str, shared_data: Callable[[str], Path]) -> None:
    assert check_headers(shared_data(name)) > 0


def test_every_attribute_of_the_header_is_compared() -> None:
    compared = {*SAME_TEXT, *SAME_NUMBER, *SAME_NUMBERS, "sop", "has_modality_lut", "stated_images"}
    elsewhere = {
        "path",
        "patient_key",
        "transfer_syntax",
        "image_type",
        "patient_age_years",
        "padding",
        "pixel_offset",
        "pixel_length",
    }
    assert compared | elsewhere == {field.name for field in fields(ImageHeader)}


def test_pixel_offset_points_at_the_pixels_in_the_files_of_the_pydicom_wheel() -> None:
    count = 0
    for path in files_below(WHEEL_FILES):
        data_set = by_pydicom(path)
        if data_set is None or not data_set or data_set.get("Rows") is None:
            continue
        header = understood(path)
        if isinstance(header, ImageHeader) and header.pixel_offset is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pixels = pydicom.dcmread(path).get_item("PixelData").value
            stored = path.read_bytes()[header.pixel_offset : header.pixel_offset + header.pixel_length]
            assert stored == pixels, path
            count += 1
    assert count > 30


def test_read_headers_tells_of_files_that_are_no_images_and_returns_the_others(tmp_path: Path) -> None:
    rubbish = tmp_path / "LICENSE"
    rubbish.write_text("no image")
    told: list[tuple[Path, NotUnderstood]] = []
    good = WHEEL_FILES / "test_files" / "CT_small.dcm"
    found = read_headers([rubbish, good], on_refused=lambda path, error: told.append((path, error)))
    assert [header.path for header in found] == [good]
    assert [path for path, _ in told] == [rubbish]
    with pytest.raises(NotUnderstood, match="no DICOM Part 10 file"):
        read_headers([rubbish, good])


def test_a_missing_file_is_no_fault_of_its_content(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "gone.dcm")
