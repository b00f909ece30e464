"""The tables of what must go and what must stay: erasures and their receipts, legal holds, retention policies.

A receipt says that, when, why and how much was erased, never what: image ids and row numbers are random or counted, and
name nobody once their image is gone.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, UniqueConstraint, Uuid, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from indexer.tables import Base, IngestionItem, new_id


class Erasure(Base):
    """The receipt of an erasure. `running` until all of it is done and proven; a start completes what a crash left."""

    __tablename__ = "erasure"
    __table_args__ = (CheckConstraint("state IN ('running', 'done')", name="state"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    state: Mapped[str] = mapped_column(server_default=text("'running'"))
    reason: Mapped[str]
    selection: Mapped[dict[str, Any]]  # how the images were selected, without the values
    counts: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    proof: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]


class ErasedImage(Base):
    """An image that an erasure removes, or has removed: written before anything is touched, kept for restores."""

    __tablename__ = "erased_image"

    erasure_id: Mapped[UUID] = mapped_column(ForeignKey("erasure.id", ondelete="CASCADE"), primary_key=True)
    image_id: Mapped[UUID] = mapped_column(primary_key=True)
    image_row: Mapped[int | None] = mapped_column(BigInteger)  # None: it was erased from an earlier database


class ErasureFile(Base):
    """A file still to be removed. Files go after rows: a crash in between must not leave rows without files."""

    __tablename__ = "erasure_file"

    erasure_id: Mapped[UUID] = mapped_column(ForeignKey("erasure.id", ondelete="CASCADE"), primary_key=True)
    sha256: Mapped[str] = mapped_column(primary_key=True)


class LegalHold(Base):
    """Images that nobody may erase: those named, those of an identity, or those of a camera in a time."""

    __tablename__ = "legal_hold"
    __table_args__ = (
        CheckConstraint("num_nonnulls(image_ids, identity, camera_id) = 1", name="one_kind"),
        CheckConstraint(
            "(camera_id IS NOT NULL) OR (captured_from IS NULL AND captured_until IS NULL)", name="time_of_camera"
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    reason: Mapped[str]
    image_ids: Mapped[list[UUID] | None] = mapped_column(ARRAY(Uuid))
    identity: Mapped[str | None]
    camera_id: Mapped[str | None] = mapped_column(ForeignKey("camera.id"))
    captured_from: Mapped[datetime | None]
    captured_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class RetentionPolicy(Base):
    """How many days the images of a camera are kept; without a camera, those of all cameras that have no policy."""

    __tablename__ = "retention_policy"
    __table_args__ = (
        UniqueConstraint("camera_id", name="retention_policy_camera_id_key", postgresql_nulls_not_distinct=True),
        CheckConstraint("days > 0", name="days"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    camera_id: Mapped[str | None] = mapped_column(ForeignKey("camera.id", ondelete="CASCADE"))
    days: Mapped[int] = mapped_column(Integer)
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


# Ledger lines without an image are looked for by name when one is erased; those with an image, by the image.
for _column in (IngestionItem.external_id, IngestionItem.file):
    Index(f"ingestion_item_lone_{_column.key}_idx", _column, postgresql_where=IngestionItem.image_id.is_(None))
