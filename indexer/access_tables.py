"""The tables of who may come in: users, their sessions, API keys, and the link that lets the first user in.

No secret is stored, only what recognises it: argon2 hashes of passwords and keys, and SHA-256 of session and set-up
tokens, which are 256 random bits that nobody can guess and that are looked up by their hash.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Text

from indexer.tables import Base, new_id

ROLES_KNOWN = "roles <@ ARRAY['operator', 'investigator', 'ingest', 'auditor', 'admin']"
ROLES_GIVEN = "cardinality(roles) > 0"


class User(Base):
    """Somebody who signs in. Users are never deleted, only disabled: what they did keeps their name."""

    __tablename__ = "user_account"
    __table_args__ = (
        CheckConstraint(ROLES_KNOWN, name="roles_known"),
        CheckConstraint(ROLES_GIVEN, name="roles_given"),
        Index("user_account_name_idx", text("lower(name)"), unique=True),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str]
    password_hash: Mapped[str]
    roles: Mapped[list[str]]
    cameras: Mapped[list[str] | None] = mapped_column(ARRAY(Text))  # None: all
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    disabled_at: Mapped[datetime | None]


class UserSession(Base):
    """A browser that is signed in, until it signs out, is idle for too long, or its time is over."""

    __tablename__ = "user_session"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class ApiKey(Base):
    """What a machine shows instead of a password. `lookup` is its public part: one row is found, one hash verified."""

    __tablename__ = "api_key"
    __table_args__ = (
        CheckConstraint(ROLES_KNOWN, name="roles_known"),
        CheckConstraint(ROLES_GIVEN, name="roles_given"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    lookup: Mapped[str] = mapped_column(unique=True)
    secret_hash: Mapped[str]
    name: Mapped[str]
    roles: Mapped[list[str]]
    cameras: Mapped[list[str] | None] = mapped_column(ARRAY(Text))  # None: all
    created_by: Mapped[UUID | None] = mapped_column(ForeignKey("user_account.id"), index=True)  # None: on the machine
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class SetupToken(Base):
    """The link that creates the first user, once. All are gone as soon as there is one."""

    __tablename__ = "setup_token"

    token_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
