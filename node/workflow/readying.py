"""Closing the studies that completion finds ready; the waits are rows, so they survive a restart."""

from collections.abc import Callable
from datetime import datetime

import structlog
from sqlalchemy import Engine

from node.completion.readiness import Ready, StudyEvidence, decide
from node.index import studies
from node.settings import CompletionSettings

log = structlog.get_logger()


def decide_studies(
    engine: Engine, settings: CompletionSettings, open_studies: Callable[[], frozenset[str]], now: datetime
) -> None:
    """Ask completion about every study that arrives, and decide those that are ready, with the reason."""
    rows = studies.arriving(engine)
    carried = open_studies() if rows else frozenset()
    for row in rows:
        evidence = StudyEvidence(row.instances, row.last_received_at, is_carried=row.study_uid in carried)
        decision = decide(evidence, settings, now)
        if not isinstance(decision, Ready):
            continue
        ready = studies.decide(engine, row.study_uid, decision.reason, now, seen_last=row.last_received_at)
        if ready is not None:
            log.info("study_ready", study_uid=row.study_uid, count=ready.generation_count, reason=ready.reason)
