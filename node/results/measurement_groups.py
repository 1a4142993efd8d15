"""Measurement groups of located findings: one volumetric group each, with a region per slice (TID 1411)."""

from collections.abc import Iterable, Iterator

from highdicom.sr import (
    FindingSite,
    GraphicTypeValues,
    ImageRegion,
    Measurement,
    QualitativeEvaluation,
    SourceImageForRegion,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)

from node.domain.findings import Finding
from node.results import concepts, uids
from node.results.coding import coded
from node.results.contours import Outline, outlines
from node.results.provenance import group_algorithm
from node.results.request import EvidenceRequest
from node.results.source_series import SourceSeries

_MOST_POINTS = 8000
"""GraphicData is FL with a 16-bit length in Explicit VR: at most 8191 points of 8 bytes."""
_MOST_REGIONS = 300
_DIGITS = 6


def measurement_group(
    request: EvidenceRequest, source: SourceSeries, item: Finding
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    """Return the group of one finding.

    The tracking identifier and UID come first: viewers take the first UIDREF of a group for the tracking UID. The
    region of the slice with the largest outline comes before the others: viewers draw the first one.
    """
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=uids.tracking_uid(request.origin, item.ordinal),
            identifier=tracking_identifier(item),
        ),
        referenced_regions=_regions(request, source, item),
        finding_type=coded(item.type),
        finding_category=coded(item.category),
        finding_sites=[FindingSite(anatomic_location=coded(item.site))] if item.site else None,
        algorithm_id=group_algorithm(request),
        measurements=[
            Measurement(coded(each.concept), float(f"{each.value:.{_DIGITS}g}"), coded(each.unit))
            for each in item.measurements
        ],
        qualitative_evaluations=_certainty(item),
    )


def _certainty(item: Finding) -> list[QualitativeEvaluation] | None:
    if item.probability is None:
        return None
    return [QualitativeEvaluation(coded(concepts.CERTAINTY), coded(concepts.certainty_level(item.probability)))]


def tracking_identifier(item: Finding) -> str:
    """Say what a reader sees: "Nodule 1", the same text as the segment's label."""
    return item.label


def outlines_by_slice(request: EvidenceRequest, item: Finding) -> Iterator[tuple[int, Outline]]:
    """Yield (slice index, outline in image coordinates) of a finding, slice by slice, largest of a slice first."""
    slices, rows, columns = item.bounds
    for index in range(slices.start, slices.stop):
        plane = request.findings.labels[index, rows, columns] == item.ordinal
        for outline in outlines(plane, _MOST_POINTS):
            yield index, outline.shifted(columns.start, rows.start)


def _regions(request: EvidenceRequest, source: SourceSeries, item: Finding) -> list[ImageRegion]:
    return [
        ImageRegion(
            graphic_type=GraphicTypeValues.POLYLINE,
            graphic_data=outline.points,
            source_image=SourceImageForRegion(
                referenced_sop_class_uid=source.images[index].sop.sop_class_uid,
                referenced_sop_instance_uid=source.images[index].sop.sop_instance_uid,
            ),
        )
        for index, outline in shown_outlines(outlines_by_slice(request, item), _MOST_REGIONS)
    ]


def shown_outlines(found: Iterable[tuple[int, Outline]], most: int) -> list[tuple[int, Outline]]:
    """Return the outlines that the report shows, largest first.

    The largest of every slice, and of the others the largest ones up to `most` in all: a ragged finding may fall into
    thousands of specks, which are all in the segmentation.
    """
    leading: dict[int, tuple[int, Outline]] = {}
    others: list[tuple[int, Outline]] = []
    for index, outline in found:
        if index in leading:
            others.append((index, outline))
        else:
            leading[index] = (index, outline)
    others.sort(key=lambda pair: -pair[1].area)
    shown = [*leading.values(), *others[: max(0, most - len(leading))]]
    return sorted(shown, key=lambda pair: -pair[1].area)
