"""From the raw elements of a data set to an ImageHeader: which attributes are read, and how."""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from node.domain.instances import ImageHeader, SopReference
from node.errors import NotUnderstood
from node.imaging import attribute_values as values

PIXEL_DATA: Final = 0x7FE00010
MODALITY_LUT_SEQUENCE: Final = 0x00283000

# Tag, keyword and the keyword's use below: PS3.6. The order is the order in a data set.
KEYWORDS: Final[dict[int, str]] = {
    0x00080005: "SpecificCharacterSet",
    0x00080008: "ImageType",
    0x00080016: "SOPClassUID",
    0x00080018: "SOPInstanceUID",
    0x00080060: "Modality",
    0x00081030: "StudyDescription",
    0x0008103E: "SeriesDescription",
    0x00100020: "PatientID",
    0x00100021: "IssuerOfPatientID",
    0x00100040: "PatientSex",
    0x00101010: "PatientAge",
    0x00180015: "BodyPartExamined",
    0x00181030: "ProtocolName",
    0x0020000D: "StudyInstanceUID",
    0x0020000E: "SeriesInstanceUID",
    0x00200013: "InstanceNumber",
    0x00200032: "ImagePositionPatient",
    0x00200037: "ImageOrientationPatient",
    0x00200052: "FrameOfReferenceUID",
    0x00200105: "NumberOfTemporalPositions",
    0x00201002: "ImagesInAcquisition",
    0x00201209: "NumberOfSeriesRelatedInstances",
    0x00280002: "SamplesPerPixel",
    0x00280004: "PhotometricInterpretation",
    0x00280008: "NumberOfFrames",
    0x00280010: "Rows",
    0x00280011: "Columns",
    0x00280030: "PixelSpacing",
    0x00280100: "BitsAllocated",
    0x00280101: "BitsStored",
    0x00280102: "HighBit",
    0x00280103: "PixelRepresentation",
    0x00280120: "PixelPaddingValue",
    0x00281052: "RescaleIntercept",
    0x00281053: "RescaleSlope",
    0x00281054: "RescaleType",
    0x00540081: "NumberOfSlices",
    0x00541001: "Units",
    0x00541006: "SUVType",
}
TAGS: Final[dict[str, int]] = {keyword: tag for tag, keyword in KEYWORDS.items()}


@dataclass(slots=True)
class Elements:
    """The raw value fields of the attributes above, and where the pixels lie."""

    transfer_syntax: str
    little_endian: bool = True
    fields: dict[str, bytes] = field(default_factory=dict)
    has_modality_lut: bool = False
    pixel_offset: int | None = None
    pixel_length: int = 0
    """0 absent, -1 undefined (encapsulated)."""


# Field of ImageHeader -> keyword. One loop a kind, because this runs for every image of a study.
_TEXTS: Final = (
    ("study_uid", "StudyInstanceUID"),
    ("series_uid", "SeriesInstanceUID"),
    ("modality", "Modality"),
    ("body_part", "BodyPartExamined"),
    ("patient_sex", "PatientSex"),
    ("frame_of_reference_uid", "FrameOfReferenceUID"),
    ("photometric_interpretation", "PhotometricInterpretation"),
    ("rescale_type", "RescaleType"),
    ("units", "Units"),
    ("suv_type", "SUVType"),
)
_DESCRIPTIONS: Final = (
    ("study_description", "StudyDescription"),
    ("series_description", "SeriesDescription"),
    ("protocol_name", "ProtocolName"),
)
_SHORTS: Final = (
    ("rows", "Rows"),
    ("columns", "Columns"),
    ("samples_per_pixel", "SamplesPerPixel"),
    ("bits_allocated", "BitsAllocated"),
    ("bits_stored", "BitsStored"),
    ("high_bit", "HighBit"),
    ("pixel_representation", "PixelRepresentation"),
)
_VECTORS: Final = (
    ("pixel_spacing", "PixelSpacing", 2),
    ("position", "ImagePositionPatient", 3),
    ("orientation", "ImageOrientationPatient", 6),
)
_COUNTS: Final = ("NumberOfSeriesRelatedInstances", "ImagesInAcquisition")
_DECIMALS: Final = (("rescale_slope", "RescaleSlope"), ("rescale_intercept", "RescaleIntercept"))


