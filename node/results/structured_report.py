"""SR: located findings as Comprehensive 3D SR by TID 1500, root (126000, DCM, Imaging Measurement Report)."""

from highdicom.sr import (
    CodeContentItem,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    LanguageOfContentItemAndDescendants,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.dataset import Dataset

from node.domain.findings import Code
from node.domain.instances import SopReference
from node.results import concepts, findings_builder, uids
from node.results.coding import coded
from node.results.common_attributes import reference_images, sign
from node.results.image_library import image_library
from node.results.measurement_groups import measurement_group
from node.results.profiles import PROFILES, RESEARCH_USE, series_description, series_number
from node.results.provenance import device_observer
from node.results.request import EvidenceRequest
from node.results.source_series import SourceSeries, recoded

_ENGLISH = Code("en-US", "RFC5646", "English (United States)")
_CONTAINS = RelationshipTypeValues.CONTAINS


def build_report(request: EvidenceRequest, source: SourceSeries, segmentation: SopReference | None) -> Dataset:
    """Build the SR: every image of the series and the SEG, where there is one, stand in the evidence.

    A report of nothing found has an empty Imaging Measurements container, which viewers want to exist, and no group
    without coordinates, which would make them lose the document: "absent" stands in Qualitative Evaluations.
    """
    rule = PROFILES[request.signature.profile].rule("SR")
    document = ContainerContentItem(coded(concepts.IMAGING_MEASUREMENT_REPORT), template_id="1500")
    document.ContentSequence = LanguageOfContentItemAndDescendants(coded(_ENGLISH))
    dataset = Comprehensive3DSR(
        evidence=reference_images(source, [0]),
        content=document,
        series_instance_uid=uids.series_uid(request.origin, "SR"),
        series_number=series_number(request.model.name, rule),
        sop_instance_uid=uids.sop_instance_uid(request.origin, "SR", findings_builder.writer_revision),
        instance_number=request.instance_number,
        manufacturer=request.manifest.identity.manufacturer,
        series_description=series_description(request.manifest.identity.title, rule),
        is_complete=True,
        is_final=False,
    )
    # Set afterwards: highdicom would copy and search the whole tree several times.
    dataset.ContentSequence.extend(_content(request, source))
    dataset.CurrentRequestedProcedureEvidenceSequence = [_evidence(request, source, segmentation)]
    if request.previous is not None:
        previous = request.previous
        dataset.PredecessorDocumentsSequence = [
            _study_reference(previous.study_uid, [(previous.series_uid, [previous.sop])])
        ]
    sign(dataset, request, source)
    return dataset


def _content(request: EvidenceRequest, source: SourceSeries) -> list[ContentItem]:
    return [
        *device_observer(request),
        *_procedures_reported(source),
        image_library(source),
        _imaging_measurements(request, source),
        _qualitative_evaluations(request),
    ]


def _procedures_reported(source: SourceSeries) -> list[CodeContentItem]:
    """Report the procedure that the study states, else the modality's (CID 100)."""
    stated = (recoded(item) for item in source.first.get("ProcedureCodeSequence") or [])
    codes = [code for item in stated if (code := _usable_code(item)) is not None]
    return [
        CodeContentItem(coded(concepts.PROCEDURE_REPORTED), coded(code), RelationshipTypeValues.HAS_CONCEPT_MOD)
        for code in codes or [concepts.procedure_of(source.modality)]
    ]


def _usable_code(item: Dataset) -> Code | None:
    """Return a code that keeps the lengths of PS3.3 8.8; None where a part is missing or too long."""
    parts = [str(item.get(key) or "") for key in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")]
    fits = all(0 < len(part) <= most for part, most in zip(parts, (16, 16, 64), strict=True))
    return Code(*parts) if fits else None


def _imaging_measurements(request: EvidenceRequest, source: SourceSeries) -> ContainerContentItem:
    container = ContainerContentItem(coded(concepts.IMAGING_MEASUREMENTS), relationship_type=_CONTAINS)
    groups = [group for item in request.findings.items for group in measurement_group(request, source, item)]
    if groups:
        container.ContentSequence = ContentSequence(groups)
    return container


def _qualitative_evaluations(request: EvidenceRequest) -> ContainerContentItem:
    """Say per kind of finding whether it is present or absent, and what a reader must know of the result."""
    container = ContainerContentItem(coded(concepts.QUALITATIVE_EVALUATIONS), relationship_type=_CONTAINS)
    container.ContentSequence = ContentSequence(
        [
            *(
                CodeContentItem(coded(kind), coded(concepts.PRESENT if found else concepts.ABSENT), _CONTAINS)
                for kind, found in _kinds(request).items()
            ),
            TextContentItem(coded(concepts.COMMENT), summary(request), _CONTAINS),
        ]
    )
    return container


def _kinds(request: EvidenceRequest) -> dict[Code, bool]:
    found = {item.type for item in request.findings.items}
    kinds = (concepts.from_manifest(kind) for rule in request.manifest.findings for kind in rule.kinds)
    return {kind: kind in found for kind in kinds}


def summary(request: EvidenceRequest) -> str:
    """Return what stands in every report: research use, model, how many findings, and the model's first limit."""
    identity, count = request.manifest.identity, len(request.findings.items)
    many = "no finding" if not count else "1 finding" if count == 1 else f"{count} findings"
    beyond = request.findings.beyond_limit
    many += f", {beyond} more beyond the model's limit left out" if beyond else ""
    unproved = "" if request.model.verified == "digest" else " The service did not prove the model's digest."
    card = " ".join((request.manifest.use.research_use, *request.manifest.use.limits[:1]))
    return f"{RESEARCH_USE}. {identity.title}, version {request.model.version}: {many}.{unproved} {card}".rstrip()


def _evidence(request: EvidenceRequest, source: SourceSeries, segmentation: SopReference | None) -> Dataset:
    series = [(request.volume.series_uid, [header.sop for header in source.images])]
    if segmentation is not None:
        series.append((uids.series_uid(request.origin, "SEG"), [segmentation]))
    return _study_reference(request.signature.study_uid, series)


def _study_reference(study_uid: str, series: list[tuple[str, list[SopReference]]]) -> Dataset:
    """Return an item of the Hierarchical SOP Instance Reference macro (PS3.3 C.17.2.1)."""
    item = Dataset()
    item.ReferencedSeriesSequence = [_series_reference(uid, sops) for uid, sops in series]
    item.StudyInstanceUID = study_uid
    return item


def _series_reference(series_uid: str, sops: list[SopReference]) -> Dataset:
    item = Dataset()
    item.ReferencedSOPSequence = [_instance_reference(sop) for sop in sops]
    item.SeriesInstanceUID = series_uid
    return item


def _instance_reference(sop: SopReference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop.sop_class_uid
    item.ReferencedSOPInstanceUID = sop.sop_instance_uid
    return item
