"""Checkpoints side by side: one answers searches, others are embedded beside it, and one UPDATE swaps them.

What is done with a checkpoint, in SQL, and how far its embeddings are. Functions that take a session leave the commit
to the caller; those that take an engine commit batch by batch, because a gallery may have millions of images.
Whether a checkpoint is good enough to be activated is gate.py's to say, where its file lies the service's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import CursorResult, Engine, func, insert, select, text, update
from sqlalchemy.orm import Session

from indexer import audit
from indexer.audit import Actor
from indexer.database import transaction
from indexer.errors import CheckpointConflict, NotFound
from indexer.tables import Checkpoint, CheckpointEvent

Vectors = NDArray[np.float32]
Kind = Literal["registered", "gate", "activated", "rolled_back", "retired"]

FOLDER, SUFFIX = "checkpoints", ".safetensors"  # their files in the data folder, named by id
WANTED = ("active", "candidate")  # checkpoints whose embeddings are kept complete
CHECKPOINTS_LOCK = 7_305_801  # keys of advisory locks, unique within the database
ACTIVATION_LOCK = 7_305_804
CHANGES_LOCK = 7_305_802  # that of embeddings.py: who removes embeddings takes it before their rows, as everybody does
BATCH = 5_000  # embeddings written or removed in one transaction
RATE_SECONDS = 120.0  # over which the speed of embedding is measured


@dataclass(frozen=True)
class CheckpointRecord:
    """A checkpoint as stored; `canaries` are the vectors (dim,) of the known queries when it was registered."""

    id: str
    net: str
    dim: int
    info: dict[str, Any]
    path: str
    state: str
    created_at: datetime
    activated_at: datetime | None
    previous_id: str | None
    canaries: dict[str, Vectors]


@dataclass(frozen=True)
class Event:
    """What was done with a checkpoint."""

    kind: str
    detail: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class Coverage:
    """How far the embeddings of a checkpoint are. `pending` images have none yet, `failed` ones were given up.

    `per_second` is what was embedded lately; `seconds_left` is None while nothing is, so that nobody can tell.
    """

    images: int
    embedded: int
    pending: int
    failed: int
    per_second: float
    seconds_left: float | None


@dataclass(frozen=True)
class Missing:
    """An image that one checkpoint finds and another does not, and why."""

    image_id: UUID
    state: str
    error: str | None


# --------------------------------------------------------------------------------------------------------------------
# What there is


def records(session: Session) -> list[CheckpointRecord]:
    """All checkpoints, retired ones too, in the order they came."""
    return [_record(found) for found in session.scalars(select(Checkpoint).order_by(Checkpoint.created_at))]


def record(session: Session, id: str) -> CheckpointRecord:
    """One checkpoint. Raises `NotFound`."""
    found = session.get(Checkpoint, id, populate_existing=True)
    if found is None:
        raise NotFound(f"There is no checkpoint {id}; `person-search checkpoint list` names them all.")
    return _record(found)


def _record(found: Checkpoint) -> CheckpointRecord:
    columns = {name: getattr(found, name) for name in CheckpointRecord.__dataclass_fields__ if name != "canaries"}
    canaries = {kind: np.array(vector, np.float32) for kind, vector in (found.canaries or {}).items()}
    return CheckpointRecord(**columns, canaries=canaries)


def active_id(session: Session) -> str | None:
    """The checkpoint that answers searches. Asked several times a second by every replica."""
    return session.scalar(select(Checkpoint.id).where(Checkpoint.state == "active"))


def is_retired(session: Session, id: str) -> bool:
    """Whether its embeddings are gone, or about to go."""
    return session.scalar(select(Checkpoint.state).where(Checkpoint.id == id)) == "retired"


_WITH_WORK = text("""
    SELECT id FROM checkpoint
    WHERE state IN ('active', 'candidate') AND EXISTS (
        SELECT FROM embedding WHERE checkpoint_id = checkpoint.id AND state IN ('pending', 'running'))
    ORDER BY state = 'active' DESC, created_at
""")


def with_work(session: Session) -> list[str]:
    """The wanted checkpoints that lack embeddings: the active one first, then the others in the order they came."""
    return list(session.scalars(_WITH_WORK))


def events(session: Session, id: str, kind: Kind | None = None) -> list[Event]:
    """What was done with a checkpoint, the last first."""
    chosen = select(CheckpointEvent).where(CheckpointEvent.checkpoint_id == id).order_by(CheckpointEvent.id.desc())
    if kind is not None:
        chosen = chosen.where(CheckpointEvent.kind == kind)
    return [Event(found.kind, found.detail, found.created_at) for found in session.scalars(chosen)]


def note(session: Session, id: str, kind: Kind, detail: Mapping[str, Any]) -> None:
    """Remember what was done with a checkpoint."""
    session.execute(insert(CheckpointEvent).values(checkpoint_id=id, kind=kind, detail=dict(detail)))


_COVERAGE = text("""
    SELECT (SELECT count(*) FROM image) AS images,
        count(*) FILTER (WHERE state = 'ready') AS embedded,
        count(*) FILTER (WHERE state = 'failed') AS failed,
        count(*) FILTER (WHERE recent) AS recent,
        coalesce(extract(epoch FROM statement_timestamp() - min(updated_at) FILTER (WHERE recent)), 0) AS seconds
    FROM (
        SELECT state, updated_at,
            state = 'ready' AND updated_at > statement_timestamp() - make_interval(secs => :window) AS recent
        FROM embedding WHERE checkpoint_id = :id
    ) AS mine
