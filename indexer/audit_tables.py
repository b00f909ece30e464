"""The tables of the audit: the acts, each chained to the one before, and the head of the chain.

Triggers (migration 0008) refuse every change and removal. Nothing here names a person who was filmed: the one free
text, the reason, stands in a table of its own, so that an erasure can blank it while the chain, which covers only its
salted digest, stays whole.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, SmallInteger, text
from sqlalchemy.orm import Mapped, mapped_column

from indexer.tables import Base


class AuditEvent(Base):
    """One act. `seq` has no gaps; `hash` covers every column and the `hash` of the row before."""

    __tablename__ = "audit_event"
    __table_args__ = (
        Index("audit_event_case_id_idx", "case_id", postgresql_where=text("case_id IS NOT NULL")),
        Index("audit_event_object_id_idx", "object_id", postgresql_where=text("object_id IS NOT NULL")),
    )

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(index=True)
    actor_kind: Mapped[str]
    actor_id: Mapped[UUID | None]
    actor_name: Mapped[str] = mapped_column(index=True)
    action: Mapped[str] = mapped_column(index=True)
    object_kind: Mapped[str | None]
    object_id: Mapped[str | None]
    case_id: Mapped[UUID | None]  # no foreign keys: the audit outlives what it tells of
    reason_digest: Mapped[str | None]
    checkpoint_id: Mapped[str | None]
    detail: Mapped[dict[str, Any]]
    previous: Mapped[str]
    hash: Mapped[str]


class AuditReason(Base):
    """Why, in the words of who acted. Blank once it named somebody who was erased."""

    __tablename__ = "audit_reason"
    __table_args__ = (CheckConstraint("(salt IS NULL) = (reason IS NULL)", name="both"),)

    seq: Mapped[int] = mapped_column(BigInteger, ForeignKey("audit_event.seq"), primary_key=True, autoincrement=False)
    salt: Mapped[str | None]
    reason: Mapped[str | None]


class AuditHead(Base):
    """The end of the chain, in its only row: it is locked to append, and tells when rows at the end are missing."""

    __tablename__ = "audit_head"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    seq: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[str]
