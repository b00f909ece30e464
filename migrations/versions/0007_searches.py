"""Frozen rankings in packed form, owners and parents of searches, saved searches. See indexer/search_tables.py."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"

NOW = sa.text("now()")

# Big endian to little endian: what PostgreSQL sends of a number, its bytes the other way round.
REVERSED = "(SELECT string_agg(substr(sent, n, 1), '' ORDER BY n DESC) FROM generate_series(1, length(sent)) AS n)"
PACK = f"""
    UPDATE search SET
        rows = coalesce((
            SELECT string_agg({REVERSED}, '' ORDER BY place)
            FROM jsonb_array_elements(results) WITH ORDINALITY AS entry (result, place),
                int8send((result ->> 'row')::bigint) AS sent), ''),
        similarities = coalesce((
            SELECT string_agg({REVERSED}, '' ORDER BY place)
            FROM jsonb_array_elements(results) WITH ORDINALITY AS entry (result, place),
                float4send(coalesce((result ->> 'similarity')::real, 'NaN')) AS sent), '')
"""


def upgrade() -> None:
    op.add_column("search", sa.Column("owner", sa.Uuid()))
    op.add_column("search", sa.Column("parent_id", sa.Uuid()))
    op.create_foreign_key("search_parent_id_fkey", "search", "search", ["parent_id"], ["id"])
    op.add_column("search", sa.Column("rows", sa.LargeBinary()))
    op.add_column("search", sa.Column("similarities", sa.LargeBinary()))
    op.add_column("search", sa.Column("starts", sa.LargeBinary()))
    op.add_column("search", sa.Column("upload_vector", sa.LargeBinary()))
    op.execute(PACK)
    for column in ("rows", "similarities"):
        op.alter_column("search", column, nullable=False)
    # Not compressed: that would cost a search milliseconds, and a page the reading of all others.
    for column in ("rows", "similarities", "starts"):
        op.execute(f"ALTER TABLE search ALTER COLUMN {column} SET STORAGE EXTERNAL")
    op.drop_column("search", "results")
    op.create_table(
        "saved_search",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("owner", sa.Uuid()),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("request", JSONB(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
    )
    op.create_index("saved_search_owner_idx", "saved_search", ["owner"])
    op.create_table(
        "signing_key",
        sa.Column("purpose", sa.Text(), primary_key=True),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
    )
