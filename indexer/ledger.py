"""The ledger of a delivery of images: what became of each item, the rejected ones included.

The images themselves are in gallery.py; how a delivery is read is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, and_, case, func, insert, or_, select, update
from sqlalchemy.orm import Session

from indexer.embeddings import WORK_CHANNEL
from indexer.errors import IngestionFinished, NotFound, NothingToRetry
from indexer.tables import Checkpoint, Embedding, Image, Ingestion, IngestionItem, new_id

CANCELLED = "It was cancelled. What was in by then is kept; send the same again for the rest."


@dataclass(frozen=True)
class ItemCounts:
    """How many items of an ingestion are in which state; `removed` were accepted and their image deleted since."""

    pending: int = 0
    indexed: int = 0
    duplicate: int = 0
    rejected: int = 0
    failed: int = 0
    removed: int = 0


@dataclass(frozen=True)
class IngestionRecord:
    """An ingestion as stored. `total` is None while it is being received."""

    id: UUID
    state: str
    source: str
    total: int | None
    error: str | None
    created_at: datetime
    finished_at: datetime | None
    principal_id: UUID | None
    counts: ItemCounts


@dataclass(frozen=True)
class ItemRecord:
    """One item: its state as in `ItemCounts`, and if it is rejected or failed, why."""

    position: int
    external_id: str | None
    file: str | None
    state: str
    code: str | None
    reason: str | None
    image_id: UUID | None
    pointer: str | None


def create_ingestion(
    session: Session,
    source: str,
    *,
    id: UUID | None = None,
    owner: int | None = None,
    principal_id: UUID | None = None,
) -> UUID:
    """Begin an ingestion; it is `receiving` until `finish_ingestion`.

    `owner` is the `Presence.key` of the process that reads it, `principal_id` the user or the API key that sent it.
    """
    id = id or new_id()
    values = {"id": id, "source": source, "state": "receiving", "owner": owner, "principal_id": principal_id}
    session.execute(insert(Ingestion).values(values))
    return id


def take_ingestion(session: Session, id: UUID, owner: int) -> bool:
    """Go on with an ingestion as its owner; False when it was cancelled. Holds it until the transaction ends.

    If it was given up, because its owner seemed to be gone for a moment, it is taken up again.
    """
    state = session.scalar(select(Ingestion.state).where(Ingestion.id == id).with_for_update())
    if state == "cancelled":
        return False
    values = {"state": "receiving", "owner": owner, "error": None, "finished_at": None}
    mine = (Ingestion.id == id, or_(Ingestion.state != "receiving", Ingestion.owner.is_distinct_from(owner)))
    session.execute(update(Ingestion).where(*mine).values(values))
    return True


def cancel_ingestion(session: Session, id: UUID) -> None:
    """Stop an ingestion: no image comes in after this is committed, what is in stays.

    Raises NotFound, and IngestionFinished when all of it was read.
    """
    state = session.scalar(select(Ingestion.state).where(Ingestion.id == id).with_for_update())
    if state is None:
        raise NotFound(f"There is no ingestion {id}.")
    if state in ("done", "failed"):
        raise IngestionFinished("This ingestion is over; nothing more comes in from it. Delete images you do not want.")
    values = {"state": "cancelled", "error": CANCELLED, "finished_at": func.now()}
    session.execute(update(Ingestion).where(Ingestion.id == id, Ingestion.state != "cancelled").values(values))


def retry_failed(session: Session, id: UUID) -> int:
    """Have the images of an ingestion that failed to be embedded embedded again; returns how many.

    Raises NotFound, and NothingToRetry with a sentence that says what to do instead.
    """
    found = session.get(Ingestion, id, populate_existing=True)
    if found is None:
        raise NotFound(f"There is no ingestion {id}.")
    accepted = (
        select(Image.row)
        .join(IngestionItem, IngestionItem.image_id == Image.id)
        .where(IngestionItem.ingestion_id == id, IngestionItem.state == "accepted")
    )
    again = {"state": "pending", "attempts": 0, "error": None, "run_at": func.statement_timestamp()}
    failed = (Embedding.state == "failed", Embedding.image_row.in_(accepted))
    rows = session.scalars(update(Embedding).where(*failed).values(again).returning(Embedding.image_row)).all()
    if not rows:
        raise NothingToRetry(f"{_nothing_failed(found)} Then send it again: what is in already is kept.")
    session.execute(select(func.pg_notify(WORK_CHANNEL, "")))
    return len(set(rows))


def _nothing_failed(ingestion: Ingestion) -> str:
    if ingestion.state in ("failed", "cancelled"):
        return f"No image of this ingestion failed; the whole was broken off. {ingestion.error or ''} Mend the cause."
    return "No image of this ingestion failed to be embedded. What was rejected has to be corrected."


@dataclass(frozen=True)
class NewItem:
    """What became of one item: accepted or duplicate with its image, or rejected with code and reason."""

    position: int
    state: str
    external_id: str | None = None
    file: str | None = None
    code: str | None = None
    reason: str | None = None
    image_id: UUID | None = None
    pointer: str | None = None


def add_items(session: Session, ingestion_id: UUID, items: Sequence[NewItem]) -> None:
    """Note what became of these items of an ingestion."""
    told = ("external_id", "file", "code", "reason", "pointer")
    lines = []
    for item in items:
        readable = {name: None if (value := getattr(item, name)) is None else _readable(value) for name in told}
        lines.append({**vars(item), **readable, "ingestion_id": ingestion_id})
    if lines:
        session.execute(insert(IngestionItem), lines)


def _readable(text: str) -> str:
    """Text as PostgreSQL can hold it: what a rejected item was called must not be a reason to lose its rejection."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def finish_ingestion(session: Session, id: UUID, state: str, error: str | None = None) -> None:
    """All of it was read (`done`), or it was broken off (`failed`, with a sentence why). `cancelled` stays."""
    total = select(func.count()).where(IngestionItem.ingestion_id == id).scalar_subquery()
    session.execute(update(Ingestion).where(Ingestion.id == id).values(total=total))
    values = {"state": state, "error": error and _readable(error), "finished_at": func.now()}
    session.execute(update(Ingestion).where(Ingestion.id == id, Ingestion.state != "cancelled").values(values))


