"""Linter rules on the structured report."""

import math
from collections.abc import Iterator

import numpy as np
from pydicom.dataset import Dataset

from node.results import concepts, sr_tree
from node.results.linter_types import Inspected, Rule


def _title(inspected: Inspected) -> Iterator[str]:
    report = inspected.report
    template = (report.get("ContentTemplateSequence") or [Dataset()])[0].get("TemplateIdentifier")
    if not sr_tree.is_named(report, concepts.IMAGING_MEASUREMENT_REPORT) or template != "1500":
        found = sr_tree.concept(report)
        yield f"the root is {found.value if found else 'unnamed'} of template {template}"


def _tracked(inspected: Inspected) -> Iterator[str]:
    seen: set[str] = set()
    for number, group in enumerate(inspected.groups, start=1):
        uid = _first_uid(group)
        if uid is None or not any(sr_tree.text_of(item) for item in sr_tree.named(group, concepts.TRACKING_IDENTIFIER)):
            yield f"group {number} has no Tracking Identifier, or another UIDREF than Tracking Unique Identifier first"
        elif uid in seen:
            yield f"group {number} repeats the Tracking Unique Identifier {uid}"
        seen.add(uid or "")


def _first_uid(group: Dataset) -> str | None:
    """Return the tracking UID where it is the first UIDREF of the group."""
    uids = [item for item in sr_tree.children(group) if sr_tree.value_type(item) == "UIDREF"]
    if not uids or not sr_tree.is_named(uids[0], concepts.TRACKING_UID):
        return None
    return sr_tree.text_of(uids[0]) or None


def _located(inspected: Inspected) -> Iterator[str]:
    for number, group in enumerate(inspected.groups, start=1):
        if not any(sr_tree.value_type(item) == "SCOORD" for item in sr_tree.named(group, concepts.IMAGE_REGION)):
            yield f"group {number} has no Image Region with coordinates"


def _procedure(inspected: Inspected) -> Iterator[str]:
    if not sr_tree.named(inspected.report, concepts.PROCEDURE_REPORTED):
        yield "no Procedure Reported stands below the root"


def _containers(inspected: Inspected) -> Iterator[str]:
    for name in (concepts.IMAGE_LIBRARY, concepts.IMAGING_MEASUREMENTS):
        if not sr_tree.named(inspected.report, name):
            yield f"the container {name.meaning} is missing"


def _numbers(inspected: Inspected) -> Iterator[str]:
    for item in inspected.items:
        if sr_tree.value_type(item) == "NUM":
            number, name = sr_tree.number_of(item), sr_tree.concept(item)
            if number is None or not math.isfinite(number[0]) or number[1] is None or number[1].scheme != "UCUM":
                yield f"{name.meaning if name else 'a NUM'} has no finite value with a UCUM unit"


def _regions(inspected: Inspected) -> Iterator[str]:
    for item in inspected.items:
        if sr_tree.value_type(item) == "SCOORD":
            wrong = _wrong_with_region(inspected, item)
            if wrong:
                yield wrong


def _wrong_with_region(inspected: Inspected, item: Dataset) -> str | None:
    images = [uid for image in sr_tree.children(item) for uid in sr_tree.references(image)]
    if len(images) != 1 or images[0] not in inspected.source_index:
        return f"a region is selected from {', '.join(images) or 'no image'}, which is not one image of the source"
    header = inspected.source.images[inspected.source_index[images[0]]]
    points = np.array(item.get("GraphicData") or [], np.float64)
    if item.get("GraphicType") != "POLYLINE" or points.size < 8 or points.size % 2:
        return f"a region on {images[0]} is no POLYLINE of at least four points"
    points = points.reshape(-1, 2)
    if not np.array_equal(points[0], points[-1]):
        return f"a region on {images[0]} is not closed"
    if points.min() < 0 or (points.max(axis=0) > (header.columns, header.rows)).any():
        return f"a region on {images[0]} leaves the {header.columns} x {header.rows} image"
    return None


def _evidence(inspected: Inspected) -> Iterator[str]:
    known = _evidence_uids(inspected.report)
    for uid in {uid for item in inspected.items for uid in sr_tree.references(item)} - known:
        yield f"{uid} is referred to but not in the evidence"
    if inspected.segmentation is not None and str(inspected.segmentation.SOPInstanceUID) not in known:
        yield "the segmentation is not in the evidence"


def _evidence_uids(report: Dataset) -> set[str]:
    return {
        uid
        for study in report.get("CurrentRequestedProcedureEvidenceSequence") or []
        for series in study.get("ReferencedSeriesSequence") or []
        for uid in sr_tree.references(series)
    }


def _evidence_grouped(inspected: Inspected) -> Iterator[str]:
    for study in inspected.report.get("CurrentRequestedProcedureEvidenceSequence") or []:
        series = [str(entry.get("SeriesInstanceUID") or "") for entry in study.get("ReferencedSeriesSequence") or []]
        if len(set(series)) != len(series):
            yield "one series stands more than once in the evidence"


def _algorithm(inspected: Inspected) -> Iterator[str]:
    wanted = {"111001": "Algorithm Name", "111003": "Algorithm Version", "111000": "Algorithm Family"}
    for number, group in enumerate(inspected.groups, start=1):
        found = {code.value for item in sr_tree.children(group) if (code := sr_tree.concept(item)) is not None}
        missing = [meaning for value, meaning in wanted.items() if value not in found]
        if missing:
            yield f"group {number} has no {', '.join(missing)}"


def _observer(inspected: Inspected) -> Iterator[str]:
    stated = {sr_tree.text_of(item) for item in sr_tree.named(inspected.report, concepts.DEVICE_OBSERVER_UID)}
    if stated != {str(inspected.report.get("DeviceUID") or "")}:
        yield "the Device Observer UID is missing or is not the Device UID of the equipment"


REPORT_RULES = (
    Rule("SR-TITLE", "error", "the root is (126000, DCM) of TID 1500", "TID 1500; OHIF shows no other title", _title),
    Rule(
        "SR-TRACKING",
        "error",
        "each group has its own Tracking Identifier and UID, the UID as first UIDREF",
        "TID 1411, TID 4108; results: SR rules",
        _tracked,
    ),
    Rule("SR-LOCATED", "error", "each group of the located report has a region", "results: default set, 2", _located),
    Rule("SR-PROCEDURE", "error", "Procedure Reported is stated", "TID 1500 row 5", _procedure),
    Rule(
        "SR-CONTAINERS",
        "error",
        "Image Library and Imaging Measurements exist",
        "TID 1500 rows 6 and 7; OHIF fails without",
        _containers,
    ),
    Rule("SR-NUMBERS", "error", "each NUM has a finite value and a UCUM unit", "PS3.3 C.18.1; TID 300", _numbers),
    Rule(
        "SR-REGIONS",
        "error",
        "each region is a closed POLYLINE inside one image of the source",
        "PS3.3 C.18.6.1; results: SR rules",
        _regions,
    ),
    Rule(
        "SR-EVIDENCE",
        "error",
        "whatever is referred to, and the SEG, is in the evidence",
        "PS3.3 C.17.2 Current Requested Procedure Evidence",
        _evidence,
    ),
    Rule("SR-EVIDENCE-GROUPED", "error", "the evidence lists each series once", "PS3.3 C.17.2.1", _evidence_grouped),
    Rule("SR-ALGORITHM", "error", "each group names its algorithm, version and family", "TID 4019", _algorithm),
    Rule("SR-OBSERVER", "error", "the observer is the device of the equipment", "TID 1004; IHE AIR", _observer),
)
