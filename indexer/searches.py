"""Searches in SQL: kept with their frozen rankings, read in parts, forgotten; and those saved to be run again.

None of these functions commits. Who may read a search is the caller's to decide, from its `owner`; what a ranking may
show of what is in it, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Literal, cast
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    CursorResult,
    Integer,
    LargeBinary,
    Text,
    bindparam,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy import cast as cast_as
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from indexer.embeddings import binary_cursor
from indexer.filters import ImageFilter, Scope, conditions, in_scope
from indexer.search_tables import SavedSearch, Search, SigningKey
from indexer.tables import Image, new_id

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]
Mask = NDArray[np.bool_]
Band = Literal["strong", "possible", "weak"]

SEARCHES_KEPT = timedelta(hours=24)
ROW, SIMILARITY, START = np.dtype("<i8"), np.dtype("<f4"), np.dtype("<i4")  # as packed in the table
AT_A_TIME = 64  # rankings in memory at once


@dataclass(frozen=True, eq=False)
class Ranking:
    """Rows (N,) in their frozen order, and their similarities (N,); row 0 is what was erased.

    A grouped one holds the groups one after the other, each beginning at one of `starts` (G,).
    """

    rows: Rows
    similarities: Vectors
    starts: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        """How many places it has: groups, or rows."""
        return len(self.rows) if self.starts is None else len(self.starts)


@dataclass(frozen=True, eq=False)
class Place:
    """One place of a ranking: a row, or the rows of a group, the most similar first, and their similarities (M,)."""

    rows: Rows
    similarities: Vectors


@dataclass(frozen=True)
class SearchRecord:
    """A search as kept, without its ranking. `places` counts the places of that."""

    id: UUID
    owner: UUID | None
    parent_id: UUID | None
    request: dict[str, Any]
    checkpoint_id: str
    places: int
    grouped: bool
    created_at: datetime
    expires_at: datetime


def save(
    session: Session,
    id: UUID,
    request: Mapping[str, Any],
    checkpoint_id: str,
    ranking: Ranking,
    *,
    owner: UUID | None = None,
    parent_id: UUID | None = None,
    upload_vector: Vectors | None = None,
) -> SearchRecord:
    """Keep a search and its ranking for a day."""
    session.execute(
        insert(Search).values(
            id=id,
            owner=owner,
            parent_id=parent_id,
            request=dict(request),
            checkpoint_id=checkpoint_id,
            rows=ranking.rows.astype(ROW).tobytes(),
            similarities=ranking.similarities.astype(SIMILARITY).tobytes(),
            starts=None if ranking.starts is None else ranking.starts.astype(START).tobytes(),
            upload_vector=None if upload_vector is None else upload_vector.astype("<f4").tobytes(),
            expires_at=func.now() + SEARCHES_KEPT,
        )
    )
    saved = by_id(session, id)
    assert saved is not None
    return saved


def by_id(session: Session, id: UUID) -> SearchRecord | None:
    """A search, expired or not: that is the caller's to tell from `expires_at`."""
    rows = func.octet_length(Search.rows, type_=Integer) // ROW.itemsize
    groups = func.octet_length(Search.starts, type_=Integer) // START.itemsize
    found = session.execute(
        select(
            Search.id,
            Search.owner,
            Search.parent_id,
            Search.request,
            Search.checkpoint_id,
            func.coalesce(groups, rows),
            Search.starts.is_not(None),
            Search.created_at,
            Search.expires_at,
        ).where(Search.id == id)
    ).one_or_none()
    if found is None:
        return None
    return SearchRecord(*found)


def upload_vector(session: Session, id: UUID) -> Vectors | None:
    """What became of the picture (dim,) that a search was asked with, if it is not one of the gallery."""
    packed = session.scalar(select(Search.upload_vector).where(Search.id == id))
    return None if packed is None else np.frombuffer(packed, "<f4").astype(np.float32)


