"""Units of rescaled values as UCUM codes (PS3.3 C.11.1.1.2 Rescale Type, C.8.9.1.1.3 Units of PET)."""

from typing import Final

from node.domain.instances import ImageHeader

HOUNSFIELD: Final = "[hnsf'U]"
UNSTATED: Final = "1"

# CID 84 with the Units (0054,1001) defined terms of PS3.3 C.8.9.1.1.3.
_PET: Final = {
    "CNTS": "{counts}",
    "NONE": UNSTATED,
    "CM2": "cm2",
    "CM2ML": "cm2/ml",
    "PCNT": "%",
    "CPS": "{counts}/s",
    "BQML": "Bq/ml",
    "MGMINML": "mg/min/ml",
    "UMOLMINML": "umol/min/ml",
    "MLMING": "ml/min/g",
    "MLG": "ml/g",
    "1CM": "/cm",
    "UMOLML": "umol/ml",
    "PROPCNTS": "{propcounts}",
    "PROPCPS": "{propcounts}/s",
    "MLMINML": "ml/min/ml",
    "MLML": "ml/ml",
    "GML": "g/ml",
    "STDDEV": "{stddev}",
}
# SUV Type (0054,1006); GML without it is body weight (PS3.3 C.8.9.1).
_SUV: Final = {
    "BW": "SUVbw",
    "LBM": "SUVlbm",
    "LBMJAMES128": "SUVlbm(James128)",
    "LBMJANMA": "SUVlbm(Janma)",
    "IBW": "SUVibw",
}


def unit_of(header: ImageHeader) -> str:
    """Return the UCUM code of `stored value * slope + intercept`; "1" where nothing is stated.

    CT without Rescale Type is in Hounsfield units (PS3.3 C.8.2.1.1.2); MR values have no unit.
    """
    if header.modality == "PT":
        return _pet_unit(header)
    if header.rescale_type == "HU" or (header.modality == "CT" and not header.rescale_type):
        return HOUNSFIELD
    return UNSTATED


def _pet_unit(header: ImageHeader) -> str:
    unit = _PET.get(header.units, UNSTATED)
    if header.units == "GML":
        return f"{unit}{{{_SUV.get(header.suv_type or 'BW', 'SUV')}}}"
    if header.units == "CM2ML":
        return f"{unit}{{SUVbsa}}"
    return unit


def unit_for_readers(ucum: str) -> str:
    """Return how a reader writes a unit: HU for [hnsf'U], nothing for 1, else the UCUM code."""
    return {HOUNSFIELD: "HU", "1": ""}.get(ucum, ucum)
