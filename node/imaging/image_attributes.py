"""From the raw elements of a data set to an ImageHeader: which attributes are read, and how."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

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


def header_of(elements: Elements, path: Path) -> ImageHeader:
    """Return the header that `elements` state; raise NotUnderstood naming the attribute that cannot be meant."""
    reader = _Reader(elements, path)
    raw = elements.fields
    signed = reader.short("PixelRepresentation")
    position = reader.decimals("ImagePositionPatient", 3)
    orientation = reader.decimals("ImageOrientationPatient", 6)
    spacing = reader.decimals("PixelSpacing", 2)
    return ImageHeader(
        sop=SopReference(reader.text("SOPClassUID"), reader.text("SOPInstanceUID")),
        study_uid=reader.text("StudyInstanceUID"),
        series_uid=reader.text("SeriesInstanceUID"),
        path=path,
        transfer_syntax=elements.transfer_syntax,
        modality=reader.text("Modality"),
        body_part=reader.text("BodyPartExamined"),
        study_description=reader.described("StudyDescription"),
        series_description=reader.described("SeriesDescription"),
        protocol_name=reader.described("ProtocolName"),
        image_type=values.texts(raw.get("ImageType", b"")),
        instance_number=reader.instance_number(),
        patient_sex=reader.text("PatientSex"),
        patient_age_years=values.age_years(raw.get("PatientAge", b"")),
        frame_of_reference_uid=reader.text("FrameOfReferenceUID"),
        number_of_frames=reader.frames(),
        rows=reader.short("Rows"),
        columns=reader.short("Columns"),
        samples_per_pixel=reader.short("SamplesPerPixel", 1),
        photometric_interpretation=reader.text("PhotometricInterpretation"),
        bits_allocated=reader.short("BitsAllocated"),
        bits_stored=reader.short("BitsStored"),
        high_bit=reader.short("HighBit"),
        pixel_representation=signed,
        pixel_spacing=(spacing[0], spacing[1]) if spacing else None,
        position=(position[0], position[1], position[2]) if position else None,
        orientation=orientation[:6] if orientation else None,  # type: ignore[arg-type]  # six by decimals()
        rescale_slope=reader.decimal("RescaleSlope", 1.0),
        rescale_intercept=reader.decimal("RescaleIntercept", 0.0),
        rescale_type=reader.text("RescaleType"),
        units=reader.text("Units"),
        suv_type=reader.text("SUVType"),
        has_modality_lut=elements.has_modality_lut,
        padding=reader.padding(signed=signed == 1),
        pixel_offset=elements.pixel_offset,
        pixel_length=elements.pixel_length,
    )


class _Reader:
    """Reads attributes by keyword and names the attribute and the instance in every complaint."""

    __slots__ = ("_elements", "_fields", "_path")

    def __init__(self, elements: Elements, path: Path) -> None:
        self._elements = elements
        self._fields = elements.fields
        self._path = path

    def text(self, keyword: str) -> str:
        raw = self._fields.get(keyword)
        return values.text(raw) if raw else ""

    def described(self, keyword: str) -> str:
        raw = self._fields.get(keyword)
        return values.described(raw, self._fields.get("SpecificCharacterSet", b"")) if raw else ""

    def decimals(self, keyword: str, count: int) -> tuple[float, ...] | None:
        raw = self._fields.get(keyword)
        if not raw:
            return None
        try:
            numbers = values.decimals(raw)
        except ValueError as error:
            raise self._complaint(keyword, error) from error
        if len(numbers) not in (0, count):
            raise self._complaint(keyword, f"{len(numbers)} values, where {count} are needed")
        return numbers or None

    def decimal(self, keyword: str, default: float) -> float:
        raw = self._fields.get(keyword)
        if not raw:
            return default
        try:
            number = values.decimal(raw)
        except ValueError as error:
            raise self._complaint(keyword, error) from error
        return default if number is None else number

    def short(self, keyword: str, default: int = 0) -> int:
        raw = self._fields.get(keyword)
        if not raw:
            return default
        try:
            number = values.short(raw, little_endian=self._elements.little_endian)
        except ValueError as error:
            raise self._complaint(keyword, error) from error
        return default if number is None else number

    def frames(self) -> int:
        try:
            number = values.integer(self._fields.get("NumberOfFrames", b""))
        except ValueError as error:
            raise self._complaint("NumberOfFrames", error) from error
        return 1 if number is None else number

    def instance_number(self) -> int | None:
        # For people only: images are never ordered by it, so a bad one disqualifies nothing.
        try:
            return values.integer(self._fields.get("InstanceNumber", b""))
        except ValueError:
            return None

    def padding(self, *, signed: bool) -> int | None:
        # Its bytes are read as the pixels are, whatever VR it was written with: GE writes US 63536 for SS -2000.
        raw = self._fields.get("PixelPaddingValue", b"")
        try:
            return values.short(raw, little_endian=self._elements.little_endian, signed=signed)
        except ValueError as error:
            raise self._complaint("PixelPaddingValue", error) from error

    def _complaint(self, keyword: str, problem: object) -> NotUnderstood:
        tag = TAGS[keyword]
        return NotUnderstood(
            f"{keyword} ({tag >> 16:04X},{tag & 0xFFFF:04X}) of SOP instance {self.text('SOPInstanceUID')!r}: {problem}"
        )