def ranking(session: Session, id: UUID) -> Ranking:
    """The whole ranking of a search that exists."""
    rows, similarities, starts = session.execute(
        select(Search.rows, Search.similarities, Search.starts).where(Search.id == id)
    ).one()
    return Ranking(
        np.frombuffer(rows, ROW).astype(np.int64),
        np.frombuffer(similarities, SIMILARITY).astype(np.float32),
        None if starts is None else np.frombuffer(starts, START).astype(np.int32),
    )


def places(session: Session, search: SearchRecord, first: int, count: int) -> list[Place]:
    """Up to `count` places of a ranking from `first` (0 is the best) on. Only these are read."""
    last = min(first + count, search.places)
    if first >= last:
        return []
    if not search.grouped:
        edges = list(range(first, last + 1))
    else:
        starts = np.frombuffer(_part(session, search.id, Search.starts, first, last + 1, START.itemsize), START)
        edges = starts.tolist()
        if len(edges) == last - first:  # the last group ends where the ranking does
            length = func.octet_length(Search.rows, type_=Integer) // ROW.itemsize
            edges.append(session.scalars(select(length).where(Search.id == search.id)).one())
    rows = np.frombuffer(_part(session, search.id, Search.rows, edges[0], edges[-1], ROW.itemsize), ROW)
    similarities = np.frombuffer(
        _part(session, search.id, Search.similarities, edges[0], edges[-1], SIMILARITY.itemsize), SIMILARITY
    )
    found = []
    for start, stop in pairwise(edges):
        part = slice(start - edges[0], stop - edges[0])
        found.append(Place(rows[part].astype(np.int64), similarities[part].astype(np.float32)))
    return found


def place_of(session: Session, search: SearchRecord, row: int) -> tuple[int, float] | None:
    """The rank (1 is the best) and the similarity of a row in a ranking, that of its group in a grouped one."""
    kept = ranking(session, search.id)
    at = np.flatnonzero(kept.rows == row)
    if not len(at):
        return None
    rank = int(at[0]) + 1 if kept.starts is None else int(np.searchsorted(kept.starts, at[0], side="right"))
    return rank, float(kept.similarities[at[0]])


def band(similarity: float, thresholds: Mapping[str, float] | None) -> Band | None:
    """A similarity as a word, by the thresholds measured for its kind of query."""
    if thresholds is None:
        return None
    if similarity >= thresholds["strong"]:
        return "strong"
    return "possible" if similarity >= thresholds["possible"] else "weak"


def _part(session: Session, id: UUID, column: Any, first: int, last: int, size: int) -> bytes:
    """The packed numbers `first` to `last` of a column, the last not included."""
    part = func.substr(column, first * size + 1, (last - first) * size, type_=LargeBinary)
    return session.scalar(select(part).where(Search.id == id)) or b""


# --------------------------------------------------------------------------------------------------------------------
# What may be shown


def visible(session: Session, rows: Rows, scope: Scope) -> Mask:
    """Which of the rows (N,) are images that exist and are in the scope."""
    there, _ = passing(session, rows, ImageFilter(), scope)
    return there


def passing(session: Session, rows: Rows, filter: ImageFilter, scope: Scope) -> tuple[Mask, Mask]:
    """Which of the rows (N,) exist, are in the scope and pass the filter; which exist and are out of the scope."""
    among = Image.row == func.any(_rows(rows))
    inside = _numbers(session, among, *in_scope(scope), *conditions(filter))
    outside = np.empty(0, np.int64)
    if scope is not None:
        seen = _numbers(session, among, *in_scope(scope))
        outside = np.setdiff1d(_numbers(session, among), seen)
    return np.isin(rows, inside), np.isin(rows, outside)


def _numbers(session: Session, *where: Any) -> Rows:
    packed = func.string_agg(func.int8send(Image.row), literal(b""))
    return np.frombuffer(session.scalar(select(packed).where(*where)) or b"", ">i8").astype(np.int64)


