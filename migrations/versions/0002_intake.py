"""Intake at scale: who reads an ingestion, that one can be cancelled, and which requests were carried out already."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("ingestion", sa.Column("owner", sa.Integer()))
    op.drop_constraint(op.f("ingestion_state_check"), "ingestion", type_="check")
    op.create_check_constraint(
        op.f("ingestion_state_check"), "ingestion", "state IN ('open', 'receiving', 'done', 'failed', 'cancelled')"
    )
    op.create_table(
        "idempotency_key",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("resource_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("scope", "key", name="idempotency_key_pkey"),
    )
    op.create_index("idempotency_key_expires_at_idx", "idempotency_key", ["expires_at"])
