"""The first schema: images, cameras, checkpoints, embeddings, ingestions, searches. Explained in indexer/tables.py."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0001"
down_revision = None

NOW = sa.text("now()")
EMPTY = sa.text("'{}'")
WORK = "state IN ('pending', 'running')"


def upgrade() -> None:
    op.execute("CREATE SEQUENCE change_seq")
    _catalogue()
    _embeddings()
    _ingestions()
    op.create_table(
        "search",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("request", JSONB(), nullable=False),
        sa.Column("checkpoint_id", sa.Text(), nullable=False),
        sa.Column("results", JSONB(), nullable=False),
        _time("created_at", server_default=NOW),
        _time("expires_at"),
        sa.ForeignKeyConstraint(["checkpoint_id"], ["checkpoint.id"], name="search_checkpoint_id_fkey"),
    )
    op.create_index("search_expires_at_idx", "search", ["expires_at"])


def _catalogue() -> None:
    op.create_table(
        "camera",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("name", sa.Text()),
        sa.Column("site", sa.Text()),
        _time("created_at", server_default=NOW),
    )
    op.create_table(
        "image",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("row", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("external_id", sa.Text()),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("byte_size", sa.BigInteger(), nullable=False),
        sa.Column("camera_id", sa.Text()),
        _time("captured_at", nullable=True),
        sa.Column("track_id", sa.Text()),
        sa.Column("identity", sa.Text()),
        sa.Column("tags", ARRAY(sa.Text()), server_default=EMPTY, nullable=False),
        sa.Column("attributes", JSONB(), server_default=EMPTY, nullable=False),
        _time("created_at", server_default=NOW),
        sa.ForeignKeyConstraint(["camera_id"], ["camera.id"], name="image_camera_id_fkey"),
        sa.UniqueConstraint("row", name="image_row_key"),
        sa.UniqueConstraint("external_id", name="image_external_id_key"),
        sa.UniqueConstraint(
            "sha256", "camera_id", "captured_at", name="image_content_key", postgresql_nulls_not_distinct=True
        ),
    )
    for column in ("camera_id", "captured_at", "track_id", "identity"):
        op.create_index(f"image_{column}_idx", "image", [column])
    op.create_index("image_tags_idx", "image", ["tags"], postgresql_using="gin")
    op.create_table(
        "checkpoint",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("net", sa.Text(), nullable=False),
        sa.Column("dim", sa.Integer(), nullable=False),
        sa.Column("info", JSONB(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        _time("created_at", server_default=NOW),
        _check("checkpoint_state_check", "state IN ('active', 'candidate', 'retired')"),
    )
    op.create_index(
        "checkpoint_one_active_idx", "checkpoint", ["state"], unique=True, postgresql_where=sa.text("state = 'active'")
    )


def _embeddings() -> None:
    op.create_table(
        "embedding",
        sa.Column("image_row", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("checkpoint_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        _time("run_at", server_default=NOW),
        sa.Column("lease_token", sa.Uuid()),
        _time("lease_until", nullable=True),
        sa.Column("vector", sa.LargeBinary()),
        sa.Column("seq", sa.BigInteger()),
        sa.Column("error", sa.Text()),
        _time("created_at", server_default=NOW),
        _time("updated_at", server_default=NOW),
        sa.PrimaryKeyConstraint("image_row", "checkpoint_id", name="embedding_pkey"),
        sa.ForeignKeyConstraint(["image_row"], ["image.row"], name="embedding_image_row_fkey", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["checkpoint_id"], ["checkpoint.id"], name="embedding_checkpoint_id_fkey"),
        _check("embedding_state_check", "state IN ('pending', 'running', 'ready', 'failed')"),
        _check("embedding_ready_check", "(state = 'ready') = (vector IS NOT NULL AND seq IS NOT NULL)"),
    )
    # Vectors do not compress: do not try.
    op.execute("ALTER TABLE embedding ALTER COLUMN vector SET STORAGE EXTERNAL")
    order = ["checkpoint_id", "run_at", "image_row"]
    op.create_index("embedding_work_idx", "embedding", order, postgresql_where=sa.text(WORK))
    op.create_index("embedding_suspect_idx", "embedding", order, postgresql_where=sa.text(f"{WORK} AND attempts > 0"))
    op.create_index(
        "embedding_seq_idx", "embedding", ["checkpoint_id", "seq"], postgresql_where=sa.text("state = 'ready'")
    )
    op.create_table(
        "removed_image",
        sa.Column("seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("image_row", sa.BigInteger(), nullable=False),
        _time("removed_at", server_default=NOW),
    )


def _ingestions() -> None:
    op.create_table(
        "ingestion",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("state", sa.Text(), server_default=sa.text("'open'"), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("total", sa.Integer()),
        sa.Column("error", sa.Text()),
        _time("created_at", server_default=NOW),
        _time("finished_at", nullable=True),
        _check("ingestion_state_check", "state IN ('open', 'receiving', 'done', 'failed')"),
    )
    op.create_table(
        "ingestion_item",
        sa.Column("ingestion_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("external_id", sa.Text()),
        sa.Column("file", sa.Text()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("code", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.Column("image_id", sa.Uuid()),
        sa.Column("pointer", sa.Text()),
        sa.PrimaryKeyConstraint("ingestion_id", "position", name="ingestion_item_pkey"),
        sa.ForeignKeyConstraint(
            ["ingestion_id"], ["ingestion.id"], name="ingestion_item_ingestion_id_fkey", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name="ingestion_item_image_id_fkey", ondelete="SET NULL"),
        _check("ingestion_item_state_check", "state IN ('accepted', 'duplicate', 'rejected')"),
    )
    op.create_index("ingestion_item_image_id_idx", "ingestion_item", ["image_id"])


def _time(name: str, *, nullable: bool = False, server_default: Any = None) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=server_default)


def _check(name: str, condition: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(condition, name=op.f(name))  # op.f: the name as it is, not put through the convention
