"""Presentation contexts that the node accepts: every storage SOP class and Verification, in our order of syntaxes."""

from collections.abc import Sequence
from functools import cache
from typing import Final

from pydicom._uid_dict import UID_dictionary
from pynetdicom import AllStoragePresentationContexts
from pynetdicom.presentation import PresentationContext

VERIFICATION: Final = "1.2.840.10008.1.1"
EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
EXPLICIT_BIG: Final = "1.2.840.10008.1.2.2"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"

_JPEG: Final = "1.2.840.10008.1.2.4."
LOSSLESS: Final = (
    # Cheapest to decode first (RLE, HTJ2K, JPEG-LS, JPEG lossless, JPEG 2000); then the rare and retired ones.
    "1.2.840.10008.1.2.5",
    *(_JPEG + number for number in ("201", "202", "80", "70", "57", "90", "92", "110", "58", "65", "66")),
    "1.2.840.10008.1.2.1.98",
    "1.2.840.10008.1.2.8.1",
)
LOSSY: Final = (
    *(_JPEG + number for number in ("50", "51", "81", "91", "93", "203", "111", "112")),
    *(_JPEG + str(number) for number in (52, 53, 54, 55, 56, 59, 60, 61, 62, 63, 64)),
    *(_JPEG + number for number in ("100", "100.1", "101", "101.1", "102", "102.1", "103", "103.1")),
    *(_JPEG + number for number in ("104", "104.1", "105", "105.1", "106", "106.1", "107", "108")),
)
ENCAPSULATED: Final = frozenset((*LOSSLESS, *LOSSY))
TRANSFER_SYNTAXES: Final = (EXPLICIT_LITTLE, *LOSSLESS, *LOSSY, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED)
"""In the order in which we choose among those that a context proposes (PS3.8 9.3.3.2 leaves it to the acceptor)."""

# "Storage" in the name, yet not composite instances that C-STORE carries.
_NOT_STORAGE: Final = frozenset(
    ("1.2.840.10008.1.3.10", "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.2", "1.2.840.10008.5.1.1.27")
)


@cache
def storage_classes() -> frozenset[str]:
    """Return every storage SOP class: pynetdicom's, and the retired and rare ones that its list lacks."""
    known = {str(context.abstract_syntax) for context in AllStoragePresentationContexts}
    named = {uid for uid, entry in UID_dictionary.items() if entry[1] == "SOP Class" and "Storage" in entry[0]}
    return frozenset((known | named) - _NOT_STORAGE)


def supported_contexts(
    requested: Sequence[PresentationContext], *, unknown_sop_classes: bool
) -> list[PresentationContext]:
    """Return our side of the contexts that a peer asks for; those that we refuse are left out.

    Args:
        requested: The peer's contexts.
        unknown_sop_classes: Accept abstract syntaxes that the standard does not know as storage SOP classes.
    """
    classes = {str(context.abstract_syntax) for context in requested}
    return [_context(uid) for uid in sorted(classes) if _is_accepted(uid, unknown_sop_classes=unknown_sop_classes)]


def _is_accepted(uid: str, *, unknown_sop_classes: bool) -> bool:
    return uid == VERIFICATION or uid in storage_classes() or (unknown_sop_classes and uid not in UID_dictionary)


@cache
def _context(abstract_syntax: str) -> PresentationContext:
    context = PresentationContext()
    context.abstract_syntax = abstract_syntax
    context.transfer_syntax = list(TRANSFER_SYNTAXES)
    return context
