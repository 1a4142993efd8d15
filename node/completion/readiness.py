"""Is a study ready? Pure: evidence and settings in, a decision with its reason out (architecture 8, first form).

DICOM has no "study finished". A study is ready when no open association has carried it and it has been quiet for
`settle_s`, or quiet for `hanging_s` with one hanging open.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from node.settings import CompletionSettings


@dataclass(frozen=True, slots=True)
class StudyEvidence:
    """What is known of a study that no decision covers yet."""

    instances: int
    """Instances that can trigger a run."""
    last_received_at: datetime
    """Of the last of these, with zone."""
    is_carried: bool
    """An association that is still open has carried the study."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The study may run."""

    reason: str
    """Stored and shown."""


@dataclass(frozen=True, slots=True)
class NotYet:
    """The study has to wait."""

    until: datetime
    """When to look again at the latest, with zone; earlier where an association closes."""
    reason: str


def decide(evidence: StudyEvidence, settings: CompletionSettings, now: datetime) -> Ready | NotYet:
    """Decide whether a study is ready.

    Args:
        evidence: What is known of the study.
        settings: How long to wait.
        now: The present, with zone.
    """
    wait_s = settings.hanging_s if evidence.is_carried else settings.settle_s
    until = evidence.last_received_at + timedelta(seconds=wait_s)
    if evidence.instances < 1:
        return NotYet(now + timedelta(seconds=wait_s), "no instance that can trigger a run")
    if evidence.last_received_at - now > timedelta(seconds=settings.hanging_s):
        return Ready(f"{_counted(evidence)}; the clock was set back since the last one")
    if now < until:
        return NotYet(until, f"{_counted(evidence)}; waiting for {wait_s:g} s of quiet{_hanging(evidence)}")
    quiet_s = (now - evidence.last_received_at).total_seconds()
    return Ready(f"{_counted(evidence)}; quiet for {quiet_s:.1f} s{_hanging(evidence)}")


def _counted(evidence: StudyEvidence) -> str:
    return f"{evidence.instances} instance{'' if evidence.instances == 1 else 's'}"


def _hanging(evidence: StudyEvidence) -> str:
    if evidence.is_carried:
        return " with an association that carried the study still open"
    return ", no open association has carried the study"
