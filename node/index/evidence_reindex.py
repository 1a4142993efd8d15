"""Finding the evidence sets of the outbox again after the index was lost."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Engine

from node.domain.evidence import EvidenceSet
from node.domain.study import REINDEXED
from node.index.deliveries import record_evidence
from node.index.studies import arriving, decide, present_generation
from node.store.outbox import Outbox


@dataclass(frozen=True, slots=True)
class EvidenceCounts:
    """What a reindex found in the outbox."""

    sets: int
    """Sets that could be read."""
    decided: int
    """Studies that hold exactly what a set was made from, and so do not run again."""
    skipped: tuple[str, ...]
    """Sets that could not be read: where, why and the remedy; left where they are."""


def reindex_evidence(outbox: Outbox, engine: Engine) -> EvidenceCounts:
    """Record every set that lies in the outbox; call after the instances were reindexed.

    A study whose present instances a set was made from counts as decided, with the reason REINDEXED: nothing of it
    runs or is delivered again. All other studies run. No delivery is opened: what was delivered is known to the
    ledger alone. A set that a destination still lacks is adopted, and delivered, by `hilum retry UID`.
    """
    found: list[EvidenceSet] = []
    skipped: list[str] = []
    for item in outbox.scan():
        if isinstance(item, EvidenceSet):
            found.append(item)
        else:
            skipped.append(str(item))
    found.sort(key=lambda evidence: evidence.made_at)
    for evidence in found:
        directory = str(evidence.directory.relative_to(outbox.directory))
        record_evidence(engine, evidence, directory, run_id=None, destinations=(), now=datetime.now(UTC))
    return EvidenceCounts(len(found), _decide_finished(engine, found), tuple(skipped))


def _decide_finished(engine: Engine, found: list[EvidenceSet]) -> int:
    made_at = {(evidence.study_uid, evidence.generation): evidence.made_at for evidence in reversed(found)}
    decided = 0
    for row in arriving(engine):
        when = made_at.get((row.study_uid, present_generation(engine, row.study_uid)))
        if when is not None:
            decide(engine, row.study_uid, REINDEXED, when)
            decided += 1
    return decided
