"""Model upgrades: one UPDATE changes the active checkpoint, and what was done is remembered. See indexer/tables.py."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"

KINDS = "kind IN ('registered', 'gate', 'activated', 'rolled_back', 'retired')"


def upgrade() -> None:
    op.add_column("checkpoint", sa.Column("activated_at", sa.DateTime(timezone=True)))
    op.add_column("checkpoint", sa.Column("previous_id", sa.Text()))
    op.add_column("checkpoint", sa.Column("canaries", JSONB()))
    op.create_foreign_key("checkpoint_previous_id_fkey", "checkpoint", "checkpoint", ["previous_id"], ["id"])
    op.drop_index("checkpoint_one_active_idx", "checkpoint")
    op.create_exclude_constraint(
        "checkpoint_one_active_excl",
        "checkpoint",
        ("state", "="),
        using="btree",
        where=sa.text("state = 'active'"),
        deferrable=True,
        initially="IMMEDIATE",
    )
    op.create_table(
        "checkpoint_event",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("checkpoint_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("detail", JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["checkpoint_id"], ["checkpoint.id"], name="checkpoint_event_checkpoint_id_fkey"),
        sa.CheckConstraint(KINDS, name=op.f("checkpoint_event_kind_check")),
    )
    op.create_index("checkpoint_event_checkpoint_id_idx", "checkpoint_event", ["checkpoint_id", "id"])
