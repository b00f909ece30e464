"""Embeddings as rows: the work of making them, handed out under leases, and the vectors once they are there.

Work is a query, not a queue: an image that lacks an embedding is a row that is pending. A worker's claim on rows lasts
as long as it renews its lease, and it writes vector and state in one statement that its lease token guards: a worker
that was given up for dead writes nothing. How vectors are computed is model/'s business, how searched index.py's.

Two rules keep this right while many processes work on it:

- What changes the searchable set (a vector was recorded, an image deleted) draws a number from `change_seq` under an
  advisory lock held until the commit. So numbers become visible in their order, and a follower that asks for what is
  above the last number it saw misses nothing.
- Time is the database's. `statement_timestamp()` is used for leases rather than `now()`, which stands still while a
  transaction waits for a lock, and rather than `clock_timestamp()`, which may change between two rows of one statement.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import numpy as np
import psycopg
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CursorResult,
    Executable,
    and_,
    bindparam,
    func,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, aggregate_order_by
from sqlalchemy.orm import Session

from indexer.filters import ImageFilter, Scope, conditions, in_scope
from indexer.tables import Checkpoint, Embedding, Image, RemovedImage

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]
Digests = NDArray[np.uint64]

WORK_CHANNEL = "person_search_work"  # NOTIFY is sent here when there are new images to embed
CHANGES_LOCK = 7_305_802  # key of an advisory lock, unique within the database
LISTED_AT_ONCE = 2**24  # rows of 24 bytes: PostgreSQL makes no value of more than a gigabyte


def lock_changes(session: Session) -> None:
    """From here to the commit nobody else draws from `change_seq`. Take it before locking rows, as everybody does."""
    session.execute(select(func.pg_advisory_xact_lock(CHANGES_LOCK)))


# --------------------------------------------------------------------------------------------------------------------
# Work


@dataclass(frozen=True)
class ClaimedImage:
    """An image to embed; `attempts` counts this one."""

    row: int
    sha256: str
    attempts: int


@dataclass(frozen=True)
class Claim:
    """Images that are the holder's to embed as long as it renews the lease. Empty if there is nothing to do."""

    token: UUID
    items: list[ClaimedImage]


# When a row that was tried before may be tried again: after its pause, or when its worker's lease ran out. No pause and
# no lease is as long as a day: one further ahead was written by a clock that has since been set back.
_DUE = """checkpoint_id = :checkpoint_id AND state IN ('pending', 'running') AND attempts > 0 AND (
            greatest(run_at, lease_until) <= statement_timestamp()
            OR greatest(run_at, lease_until) > statement_timestamp() + interval '1 day')"""

_GIVE_UP = text(f"""
    UPDATE embedding
    SET state = 'failed', lease_token = NULL, lease_until = NULL, updated_at = statement_timestamp(),
        error = 'Given up after ' || attempts || ' attempts: '
                || coalesce(error, 'each time the worker stopped while it was embedding this image.')
    WHERE (image_row, checkpoint_id) IN (
        SELECT image_row, checkpoint_id FROM embedding WHERE {_DUE} AND attempts >= :max_attempts
        FOR UPDATE SKIP LOCKED)
""")

