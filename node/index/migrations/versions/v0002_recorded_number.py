"""Evidence sets are numbered in the order of their recording: times of decisions tie."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Number the sets that are there by the time of their decision, and by their row where that ties."""
    op.add_column("evidence_set", sa.Column("recorded_number", sa.Integer(), nullable=False, server_default="0"))
    op.execute(
        """
        UPDATE evidence_set SET recorded_number = (
            SELECT count(*) FROM evidence_set AS other
            WHERE other.made_at < evidence_set.made_at
               OR (other.made_at = evidence_set.made_at AND other.rowid <= evidence_set.rowid)
        )
        """
    )
