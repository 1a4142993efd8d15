"""The coded concepts that results use, as plain values: PS3.16 context groups, DCM and SNOMED CT terms, UCUM units."""

from node.domain.findings import Code
from protos.model_manifest import CodedConcept

# Concepts of measurements (CID 7469, 7470, 7472; TID 300).
VOLUME = Code("118565006", "SCT", "Volume")
LONG_AXIS = Code("103339001", "SCT", "Long axis")
MEAN = Code("373098007", "SCT", "Mean")
CERTAINTY = Code("111012", "DCM", "Certainty of Finding")
"""CID 6048: the certainty that a device places upon a finding, in percent."""

# Units (UCUM).
MILLILITRE = Code("mL", "UCUM", "milliliter")
MILLIMETRE = Code("mm", "UCUM", "millimeter")
PERCENT = Code("%", "UCUM", "Percent")
NO_UNITS = Code("1", "UCUM", "no units")
PIXELS = Code("{pixels}", "UCUM", "pixels")
_VALUE_UNITS = {
    "1": NO_UNITS,
    "[hnsf'U]": Code("[hnsf'U]", "UCUM", "Hounsfield unit"),
    "g/ml{SUVbw}": Code("g/ml{SUVbw}", "UCUM", "Standardized Uptake Value body weight"),
    "Bq/ml": Code("Bq/ml", "UCUM", "Becquerels/milliliter"),
}

# The document (TID 1500, 1501, 1600, 4019; CID 7021).
IMAGING_MEASUREMENT_REPORT = Code("126000", "DCM", "Imaging Measurement Report")
REPORT_TITLES = ("126000", "126001", "126002", "126003")
IMAGING_MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
MEASUREMENT_GROUP = Code("125007", "DCM", "Measurement Group")
TRACKING_IDENTIFIER = Code("112039", "DCM", "Tracking Identifier")
TRACKING_UID = Code("112040", "DCM", "Tracking Unique Identifier")
IMAGE_REGION = Code("111030", "DCM", "Image Region")
IMAGE_LIBRARY = Code("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP = Code("126200", "DCM", "Image Library Group")
PROCEDURE_REPORTED = Code("121058", "DCM", "Procedure reported")
DEVICE_OBSERVER_UID = Code("121012", "DCM", "Device Observer UID")
SOURCE = Code("260753009", "SCT", "Source")
COMMENT = Code("121106", "DCM", "Comment")
FINDING = Code("121071", "DCM", "Finding")
FINDING_SITE = Code("363698007", "SCT", "Finding Site")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")
PRESENT = Code("52101004", "SCT", "Present")
ABSENT = Code("272519000", "SCT", "Absent")

_CERTAINTY_LEVELS = (
    (0.8, Code("75540009", "SCT", "High")),
    (0.5, Code("255508009", "SCT", "Medium")),
    (0.0, Code("62482003", "SCT", "Low")),
)

_PROCEDURES = {
    "CT": Code("25045-6", "LN", "CT unspecified body region"),
    "MR": Code("25056-3", "LN", "MRI unspecified body region"),
    "PT": Code("44136-0", "LN", "PET unspecified body region"),
}
_ANY_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")


def from_manifest(concept: CodedConcept) -> Code:
    """Turn a code of the manifest into a code of the findings."""
    return Code(concept.value, concept.scheme, concept.meaning)


def value_unit(ucum: str) -> Code:
    """Return the unit of a volume's rescaled values; an unlisted UCUM code is its own meaning."""
    return _VALUE_UNITS.get(ucum) or Code(ucum, "UCUM", ucum)


def certainty_level(probability: float) -> Code:
    """Say a probability (0 to 1) as High (from 0.8), Medium (from 0.5) or Low, for readers of codes."""
    return next(code for least, code in _CERTAINTY_LEVELS if probability >= least)


def procedure_of(modality: str) -> Code:
    """Return the imaging procedure of a modality (CID 100), where the study itself states no code."""
    return _PROCEDURES.get(modality, _ANY_PROCEDURE)
