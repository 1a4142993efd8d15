"""The first form of the index."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UID = sa.String(64)
DIGEST = sa.String(64)
AE = sa.String(16)


def upgrade() -> None:
    """Create every table of the first form."""
    _instances()
    _studies()
    _runs()
    _evidence()
    _deliveries()
    _history()


def _instances() -> None:
    op.create_table(
        "instance",
        sa.Column("sop_instance_uid", UID, primary_key=True),
        sa.Column("sop_class_uid", UID, nullable=False),
        sa.Column("study_uid", UID, nullable=False),
        sa.Column("series_uid", UID, nullable=False),
        sa.Column("transfer_syntax", UID, nullable=False),
        sa.Column("calling_ae_title", AE, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("data_set_digest", DIGEST, nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("derived", sa.Boolean(), nullable=False),
        sa.Column("received_at", sa.DateTime(), nullable=False),
    )
    op.create_index("ix_instance_series_uid", "instance", ["series_uid"])
    op.create_index("ix_instance_study_uid", "instance", ["study_uid"])
    op.create_table(
        "variant",
        sa.Column("sop_instance_uid", UID, sa.ForeignKey("instance.sop_instance_uid"), primary_key=True),
        sa.Column("data_set_digest", DIGEST, primary_key=True),
        sa.Column("transfer_syntax", UID, nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("received_at", sa.DateTime(), nullable=False),
    )
    op.create_table(
        "quarantined_instance",
        sa.Column("path", sa.Text(), primary_key=True),
        sa.Column("sop_instance_uid", sa.String(256), nullable=False),
        sa.Column("study_uid", UID, nullable=True),
        sa.Column("calling_ae_title", AE, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("received_at", sa.DateTime(), nullable=False),
    )
    op.create_index("ix_quarantined_instance_study_uid", "quarantined_instance", ["study_uid"])


def _studies() -> None:
    op.create_table(
        "study",
        sa.Column("study_uid", UID, primary_key=True),
        sa.Column("first_received_at", sa.DateTime(), nullable=False),
        sa.Column("last_received_at", sa.DateTime(), nullable=False),
        sa.Column("decided_generation", DIGEST, nullable=True),
    )
    op.create_index("ix_study_last_received_at", "study", ["last_received_at"])
    op.create_table(
        "generation",
        sa.Column("study_uid", UID, sa.ForeignKey("study.study_uid"), primary_key=True),
        sa.Column("generation", DIGEST, primary_key=True),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("instances", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("decided_at", sa.DateTime(), nullable=False),
    )
    op.create_table(
        "generation_member",
        sa.Column("study_uid", UID, primary_key=True),
        sa.Column("generation", DIGEST, primary_key=True),
        sa.Column("sop_instance_uid", UID, sa.ForeignKey("instance.sop_instance_uid"), primary_key=True),
    )


def _runs() -> None:
    op.create_table(
        "run",
        sa.Column("run_id", sa.String(200), primary_key=True),
        sa.Column("study_uid", UID, sa.ForeignKey("study.study_uid"), nullable=False),
        sa.Column("generation", DIGEST, nullable=False),
        sa.Column("model_name", sa.String(32), nullable=False),
        sa.Column("model_version", sa.String(16), nullable=False),
        sa.Column("model_digest", DIGEST, nullable=False),
        sa.Column("settings_digest", DIGEST, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("started", sa.Integer(), nullable=False),
        sa.Column("evidence_key", DIGEST, nullable=True),
        sa.Column("decided_at", sa.DateTime(), nullable=False),
        sa.Column("finished_at", sa.DateTime(), nullable=True),
    )
    op.create_index("ix_run_study_uid", "run", ["study_uid"])
    op.create_table(
        "verdict",
        sa.Column("run_id", sa.String(200), sa.ForeignKey("run.run_id"), primary_key=True),
        sa.Column("series_uid", UID, primary_key=True),
        sa.Column("taken", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
    )


def _evidence() -> None:
    op.create_table(
        "evidence_set",
        sa.Column("evidence_key", DIGEST, primary_key=True),
        sa.Column("study_uid", UID, nullable=False),
        sa.Column("generation", DIGEST, nullable=False),
        sa.Column("profile", sa.String(32), nullable=False),
        sa.Column("directory", sa.Text(), nullable=False),
        sa.Column("made_at", sa.DateTime(), nullable=False),
    )
    op.create_index("ix_evidence_set_study_uid", "evidence_set", ["study_uid"])
    op.create_table(
        "evidence_object",
        sa.Column("sop_instance_uid", UID, primary_key=True),
        sa.Column("evidence_key", DIGEST, sa.ForeignKey("evidence_set.evidence_key"), nullable=False),
        sa.Column("sop_class_uid", UID, nullable=False),
        sa.Column("series_uid", UID, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("transfer_syntax", UID, nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("file_digest", DIGEST, nullable=False),
    )
    op.create_index("ix_evidence_object_evidence_key", "evidence_object", ["evidence_key"])


def _deliveries() -> None:
    op.create_table(
        "delivery",
        sa.Column("sop_instance_uid", UID, sa.ForeignKey("evidence_object.sop_instance_uid"), primary_key=True),
        sa.Column("destination", sa.String(64), primary_key=True),
        sa.Column("evidence_key", DIGEST, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_comment", sa.Text(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(), nullable=True),
        sa.Column("sent_at", sa.DateTime(), nullable=True),
    )
    op.create_index("ix_delivery_evidence_key", "delivery", ["evidence_key"])


def _history() -> None:
    op.create_table(
        "retry_request",
        sa.Column("request_id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("study_uid", UID, nullable=False),
        sa.Column("requested_at", sa.DateTime(), nullable=False),
        sa.Column("taken_at", sa.DateTime(), nullable=True),
    )
    op.create_table(
        "event",
        sa.Column("event_id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("study_uid", UID, nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
    )
    op.create_index("ix_event_study_uid", "event", ["study_uid", "at"])
