"""A structured report as text that a person reads on a terminal; no patient attribute is in it."""

from collections.abc import Iterator
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from node.domain.findings import Code
from node.domain.units import unit_for_readers
from node.results import concepts, sr_tree
from node.results.findings_builder import findings_as_rows

__all__ = ["findings_as_rows", "sr_as_text"]
_OBSERVER = (
    Code("121013", "DCM", "Device Observer Name"),
    Code("121014", "DCM", "Device Observer Manufacturer"),
    concepts.DEVICE_OBSERVER_UID,
)


def sr_as_text(path: Path) -> str:
    """Return title, origin, findings with their measurements, and the evaluations of a TID 1500 report."""
    report = dcmread(path)
    return "\n".join(
        [*_heading(report), "", *_findings(report), *_evaluations(report), *_footer(report)],
    )


def _heading(report: Dataset) -> Iterator[str]:
    title = sr_tree.concept(report)
    yield title.meaning if title else "Structured report"
    yield str(report.get("SeriesDescription") or "")
    for item in sr_tree.named(report, concepts.PROCEDURE_REPORTED):
        yield f"Procedure: {sr_tree.text_of(item)}"
    observer = [sr_tree.text_of(item) for name in _OBSERVER for item in sr_tree.named(report, name)]
    if observer:
        yield f"Observer:  {', '.join(observer)}"
    flags = (report.get("CompletionFlag"), report.get("VerificationFlag"), report.get("PreliminaryFlag"))
    yield f"Status:    {', '.join(str(flag).lower() for flag in flags if flag)}"


def _findings(report: Dataset) -> Iterator[str]:
    groups = sr_tree.anywhere(report, concepts.MEASUREMENT_GROUP)
    if not groups:
        yield "No findings."
    for group in groups:
        yield from _group(group)
        yield ""


def _group(group: Dataset) -> Iterator[str]:
    label = ", ".join(sr_tree.text_of(item) for item in sr_tree.named(group, concepts.TRACKING_IDENTIFIER))
    what = [
        sr_tree.text_of(item)
        for name in (concepts.FINDING, concepts.FINDING_SITE)
        for item in sr_tree.named(group, name)
    ]
    yield f"{label} ({', '.join(what)})"
    levels = [
        sr_tree.text_of(item) for item in sr_tree.named(group, concepts.CERTAINTY) if sr_tree.value_type(item) == "CODE"
    ]
    for item in sr_tree.children(group):
        name = sr_tree.concept(item)
        if sr_tree.value_type(item) == "NUM" and name is not None:
            level = f"  ({', '.join(levels)})" if levels and sr_tree.is_named(item, concepts.CERTAINTY) else ""
            yield f"    {name.meaning:<22}{_measured(item):>16}{level}"
    regions = sr_tree.named(group, concepts.IMAGE_REGION)
    images = {uid for region in regions for image in sr_tree.children(region) for uid in sr_tree.references(image)}
    yield f"    {'Outlined on':<22}{len(images):>10} images"


def _measured(item: Dataset) -> str:
    number, _, unit = sr_tree.text_of(item).partition(" ")
    return f"{number} {unit_for_readers(unit)}".rstrip()


def _evaluations(report: Dataset) -> Iterator[str]:
    for container in sr_tree.named(report, concepts.QUALITATIVE_EVALUATIONS):
        for item in sr_tree.children(container):
            name = sr_tree.concept(item)
            if name is not None:
                yield f"{name.meaning}: {sr_tree.text_of(item)}"


def _footer(report: Dataset) -> Iterator[str]:
    evidence = report.get("CurrentRequestedProcedureEvidenceSequence") or []
    series = [entry for study in evidence for entry in study.get("ReferencedSeriesSequence") or []]
    count = sum(len(entry.get("ReferencedSOPSequence") or []) for entry in series)
    yield f"Evidence: {count} instances in {len(series)} series"
    yield f"SR instance {report.get('SOPInstanceUID')}"
    yield ""
