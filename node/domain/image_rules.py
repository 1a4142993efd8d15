"""What images must be, one by one and together, before a volume can be made of them. Pure rules on headers."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Final

from node.domain.instances import ImageHeader
from node.errors import GeometryRefusal, Refusal

# Single-frame classes of PS3.4 B.5 that volumes are built from.
VOLUME_SOP_CLASSES: Final = {
    "1.2.840.10008.5.1.4.1.1.2": "CT Image Storage",
    "1.2.840.10008.5.1.4.1.1.4": "MR Image Storage",
    "1.2.840.10008.5.1.4.1.1.128": "Positron Emission Tomography Image Storage",
}
_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)+")
_LONGEST_UID: Final = 64  # PS3.5 9.1
_LISTED: Final = 5


def require_image(header: ImageHeader) -> None:
    """Raise Refusal where one image cannot be a slice of stored values with a linear rescale."""
    for rule in (_identity, _content, _pixels, _bits):
        reason = rule(header)
        if reason:
            raise Refusal(f"{reason} (SOP instance {header.sop.sop_instance_uid or 'without UID'})")


def _identity(header: ImageHeader) -> str:
    uids = {
        "SOP Class UID (0008,0016)": header.sop.sop_class_uid,
        "SOP Instance UID (0008,0018)": header.sop.sop_instance_uid,
        "Study Instance UID (0020,000D)": header.study_uid,
        "Series Instance UID (0020,000E)": header.series_uid,
    }
    for name, uid in uids.items():
        if not uid:
            return f"{name} is empty: results could not refer to the image"
        if not _is_uid(uid):
            return (
                f"{name} is {uid[:_LONGEST_UID]!r}, which is no UID (PS3.5 9.1): results could not refer to the image"
            )
    return ""


@lru_cache(maxsize=256)
def _is_uid(text: str) -> bool:
    return len(text) <= _LONGEST_UID and _UID.fullmatch(text) is not None


def _content(header: ImageHeader) -> str:
    if header.sop.sop_class_uid not in VOLUME_SOP_CLASSES:
        return (
            f"SOP class {header.sop.sop_class_uid} with {header.number_of_frames} frame(s): volumes are built from "
            f"single-frame CT, MR and PET Image Storage"
        )
    if header.number_of_frames != 1:
        return f"Number of Frames (0028,0008) is {header.number_of_frames}: only single-frame images are taken"
    if header.pixel_length == 0:
        return "no Pixel Data (7FE0,0010)"
    return ""


def _pixels(header: ImageHeader) -> str:
    if header.samples_per_pixel != 1:
        return (
            f"{header.samples_per_pixel} samples per pixel ({header.photometric_interpretation}): "
            f"a volume needs one value per pixel"
        )
    if header.photometric_interpretation != "MONOCHROME2":
        stated = header.photometric_interpretation or "absent"
        return f"Photometric Interpretation (0028,0004) is {stated}: only MONOCHROME2 is taken"
    if header.has_modality_lut:
        return "Modality LUT Sequence (0028,3000): values are not linear in the stored values"
    if header.rescale_slope == 0:
        return "Rescale Slope (0028,1053) is 0: the image carries no values"
    return ""


def _bits(header: ImageHeader) -> str:
    allocated, stored, high = header.bits_allocated, header.bits_stored, header.high_bit
    if allocated not in (8, 16):
        return f"Bits Allocated (0028,0100) is {allocated}: 8 and 16 are taken"
    if not (1 <= stored <= allocated and stored - 1 <= high < allocated) or header.pixel_representation not in (0, 1):
        return (
            f"Bits Stored {stored}, High Bit {high} and Pixel Representation {header.pixel_representation} do not "
            f"describe a pixel of {allocated} bits"
        )
    if header.rows == 0 or header.columns == 0:
        return f"Rows x Columns is {header.rows} x {header.columns}"
    needed = header.rows * header.columns * allocated // 8
    if header.pixel_offset is not None and header.pixel_length < needed:
        return f"Pixel Data holds {header.pixel_length} bytes, where Rows x Columns need {needed}"
    return ""


_PATIENT: Final = "Patient ID (0010,0020) or its issuer"
_Key = Callable[[ImageHeader], object]
_ALIKE: Final[tuple[tuple[str, _Key], ...]] = (
    (_PATIENT, lambda image: image.patient_key),
    ("Study Instance UID (0020,000D)", lambda image: image.study_uid),
    ("Series Instance UID (0020,000E)", lambda image: image.series_uid),
    ("Modality (0008,0060)", lambda image: image.modality),
    ("Frame of Reference UID (0020,0052)", lambda image: image.frame_of_reference_uid),
    ("Rows x Columns (0028,0010) (0028,0011)", lambda image: (image.rows, image.columns)),
    ("Bits Allocated (0028,0100)", lambda image: image.bits_allocated),
    ("Bits Stored (0028,0101)", lambda image: image.bits_stored),
    ("High Bit (0028,0102)", lambda image: image.high_bit),
    ("Pixel Representation (0028,0103)", lambda image: image.pixel_representation),
    ("Rescale Type (0028,1054)", lambda image: image.rescale_type),
    ("Units (0054,1001)", lambda image: image.units),
    ("SUV Type (0054,1006)", lambda image: image.suv_type),
)


def require_alike(headers: Sequence[ImageHeader], place: Callable[[ImageHeader], str]) -> None:
    """Raise GeometryRefusal where the images of one series differ in what a volume has only once.

    `place` says where an image lies, for the message: "-97.50 mm".
    """
    for name, key in _ALIKE:
        counts = Counter(key(header) for header in headers)
        if len(counts) > 1:
            usual = counts.most_common(1)[0][0]
            where = listed(place(header) for header in headers if key(header) != usual)
            if name == _PATIENT:  # a patient's, so not even its digest is shown
                said = f"one in {counts[usual]} images, {len(counts) - 1} other(s)"
            else:
                said = f"{usual} in {counts[usual]} images, {', '.join(str(each) for each in counts if each != usual)}"
            raise GeometryRefusal(f"{name} differs within the series: {said} at {where}")


def padding_of(headers: Sequence[ImageHeader]) -> int | None:
    """Return the stored value that fills pixels outside the reconstruction; raise Refusal where the series has two."""
    stated = {header.padding for header in headers if header.padding is not None}
    if len(stated) > 1:
        raise Refusal(f"Pixel Padding Value (0028,0120) differs within the series: {sorted(stated)}")
    return next(iter(stated), None)


def listed(parts: Iterable[str]) -> str:
    """Join the first few of `parts` and say how many are left out."""
    every = list(parts)
    more = f" and {len(every) - _LISTED} more" if len(every) > _LISTED else ""
    return ", ".join(every[:_LISTED]) + more
