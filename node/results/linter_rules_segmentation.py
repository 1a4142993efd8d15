"""Linter rules on the segmentation, and on what it shares with the report."""

from collections.abc import Iterator, Sequence

import numpy as np
from pydicom.dataset import Dataset

from node.domain.findings import Code
from node.results import concepts, sr_tree
from node.results.linter_types import Inspected, Rule

_TOLERANCE = 1e-3
"""mm for positions and spacings; cosines have no unit."""


def _shared_tracking(inspected: Inspected) -> Iterator[str]:
    if inspected.segmentation is None:
        if inspected.groups:
            yield "the report has groups but there is no segmentation"
        return
    segments = {(str(item.get("TrackingID") or ""), str(item.get("TrackingUID") or "")) for item in inspected.segments}
    groups = {
        (_text(group, concepts.TRACKING_IDENTIFIER), _text(group, concepts.TRACKING_UID)) for group in inspected.groups
    }
    untracked = [identifier for identifier in segments if not all(identifier)]
    own = inspected.own_segments
    shared = segments == groups if own is None else len(segments & groups) == own
    if untracked or not shared:
        yield "segments and groups do not carry the same tracking identifiers and UIDs"


def _text(group: Dataset, name: Code) -> str:
    return next((sr_tree.text_of(item) for item in sr_tree.named(group, name)), "")


def _segments(inspected: Inspected) -> Iterator[str]:
    numbers = [int(item.get("SegmentNumber") or 0) for item in inspected.segments]
    if inspected.segmentation is not None and numbers != list(range(1, len(numbers) + 1)):
        yield f"segment numbers are {numbers}"
    drawn = {_segment_number(frame) for frame in inspected.frames}
    for number in sorted(set(numbers) - drawn):
        yield f"segment {number} has no frame"


def _segment_number(frame: Dataset) -> int:
    item = (frame.get("SegmentIdentificationSequence") or [Dataset()])[0]
    return int(item.get("ReferencedSegmentNumber") or 0)


def _pixel_length(inspected: Inspected) -> Iterator[str]:
    image = inspected.segmentation
    if image is not None:
        bits = int(image.NumberOfFrames) * int(image.Rows) * int(image.Columns)
        wanted = (bits + 7) // 8
        found = len(image.PixelData)
        if found != wanted + wanted % 2:
            yield f"Pixel Data has {found} bytes; {image.NumberOfFrames} frames take {wanted + wanted % 2}"