# A batch of fresh images, or one image alone that was tried before: should it take its worker down again, no innocent
# neighbour is blamed. Whichever has been due for longer goes first, so that neither waits for ever.
_CLAIM = """
    WITH suspect AS (
        SELECT image_row, checkpoint_id FROM embedding
        WHERE {due} AND greatest(run_at, lease_until) <= coalesce(
            (SELECT run_at FROM embedding
             WHERE checkpoint_id = :checkpoint_id AND state = 'pending' AND attempts = 0
             ORDER BY {order} LIMIT 1), 'infinity')
        ORDER BY greatest(run_at, lease_until), image_row LIMIT 1
        FOR UPDATE SKIP LOCKED
    ), fresh AS (
        SELECT image_row, checkpoint_id FROM embedding
        WHERE checkpoint_id = :checkpoint_id AND state = 'pending' AND attempts = 0 AND NOT EXISTS (TABLE suspect)
        ORDER BY {order} LIMIT :n
        FOR UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE embedding
        SET state = 'running', attempts = attempts + 1, lease_token = :token, updated_at = statement_timestamp(),
            lease_until = statement_timestamp() + make_interval(secs => :lease_seconds)
        FROM (TABLE suspect UNION ALL TABLE fresh) AS chosen
        WHERE embedding.image_row = chosen.image_row AND embedding.checkpoint_id = chosen.checkpoint_id
        RETURNING embedding.image_row, attempts
    )
    SELECT claimed.image_row, image.sha256, claimed.attempts
    FROM claimed JOIN image ON image.row = claimed.image_row
    ORDER BY claimed.image_row
"""
_CLAIM_OLDEST = text(_CLAIM.format(due=_DUE, order="run_at, image_row"))
_CLAIM_NEWEST = text(_CLAIM.format(due=_DUE, order="run_at DESC, image_row DESC"))


def claim_unembedded(
    session: Session,
    checkpoint_id: str,
    n: int,
    lease_seconds: float,
    max_attempts: int,
    *,
    newest_first: bool = False,
) -> Claim:
    """Claim up to `n` fresh images, or exactly one that was claimed before and not finished.

    The oldest of them first, or with `newest_first` the newest: for the backlog of a checkpoint yet to be activated.

    An attempt counts from here on, commit at once: what takes the worker down must be remembered. Images that used up
    their attempts become failed.
    """
    session.execute(_GIVE_UP, {"checkpoint_id": checkpoint_id, "max_attempts": max_attempts})
    token = uuid4()
    claimed = session.execute(
        _CLAIM_NEWEST if newest_first else _CLAIM_OLDEST,
        {"checkpoint_id": checkpoint_id, "n": n, "token": token, "lease_seconds": lease_seconds},
    )
    return Claim(token, [ClaimedImage(*row) for row in claimed])


def _mine(checkpoint_id: str, token: UUID) -> tuple[ColumnElement[bool], ...]:
    """The fence: a worker whose images were given to another one, because it was late, changes nothing."""
    return Embedding.checkpoint_id == checkpoint_id, Embedding.lease_token == token, Embedding.state == "running"


_FINISHED = {"lease_token": None, "lease_until": None, "updated_at": func.statement_timestamp()}


def renew_lease(session: Session, checkpoint_id: str, token: UUID, lease_seconds: float) -> int:
    """Hold on to what was claimed; returns how many images that still are."""
    until = func.statement_timestamp() + timedelta(seconds=lease_seconds)
    statement = update(Embedding).where(*_mine(checkpoint_id, token)).values(lease_until=until)
    return _changed(session, statement)


def release(session: Session, checkpoint_id: str, token: UUID) -> int:
    """Hand back what is not finished, as if it had not been claimed; returns how many images."""
    pending = {"state": "pending", "attempts": Embedding.attempts - 1, **_FINISHED}
    return _changed(session, update(Embedding).where(*_mine(checkpoint_id, token)).values(pending))


def record_failure(
    session: Session, checkpoint_id: str, token: UUID, row: int, error: str, *, retry_seconds: float | None = None
) -> bool:
    """Give an image up with a sentence why, or with `retry_seconds` have it tried again after that pause.

    Returns whether the image was still the worker's.
    """
    outcome: dict[str, Any] = {"state": "failed", "error": error.replace("\x00", "\ufffd"), **_FINISHED}
    if retry_seconds is not None:
        outcome |= {"state": "pending", "run_at": func.statement_timestamp() + timedelta(seconds=retry_seconds)}
    mine = (*_mine(checkpoint_id, token), Embedding.image_row == row)
    return _changed(session, update(Embedding).where(*mine).values(outcome)) == 1


