"""Values of data elements, from their bytes: PS3.5 section 6.2, tolerant of what real modalities write.

Each function takes the raw value field. Empty means absent (`None`); what cannot be meant raises ValueError, and the
caller names the attribute.
"""

import hashlib
import math
import re
import warnings
from functools import lru_cache

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.valuerep import TEXT_VR_DELIMS

_AGE = re.compile(r"(\d{1,3})([DWMY])", re.IGNORECASE)
_YEARS = {"D": 1 / 365.2425, "W": 7 / 365.2425, "M": 1 / 12, "Y": 1.0}
_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_ESCAPE = b"\x1b"
_PADDING = " \0"
# Single-byte repertoire names are short; what is longer is rubbish that pydicom would look up at length.
_MAX_CHARACTER_SET_BYTES = 256


def text(raw: bytes) -> str:
    """Return a CS, UI, AE or SH value of the default repertoire without its padding."""
    return raw.decode("latin-1").strip(_PADDING)


def described(raw: bytes, character_set: bytes) -> str:
    """Return an LO value in the repertoires of Specific Character Set (0008,0005)."""
    if raw.isascii() and _ESCAPE not in raw:
        return raw.decode("ascii").strip(_PADDING)
    names = character_set[:_MAX_CHARACTER_SET_BYTES].decode("latin-1").strip(_PADDING).split("\\")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return decode_bytes(raw, convert_encodings(names), TEXT_VR_DELIMS).strip(_PADDING)
        except (LookupError, UnicodeError, ValueError):
            return raw.decode("latin-1").strip(_PADDING)


# The slices of a series repeat theirs.
@lru_cache(maxsize=64)
def patient_key(patient_id: bytes, issuer: bytes, character_set: bytes) -> str:
    """Return the hex SHA-256 of two LO values, Patient ID and its issuer; "" where the ID is absent."""
    stated = described(patient_id, character_set)
    if not stated:
        return ""
    return hashlib.sha256(f"{stated}\x1f{described(issuer, character_set)}".encode()).hexdigest()


def texts(raw: bytes) -> tuple[str, ...]:
    """Return the values of a CS attribute of any multiplicity; empty values between others are kept."""
    whole = text(raw)
    return tuple(part.strip(_PADDING) for part in whole.split("\\")) if whole else ()


# The slices of a series repeat theirs: orientation, spacing, rescale.
@lru_cache(maxsize=64)
def decimals(raw: bytes) -> tuple[float, ...]:
    """Return the values of a DS attribute; () where empty. Raise ValueError for what is not a finite number."""
    stripped = raw.strip(b" \0")
    return tuple(_decimal(part) for part in stripped.split(b"\\")) if stripped else ()


def _decimal(part: bytes) -> float:
    stripped = part.strip(b" \0\t\r\n")
    # float() alone would also take "nan", "inf" and "1_000".
    if _NUMBER.fullmatch(stripped) is None:
        raise ValueError(f"{stripped[:32]!r} is not a decimal number")
    number = float(stripped)
    if not math.isfinite(number):
        raise ValueError(f"{stripped[:32]!r} is not finite")
    return number


def vector(raw: bytes, count: int) -> tuple[float, ...] | None:
    """Return the values of a DS attribute that has `count` of them."""
    values = decimals(raw)
    if len(values) not in (0, count):
        raise ValueError(f"{len(values)} values, where {count} are needed")
    return values or None


def decimal(raw: bytes) -> float | None:
    """Return the one value of a DS attribute."""
    values = decimals(raw)
    if len(values) > 1:
        raise ValueError(f"{len(values)} values, where one is allowed")
    return values[0] if values else None


def integer(raw: bytes) -> int | None:
    """Return the one value of an IS attribute; "12.0" is taken for 12, as some devices write it."""
    value = decimal(raw) if raw else None
    if value is None:
        return None
    if value != int(value):
        raise ValueError(f"{value} is not a whole number")
    return int(value)


def short(raw: bytes, *, little_endian: bool, signed: bool = False) -> int | None:
    """Return the first value of a US or SS attribute."""
    if not raw:
        return None
    if len(raw) < 2:
        raise ValueError(f"{len(raw)} byte, where two are needed")
    return int.from_bytes(raw[:2], "little" if little_endian else "big", signed=signed)


def age_years(raw: bytes) -> float | None:
    """Return Patient's Age (AS: 045Y, 018M, 003W, 010D) in years; None where it says nothing one can use."""
    match = _AGE.fullmatch(text(raw)) if raw else None
    return int(match[1]) * _YEARS[match[2].upper()] if match else None
