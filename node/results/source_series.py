"""The source series as results see it: one header per slice, and the patient and study of its first instance."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydicom import config, dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.sequence import Sequence

from node.domain.instances import ImageHeader
from node.domain.volume import Volume
from node.errors import DecodingError, Refusal
from node.results.patient_study import PATIENT_AND_STUDY


@dataclass(frozen=True, slots=True)
class SourceSeries:
    """Headers in slice order and the data set (without pixels, texts decoded) of the first slice."""

    images: tuple[ImageHeader, ...]
    first: Dataset

    @property
    def modality(self) -> str:
        """Modality of the series."""
        return self.images[0].modality

    @property
    def timezone_offset(self) -> str:
        """Timezone Offset From UTC (0008,0201) of the source, empty where it states none."""
        return str(self.first.get("TimezoneOffsetFromUTC") or "")


def source_series(volume: Volume, headers: tuple[ImageHeader, ...]) -> SourceSeries:
    """Order the headers by the slices of the volume and read the first one's file.

    Raises:
        Refusal: A slice has no header, position or orientation, or the series has no frame of reference: a
            segmentation of it could not be placed.
        DecodingError: The first file cannot be read.
    """
    if not volume.frame_of_reference_uid:
        raise Refusal(
            f"series {volume.series_uid} has no Frame of Reference UID (0020,0052), so a segmentation could not be "
            f"placed in it. Remedy: have the modality or the PACS send it."
        )
    by_uid = {header.sop.sop_instance_uid: header for header in headers}
    images = tuple(_header_of(source.sop_instance_uid, by_uid) for source in volume.sources)
    return SourceSeries(images, _read(images[0]))


def patient_and_study(source: Dataset) -> Iterator[DataElement]:
    """Yield the Patient and Study attributes of a source as text elements that any character set can encode."""
    for keyword in PATIENT_AND_STUDY:
        if keyword in source:
            yield _decoded(source[keyword])


def recoded(dataset: Dataset) -> Dataset:
    """Return a copy of an item with its texts decoded and without a character set of its own."""
    copy = Dataset()
    for element in dataset:
        if element.keyword != "SpecificCharacterSet":
            copy.add(_decoded(element))
    return copy


def _decoded(element: DataElement) -> DataElement:
    """Free a value from the bytes and encodings of its source: PersonName and Sequence would keep them."""
    if element.VR == "SQ":
        return DataElement(element.tag, "SQ", Sequence([recoded(item) for item in element.value or []]))
    if element.VR == "PN" and element.value:
        names = element.value if element.VM > 1 else [element.value]
        texts = [str(name) for name in names]
        return DataElement(element.tag, "PN", texts if len(texts) > 1 else texts[0], validation_mode=config.IGNORE)
    return element


def _header_of(sop_instance_uid: str, by_uid: dict[str, ImageHeader]) -> ImageHeader:
    header = by_uid.get(sop_instance_uid)
    if header is None or header.position is None or header.orientation is None:
        raise Refusal(
            f"instance {sop_instance_uid} is a slice of the volume, but its header, position or orientation is not at "
            f"hand. Remedy: hand in the headers that the volume was built from."
        )
    return header


def _read(header: ImageHeader) -> Dataset:
    try:
        with config.disable_value_validation():  # its warnings would print the values: patient data
            dataset = dcmread(header.path, stop_before_pixels=True, force=True)
            dataset.decode()
    except (OSError, InvalidDicomError, ValueError, LookupError) as error:
        raise DecodingError(
            f"instance {header.sop.sop_instance_uid} cannot be read again: {type(error).__name__}. "
            f"Remedy: check the store's disk."
        ) from error
    return dataset
