"""The elements of a data set by pydicom: for every encoding that the fast scanner leaves alone."""

import errno
import struct
import warnings
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset, read_file_meta_info, read_partial
from pydicom.tag import BaseTag
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from node.domain.instances import EXPLICIT_VR_LITTLE_ENDIAN
from node.errors import NotUnderstood
from node.imaging.deflated import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
from node.imaging.image_attributes import KEYWORDS, MODALITY_LUT_SEQUENCE, PIXEL_DATA, TAGS, Elements

_UNDEFINED: Final = 0xFFFFFFFF
_NATIVE: Final = (EXPLICIT_VR_LITTLE_ENDIAN, ImplicitVRLittleEndian, ExplicitVRBigEndian)
_TAGS: Final[list[BaseTag | int]] = [*KEYWORDS, MODALITY_LUT_SEQUENCE]
# What pydicom raises at malformed bytes, by its own code and by random mutation of files.
MALFORMED: Final = (
    InvalidDicomError,
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
# Errors of the system that wrong lengths and offsets bring about; every other one is the machine's.
_BROUGHT_ABOUT: Final = (None, errno.EINVAL, errno.EOVERFLOW, errno.EISDIR)


def is_of_the_machine(error: Exception) -> bool:
    """Tell an I/O error that says nothing of the file's content (EMFILE, EIO, ENOENT) from a malformed data set."""
    return isinstance(error, OSError) and error.errno not in _BROUGHT_ABOUT


class _PixelsSought:
    """Stops pydicom at Pixel Data and notes where its value lies."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.offset: int | None = None
        self.length = 0

    def __call__(self, tag: BaseTag, _vr: str | None, length: int) -> bool:
        """Tell whether to stop before `tag`; pydicom has read the head of the element when it asks."""
        if tag == PIXEL_DATA:
            self.offset = self._file.tell()
            self.length = -1 if length == _UNDEFINED else length
        return int(tag) >= PIXEL_DATA


def read_elements(path: Path) -> Elements:
    """Return the elements of a Part 10 file in any encoding but deflated; raise NotUnderstood with the reason.

    OSError passes where it says nothing of the content.
    """
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")
            transfer_syntax = str(read_file_meta_info(path).get("TransferSyntaxUID", ""))
            if transfer_syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
                raise NotUnderstood("deflated data set behind an odd file meta group (PS3.10 7.1)")
            sought = _PixelsSought(file)
            data_set = read_partial(file, stop_when=sought, specific_tags=_TAGS)
            return _elements(data_set, transfer_syntax, sought)
    except InvalidDicomError as error:
        raise NotUnderstood("no DICOM Part 10 file: the prefix DICM is missing (PS3.10 7.1)") from error
    except MALFORMED as error:
        if is_of_the_machine(error):
            raise
        raise _malformed(error) from None


def read_inflated(inflated: bytes) -> Elements:
    """Return the elements of an inflated data set (Explicit VR Little Endian); raise NotUnderstood."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = BytesIO(inflated)
            sought = _PixelsSought(file)
            data_set = read_dataset(
                file, is_implicit_VR=False, is_little_endian=True, stop_when=sought, specific_tags=_TAGS
            )
            return _elements(data_set, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, sought)
    except MALFORMED as error:
        raise _malformed(error) from None


def _malformed(error: Exception) -> NotUnderstood:
    # Only the kind of the error, and no cause: pydicom's messages quote the bytes, and those may be the patient's name.
    return NotUnderstood(f"the data set is malformed ({type(error).__name__}): send the instance again")


def _elements(data_set: Dataset, transfer_syntax: str, sought: _PixelsSought) -> Elements:
    found = Elements(transfer_syntax or _guessed_syntax(data_set))
    found.has_modality_lut = MODALITY_LUT_SEQUENCE in data_set
    for keyword, tag in TAGS.items():
        element = data_set.get_item(tag)
        if isinstance(element, RawDataElement):
            found.little_endian = element.is_little_endian
            found.fields[keyword] = element.value or b""
        elif keyword == "SpecificCharacterSet" and tag in data_set:
            # pydicom has converted this one by the time it returns.
            names = [element.value] if isinstance(element.value, str) else element.value or []
            found.fields[keyword] = "\\".join(names).encode("latin-1", "replace")
    found.pixel_length = sought.length
    if sought.length >= 0 and found.transfer_syntax in _NATIVE:
        found.pixel_offset = sought.offset
    return found


def _guessed_syntax(data_set: Dataset) -> str:
    """Name the encoding that pydicom found where the file meta group names none."""
    implicit, little_endian = data_set.original_encoding
    if not little_endian:
        return ExplicitVRBigEndian
    return ImplicitVRLittleEndian if implicit else EXPLICIT_VR_LITTLE_ENDIAN