GROUPS = {"track_id": Image.track_id, "camera_id": Image.camera_id, "identity": Image.identity}


def values_of(session: Session, rows: Rows, field: str) -> dict[int, Any]:
    """What those of the rows (N,) that exist have in a column, by row; `field` is captured_at or one of GROUPS."""
    column: Any = Image.captured_at if field == "captured_at" else GROUPS[field]
    statement = select(Image.row, column).where(Image.row == func.any(_rows(rows)))
    return {row: value for row, value in session.execute(statement)}  # noqa: C416  (dict() would not take these rows)


def file_of(session: Session, image_id: UUID, scope: Scope) -> str | None:
    """The sha256 of an image's file, if the image is in the scope."""
    return session.scalar(select(Image.sha256).where(Image.id == image_id, *in_scope(scope)))


def row_of(session: Session, image_id: UUID, scope: Scope) -> int | None:
    return session.scalar(select(Image.row).where(Image.id == image_id, *in_scope(scope)))


def _rows(rows: Rows) -> Any:
    """As text: ten thousand numbers one by one through the driver take longer than the search."""
    return cast_as(literal("{" + ",".join(map(str, rows.tolist())) + "}", Text), ARRAY(BigInteger))


# --------------------------------------------------------------------------------------------------------------------
# Forgetting


def forget_rows(session: Session, rows: Sequence[int]) -> int:
    """Take images out of the frozen rankings; returns how many rankings had one.

    Their places stay, so that ranks and pages do.
    """
    ids = list(_rankings_with(session, np.array(rows, np.int64)))
    for id in ids:
        packed = session.execute(
            select(Search.rows, Search.similarities).where(Search.id == id).with_for_update()
        ).one()
        ranked, similarities = np.frombuffer(packed[0], ROW).copy(), np.frombuffer(packed[1], SIMILARITY).copy()
        gone = np.isin(ranked, rows)
        ranked[gone], similarities[gone] = 0, np.nan
        values = {"rows": ranked.tobytes(), "similarities": similarities.tobytes()}
        session.execute(update(Search).where(Search.id == id).values(values))
    return len(ids)


def rankings_with(session: Session, rows: Sequence[int]) -> int:
    """How many frozen rankings hold one of these rows."""
    return sum(1 for _ in _rankings_with(session, np.array(rows, np.int64)))


def _rankings_with(session: Session, rows: Rows) -> Iterator[UUID]:
    """Looked through here and not by the server: packed numbers are quick to read, and slow to unpack in SQL."""
    if not len(rows):
        return
    with binary_cursor(session, "rankings") as cursor:
        cursor.execute("SELECT id, rows FROM search WHERE rows <> ''")
        while some := cursor.fetchmany(AT_A_TIME):
            for id, packed in some:
                if np.isin(np.frombuffer(packed, ROW), rows).any():
                    yield id


_FORGOTTEN: dict[str, Any] = {
    "request": {},
    "rows": b"",
    "similarities": b"",
    "starts": None,
    "upload_vector": None,
}


def forget_expired(session: Session) -> int:
    """Empty searches that can no longer be read; returns how many."""
    expired = Search.expires_at < func.now() - timedelta(hours=1)
    statement = update(Search).where(expired, Search.request != {}).values(_FORGOTTEN)
    return cast("CursorResult[Any]", session.execute(statement)).rowcount


def forget_all(session: Session) -> None:
    """Empty every search, and remove the saved ones."""
    earlier = func.least(Search.expires_at, func.now()) - timedelta(days=1)
    session.execute(update(Search).where(Search.request != {}).values(**_FORGOTTEN, expires_at=earlier))
    session.execute(delete(SavedSearch))


