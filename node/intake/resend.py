"""The same SOP Instance UID with another data set: a variant of what is here, or other content (architecture 7).

Only this rare path decodes pixels, and only to compare them.
"""

import struct
from typing import Final

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError

from node.domain.instances import ReceivedInstance
from node.errors import InstanceConflict

MOST_COMPARED_BYTES: Final = 1 << 30
_PIXELS: Final = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_GRID: Final = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsStored", "PixelRepresentation")
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
        InstanceConflict: Study, series, class, patient or pixels differ, or cannot be compared.
    """
    for name, one, other in (
        ("study", first.study_uid, again.study_uid),
        ("series", first.series_uid, again.series_uid),
        ("SOP class", first.sop.sop_class_uid, again.sop.sop_class_uid),
    ):
        if one != other:
            raise InstanceConflict(f"SOP Instance UID is known in another {name}")
    try:
        kept, later = pydicom.dcmread(first.path), pydicom.dcmread(again.path)
        if _is_another_patient(kept, later):
            raise InstanceConflict("SOP Instance UID is known with another patient")
        same = _same_pixels(kept, later)
    except _READING_ERRORS as error:
        raise InstanceConflict(f"SOP Instance UID is known; not comparable ({type(error).__name__})") from error
    if not same:
        raise InstanceConflict("SOP Instance UID is known with other content")
    if first.transfer_syntax != again.transfer_syntax:
        return f"same pixels in transfer syntax {again.transfer_syntax}"
    return "same pixels, other attributes"


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
