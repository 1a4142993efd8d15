"""Linter rules on every object of an evidence set."""

from collections.abc import Iterator

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from node.results import concepts, sr_tree, uids
from node.results.common_attributes import UTF_8
from node.results.linter_types import Inspected, Rule
from node.results.patient_study import COMPARED, TYPE_2
from node.results.profiles import RESEARCH_USE


def _identity(inspected: Inspected) -> Iterator[str]:
    for dataset in inspected.objects:
        for keyword in COMPARED:
            if _plain(dataset, keyword) != _plain(inspected.source.first, keyword):
                yield f"{keyword} of the {dataset.Modality} is not the source's"


def _plain(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).rstrip(" ")


def _type_2(inspected: Inspected) -> Iterator[str]:
    for dataset in inspected.objects:
        for keyword in TYPE_2:
            if keyword not in dataset:
                yield f"{keyword} is absent from the {dataset.Modality}"


def _charset(inspected: Inspected) -> Iterator[str]:
    for dataset in inspected.objects:
        if dataset.get("SpecificCharacterSet") != UTF_8:
            yield f"Specific Character Set of the {dataset.Modality} is {dataset.get('SpecificCharacterSet')}"


def _research_use(inspected: Inspected) -> Iterator[str]:
    for dataset in inspected.objects:
        if RESEARCH_USE not in str(dataset.get("SeriesDescription") or ""):
            yield f"the series description of the {dataset.Modality} does not say it"
    image = inspected.segmentation
    if image is not None and RESEARCH_USE not in str(image.get("ContentDescription") or ""):
        yield "the content description of the SEG does not say it"
    comments = (item for item in inspected.items if sr_tree.is_named(item, concepts.COMMENT))
    if not any(RESEARCH_USE in sr_tree.text_of(item) for item in comments):
        yield "no comment in the report says it"


def _equipment(inspected: Inspected) -> Iterator[str]:
    wanted = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions")
    for dataset in inspected.objects:
        missing = [keyword for keyword in wanted if not dataset.get(keyword)]
        if missing:
            yield f"the {dataset.Modality} lacks {', '.join(missing)}"


def _contributing(inspected: Inspected) -> Iterator[str]:
    for dataset in inspected.objects:
        items = [
            item
            for item in dataset.get("ContributingEquipmentSequence") or []
            if _purpose(item) == (concepts.PROCESSING_EQUIPMENT.value, "DCM")
        ]
        if not any(
            item.get("DeviceUID") and item.get("Manufacturer") and item.get("SoftwareVersions") for item in items
        ):
            yield f"the {dataset.Modality} names no processing equipment with Device UID, manufacturer and version"


def _purpose(item: Dataset) -> tuple[str, str]:
    code = sr_tree.first_code(item, "PurposeOfReferenceCodeSequence")
    return (code.value, code.scheme) if code else ("", "")


def _uids(inspected: Inspected) -> Iterator[str]:
    own = [str(item.get(key) or "") for item in inspected.objects for key in ("SOPInstanceUID", "SeriesInstanceUID")]
    for uid in own:
        if not uids.is_derived_uid(uid):
            yield f"{uid or 'an empty UID'} is not derived"
    if len(set(own)) != len(own):
        yield "two objects or series share a UID"
    if set(own) & {header.sop.sop_instance_uid for header in inspected.source.images}:
        yield "an object has the UID of its source"


def _file_meta(inspected: Inspected) -> Iterator[str]:
    for dataset in inspected.objects:
        meta = dataset.file_meta
        if (meta.get("MediaStorageSOPInstanceUID"), meta.get("MediaStorageSOPClassUID")) != (
            dataset.get("SOPInstanceUID"),
            dataset.get("SOPClassUID"),
        ) or meta.get("TransferSyntaxUID") != ExplicitVRLittleEndian:
            yield f"the file meta information of the {dataset.Modality} does not name its instance in Explicit VR LE"


def _times(inspected: Inspected) -> Iterator[str]:
    stamps = [
        tuple(str(dataset.get(key) or "") for key in ("ContentDate", "ContentTime", "TimezoneOffsetFromUTC"))
        for dataset in inspected.objects
    ]
    if not all(all(stamp) for stamp in stamps) or len(set(stamps)) > 1:
        yield "content date, content time and time zone are not stated or differ between the objects"


OBJECT_RULES = (
    Rule("OBJ-IDENTITY", "error", "patient and study are the source's", "PS3.3 C.7.1.1, C.7.2.1", _identity),
    Rule("OBJ-TYPE-2", "error", "type 2 attributes of patient and study are present", "PS3.5 7.4.3", _type_2),
    Rule("OBJ-CHARSET", "error", "texts are in ISO_IR 192", "results: everything we emit", _charset),
    Rule("OBJ-RESEARCH-USE", "error", f'"{RESEARCH_USE}" is visible', "results: SR rules", _research_use),
    Rule("OBJ-EQUIPMENT", "error", "the equipment is named", "PS3.3 C.7.5.2 Enhanced General Equipment", _equipment),
    Rule(
        "OBJ-CONTRIBUTING",
        "error",
        "the model is contributing equipment (109102, DCM) with its Device UID",
        "IHE AIR; PS3.3 C.12.1",
        _contributing,
    ),
    Rule("OBJ-UIDS", "error", "instance and series UIDs are derived and differ", "PS3.5 9; write-once results", _uids),
    Rule("OBJ-FILE-META", "error", "the file meta information names the instance", "PS3.10 7.1", _file_meta),
    Rule("OBJ-TIMES", "error", "the objects state one time of decision with its zone", "PS3.3 C.12.1", _times),
)
