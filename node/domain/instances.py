"""Instances as the node knows them without decoding their pixels."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


@dataclass(frozen=True, slots=True)
class SopReference:
    """SOP Class UID and SOP Instance UID of an instance (PS3.3 10.8)."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class ReceivedInstance:
    """A durable instance. The UIDs are the data set's own and were validated; pixels were not decoded."""

    sop: SopReference
    study_uid: str
    series_uid: str
    transfer_syntax: str
    calling_ae_title: str
    path: Path
    """Part 10 file inside the store; its name is ours, never the peer's."""
    data_set_digest: str
    """Hex SHA-256 of the data set as received, without file meta."""
    received_at: datetime
    """Time-zone aware, UTC."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What routing and the volume builder need to know of one image; attributes that are absent are None or empty."""

    sop: SopReference
    study_uid: str
    series_uid: str
    path: Path
    transfer_syntax: str
    modality: str
    body_part: str = ""
    study_description: str = ""
    series_description: str = ""
    protocol_name: str = ""
    image_type: tuple[str, ...] = ()
    instance_number: int | None = None
    patient_key: str = ""
    """Hex SHA-256 of Patient ID and Issuer of Patient ID, to tell patients apart without naming them."""
    patient_sex: str = ""
    patient_age_years: float | None = None
    frame_of_reference_uid: str = ""
    number_of_frames: int = 1
    rows: int = 0
    columns: int = 0
    samples_per_pixel: int = 1
    photometric_interpretation: str = ""
    bits_allocated: int = 0
    bits_stored: int = 0
    high_bit: int = 0
    pixel_representation: int = 0
    """0 unsigned, 1 two's complement (PS3.3 C.7.6.3.1)."""
    pixel_spacing: tuple[float, float] | None = None
    """(row spacing, column spacing) in mm, in the order of (0028,0030)."""
    position: tuple[float, float, float] | None = None
    """Image Position (Patient): centre of the first voxel, LPS mm."""
    orientation: tuple[float, float, float, float, float, float] | None = None
    """Image Orientation (Patient): direction of increasing column index, then of increasing row index."""
    rescale_slope: float = 1.0
    rescale_intercept: float = 0.0
    rescale_type: str = ""
    units: str = ""
    """Units (0054,1001) of PET images."""
    suv_type: str = ""
    """SUV Type (0054,1006) of PET images; empty means body weight where Units is GML (PS3.3 C.8.9.1)."""
    has_modality_lut: bool = False
    padding: int | None = None
    """Pixel Padding Value (0028,0120) as a stored value."""
    pixel_offset: int | None = None
    """Byte offset of uncompressed Pixel Data in the file; None where pixels are encapsulated or absent."""
    pixel_length: int = 0
    """Byte length of Pixel Data; 0 where absent, -1 where undefined (encapsulated)."""
    stated_images: int | None = None
    """Most images that the header says its series has: a hint for making room, never a proof."""
    temporal_positions: int | None = None
    """Number of Temporal Positions (0020,0105)."""