""")


def coverage(session: Session, id: str, window: float = RATE_SECONDS) -> Coverage:
    """How far a checkpoint is. Counts every image: for now and then, not for every search."""
    found = session.execute(_COVERAGE, {"id": id, "window": window}).one()
    pending = max(0, found.images - found.embedded - found.failed)
    per_second = found.recent / max(1.0, float(found.seconds))
    seconds_left = 0.0 if not pending else pending / per_second if per_second else None
    return Coverage(found.images, found.embedded, pending, found.failed, round(per_second, 3), seconds_left)


_MISSING = """
    FROM embedding AS now JOIN image ON image.row = now.image_row
    LEFT JOIN embedding AS other ON other.image_row = now.image_row AND other.checkpoint_id = :id
    WHERE now.checkpoint_id = :than AND now.state = 'ready' AND other.state IS DISTINCT FROM 'ready'
"""
_COUNT_MISSING = text(f"SELECT count(*) {_MISSING}")
_SOME_MISSING = text(f"""
    SELECT image.id, CASE WHEN other.state = 'failed' THEN 'failed' ELSE 'pending' END, other.error {_MISSING}
    ORDER BY other.state = 'failed' DESC NULLS LAST, image.row LIMIT :limit
""")


def missing(session: Session, id: str, than: str, limit: int = 100) -> tuple[int, list[Missing]]:
    """How many images are found with checkpoint `than` but would not be with `id`, and the first of them, failed ones
    first.
    """
    session.execute(text("SET LOCAL statement_timeout = 0"))
    count = session.scalar(_COUNT_MISSING, {"id": id, "than": than}) or 0
    if not count:
        return 0, []
    return count, [Missing(*row) for row in session.execute(_SOME_MISSING, {"id": id, "than": than, "limit": limit})]


# --------------------------------------------------------------------------------------------------------------------
# What is done


def add(session: Session, id: str, net: str, dim: int, info: Mapping[str, Any], path: str) -> str:
    """Make a checkpoint known, and return its state: active if none is, a candidate otherwise, also if it was retired.

    From the commit on every new image gets an embedding row for it. Nobody adds images meanwhile, so commit soon.
    """
    session.execute(select(func.pg_advisory_xact_lock(CHECKPOINTS_LOCK)))
    known = session.get(Checkpoint, id, populate_existing=True)
    if known is None:
        first = active_id(session) is None
        known = Checkpoint(
            id=id, net=net, dim=dim, info=dict(info), path=path, state="active" if first else "candidate"
        )
        session.add(known)
        session.flush()
        if first:
            session.execute(update(Checkpoint).where(Checkpoint.id == id).values(activated_at=func.now()))
    else:
        known.path = path
        if known.state == "retired":
            known.state = "candidate"
        session.flush()
    return known.state


def register(
    engine: Engine,
    id: str,
    net: str,
    dim: int,
    info: Mapping[str, Any],
    path: str,
    canaries: Mapping[str, Vectors],
    actor: Actor = audit.SYSTEM,
) -> str:
    """Make a checkpoint known with what the known queries became, and ask for all of its embeddings.

    Returns its state. Doing it again changes nothing but brings back a retired one. Interrupted, it is completed by
    doing it again, and by the next start of a service.
    """
    with transaction(engine) as session:
        before = session.scalar(select(Checkpoint.state).where(Checkpoint.id == id))
        state = add(session, id, net, dim, info, path)
        stored = {kind: [float(value) for value in vector] for kind, vector in canaries.items()}
        session.execute(update(Checkpoint).where(Checkpoint.id == id).values(canaries=stored))
        if before in (None, "retired"):
            note(session, id, "registered", {"state": state})
            audit.record(session, actor, "checkpoint.register", ("checkpoint", id), checkpoint_id=id)
    want_all(engine, id)
    return state


# Backlog rows are all as old as their checkpoint, so that "newest first" is the newest image, whenever this ran.
# An image deleted meanwhile is held off or left out by the row lock, so that its row's foreign key never fails.
_WANT = text("""
    WITH part AS (
        SELECT row FROM image WHERE row < :below ORDER BY row DESC LIMIT :batch FOR KEY SHARE
    ), added AS (
        INSERT INTO embedding (image_row, checkpoint_id, run_at)
        SELECT row, checkpoint.id, checkpoint.created_at FROM part, checkpoint
        WHERE checkpoint.id = :id AND checkpoint.state IN ('active', 'candidate')
        ON CONFLICT DO NOTHING
    )
    SELECT min(row) FROM part
