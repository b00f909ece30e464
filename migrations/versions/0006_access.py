"""Users, sessions, API keys and set-up links, and who sent a delivery. Explained in indexer/access_tables.py."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0006"
down_revision = "0005"

ROLES_KNOWN = "roles <@ ARRAY['operator', 'investigator', 'ingest', 'auditor', 'admin']"
ROLES_GIVEN = "cardinality(roles) > 0"


def upgrade() -> None:
    op.create_table(
        "user_account",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("roles", ARRAY(sa.Text()), nullable=False),
        sa.Column("cameras", ARRAY(sa.Text())),
        _time("created_at", now=True),
        _time("disabled_at", nullable=True),
        *_roles("user_account"),
    )
    op.create_index("user_account_name_idx", "user_account", [sa.text("lower(name)")], unique=True)
    op.create_table(
        "user_session",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        _time("created_at", now=True),
        _time("last_seen_at", now=True),
        _time("expires_at"),
        _time("revoked_at", nullable=True),
        sa.UniqueConstraint("token_hash", name="user_session_token_hash_key"),
        sa.ForeignKeyConstraint(["user_id"], ["user_account.id"], name="user_session_user_id_fkey", ondelete="CASCADE"),
    )
    op.create_index("user_session_user_id_idx", "user_session", ["user_id"])
    op.create_table(
        "api_key",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("lookup", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("roles", ARRAY(sa.Text()), nullable=False),
        sa.Column("cameras", ARRAY(sa.Text())),
        sa.Column("created_by", sa.Uuid()),
        _time("created_at", now=True),
        _time("expires_at"),
        _time("revoked_at", nullable=True),
        _time("last_used_at", nullable=True),
        sa.UniqueConstraint("lookup", name="api_key_lookup_key"),
        sa.ForeignKeyConstraint(["created_by"], ["user_account.id"], name="api_key_created_by_fkey"),
        *_roles("api_key"),
    )
    op.create_index("api_key_created_by_idx", "api_key", ["created_by"])
    op.create_table(
        "setup_token",
        sa.Column("token_hash", sa.LargeBinary(), primary_key=True),
        _time("created_at", now=True),
        _time("expires_at"),
    )
    op.add_column("ingestion", sa.Column("principal_id", sa.Uuid()))


def _time(name: str, *, nullable: bool = False, now: bool = False) -> sa.Column[Any]:
    default = sa.text("now()") if now else None
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=default)


def _roles(table: str) -> list[sa.CheckConstraint]:
    return [
        sa.CheckConstraint(ROLES_KNOWN, name=op.f(f"{table}_roles_known_check")),
        sa.CheckConstraint(ROLES_GIVEN, name=op.f(f"{table}_roles_given_check")),
    ]