# What people wrote themselves, where a name may stand within other words.
_WRITTEN = "concat_ws(' ', {0} #>> '{{query,text}}', {0} #>> '{{query,negative_text}}', {0} #>> '{{purpose,reason}}')"
_NAMES = """
    EXISTS (SELECT FROM jsonb_path_query({0}, 'strict $.**') AS part
            WHERE jsonb_typeof(part) = 'string' AND part #>> '{{}}' = ANY(:values))
    OR EXISTS (SELECT FROM unnest(:words) AS word WHERE strpos(lower({1}), word) > 0)
"""
_ASKED = "(request -> 'asked')"
# An emptied search is an expired one: its address answers 410, its text is gone.
_FORGET_SEARCHES = text(f"""
    UPDATE search SET request = '{{}}', rows = '', similarities = '', starts = NULL, upload_vector = NULL,
        expires_at = least(expires_at, now()) - interval '1 day'
    WHERE request <> '{{}}' AND ({_NAMES.format("request", _WRITTEN.format(_ASKED))})
""")
_FORGET_SAVED = text(f"""
    DELETE FROM saved_search
    WHERE {_NAMES.format("request", f"concat_ws(' ', name, {_WRITTEN.format('request')})")} OR name = ANY(:values)
""")


def forget_names(session: Session, values: Sequence[str], words: Sequence[str]) -> tuple[int, int]:
    """Empty searches and remove saved ones that ask for one of the values, or name one of the lower-case words.

    Returns how many of each.
    """
    given = {"values": list(values), "words": list(words)}
    types = [bindparam(name, type_=ARRAY(Text)) for name in given]
    counts = [
        cast("CursorResult[Any]", session.execute(statement.bindparams(*types), given)).rowcount
        for statement in (_FORGET_SEARCHES, _FORGET_SAVED)
    ]
    return counts[0], counts[1]


# --------------------------------------------------------------------------------------------------------------------
# Saved searches


@dataclass(frozen=True)
class SavedSearchRecord:
    """A saved search as stored."""

    id: UUID
    owner: UUID | None
    name: str
    request: dict[str, Any]
    created_at: datetime
    updated_at: datetime


def keep(session: Session, owner: UUID | None, name: str, request: Mapping[str, Any]) -> SavedSearchRecord:
    """Save a request under a name."""
    id = new_id()
    session.execute(insert(SavedSearch).values(id=id, owner=owner, name=name, request=dict(request)))
    saved = saved_search(session, id)
    assert saved is not None
    return saved


def saved_search(session: Session, id: UUID) -> SavedSearchRecord | None:
    found = session.scalar(select(SavedSearch).where(SavedSearch.id == id).execution_options(populate_existing=True))
    return None if found is None else _saved(found)


def saved_searches(session: Session, owner: UUID | None) -> list[SavedSearchRecord]:
    """Somebody's saved searches, the newest first."""
    mine = select(SavedSearch).where(SavedSearch.owner.is_not_distinct_from(owner)).order_by(SavedSearch.id.desc())
    return [_saved(one) for one in session.scalars(mine)]


def change_saved(session: Session, id: UUID, changes: Mapping[str, Any]) -> None:
    """Give a saved search another name or request."""
    session.execute(update(SavedSearch).where(SavedSearch.id == id).values(**changes, updated_at=func.now()))


def remove_saved(session: Session, id: UUID) -> None:
    session.execute(delete(SavedSearch).where(SavedSearch.id == id))


def _saved(row: SavedSearch) -> SavedSearchRecord:
    return SavedSearchRecord(**{name: getattr(row, name) for name in SavedSearchRecord.__dataclass_fields__})


# --------------------------------------------------------------------------------------------------------------------
# Signing


def signing_key(session: Session, purpose: str) -> bytes:
    """The secret of all replicas for one purpose; whoever asks first draws it."""
    mine = select(SigningKey.key).where(SigningKey.purpose == purpose)
    if (key := session.scalar(mine)) is not None:
        return key
    session.execute(upsert(SigningKey).values(purpose=purpose, key=os.urandom(32)).on_conflict_do_nothing())
    return session.scalars(mine).one()
