"""Finding the evidence sets of the outbox again after the index was lost."""

from datetime import UTC, datetime

from sqlalchemy import Engine

from node.index.deliveries import record_evidence
from node.store.outbox import Outbox


def reindex_evidence(outbox: Outbox, engine: Engine) -> int:
    """Record every set that lies in the outbox and return how many there are.

    No delivery is opened: what was delivered is known to the ledger alone. A set that a destination still lacks is
    adopted, and delivered, by the next run of its study (`hilum retry UID`).
    """
    count = 0
    for evidence in sorted(outbox.scan(), key=lambda found: found.made_at):
        directory = str(evidence.directory.relative_to(outbox.directory))
        record_evidence(engine, evidence, directory, run_id=None, destinations=(), now=datetime.now(UTC))
        count += 1
    return count
