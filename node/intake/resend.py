"""The same SOP Instance UID with another data set: a variant of what is here, or other content (architecture 7).

Only this rare path decodes pixels, and only to compare them.
"""

import struct
from pathlib import Path
from typing import Any, Final

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError

from node.domain.instances import ReceivedInstance
from node.errors import InstanceConflict, OutOfResources

MOST_COMPARED_BYTES: Final = 1 << 30
_PIXELS: Final = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_GRID: Final = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsStored", "PixelRepresentation")
_MEANING: Final = (
    *("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing"),
    *("SpacingBetweenSlices", "SliceThickness", "RescaleSlope", "RescaleIntercept", "RescaleType", "Units"),
)
"""Where the pixels lie and what their values mean: with any of these changed, results of the first would be wrong."""
_FRAME_GROUPS: Final = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_FRAME_MACROS: Final = (
    *("PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence"),
    "PixelValueTransformationSequence",
)
# What pydicom and its decoders raise on pixels that are not what they say.
_READING_ERRORS: Final = (
    *(InvalidDicomError, ValueError, TypeError, LookupError, AttributeError, OSError, EOFError),
    *(RuntimeError, MemoryError, struct.error),
)


def note_of_variant(first: ReceivedInstance, again: ReceivedInstance) -> str:
    """Compare two instances of one SOP Instance UID whose data sets differ.

    Args:
        first: The one that is kept.
        again: The one that came later; its file is still there.

    Returns:
        What differs, where both are the same image of the same patient.

    Raises:
        InstanceConflict: Study, series, class, patient, pixels, geometry or rescale differ, or cannot be compared.
        OutOfResources: One of the files cannot be read now.
    """
    for name, one, other in (
        ("study", first.study_uid, again.study_uid),
        ("series", first.series_uid, again.series_uid),
        ("SOP class", first.sop.sop_class_uid, again.sop.sop_class_uid),
    ):
        if one != other:
            raise InstanceConflict(f"SOP Instance UID is known in another {name}")
    try:
        kept, later = _read(first.path), _read(again.path)
        if _is_another_patient(kept, later):
            raise InstanceConflict("SOP Instance UID is known with another patient")
        same = _same_pixels(kept, later)
    except _READING_ERRORS as error:
        raise InstanceConflict(f"SOP Instance UID is known; not comparable ({type(error).__name__})") from error
    if not same:
        raise InstanceConflict("SOP Instance UID is known with other content")
    _require_same_meaning(kept, later)
    if first.transfer_syntax != again.transfer_syntax:
        return f"same pixels in transfer syntax {again.transfer_syntax}"
    return "same pixels, other attributes"


def _read(path: Path) -> FileDataset:
    try:
        return pydicom.dcmread(path)
    except OSError as error:
        raise OutOfResources("the store cannot be read") from error


def _require_same_meaning(kept: Dataset, later: Dataset) -> None:
    for keyword in _MEANING:
        if _stated(kept, keyword) != _stated(later, keyword):
            raise InstanceConflict(f"SOP Instance UID is known with another {keyword}")
    if _frame_macros(kept) != _frame_macros(later):
        raise InstanceConflict("SOP Instance UID is known with other geometry of its frames")


def _frame_macros(data_set: Dataset) -> list[Any]:
    items = (item for group in _FRAME_GROUPS for item in data_set.get(group) or ())
    return [_stated(item, keyword) for item in items for keyword in _FRAME_MACROS]


def _stated(data_set: Dataset, keyword: str) -> Any:
    # Absent and empty say the same.
    value = data_set.get(keyword)
    return None if value in (None, "", []) else value


def _is_another_patient(kept: Dataset, later: Dataset) -> bool:
    # A PACS that reconciles changes the ID or the name; another patient has both of his own.
    return all(_plain(kept, keyword) != _plain(later, keyword) for keyword in ("PatientID", "PatientName"))


def _plain(data_set: Dataset, keyword: str) -> str:
    return str(data_set.get(keyword, "")).rstrip("^ ").casefold()


def _same_pixels(kept: FileDataset, later: FileDataset) -> bool:
    keyword = next((name for name in _PIXELS if name in kept or name in later), None)
    if keyword is None:
        return _without_patient(kept) == _without_patient(later)
    if keyword not in kept or keyword not in later or any(kept.get(name) != later.get(name) for name in _GRID):
        return False
    if kept.file_meta.TransferSyntaxUID == later.file_meta.TransferSyntaxUID:
        return bool(kept[keyword].value == later[keyword].value)
    if _decoded_bytes(kept) > MOST_COMPARED_BYTES:
        raise InstanceConflict("SOP Instance UID is known; too large to compare")
    return bool(np.array_equal(kept.pixel_array, later.pixel_array))


def _without_patient(data_set: Dataset) -> Dataset:
    return Dataset({tag: element for tag, element in data_set.items() if tag >> 16 != 0x0010})


def _decoded_bytes(data_set: Dataset) -> int:
    count = int(data_set.get("NumberOfFrames") or 1) * int(data_set.get("SamplesPerPixel") or 1)
    return count * int(data_set.Rows) * int(data_set.Columns) * (int(data_set.BitsAllocated) // 8 or 1)