def header_of(elements: Elements, path: Path) -> ImageHeader:
    """Return the header that `elements` state; raise NotUnderstood naming the attribute that cannot be meant."""
    raw = elements.fields
    stated: dict[str, Any] = {name: values.text(raw[keyword]) for name, keyword in _TEXTS if keyword in raw}
    for name, keyword in _DESCRIPTIONS:
        if keyword in raw:
            stated[name] = values.described(raw[keyword], raw.get("SpecificCharacterSet", b""))
    stated.update(_numbers(elements))
    return ImageHeader(
        sop=SopReference(values.text(raw.get("SOPClassUID", b"")), values.text(raw.get("SOPInstanceUID", b""))),
        path=path,
        transfer_syntax=elements.transfer_syntax,
        image_type=values.texts(raw.get("ImageType", b"")),
        instance_number=_hint(raw.get("InstanceNumber", b"")),
        stated_images=_stated_images(elements),
        temporal_positions=_hint(raw.get("NumberOfTemporalPositions", b"")),
        patient_key=values.patient_key(
            raw.get("PatientID", b""), raw.get("IssuerOfPatientID", b""), raw.get("SpecificCharacterSet", b"")
        ),
        patient_age_years=values.age_years(raw.get("PatientAge", b"")),
        has_modality_lut=elements.has_modality_lut,
        pixel_offset=elements.pixel_offset,
        pixel_length=elements.pixel_length,
        **({"study_uid": "", "series_uid": "", "modality": ""} | stated),
    )


def _numbers(elements: Elements) -> dict[str, Any]:
    """Return the numeric fields that have a value; the attribute at which a ValueError arises is named."""
    raw, little_endian = elements.fields, elements.little_endian
    stated: dict[str, Any] = {}
    keyword = ""
    try:
        for name, keyword in _SHORTS:
            if raw.get(keyword):
                stated[name] = values.short(raw[keyword], little_endian=little_endian)
        for name, keyword, count in _VECTORS:
            if raw.get(keyword):
                stated[name] = values.vector(raw[keyword], count)
        for name, keyword in _DECIMALS:
            if raw.get(keyword):
                stated[name] = values.decimal(raw[keyword])
        keyword = "NumberOfFrames"
        stated["number_of_frames"] = values.integer(raw.get(keyword, b""))
        # Its bytes are read as the pixels are, whatever VR it was written with: GE writes US 63536 for SS -2000.
        keyword, signed = "PixelPaddingValue", stated.get("pixel_representation") == 1
        stated["padding"] = values.short(raw.get(keyword, b""), little_endian=little_endian, signed=signed)
    except ValueError as error:
        raise _complaint(elements, keyword, error) from error
    return {name: value for name, value in stated.items() if value is not None}


def _hint(raw: bytes) -> int | None:
    # For people or as an estimate: nothing is proven or ordered by it, so a bad one disqualifies nothing.
    try:
        return values.integer(raw)
    except ValueError:
        return None


def _stated_images(elements: Elements) -> int | None:
    """Return the largest of Number of Series Related Instances, Images in Acquisition and a PET's Number of Slices."""
    stated = [_hint(elements.fields.get(keyword, b"")) for keyword in _COUNTS]
    with suppress(ValueError):
        stated.append(values.short(elements.fields.get("NumberOfSlices", b""), little_endian=elements.little_endian))
    return max((count for count in stated if count is not None), default=None)


def _complaint(elements: Elements, keyword: str, problem: ValueError) -> NotUnderstood:
    tag, uid = TAGS[keyword], values.text(elements.fields.get("SOPInstanceUID", b""))
    return NotUnderstood(f"{keyword} ({tag >> 16:04X},{tag & 0xFFFF:04X}) of SOP instance {uid!r}: {problem}")
