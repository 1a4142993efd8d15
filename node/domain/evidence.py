"""Evidence: the DICOM objects that one run of one model yields, as they lie in the outbox."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from node.domain.instances import SopReference

EvidenceKind = Literal["SEG", "SR"]


@dataclass(frozen=True, slots=True)
class Signature:
    """Who signs a result and when: what stands in every object beside the findings."""

    study_uid: str
    generation: str
    decided_at: datetime
    """The recorded decision time of the run, time-zone aware."""
    settings_digest: str
    institution_name: str
    device_serial_number: str
    profile: str = "standard"


@dataclass(frozen=True, slots=True)
class PreviousReport:
    """The SR that a corrected result supersedes (Predecessor Documents Sequence)."""

    sop: SopReference
    study_uid: str
    series_uid: str
    instance_number: int


@dataclass(frozen=True, slots=True)
class EvidenceObject:
    """One durable file of an evidence set. The file never changes; its digest is checked before each delivery."""

    kind: EvidenceKind
    sop: SopReference
    series_uid: str
    transfer_syntax: str
    file_name: str
    file_digest: str
    """Hex SHA-256 of the whole Part 10 file."""


@dataclass(frozen=True, slots=True)
class EvidenceSet:
    """A linted, durable, write-once directory of the outbox."""

    key: str
    """Hex; derived from inputs, model digest, settings digest and writer revision (architecture 7)."""
    directory: Path
    study_uid: str
    generation: str
    profile: str
    objects: tuple[EvidenceObject, ...]
    made_at: datetime
    """The recorded decision time of the run, UTC: also Content Date and Time of the objects."""
