"""Every derived UID and key, by role: equal inputs give equal UIDs, so a repeated step lands on what is there.

All UIDs are 2.25.<UUID as a decimal number> (PS3.5 B.2), the UUID being version 5 over the role and its inputs.
"""

import hashlib
import uuid
from dataclasses import dataclass

from node.domain.evidence import EvidenceKind
from node.domain.prediction import ModelIdentity

_NAMESPACE = uuid.UUID("6f0d2c55-64d2-5c7c-9d57-6f1f8f3a7c11")
_SEPARATOR = "\x1f"


@dataclass(frozen=True, slots=True)
class ResultOrigin:
    """What a result derives from: together with the writer's revision its key."""

    study_uid: str
    source_series_uid: str
    generation: str
    model: ModelIdentity
    settings_digest: str
    profile: str


def derived_uid(role: str, *inputs: str) -> str:
    """Return the UID of `role` for these inputs; different roles never share one."""
    name = _SEPARATOR.join((role, *inputs))
    return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"


def evidence_key(origin: ResultOrigin, writer_revision: int) -> str:
    """Return the hex SHA-256 under which the evidence set of `origin` lies in the outbox."""
    inputs = (
        origin.study_uid,
        origin.source_series_uid,
        origin.generation,
        *_model(origin.model),
        origin.settings_digest,
        origin.profile,
        str(writer_revision),
    )
    return hashlib.sha256(_SEPARATOR.join(("evidence", *inputs)).encode()).hexdigest()


def series_uid(origin: ResultOrigin, kind: EvidenceKind) -> str:
    """Return the Series Instance UID of one kind of object; a later generation stays in the same series."""
    return derived_uid(
        "series", origin.study_uid, origin.source_series_uid, *_model(origin.model), kind, origin.profile
    )


def sop_instance_uid(origin: ResultOrigin, kind: EvidenceKind, writer_revision: int, ordinal: int = 1) -> str:
    """Return the SOP Instance UID of the `ordinal`-th object of its kind."""
    series = series_uid(origin, kind)
    return derived_uid(
        "instance", series, origin.generation, origin.settings_digest, str(writer_revision), str(ordinal)
    )


def tracking_uid(origin: ResultOrigin, ordinal: int) -> str:
    """Return the Tracking UID of a finding, shared by its SR group and its segment.

    Another series, generation or model digest gives others: the same ordinal there may be another lesion.
    """
    return derived_uid("tracking", *_tracked(origin), str(ordinal))


def class_tracking_uid(origin: ResultOrigin, segment_number: int) -> str:
    """Return the Tracking UID of a segment that holds all findings of one class."""
    return derived_uid("class tracking", *_tracked(origin), str(segment_number))


def dimension_organization_uid(instance_uid: str) -> str:
    """Return the Dimension Organization UID of a multi-frame instance."""
    return derived_uid("dimension organization", instance_uid)


def device_uid(model_digest: str) -> str:
    """Return the Device UID of a model: it changes with every retraining (IHE AIR)."""
    return derived_uid("device", model_digest)


def is_derived_uid(uid: str) -> bool:
    """Tell whether `uid` has the form of a derived UID: 2.25. and a UUID of version 5."""
    number = uid.removeprefix("2.25.")
    if number == uid or not number.isdigit() or (number[0] == "0" and number != "0") or int(number) >= 1 << 128:
        return False
    return uuid.UUID(int=int(number)).version == 5


def _tracked(origin: ResultOrigin) -> tuple[str, ...]:
    return origin.study_uid, origin.source_series_uid, origin.generation, *_model(origin.model)


def _model(model: ModelIdentity) -> tuple[str, str, str]:
    return model.name, model.version, model.digest