_RECORD = text("""
    UPDATE embedding
    SET state = 'ready', vector = new.vector, seq = nextval('change_seq'), error = NULL,
        lease_token = NULL, lease_until = NULL, updated_at = statement_timestamp()
    FROM unnest(:rows, :vectors) AS new (image_row, vector)
    WHERE embedding.image_row = new.image_row AND checkpoint_id = :checkpoint_id
        AND lease_token = :token AND state = 'running'
""").bindparams(bindparam("rows", type_=ARRAY(BigInteger)), bindparam("vectors", type_=ARRAY(BYTEA)))


def record_embeddings(
    session: Session, checkpoint_id: str, token: UUID, rows: Sequence[int] | Rows, vectors: Vectors
) -> int:
    """Store the vectors, float32 (N, dim), of claimed rows (N,), and make them searchable; returns how many were.

    Those that were given to another worker meanwhile, or deleted, are left alone. Raises `ValueError` for vectors that
    are of another checkpoint's size or not finite.
    """
    dim = session.scalar(select(Checkpoint.dim).where(Checkpoint.id == checkpoint_id))
    if vectors.shape != (len(rows), dim) or not np.isfinite(vectors).all():
        raise ValueError(f"expected {len(rows)} finite vectors of {dim} numbers, got {vectors.shape}")
    lock_changes(session)
    packed = [vector.tobytes() for vector in vectors.astype("<f4")]
    values = {"rows": [int(row) for row in rows], "vectors": packed, "checkpoint_id": checkpoint_id, "token": token}
    return _changed(session, _RECORD, values)


def _changed(session: Session, statement: Executable, values: Mapping[str, Any] | None = None) -> int:
    return cast("CursorResult[Any]", session.execute(statement, values)).rowcount


# --------------------------------------------------------------------------------------------------------------------
# Vectors


@dataclass(frozen=True)
class Changes:
    """What happened above a number, up to and including `seq`: first remove, then add."""

    seq: int
    added_rows: Rows  # (N,)
    added_vectors: Vectors  # (N, dim)
    removed_rows: Rows  # (M,)


@dataclass(frozen=True)
class Snapshot:
    """All vectors of a checkpoint at one moment, `count` of them, in chunks of rows (N,) and vectors (N, dim).

    What happened after that moment are the changes above `seq`.
    """

    seq: int
    count: int
    chunks: Iterator[tuple[Rows, Vectors]]


_CHANGES = text("""
    SELECT seq, image_row, vector FROM (
        (SELECT seq, image_row, vector FROM embedding
         WHERE checkpoint_id = :checkpoint_id AND state = 'ready' AND seq > :seq ORDER BY seq LIMIT :limit)
        UNION ALL
        (SELECT seq, image_row, NULL FROM removed_image WHERE seq > :seq ORDER BY seq LIMIT :limit)
    ) AS change ORDER BY seq LIMIT :limit
""")


def changes_since(session: Session, checkpoint_id: str, seq: int, limit: int = 4096) -> Changes:
    """The first `limit` changes above `seq`; ask again from `Changes.seq` until there is none.

    One statement sees one moment. An image removed at that moment has no embedding any more, so no row is both added
    and removed.
    """
    found = session.execute(_CHANGES, {"checkpoint_id": checkpoint_id, "seq": seq, "limit": limit}).all()
    added = [(row.image_row, row.vector) for row in found if row.vector is not None]
    removed = [row.image_row for row in found if row.vector is None]
    rows, vectors = _unpack(added)
    return Changes(found[-1].seq if found else seq, rows, vectors, np.array(removed, np.int64))


def stay_at_one_moment(session: Session) -> None:
    """See the database as it is now until the transaction ends, only reading it. Must be the first thing in it."""
    session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


def snapshot(session: Session, checkpoint_id: str, chunk: int = 8192) -> Snapshot:
    """Stream all ready vectors. Must be the first thing in its transaction, which lasts until the chunks are read."""
    stay_at_one_moment(session)
    ready = (Embedding.checkpoint_id == checkpoint_id, Embedding.state == "ready")
    count, last = session.execute(select(func.count(), func.max(Embedding.seq)).where(*ready)).one()
    last_removed = session.scalar(select(func.max(RemovedImage.seq)))
    return Snapshot(max(last or 0, last_removed or 0), count, _chunks(session, checkpoint_id, chunk))


