"""The tables of case work: cases with their members, items and notes, what people judged, and exports.

What comes from a search (its request, a rank, a similarity) is copied, because rankings are kept for a day only. What
goes when an image is erased is decided in traces.py and case_traces.py; of an item a blank line stays, with the date.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from indexer.tables import Base, new_id


class CaseFile(Base):
    """A case: what its members collect and decide together."""

    __tablename__ = "case_file"
    __table_args__ = (CheckConstraint("state IN ('open', 'closed')", name="state"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    title: Mapped[str]
    state: Mapped[str] = mapped_column(server_default=text("'open'"))
    person_id: Mapped[UUID]  # who opened it
    person_name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    closed_at: Mapped[datetime | None]


class CaseMember(Base):
    """Somebody who may see a case and work on it."""

    __tablename__ = "case_member"

    case_id: Mapped[UUID] = mapped_column(ForeignKey("case_file.id"), primary_key=True)
    person_id: Mapped[UUID] = mapped_column(primary_key=True, index=True)
    person_name: Mapped[str]
    added_at: Mapped[datetime] = mapped_column(server_default=func.now())


class CaseSearch(Base):
    """A search whose results are in a case: what was asked, and of which checkpoint."""

    __tablename__ = "case_search"

    case_id: Mapped[UUID] = mapped_column(ForeignKey("case_file.id"), primary_key=True)
    search_id: Mapped[UUID] = mapped_column(primary_key=True, index=True)
    request: Mapped[dict[str, Any]]
    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoint.id"))
    ran_at: Mapped[datetime]


class CaseItem(Base):
    """A result that was put into a case. Without an image it is erased, and a line that says when."""

    __tablename__ = "case_item"
    __table_args__ = (UniqueConstraint("case_id", "image_id", name="case_item_case_id_key"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    case_id: Mapped[UUID] = mapped_column(ForeignKey("case_file.id"))
    image_id: Mapped[UUID | None] = mapped_column(ForeignKey("image.id", ondelete="SET NULL"), index=True)
    search_id: Mapped[UUID]
    rank: Mapped[int]
    similarity: Mapped[float | None] = mapped_column(Double)
    band: Mapped[str | None]
    checkpoint_id: Mapped[str]
    note: Mapped[str | None]
    person_id: Mapped[UUID]  # who put it there
    person_name: Mapped[str]
    added_at: Mapped[datetime] = mapped_column(server_default=func.now())
    erased_at: Mapped[datetime | None]


class CaseNote(Base):
    """A remark on a case as a whole."""

    __tablename__ = "case_note"
    __table_args__ = (Index("case_note_case_id_idx", "case_id", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    case_id: Mapped[UUID] = mapped_column(ForeignKey("case_file.id"))
    note: Mapped[str]
    person_id: Mapped[UUID]
    person_name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Verdict(Base):
    """What one person says of one result of one search. Said again, the later word counts; the audit has both."""

    __tablename__ = "verdict"
    __table_args__ = (CheckConstraint("verdict IN ('match', 'no_match', 'unsure')", name="verdict"),)

    search_id: Mapped[UUID] = mapped_column(primary_key=True)
    image_id: Mapped[UUID] = mapped_column(ForeignKey("image.id", ondelete="CASCADE"), primary_key=True, index=True)
    person_id: Mapped[UUID] = mapped_column(primary_key=True)
    person_kind: Mapped[str]
    person_name: Mapped[str]
    verdict: Mapped[str]
    note: Mapped[str | None]
    at: Mapped[datetime]


class CaseExport(Base):
    """A zip of a case, on the disk until it expires or one of its images is erased."""

    __tablename__ = "case_export"
    __table_args__ = (
        CheckConstraint("state IN ('building', 'ready')", name="state"),
        Index("case_export_image_ids_idx", "image_ids", postgresql_using="gin"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    case_id: Mapped[UUID] = mapped_column(ForeignKey("case_file.id"))
    state: Mapped[str] = mapped_column(server_default=text("'building'"))
    person_id: Mapped[UUID]
    person_name: Mapped[str]
    image_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    byte_size: Mapped[int | None] = mapped_column(BigInteger)
    sha256: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(index=True)