""")


def want_all(engine: Engine, id: str, batch: int = BATCH) -> None:
    """Give every image an embedding row for this checkpoint, the newest images first."""
    below: int | None = 2**62
    while below is not None:
        with transaction(engine) as session:
            below = session.scalar(_WANT, {"id": id, "below": below, "batch": batch})


# One statement, so one moment: before it everybody reads the one, after it everybody reads the other.
_HAND_OVER = text("""
    UPDATE checkpoint
    SET state = CASE WHEN id = :to THEN 'active' ELSE 'candidate' END,
        activated_at = CASE WHEN id = :to THEN statement_timestamp() ELSE activated_at END,
        previous_id = CASE WHEN id = :to AND :remember THEN :from ELSE previous_id END
    WHERE ((id = :to AND state = 'candidate') OR (id = :from AND state = 'active'))
        AND EXISTS (SELECT FROM checkpoint WHERE id = :from AND state = 'active')
""")


def activate(session: Session, id: str, instead_of: str, detail: Mapping[str, Any]) -> None:
    """Have searches answered by this candidate from the commit on. The other stays embedded, to go back to.

    Raises `CheckpointConflict` unless it is a candidate and `instead_of` still the active one.
    """
    _hand_over(session, id, instead_of, remember=True)
    note(session, id, "activated", {"instead_of": instead_of, **detail})


def roll_back(session: Session, id: str, to: str, detail: Mapping[str, Any]) -> None:
    """Have searches answered by `to` again, instead of the active checkpoint `id`. Raises `CheckpointConflict`."""
    _hand_over(session, to, id, remember=False)
    note(session, id, "rolled_back", {"to": to, **detail})


def _hand_over(session: Session, to: str, instead_of: str, *, remember: bool) -> None:
    session.execute(select(func.pg_advisory_xact_lock(ACTIVATION_LOCK)))
    changed = session.execute(_HAND_OVER, {"to": to, "from": instead_of, "remember": remember})
    if cast("CursorResult[Any]", changed).rowcount != 2:
        raise CheckpointConflict(
            f"{to} was to follow {instead_of}, but meanwhile one of them was activated or retired by somebody else. "
            "Look at `person-search checkpoint list` and decide anew."
        )


def previous(session: Session, id: str) -> str:
    """What the active checkpoint `id` can be rolled back to. Raises `NotFound`, `CheckpointConflict`."""
    current = record(session, id)
    if current.state != "active":
        raise CheckpointConflict(f"Checkpoint {id} is not the active one, so there is nothing to take back.")
    if current.previous_id is None:
        raise CheckpointConflict(f"Checkpoint {id} was the first one; there is none to go back to.")
    if is_retired(session, current.previous_id):
        raise CheckpointConflict(
            f"Checkpoint {current.previous_id} was retired, so its embeddings are gone. Register its file again, "
            "and activate it once it is embedded."
        )
    return current.previous_id


def retire(session: Session, id: str) -> None:
    """Want no more embeddings of this checkpoint; `free` removes those there are. Again if it is retired already.

    Raises `NotFound`, and `CheckpointConflict` for the active one.
    """
    session.execute(select(func.pg_advisory_xact_lock(CHECKPOINTS_LOCK)))
    session.execute(select(func.pg_advisory_xact_lock(ACTIVATION_LOCK)))
    state = record(session, id).state
    if state == "active":
        raise CheckpointConflict(f"Checkpoint {id} answers searches. Activate another one first, then retire this.")
    if state == "candidate":
        session.execute(update(Checkpoint).where(Checkpoint.id == id).values(state="retired"))
        note(session, id, "retired", {})


_FREE = text("""
    DELETE FROM embedding USING checkpoint
    WHERE checkpoint.id = embedding.checkpoint_id AND checkpoint.id = :id AND checkpoint.state = 'retired'
        AND image_row IN (
            SELECT image_row FROM embedding WHERE checkpoint_id = :id ORDER BY image_row LIMIT :batch FOR UPDATE)
""")


def free(engine: Engine, id: str, batch: int = BATCH) -> int:
    """Remove all embeddings of a retired checkpoint, and return how many. If interrupted, do it again."""
    removed = 0
    while True:
        with transaction(engine) as session:
            session.execute(select(func.pg_advisory_xact_lock(CHANGES_LOCK)))
            found = cast("CursorResult[Any]", session.execute(_FREE, {"id": id, "batch": batch})).rowcount
        if not found:
            return removed
        removed += found


_INCOMPLETE = text("""
    SELECT id FROM checkpoint WHERE state IN ('active', 'candidate')
        AND (SELECT count(*) FROM embedding WHERE checkpoint_id = checkpoint.id) < (SELECT count(*) FROM image)
""")
_UNFREED = text("""
    SELECT id FROM checkpoint WHERE state = 'retired'
        AND EXISTS (SELECT FROM embedding WHERE checkpoint_id = checkpoint.id)
""")


def complete_interrupted(engine: Engine) -> None:
    """Finish what a process that died was doing: registering a checkpoint, or freeing a retired one."""
    with transaction(engine) as session:
        session.execute(text("SET LOCAL statement_timeout = 0"))
        incomplete, unfreed = session.scalars(_INCOMPLETE).all(), session.scalars(_UNFREED).all()
    for id in incomplete:
        want_all(engine, id)
    for id in unfreed:
        free(engine, id)