def _empty_frames(inspected: Inspected) -> Iterator[str]:
    image = inspected.segmentation
    if image is None:
        return
    size = int(image.Rows) * int(image.Columns)
    packed = np.frombuffer(image.PixelData, np.uint8)
    for index in range(int(image.NumberOfFrames)):
        start, stop = index * size, (index + 1) * size
        covering = packed[start // 8 : (stop + 7) // 8]
        if not covering.size:
            return
        if size % 8:
            covering = np.unpackbits(covering, bitorder="little")[start % 8 : start % 8 + size]
        if not covering.any():
            yield f"frame {index + 1} is empty"


def _geometry(inspected: Inspected) -> Iterator[str]:
    for number, frame in enumerate(inspected.frames, start=1):
        index = inspected.source_index.get(_source_of(frame))
        position = (frame.get("PlanePositionSequence") or [Dataset()])[0].get("ImagePositionPatient")
        if index is not None and not _close(position, inspected.source.images[index].position):
            yield f"frame {number} does not lie where its source image lies"
    if inspected.segmentation is not None:
        yield from _shared_geometry(inspected, inspected.segmentation)


def _shared_geometry(inspected: Inspected, image: Dataset) -> Iterator[str]:
    first = inspected.source.images[0]
    shared = (image.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    orientation = (shared.get("PlaneOrientationSequence") or [Dataset()])[0].get("ImageOrientationPatient")
    spacing = (shared.get("PixelMeasuresSequence") or [Dataset()])[0].get("PixelSpacing")
    if not _close(orientation, first.orientation):
        yield "the orientation is not the source's"
    if not _close(spacing, first.pixel_spacing):
        yield "the pixel spacing is not the source's"
    if (image.Rows, image.Columns) != (first.rows, first.columns):
        yield f"the grid is {image.Rows} x {image.Columns}, the source's {first.rows} x {first.columns}"


def _close(found: Sequence[float] | None, wanted: tuple[float, ...] | None) -> bool:
    if found is None or wanted is None or len(found) != len(wanted):
        return False
    return bool(np.allclose([float(value) for value in found], wanted, rtol=0, atol=_TOLERANCE))


def _source_of(frame: Dataset) -> str:
    """Return the SOP Instance UID of the image that a frame was derived from."""
    for derivation in frame.get("DerivationImageSequence") or []:
        for image in derivation.get("SourceImageSequence") or []:
            return str(image.get("ReferencedSOPInstanceUID") or "")
    return ""


def _derivation(inspected: Inspected) -> Iterator[str]:
    for number, frame in enumerate(inspected.frames, start=1):
        sources = [
            image
            for derivation in frame.get("DerivationImageSequence") or []
            for image in derivation.get("SourceImageSequence") or []
        ]
        if [image.get("SpatialLocationsPreserved") for image in sources] != ["YES"]:
            yield f"frame {number} does not name one source image with Spatial Locations Preserved YES"


def _referenced_series(inspected: Inspected) -> Iterator[str]:
    if inspected.segmentation is None:
        return
    listed = {
        uid
        for series in inspected.segmentation.get("ReferencedSeriesSequence") or []
        for item in series.get("ReferencedInstanceSequence") or []
        for uid in [str(item.get("ReferencedSOPInstanceUID") or "")]
    }
    missing = {_source_of(frame) for frame in inspected.frames} - listed - {""}
    foreign = listed - set(inspected.source_index)
    for uid in sorted(missing):
        yield f"{uid} is a source image but not in Referenced Series Sequence"
    for uid in sorted(foreign):
        yield f"{uid} is in Referenced Series Sequence but not in the source series"


def _frame_of_reference(inspected: Inspected) -> Iterator[str]:
    image, wanted = inspected.segmentation, inspected.source.images[0].frame_of_reference_uid
    if image is not None and str(image.get("FrameOfReferenceUID") or "") != wanted:
        yield "the Frame of Reference UID is not the source's"


def _described(inspected: Inspected) -> Iterator[str]:
    wanted = (
        "SegmentLabel",
        "SegmentAlgorithmName",
        "RecommendedDisplayCIELabValue",
        "SegmentedPropertyCategoryCodeSequence",
        "SegmentedPropertyTypeCodeSequence",
    )
    for item in inspected.segments:
        missing = [keyword for keyword in wanted if not item.get(keyword)]
        if missing or item.get("SegmentAlgorithmType") != "AUTOMATIC":
            yield f"segment {item.get('SegmentNumber')} lacks {', '.join(missing) or 'algorithm type AUTOMATIC'}"


SEGMENTATION_RULES = (
    Rule(
        "SEG-TRACKING",
        "error",
        "a segment and its group share tracking identifier and UID",
        "results: SR rules",
        _shared_tracking,
    ),
    Rule("SEG-SEGMENTS", "error", "segments count from 1 and none is empty", "PS3.3 C.8.20.2", _segments),
    Rule("SEG-DESCRIBED", "error", "each segment has label, codes, colour and algorithm", "PS3.3 C.8.20.4", _described),
    Rule("SEG-PIXEL-LENGTH", "error", "Pixel Data holds just its frames", "PS3.5 8.1.1", _pixel_length),
    Rule("SEG-EMPTY-FRAMES", "error", "no frame is empty", "results: default set, 1", _empty_frames),
    Rule(
        "SEG-GEOMETRY",
        "error",
        "positions, orientation, spacing and grid are the source's within 1e-3",
        "results: SEG rules",
        _geometry,
    ),
    Rule(
        "SEG-DERIVATION",
        "error",
        "each frame names its source image, locations preserved",
        "PS3.3 C.7.6.16.2.6; results: SEG rules",
        _derivation,
    ),
    Rule(
        "SEG-REFERENCES",
        "error",
        "Referenced Series Sequence lists the source images",
        "PS3.3 C.12.2",
        _referenced_series,
    ),
    Rule(
        "SEG-FRAME-OF-REFERENCE",
        "error",
        "the frame of reference is the source's",
        "PS3.3 C.7.4.1",
        _frame_of_reference,
    ),
)