def _chunks(session: Session, checkpoint_id: str, chunk: int) -> Iterator[tuple[Rows, Vectors]]:
    with binary_cursor(session, "snapshot") as cursor:
        cursor.execute(
            "SELECT image_row, vector FROM embedding WHERE checkpoint_id = %s AND state = 'ready'", [checkpoint_id]
        )
        while found := cursor.fetchmany(chunk):
            yield _unpack(found)


def binary_cursor(session: Session, name: str = "") -> psycopg.Cursor[Any] | psycopg.ServerCursor[Any]:
    """The driver's own cursor: it hands bytes over as they are, where SQLAlchemy's would have them written out in hex.

    With a name it is the server's, which hands over as much as is fetched.
    """
    connection = cast("psycopg.Connection[Any]", session.connection().connection.driver_connection)
    return connection.cursor(name, binary=True) if name else connection.cursor(binary=True)


@dataclass(frozen=True)
class Listing:
    """Which vectors a checkpoint has at one moment, without the vectors: by `rows` (N,), ascending.

    What happened after that moment are the changes above `seq`; no change so far has a number above `drawn`.
    """

    seq: int
    drawn: int
    rows: Rows
    seqs: NDArray[np.int64]  # (N,) numbers of the changes they came with
    digests: Digests  # (N,)


_LISTED = np.dtype([("row", ">i8"), ("seq", ">i8"), ("digest", ">u8")])


def listing(session: Session, checkpoint_id: str) -> Listing:
    """List all ready vectors, 24 bytes each. Must be the first thing in its transaction, which only reads."""
    stay_at_one_moment(session)
    session.execute(text("SET LOCAL statement_timeout = 0"))  # a second for a million
    last_row = session.scalar(select(func.max(Image.row))) or 0
    parts = []
    with binary_cursor(session) as cursor:
        for start in range(0, last_row + 1, LISTED_AT_ONCE):
            cursor.execute(
                "SELECT string_agg(int8send(image_row) || int8send(seq) || digest, '') FROM embedding"
                " WHERE checkpoint_id = %s AND state = 'ready' AND image_row >= %s AND image_row < %s",
                [checkpoint_id, start, start + LISTED_AT_ONCE],
            )
            parts.append(cursor.fetchall()[0][0] or b"")
    listed = np.sort(np.frombuffer(b"".join(parts), _LISTED), order="row")
    last_removed = session.scalar(select(func.max(RemovedImage.seq))) or 0
    drawn = session.scalar(text("SELECT last_value FROM change_seq")) or 0
    rows, seqs = listed["row"].astype(np.int64), listed["seq"].astype(np.int64)
    return Listing(max(int(seqs.max(initial=0)), last_removed), drawn, rows, seqs, listed["digest"].astype(np.uint64))


def digests(vectors: Vectors) -> Digests:
    """Of vectors (N, dim) what the database keeps as their digests: (N,)."""
    packed = b"".join(hashlib.sha256(vector).digest()[:8] for vector in np.ascontiguousarray(vectors, "<f4"))
    return np.frombuffer(packed, ">u8").astype(np.uint64)


def removed_since(session: Session, seq: int) -> Rows:
    """The rows (N,) of the images removed by changes above `seq`."""
    packed = func.string_agg(func.int8send(RemovedImage.image_row), literal(b""))
    rows: bytes = session.scalar(select(packed).where(RemovedImage.seq > seq)) or b""
    return np.frombuffer(rows, ">i8").astype(np.int64)


def ready_vectors(session: Session, checkpoint_id: str, rows: Rows) -> tuple[Rows, Vectors]:
    """Those of the rows that have a vector, and the vectors (N, dim)."""
    with binary_cursor(session) as cursor:
        cursor.execute(
            "SELECT image_row, vector FROM embedding"
            " WHERE checkpoint_id = %s AND state = 'ready' AND image_row = ANY(%s)",
            [checkpoint_id, rows.tolist()],
        )
        return _unpack(cursor.fetchall())


