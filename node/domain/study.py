"""Studies between arrival and result: readiness, assignment, refusal."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from node.domain.instances import ReceivedInstance

REINDEXED: Final = "reindexed: its results lie in the outbox, nothing runs or is delivered again"
"""Reason of a generation whose decision was lost with the index and is known from its evidence alone."""


@dataclass(frozen=True, slots=True)
class ReadyStudy:
    """A study that is complete enough to run, and why."""

    study_uid: str
    generation: str
    generation_count: int
    """1, 2, 3 ... for people; the hash is what counts."""
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided about one model and one series: taken or not, and why."""

    model_name: str
    model_version: str
    series_uid: str
    taken: bool
    reason: str


def generation_of(instances: Iterable[ReceivedInstance]) -> str:
    """Return the generation of the non-derived instances of a study."""
    return generation_of_digests({item.sop.sop_instance_uid: item.data_set_digest for item in instances})


def generation_of_digests(digests: Mapping[str, str]) -> str:
    """Return the hash of the sorted (SOP Instance UID, data set digest) pairs: hex SHA-256."""
    rows = sorted(f"{uid} {digest}" for uid, digest in digests.items())
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
