"""The tables of searches: those that were run, with their frozen rankings, those that are saved to be run again, and
the key that signs the way from page to page.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, LargeBinary, func
from sqlalchemy.orm import Mapped, mapped_column

from indexer.tables import Base, new_id


class Search(Base):
    """A search and its ranking, frozen so that its pages stay what they were.

    The ranking is packed, because it has thousands of places: one number after the other, little endian. In a grouped
    one the images of a group stand one after the other, and `starts` says where each group begins.
    """

    __tablename__ = "search"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    owner: Mapped[UUID | None]  # who may read it; NULL: it was made while the service was open to everybody
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("search.id"))  # the search it refines
    request: Mapped[dict[str, Any]]
    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoint.id"))
    rows: Mapped[bytes] = mapped_column(LargeBinary)  # int64 (N,), in order; 0: the image was erased
    similarities: Mapped[bytes] = mapped_column(LargeBinary)  # float32 (N,)
    starts: Mapped[bytes | None] = mapped_column(LargeBinary)  # int32 (G,)
    # What became of a picture that is not in the gallery, so that its search can be refined; the picture is not kept.
    upload_vector: Mapped[bytes | None] = mapped_column(LargeBinary)  # float32 (dim,)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(index=True)


class SavedSearch(Base):
    """A search request under a name, to be run again."""

    __tablename__ = "saved_search"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    owner: Mapped[UUID | None] = mapped_column(index=True)
    name: Mapped[str]
    request: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class SigningKey(Base):
    """A secret all replicas share, drawn when it is first needed."""

    __tablename__ = "signing_key"

    purpose: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
