"""The image library of a report: every image that the model read (TID 1600, 1601, 1602)."""

from highdicom.sr import (
    CodeContentItem,
    ContainerContentItem,
    ContentSequence,
    ImageContentItem,
    NumContentItem,
    RelationshipTypeValues,
    UIDRefContentItem,
)
from pydicom.sr.codedict import codes

from node.domain.findings import Code
from node.results import concepts
from node.results.coding import coded
from node.results.source_series import SourceSeries

_MODALITIES = {
    "CT": Code("CT", "DCM", "Computed Tomography"),
    "MR": Code("MR", "DCM", "Magnetic Resonance"),
    "PT": Code("PT", "DCM", "Positron emission tomography"),
}
_ACQUISITION = RelationshipTypeValues.HAS_ACQ_CONTEXT


def image_library(source: SourceSeries) -> ContainerContentItem:
    """Return one group: what the images share stands once, at the group (TID 1602), then one item per image."""
    library = _container(concepts.IMAGE_LIBRARY)
    group = _container(concepts.IMAGE_LIBRARY_GROUP)
    group.ContentSequence = ContentSequence([*_shared(source), *_images(source)])
    library.ContentSequence = ContentSequence([group])
    return library


def _container(name: Code) -> ContainerContentItem:
    return ContainerContentItem(coded(name), relationship_type=RelationshipTypeValues.CONTAINS)


def _shared(source: SourceSeries) -> list[CodeContentItem | UIDRefContentItem | NumContentItem]:
    first = source.images[0]
    row_mm, column_mm = first.pixel_spacing or (None, None)
    lengths = (
        (codes.DCM.PixelDataRows, first.rows, concepts.PIXELS),
        (codes.DCM.PixelDataColumns, first.columns, concepts.PIXELS),
        (codes.DCM.HorizontalPixelSpacing, column_mm, concepts.MILLIMETRE),
        (codes.DCM.VerticalPixelSpacing, row_mm, concepts.MILLIMETRE),
        (codes.DCM.SliceThickness, source.first.get("SliceThickness"), concepts.MILLIMETRE),
    )
    modality = _MODALITIES.get(source.modality, Code(source.modality, "DCM", source.modality))
    return [
        CodeContentItem(codes.DCM.Modality, coded(modality), _ACQUISITION),
        UIDRefContentItem(codes.DCM.FrameOfReferenceUID, first.frame_of_reference_uid, _ACQUISITION),
        *(
            NumContentItem(
                name, value if isinstance(value, int) else float(value), coded(unit), relationship_type=_ACQUISITION
            )
            for name, value, unit in lengths
            if value is not None
        ),
    ]


def _images(source: SourceSeries) -> list[ImageContentItem]:
    return [
        ImageContentItem(
            name=coded(concepts.SOURCE),
            referenced_sop_class_uid=header.sop.sop_class_uid,
            referenced_sop_instance_uid=header.sop.sop_instance_uid,
            relationship_type=RelationshipTypeValues.CONTAINS,
        )
        for header in source.images
    ]
