"""Erasures and their receipts, legal holds, retention policies. Explained in indexer/governance_tables.py."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0003"
down_revision = "0002"

NOW = sa.text("now()")


def upgrade() -> None:
    op.create_table(
        "erasure",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("state", sa.Text(), server_default=sa.text("'running'"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("selection", JSONB(), nullable=False),
        sa.Column("counts", JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("proof", sa.Text()),
        _time("created_at", nullable=False, server_default=NOW),
        _time("finished_at"),
        _check("erasure_state_check", "state IN ('running', 'done')"),
    )
    op.create_table(
        "erased_image",
        sa.Column("erasure_id", sa.Uuid(), nullable=False),
        sa.Column("image_id", sa.Uuid(), nullable=False),
        sa.Column("image_row", sa.BigInteger()),
        sa.PrimaryKeyConstraint("erasure_id", "image_id", name="erased_image_pkey"),
        _erasure("erased_image_erasure_id_fkey"),
    )
    op.create_table(
        "erasure_file",
        sa.Column("erasure_id", sa.Uuid(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("erasure_id", "sha256", name="erasure_file_pkey"),
        _erasure("erasure_file_erasure_id_fkey"),
    )
    op.create_table(
        "legal_hold",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("image_ids", ARRAY(sa.Uuid())),
        sa.Column("identity", sa.Text()),
        sa.Column("camera_id", sa.Text()),
        _time("captured_from"),
        _time("captured_until"),
        _time("created_at", nullable=False, server_default=NOW),
        sa.ForeignKeyConstraint(["camera_id"], ["camera.id"], name="legal_hold_camera_id_fkey"),
        _check("legal_hold_one_kind_check", "num_nonnulls(image_ids, identity, camera_id) = 1"),
        _check(
            "legal_hold_time_of_camera_check",
            "(camera_id IS NOT NULL) OR (captured_from IS NULL AND captured_until IS NULL)",
        ),
    )
    op.create_table(
        "retention_policy",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("camera_id", sa.Text()),
        sa.Column("days", sa.Integer(), nullable=False),
        _time("updated_at", nullable=False, server_default=NOW),
        sa.ForeignKeyConstraint(
            ["camera_id"], ["camera.id"], name="retention_policy_camera_id_fkey", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("camera_id", name="retention_policy_camera_id_key", postgresql_nulls_not_distinct=True),
        _check("retention_policy_days_check", "days > 0"),
    )
    lone = sa.text("image_id IS NULL")
    for column in ("external_id", "file"):
        op.create_index(f"ingestion_item_lone_{column}_idx", "ingestion_item", [column], postgresql_where=lone)


def _erasure(name: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["erasure_id"], ["erasure.id"], name=name, ondelete="CASCADE")


def _time(name: str, *, nullable: bool = True, server_default: Any = None) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=server_default)


def _check(name: str, condition: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(condition, name=op.f(name))  # op.f: the name as it is, not put through the convention
