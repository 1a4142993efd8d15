"""The tables of the index: what is here, what was decided, what was delivered. One row, one fact; times are UTC."""

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

schema = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
UID = String(64)
DIGEST = String(64)
AE = String(16)

instance = Table(
    "instance",
    schema,
    Column("sop_instance_uid", UID, primary_key=True),
    Column("sop_class_uid", UID, nullable=False),
    Column("study_uid", UID, nullable=False, index=True),
    Column("series_uid", UID, nullable=False, index=True),
    Column("transfer_syntax", UID, nullable=False),
    Column("calling_ae_title", AE, nullable=False),
    Column("path", Text, nullable=False, comment="relative to the store"),
    Column("data_set_digest", DIGEST, nullable=False),
    Column("size", Integer, nullable=False, comment="bytes of the file"),
    Column("derived", Boolean, nullable=False, comment="SEG, SR, KO, PR, our own: never triggers a run"),
    Column("received_at", DateTime, nullable=False),
)

variant = Table(
    "variant",
    schema,
    Column("sop_instance_uid", UID, ForeignKey(instance.c.sop_instance_uid), nullable=False),
    Column("data_set_digest", DIGEST, nullable=False),
    Column("transfer_syntax", UID, nullable=False),
    Column("note", Text, nullable=False),
    Column("received_at", DateTime, nullable=False),
    PrimaryKeyConstraint("sop_instance_uid", "data_set_digest"),
)

quarantined_instance = Table(
    "quarantined_instance",
    schema,
    Column("path", Text, primary_key=True, comment="relative to the store"),
    Column("sop_instance_uid", String(256), nullable=False, comment="as claimed; may be no UID at all"),
    Column("study_uid", UID, nullable=True, index=True),
    Column("calling_ae_title", AE, nullable=False),
    Column("reason", Text, nullable=False),
    Column("received_at", DateTime, nullable=False),
)

study = Table(
    "study",
    schema,
    Column("study_uid", UID, primary_key=True),
    Column("first_received_at", DateTime, nullable=False),
    Column("last_received_at", DateTime, nullable=False, index=True, comment="last instance that can trigger a run"),
    Column("decided_generation", DIGEST, nullable=True, comment="null while instances arrive"),
)

generation = Table(
    "generation",
    schema,
    Column("study_uid", UID, ForeignKey(study.c.study_uid), nullable=False),
    Column("generation", DIGEST, nullable=False),
    Column("count", Integer, nullable=False, comment="1, 2, 3 ... for people"),
    Column("instances", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("decided_at", DateTime, nullable=False),
    PrimaryKeyConstraint("study_uid", "generation"),
)

generation_member = Table(
    "generation_member",
    schema,
    Column("study_uid", UID, nullable=False),
    Column("generation", DIGEST, nullable=False),
    Column("sop_instance_uid", UID, ForeignKey(instance.c.sop_instance_uid), nullable=False),
    PrimaryKeyConstraint("study_uid", "generation", "sop_instance_uid"),
)

run = Table(
    "run",
    schema,
    Column("run_id", String(200), primary_key=True, comment="the workflow id: derived, see workflow"),
    Column("study_uid", UID, ForeignKey(study.c.study_uid), nullable=False, index=True),
    Column("generation", DIGEST, nullable=False),
    Column("model_name", String(32), nullable=False),
    Column("model_version", String(16), nullable=False),
    Column("model_digest", DIGEST, nullable=False),
    Column("settings_digest", DIGEST, nullable=False),
    Column("attempt", Integer, nullable=False, comment="0, or the number that `hilum retry` gave"),
    Column("state", String(16), nullable=False, comment="QUEUED RUNNING REFUSED EVIDENCE QUARANTINED FAILED"),
    Column("reason", Text, nullable=False),
    Column("started", Integer, nullable=False, comment="times make_evidence began without an end; three quarantine"),
    Column("evidence_key", DIGEST, nullable=True),
    Column("decided_at", DateTime, nullable=False, comment="the recorded decision time that results carry"),
    Column("finished_at", DateTime, nullable=True),
)

verdict = Table(
    "verdict",
    schema,
    Column("run_id", String(200), ForeignKey(run.c.run_id), nullable=False),
    Column("series_uid", UID, nullable=False),
    Column("taken", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    PrimaryKeyConstraint("run_id", "series_uid"),
)

evidence_set = Table(
    "evidence_set",
    schema,
    Column("evidence_key", DIGEST, primary_key=True),
    Column("study_uid", UID, nullable=False, index=True),
    Column("generation", DIGEST, nullable=False),
    Column("profile", String(32), nullable=False),
    Column("directory", Text, nullable=False, comment="relative to the outbox"),
    Column("made_at", DateTime, nullable=False),
    Column("recorded_number", Integer, nullable=False, server_default="0", comment="order of the recording, from 1"),
)

evidence_object = Table(
    "evidence_object",
    schema,
    Column("sop_instance_uid", UID, primary_key=True),
    Column("evidence_key", DIGEST, ForeignKey(evidence_set.c.evidence_key), nullable=False, index=True),
    Column("sop_class_uid", UID, nullable=False),
    Column("series_uid", UID, nullable=False),
    Column("kind", String(8), nullable=False),
    Column("transfer_syntax", UID, nullable=False),
    Column("file_name", Text, nullable=False),
    Column("file_digest", DIGEST, nullable=False),
)

delivery = Table(
    "delivery",
    schema,
    Column("sop_instance_uid", UID, ForeignKey(evidence_object.c.sop_instance_uid), nullable=False),
    Column("destination", String(64), nullable=False),
    Column("evidence_key", DIGEST, nullable=False, index=True),
    Column("state", String(16), nullable=False, comment="PENDING SENT REFUSED SUPERSEDED"),
    Column("attempts", Integer, nullable=False),
    Column("last_status", Integer, nullable=True, comment="the peer's DIMSE status"),
    Column("last_comment", Text, nullable=False),
    Column("next_attempt_at", DateTime, nullable=True),
    Column("sent_at", DateTime, nullable=True),
    PrimaryKeyConstraint("sop_instance_uid", "destination"),
)

retry_request = Table(
    "retry_request",
    schema,
    Column("request_id", Integer, primary_key=True, autoincrement=True),
    Column("study_uid", UID, nullable=False),
    Column("requested_at", DateTime, nullable=False),
    Column("taken_at", DateTime, nullable=True),
)

event = Table(
    "event",
    schema,
    Column("event_id", Integer, primary_key=True, autoincrement=True),
    Column("study_uid", UID, nullable=False),
    Column("at", DateTime, nullable=False),
    Column("name", String(64), nullable=False, comment="noun_past-verb, as in the log"),
    Column(
        "text",
        Text,
        nullable=False,
        comment="one sentence a person can act on; no patient data but what a peer says in its Error Comment",
    ),
    Index("ix_event_study_uid", "study_uid", "at"),
)
