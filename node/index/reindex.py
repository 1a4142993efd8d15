"""Rebuilding the index from the files: what is here is in the files, the index only finds it."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog
from sqlalchemy import Engine

from node.index.instances import (
    QuarantinedInstance,
    Reception,
    record_instance,
    record_quarantined,
)
from node.store.instance_files import InstanceStore, StoredInstance

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ReindexCounts:
    """What a reindex found."""

    instances: int
    """Sound files."""
    added: int
    """Of these, files that the index did not know."""
    quarantined: int
    """Refused instances with a reason."""
    damaged: tuple[Path, ...]
    """Files that cannot be read or whose bytes do not match their own record; left where they are."""
    skipped: tuple[Path, ...] = ()
    """Reasons of refusals that cannot be read; left where they are."""


def reindex(store: InstanceStore, engine: Engine) -> ReindexCounts:
    """Record every instance and every refusal that lies in the store; what the index knows already stays as it is.

    Decisions, runs and deliveries are no business of the files: they are truth of their own and are backed up.
    """
    instances = added = 0
    damaged: list[Path] = []
    for found in store.scan():
        if isinstance(found, StoredInstance):
            instances += 1
            result = record_instance(engine, found.instance, size=found.size, derived=found.derived)
            added += result is Reception.NEW
        else:
            log.warning("stored_file_damaged", reason="its bytes do not match its record", path=str(found))
            damaged.append(found)
    refusals = 0
    skipped: list[Path] = []
    for item in store.quarantine.records():
        if isinstance(item, Path):
            skipped.append(item)
            continue
        path, record = item
        refusals += 1
        refused = QuarantinedInstance(
            path=path,
            sop_instance_uid=record.sop_instance_uid,
            study_uid=record.study_uid,
            calling_ae_title=record.calling_ae_title,
            reason=record.reason,
            received_at=datetime.fromisoformat(record.received_at),
        )
        record_quarantined(engine, refused)
    return ReindexCounts(instances, added, refusals, tuple(damaged), tuple(skipped))
