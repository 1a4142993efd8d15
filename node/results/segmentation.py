"""SEG: binary segments on the source grid (PS3.3 A.51), one per finding or one per class."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from highdicom import PixelMeasuresSequence
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from highdicom.seg import Segmentation as SegmentationImage
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from node.domain.findings import Finding
from node.domain.volume import Volume
from node.results import findings_builder, uids
from node.results.coding import coded
from node.results.common_attributes import reference_images, sign
from node.results.profiles import PROFILES, content_description, series_description, series_number
from node.results.provenance import model_version, segment_algorithm
from node.results.request import EvidenceRequest
from node.results.source_series import SourceSeries

_PER_FRAME = ("SegmentIdentificationSequence", "PlanePositionSequence", "DerivationImageSequence")


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment to be: the findings it holds and how they are tracked."""

    number: int
    label: str
    tracking_uid: str
    findings: tuple[Finding, ...]


def segments_of(request: EvidenceRequest) -> tuple[Segment, ...]:
    """Return the segments in the order of their first findings.

    A finding of a rule with `instances` is one, with its tracking UID; all others of one class are one together.
    """
    grouped: dict[tuple[object, ...], list[Finding]] = {}
    for item in request.findings.items:
        alone = (item.ordinal,)
        grouped.setdefault(alone if item.per_instance else (item.category, item.type, item.site), []).append(item)
    return tuple(_segment(request, number, tuple(items)) for number, items in enumerate(grouped.values(), start=1))


def _segment(request: EvidenceRequest, number: int, items: tuple[Finding, ...]) -> Segment:
    first = items[0]
    if first.per_instance:
        return Segment(number, first.label, uids.tracking_uid(request.origin, first.ordinal), items)
    return Segment(number, first.type.meaning, uids.class_tracking_uid(request.origin, number), items)


def build_segmentation(request: EvidenceRequest, source: SourceSeries) -> Dataset:
    """Build the SEG of a request that has findings.

    Only slices with findings become frames; every other frame would be empty. Identifiers, times and equipment are
    derived from the request, so two builds are equal byte for byte.
    """
    segments = segments_of(request)
    slices = _slices_with(request.findings.items)
    rule = PROFILES[request.signature.profile].rule("SEG")
    title = request.manifest.identity.title
    dataset = SegmentationImage(
        source_images=reference_images(source, slices),
        pixel_array=_segment_map(request, segments, slices),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_described(segment, request) for segment in segments],
        series_instance_uid=uids.series_uid(request.origin, "SEG"),
        series_number=series_number(request.model.name, rule),
        sop_instance_uid=uids.sop_instance_uid(request.origin, "SEG", findings_builder.writer_revision),
        instance_number=request.instance_number,
        manufacturer=request.manifest.identity.manufacturer,
        manufacturer_model_name=request.model.name,
        software_versions=model_version(request),
        device_serial_number=request.signature.device_serial_number,
        content_label="AI_RESULT",
        content_description=content_description(title),
        series_description=series_description(title, rule),
        omit_empty_frames=True,
    )
    dataset.ContentCreatorName = None  # type 2 of the Content Identification macro
    _set_dimension_organization(dataset)
    # Set afterwards: highdicom takes the source's, without the spacing, where the pixel spacing is the same.
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = _pixel_measures(request.volume, source)
    _move_to_frames(dataset)
    sign(dataset, request, source)
    return dataset


def _slices_with(items: Iterable[Finding]) -> list[int]:
    return sorted({index for item in items for index in range(item.bounds[0].start, item.bounds[0].stop)})


def _segment_map(request: EvidenceRequest, segments: tuple[Segment, ...], slices: list[int]) -> NDArray[np.generic]:
    """Return the segment number of every voxel of the slices that have any, box by box: most of it is empty."""
    kind = np.uint16 if len(segments) > np.iinfo(np.uint8).max else np.uint8
    place = {index: position for position, index in enumerate(slices)}
    numbers = np.zeros((len(slices), *request.findings.labels.shape[1:]), kind)
    for segment in segments:
        for item in segment.findings:
            first = place[item.bounds[0].start]
            box = (slice(first, first + item.bounds[0].stop - item.bounds[0].start), *item.bounds[1:])
            numbers[box][request.findings.labels[item.bounds] == item.ordinal] = segment.number
    return numbers


def _described(segment: Segment, request: EvidenceRequest) -> SegmentDescription:
    first = segment.findings[0]
    return SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.label,
        segmented_property_category=coded(first.category),
        segmented_property_type=coded(first.type),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=segment_algorithm(request),
        tracking_uid=segment.tracking_uid,
        tracking_id=segment.label,
        anatomic_regions=[coded(first.site)] if first.site else None,
        display_color=CIELabColor.from_rgb(*first.color_rgb),
    )


def _pixel_measures(volume: Volume, source: SourceSeries) -> PixelMeasuresSequence:
    """Give a mask voxel the whole step between slices as its thickness: dcmqi takes Slice Thickness for the spacing."""
    between, row_mm, column_mm = volume.geometry.spacing
    return PixelMeasuresSequence(
        pixel_spacing=source.images[0].pixel_spacing or (row_mm, column_mm),
        slice_thickness=between,
        spacing_between_slices=between,
    )


def _set_dimension_organization(dataset: Dataset) -> None:
    """Replace the random Dimension Organization UID that highdicom gives."""
    uid = uids.dimension_organization_uid(dataset.SOPInstanceUID)
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid


def _move_to_frames(dataset: Dataset) -> None:
    """Move what highdicom shares, where all frames have the same, to each frame: there viewers look for it."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for keyword in _PER_FRAME:
        if keyword in shared:
            for frame in dataset.PerFrameFunctionalGroupsSequence:
                frame[keyword] = shared[keyword]
            del shared[keyword]
