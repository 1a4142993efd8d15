"""Which objects are made from images: they never open a generation and never start a model."""

from typing import Final

_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
_FAMILIES: Final = (
    _STORAGE + "7.",  # Secondary Capture, all forms
    _STORAGE + "11.",  # presentation states
    _STORAGE + "30.",  # Parametric Map
    _STORAGE + "66.",  # Raw Data, registrations, fiducials, segmentations
    _STORAGE + "67.",  # Real World Value Mapping
    _STORAGE + "77.1.5.3.",  # Stereometric Relationship
    _STORAGE + "88.",  # SR documents, Key Object Selection
    _STORAGE + "90.1.",  # Content Assessment Results
    _STORAGE + "104.",  # encapsulated documents
    _STORAGE + "481.",  # RT, its images apart
)
_RT_IMAGES: Final = frozenset((_STORAGE + "481.1", _STORAGE + "481.23"))

DERIVED_MODALITIES: Final = {
    "SEG": "a segmentation",
    "SR": "a structured report",
    "KO": "a key object selection",
    "PR": "a presentation state",
    "RTSTRUCT": "an RT structure set",
    "RTDOSE": "an RT dose",
    "RTPLAN": "an RT plan",
    "REG": "a registration",
    "RWV": "a real world value map",
    "DOC": "a document",
    "ANN": "annotations",
    "M3D": "a 3-D model",
    "OT": "an object of another kind",
}
"""Modality (0008,0060, PS3.3 C.7.3.1.1.1) of objects made from images, with words for it."""


def is_derived(sop_class_uid: str, modality: str) -> bool:
    """Return whether an object is made from images, by its class or by the modality that it states."""
    return modality in DERIVED_MODALITIES or is_derived_class(sop_class_uid)


def is_derived_class(sop_class_uid: str) -> bool:
    """Return whether all instances of the class are made from images, whatever modality they state (PS3.4 B.5).

    SEG, SR with KO, PR, RT (its images apart), Secondary Capture, encapsulated documents, registrations and maps.
    """
    return f"{sop_class_uid}.".startswith(_FAMILIES) and sop_class_uid not in _RT_IMAGES