def ingestion(session: Session, id: UUID) -> IngestionRecord | None:
    """An ingestion with the counts of its items."""
    found = session.get(Ingestion, id, populate_existing=True)
    if found is None:
        return None
    items = _items(id).subquery()
    by_state = session.execute(select(items.c.state, func.count()).group_by(items.c.state))
    columns = {name: getattr(found, name) for name in IngestionRecord.__dataclass_fields__ if name != "counts"}
    return IngestionRecord(**columns, counts=ItemCounts(**dict(by_state.all())))


def ingestion_items(
    session: Session, id: UUID, state: str | None = None, after: int = -1, limit: int = 200
) -> list[ItemRecord]:
    """Up to `limit` items of positions above `after`, in order; of one state if it is given."""
    items = _items(id).subquery()
    statement = select(items).where(items.c.position > after).order_by(items.c.position).limit(limit)
    if state is not None:
        statement = statement.where(items.c.state == state)
    return [ItemRecord(**row._mapping) for row in session.execute(statement)]


def _items(ingestion_id: UUID) -> Select[Any]:
    """The items with the state and error their image has by now."""
    of_active = Embedding.checkpoint_id == select(Checkpoint.id).where(Checkpoint.state == "active").scalar_subquery()
    item = IngestionItem
    state = case(
        (item.state != "accepted", item.state),
        (item.image_id.is_(None), "removed"),
        (Embedding.state == "ready", "indexed"),
        (Embedding.state == "failed", "failed"),
        else_="pending",
    )
    failed = and_(item.state == "accepted", Embedding.state == "failed")
    return (
        select(
            item.position,
            item.external_id,
            item.file,
            state.label("state"),
            case((failed, "embedding_failed"), else_=item.code).label("code"),
            case((failed, Embedding.error), else_=item.reason).label("reason"),
            item.image_id,
            item.pointer,
        )
        .outerjoin(Image, Image.id == item.image_id)
        .outerjoin(Embedding, and_(Embedding.image_row == Image.row, of_active))
        .where(item.ingestion_id == ingestion_id)
    )
