"""The tables of the gallery, as SQLAlchemy types. Statements on them are in gallery.py, their history in migrations/.

PostgreSQL is the truth: image files and the vector index can be checked against it, and the index rebuilt from it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import uuid_utils
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, ExcludeConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# Names are spelled out so that migrations can refer to them.
NAMING = {
    "pk": "%(table_name)s_pkey",
    "fk": "%(table_name)s_%(column_0_name)s_fkey",
    "uq": "%(table_name)s_%(column_0_name)s_key",
    "ck": "%(table_name)s_%(constraint_name)s_check",
    "ix": "%(table_name)s_%(column_0_name)s_idx",
}


class Base(DeclarativeBase):
    """All tables together: `Base.metadata` is what migrations/ must arrive at."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy reads a plain dict)
        str: Text,
        datetime: DateTime(timezone=True),
        list[str]: ARRAY(Text),
        dict[str, Any]: JSONB,
        list[dict[str, Any]]: JSONB,
    }


# Numbers every change of what is searchable: an embedding became ready, an image was removed. Drawn only under the lock
# of gallery.py, so that the order of the numbers is the order of the commits.
change_seq = Sequence("change_seq", metadata=Base.metadata)


def new_id() -> UUID:
    """A UUID of version 7: unique without the database, and in the order of creation."""
    return UUID(int=uuid_utils.uuid7().int)


class Camera(Base):
    """A camera, by the name its owner gave it."""

    __tablename__ = "camera"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    site: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Image(Base):
    """One gallery image: what is known about it. Its pixels are a file named by `sha256`.

    `row` is its number in the vector index; it is never used again. The same file may be here more than once, but not
    twice from the same camera at the same time.
    """

    __tablename__ = "image"
    __table_args__ = (
        UniqueConstraint(
            "sha256", "camera_id", "captured_at", name="image_content_key", postgresql_nulls_not_distinct=True
        ),
        Index("image_tags_idx", "tags", postgresql_using="gin"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    row: Mapped[int] = mapped_column(BigInteger, Identity(always=True), unique=True)
    external_id: Mapped[str | None] = mapped_column(unique=True)
    sha256: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]
    format: Mapped[str]
    byte_size: Mapped[int] = mapped_column(BigInteger)
    camera_id: Mapped[str | None] = mapped_column(ForeignKey("camera.id"), index=True)
    captured_at: Mapped[datetime | None] = mapped_column(index=True)
    track_id: Mapped[str | None] = mapped_column(index=True)
    identity: Mapped[str | None] = mapped_column(index=True)
    tags: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    attributes: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Checkpoint(Base):
    """A trained network the gallery is, or was, embedded with. At most one is active: the one that answers searches."""

    __tablename__ = "checkpoint"
    __table_args__ = (
        CheckConstraint("state IN ('active', 'candidate', 'retired')", name="state"),
        # At the end of a statement, not row by row as a unique index: one UPDATE hands the part over.
        ExcludeConstraint(
            ("state", "="),
            name="checkpoint_one_active_excl",
            using="btree",
            where=text("state = 'active'"),
            deferrable=True,
            initially="IMMEDIATE",
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    net: Mapped[str]
    dim: Mapped[int]
    info: Mapped[dict[str, Any]]
    path: Mapped[str]
    state: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    activated_at: Mapped[datetime | None]
    previous_id: Mapped[str | None] = mapped_column(ForeignKey("checkpoint.id"))  # what a rollback goes back to
    canaries: Mapped[dict[str, Any] | None]  # kind of query -> the vector it became when this was registered


class CheckpointEvent(Base):
    """What was done with a checkpoint, and why: registered, judged by the gate, activated, rolled back, retired."""

    __tablename__ = "checkpoint_event"
    __table_args__ = (
        CheckConstraint("kind IN ('registered', 'gate', 'activated', 'rolled_back', 'retired')", name="kind"),
        Index("checkpoint_event_checkpoint_id_idx", "checkpoint_id", "id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoint.id"))
    kind: Mapped[str]
    detail: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Embedding(Base):
    """What one checkpoint makes of one image: work to do while pending or running, a vector once ready."""

    __tablename__ = "embedding"
    __table_args__ = (
        CheckConstraint("state IN ('pending', 'running', 'ready', 'failed')", name="state"),
        CheckConstraint("(state = 'ready') = (vector IS NOT NULL AND seq IS NOT NULL)", name="ready"),
        # Three small indexes: the work in order, the part of it that was tried before, and the changes in order.
        Index(
            "embedding_work_idx",
            "checkpoint_id",
            "run_at",
            "image_row",
            postgresql_where=text("state IN ('pending', 'running')"),
        ),
        Index(
            "embedding_suspect_idx",
            "checkpoint_id",
            "run_at",
            "image_row",
            postgresql_where=text("state IN ('pending', 'running') AND attempts > 0"),
        ),
        Index("embedding_seq_idx", "checkpoint_id", "seq", postgresql_where=text("state = 'ready'")),
    )

    image_row: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("image.row", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoint.id"), primary_key=True)
    state: Mapped[str] = mapped_column(server_default=text("'pending'"))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    run_at: Mapped[datetime] = mapped_column(server_default=func.now())
    lease_token: Mapped[UUID | None]
    lease_until: Mapped[datetime | None]
    vector: Mapped[bytes | None] = mapped_column(LargeBinary)  # float32, little endian, (dim,)
    # Tells vectors apart without reading them: a copy of them elsewhere is compared by this.
    digest: Mapped[bytes | None] = mapped_column(LargeBinary, Computed("substr(sha256(vector), 1, 8)", persisted=True))
    seq: Mapped[int | None] = mapped_column(BigInteger)
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class RemovedImage(Base):
    """That an image was removed, for those who follow the changes."""

    __tablename__ = "removed_image"

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    image_row: Mapped[int] = mapped_column(BigInteger)
    removed_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Ingestion(Base):
    """One delivery of images. `total` is known once all of it was read; `owner` is the process that reads it."""

    __tablename__ = "ingestion"
    __table_args__ = (CheckConstraint("state IN ('open', 'receiving', 'done', 'failed', 'cancelled')", name="state"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    state: Mapped[str] = mapped_column(server_default=text("'open'"))
    source: Mapped[str]
    total: Mapped[int | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    owner: Mapped[int | None]  # the key of its lock, see presence.py
    principal_id: Mapped[UUID | None]  # the user or the API key that sent it


class IngestionItem(Base):
    """What became of one image of a delivery."""

    __tablename__ = "ingestion_item"
    __table_args__ = (CheckConstraint("state IN ('accepted', 'duplicate', 'rejected')", name="state"),)

    ingestion_id: Mapped[UUID] = mapped_column(ForeignKey("ingestion.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    external_id: Mapped[str | None]
    file: Mapped[str | None]
    state: Mapped[str]
    code: Mapped[str | None]
    reason: Mapped[str | None]
    image_id: Mapped[UUID | None] = mapped_column(ForeignKey("image.id", ondelete="SET NULL"), index=True)
    pointer: Mapped[str | None]


class IdempotencyKey(Base):
    """A request that was carried out: sent again under its key, it gets the same answer."""

    __tablename__ = "idempotency_key"

    scope: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    resource_id: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(index=True)


from indexer import (  # noqa: E402  (their tables are part of the metadata, too)
    access_tables,  # noqa: F401
    audit_tables,  # noqa: F401
    case_tables,  # noqa: F401
    governance_tables,  # noqa: F401
    search_tables,  # noqa: F401
)
