"""Profiles: which objects a result has and under which series numbers and descriptions."""

import zlib
from dataclasses import dataclass

from node.domain.evidence import EvidenceKind

RESEARCH_USE = "AI result, research use"
"""Stands in the series description, the content description and the document of everything that leaves."""
_LONG_STRING = 64


@dataclass(frozen=True, slots=True)
class ObjectRule:
    """How one kind of object is filed in its study."""

    kind: EvidenceKind
    noun: str
    """What the series description calls it."""
    series_offset: int
    """Last digit of the series number."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The objects of one profile, in the order in which they are sent."""

    name: str
    objects: tuple[ObjectRule, ...]

    def rule(self, kind: EvidenceKind) -> ObjectRule:
        """Return the rule of one kind."""
        return next(rule for rule in self.objects if rule.kind == kind)


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "standard",
            objects=(ObjectRule("SEG", "segmentation", 1), ObjectRule("SR", "located findings", 2)),
        ),
    )
}


def series_number(model_name: str, rule: ObjectRule) -> int:
    """Return a high series number that stays the same for a model and a kind: 900001 to 999989."""
    return 900_000 + zlib.crc32(model_name.encode()) % 9_999 * 10 + rule.series_offset


def series_description(title: str, rule: ObjectRule) -> str:
    """Say model, kind and research use within the 64 characters of a Long String (LO)."""
    tail = f", {rule.noun} ({RESEARCH_USE})"
    room = _LONG_STRING - len(tail)
    whole = title if len(title) <= room else title[: room + 1].rpartition(" ")[0] or title[:room]
    return f"{whole.rstrip(' ,;:-')}{tail}"


def content_description(title: str) -> str:
    """Say research use and model within 64 characters."""
    return f"{RESEARCH_USE}: {title}"[:_LONG_STRING]