def _unpack(found: Sequence[tuple[int, bytes]]) -> tuple[Rows, Vectors]:
    rows = np.array([row for row, _ in found], np.int64)
    vectors = np.frombuffer(b"".join(vector for _, vector in found), "<f4").astype(np.float32)
    return rows, vectors.reshape(len(rows), -1) if len(rows) else vectors.reshape(0, 0)


def allowed_rows(session: Session, filter: ImageFilter, checkpoint_id: str, scope: Scope = None) -> Rows:
    """The rows (N,), ascending, of the embedded images in the scope that pass the filter. Raises `InvalidFilter`."""
    # Packed by the server: a million rows arrive as eight megabytes instead of as a million Python objects.
    packed = func.string_agg(func.int8send(Image.row), aggregate_order_by(literal(b""), Image.row))
    embedded = and_(Embedding.image_row == Image.row, Embedding.checkpoint_id == checkpoint_id)
    statement = (
        select(packed)
        .join(Embedding, embedded)
        .where(Embedding.state == "ready", *in_scope(scope), *conditions(filter))
    )
    rows: bytes = session.scalar(statement) or b""
    return np.frombuffer(rows, ">i8").astype(np.int64)


def vectors_of(
    session: Session, image_ids: Sequence[UUID], checkpoint_id: str, scope: Scope = None
) -> dict[UUID, Vectors]:
    """The vectors (dim,) of those of the images that are embedded and in the scope."""
    statement = (
        select(Image.id, Embedding.vector)
        .join(Embedding, Embedding.image_row == Image.row)
        .where(Image.id.in_(image_ids), Embedding.checkpoint_id == checkpoint_id, *in_scope(scope))
    )
    found = session.execute(statement)
    return {id: np.frombuffer(vector, "<f4").astype(np.float32) for id, vector in found if vector is not None}


# --------------------------------------------------------------------------------------------------------------------
# Counts


@dataclass(frozen=True)
class Counts:
    """Images in all, and how many of them are embedded, waiting (or being worked on), given up."""

    images: int
    indexed: int
    pending: int
    failed: int


def counts(session: Session, checkpoint_id: str) -> Counts:
    """Where the gallery stands for one checkpoint. Counts every image: for now and then, not for every search."""
    of_state = [
        func.count().filter(Embedding.state.in_(states)) for states in (["ready"], ["pending", "running"], ["failed"])
    ]
    images = select(func.count()).select_from(Image).scalar_subquery()
    row = session.execute(select(images, *of_state).where(Embedding.checkpoint_id == checkpoint_id)).one()
    return Counts(*row)


def pending_count(session: Session, checkpoint_id: str, scope: Scope = None) -> int:
    """How many images in the scope wait for an embedding or are being worked on. Cheap: it counts only those."""
    of_checkpoint = (Embedding.checkpoint_id == checkpoint_id, Embedding.state.in_(["pending", "running"]))
    statement = select(func.count()).select_from(Embedding).where(*of_checkpoint)
    if scope is not None:
        statement = statement.join(Image, Image.row == Embedding.image_row).where(*in_scope(scope))
    return session.scalar(statement) or 0


_BEHIND = text("""
    SELECT extract(epoch FROM statement_timestamp() - min(since)) FROM (
        (SELECT updated_at AS since FROM embedding
         WHERE checkpoint_id = :checkpoint_id AND state = 'ready' AND seq > :seq ORDER BY seq LIMIT 1)
        UNION ALL
        (SELECT removed_at FROM removed_image WHERE seq > :seq ORDER BY seq LIMIT 1)
    ) AS first
""")


def seconds_behind(session: Session, checkpoint_id: str, seq: int) -> float:
    """How long ago the first change above `seq` was made; 0 if there is none."""
    found = session.scalar(_BEHIND, {"checkpoint_id": checkpoint_id, "seq": seq})
    return max(0.0, float(found or 0))
