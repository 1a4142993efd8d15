"""What every object of a result carries: patient, study, times, equipment, character set, file meta."""

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from node.dimse.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.results import provenance
from node.results.patient_study import PATIENT_AND_STUDY, TYPE_2
from node.results.request import EvidenceRequest
from node.results.source_series import SourceSeries, patient_and_study

UTF_8 = "ISO_IR 192"


def reference_images(source: SourceSeries, slices: Sequence[int]) -> list[Dataset]:
    """Return what highdicom must know of the images of some slices.

    Patient and study stay blank here: `sign` copies them as they stand, also where they break a value rule that
    highdicom would refuse.
    """
    shared = _shared_by_images(source)
    images = []
    for index in slices:
        header = source.images[index]
        image = Dataset()
        image.update(shared)
        image.SOPInstanceUID = header.sop.sop_instance_uid
        image.ImagePositionPatient = list(header.position or ())
        image.ImageOrientationPatient = list(header.orientation or ())
        images.append(image)
    return images


def _shared_by_images(source: SourceSeries) -> Dataset:
    first = source.images[0]
    image = Dataset()
    image.SOPClassUID = first.sop.sop_class_uid
    image.StudyInstanceUID = first.study_uid
    image.SeriesInstanceUID = first.series_uid
    image.FrameOfReferenceUID = first.frame_of_reference_uid
    image.Modality = first.modality
    image.Rows, image.Columns = first.rows, first.columns
    image.PixelSpacing = list(first.pixel_spacing or ())
    image.SliceThickness = source.first.get("SliceThickness")
    image.SpecificCharacterSet = UTF_8
    for keyword in TYPE_2:
        setattr(image, keyword, None)
    return image


def sign(dataset: Dataset, request: EvidenceRequest, source: SourceSeries) -> None:
    """Set what highdicom takes from the clock, from chance or from itself, and copy patient and study."""
    dataset.SpecificCharacterSet = UTF_8
    _copy_patient_and_study(dataset, source)
    _set_times(dataset, request.signature.decided_at, source.timezone_offset)
    provenance.set_equipment(dataset, request)
    meta = dataset.file_meta
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME


def _copy_patient_and_study(dataset: Dataset, source: SourceSeries) -> None:
    for keyword in PATIENT_AND_STUDY:
        if keyword in dataset:
            del dataset[keyword]
    for element in patient_and_study(source.first):
        dataset.add(element)
    for keyword in TYPE_2:
        if keyword not in dataset:
            setattr(dataset, keyword, None)


def _set_times(dataset: Dataset, decided_at: datetime, source_offset: str) -> None:
    """Write the decision time in the zone of the source, or of this machine where the source states none."""
    local = decided_at.astimezone(_zone(source_offset))
    date, time = local.strftime("%Y%m%d"), local.strftime("%H%M%S")
    dataset.TimezoneOffsetFromUTC = local.strftime("%z")[:5]
    for entity in ("InstanceCreation", "Content"):
        setattr(dataset, f"{entity}Date", date)
        setattr(dataset, f"{entity}Time", time)


def _zone(offset: str) -> timezone | None:
    """Read "+0800"; None (the machine's own zone) where it is absent or no offset."""
    if len(offset) != 5 or offset[0] not in "+-" or not offset[1:].isdigit():
        return None
    minutes = int(offset[1:3]) * 60 + int(offset[3:5])
    if minutes > 14 * 60:
        return None
    return timezone(timedelta(minutes=minutes if offset[0] == "+" else -minutes))
