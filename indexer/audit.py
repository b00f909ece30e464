"""Who did what, when and why: one row an act, written in the transaction of the act itself.

Each row carries the hash of the one before, so that no row can be changed, removed, inserted or moved unnoticed. The
head of the chain is locked from `record` to the commit: acts are put in order, and gaps cannot arise. So `record`
should be the last statement of its transaction, and nothing that waits for somebody else may follow it.

What is appended is decided here; audit_verify.py checks it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from numbers import Integral
from typing import Any, Literal
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, Select, Uuid, any_, bindparam, exc, literal, select, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session
from sqlalchemy.types import Text

from indexer.audit_tables import AuditEvent, AuditHead, AuditReason
from indexer.errors import AuditUnavailable

GENESIS = "0" * 64  # the hash before the first row
PAGE = 1000  # rows read at a time

log = structlog.get_logger(__name__)

write_failures = 0  # acts that failed because they could not be recorded, since the start of this process
_counting = threading.Lock()


@dataclass(frozen=True)
class Actor:
    """Who acted; `id` is None for the system itself and where the service is open to everybody on the machine."""

    kind: Literal["user", "api_key", "open", "system"]
    id: UUID | None
    name: str


SYSTEM = Actor("system", None, "system")


@dataclass(frozen=True)
class Purpose:
    """Why: a case, a reason in words, or both."""

    case_id: UUID | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Head:
    """The end of the chain; of an empty one seq 0 and `GENESIS`."""

    seq: int
    hash: str


@dataclass(frozen=True)
class Event:
    """A row of the audit. `salt` and `reason` are None when no reason was given, or when it was erased."""

    seq: int
    at: datetime
    actor_kind: str
    actor_id: UUID | None
    actor_name: str
    action: str
    object_kind: str | None
    object_id: str | None
    case_id: UUID | None
    reason_digest: str | None
    checkpoint_id: str | None
    detail: Mapping[str, Any]
    previous: str
    hash: str
    salt: str | None = None
    reason: str | None = None

    def content(self) -> dict[str, Any]:
        """What the digest covers: everything but the links of the chain, and the digest of the reason for its text."""
        return {
            "seq": self.seq,
            "at": self.at.astimezone(UTC).isoformat(timespec="microseconds"),
            "actor": {
                "kind": self.actor_kind,
                "id": None if self.actor_id is None else str(self.actor_id),
                "name": self.actor_name,
            },
            "action": self.action,
            "object": None if self.object_kind is None else {"kind": self.object_kind, "id": self.object_id},
            "case_id": None if self.case_id is None else str(self.case_id),
            "reason_digest": self.reason_digest,
            "checkpoint_id": self.checkpoint_id,
            "detail": dict(self.detail),
        }

    def as_json(self) -> dict[str, Any]:
        """A line of an export."""
        links = {"previous": self.previous, "hash": self.hash}
        return {**self.content(), "reason": self.reason, "reason_salt": self.salt, **links}


# --------------------------------------------------------------------------------------------------------------------
# Writing


def record(
    session: Session,
    actor: Actor,
    action: str,
    object: tuple[str, str] | None = None,
    *,
    purpose: Purpose | None = None,
    checkpoint_id: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Append an act, e.g. `record(session, actor, "search.run", ("search", str(id)), purpose=..., detail={...})`.

    It becomes visible with the act or not at all. `detail` holds counts and ids, never the words of a description.
    The transaction must be of the usual level, READ COMMITTED: a later one would not see the end of the chain. Raises
    `AuditUnavailable`; the act has to fail with it.
    """
    session.flush()  # what is wrong with the act itself is no fault of the audit
    try:
        _append(session, actor, action, object, purpose or Purpose(), checkpoint_id, detail or {})
    except (exc.SQLAlchemyError, ValueError) as error:
        _count_failure()
        log.error("audit_not_written", action=action, reason=type(error).__name__)
        raise AuditUnavailable(
            "This could not be written to the audit, so it was not done. Try again in a moment; if it stays so, "
            "`person-search audit verify` may tell why."
        ) from error


def _append(
    session: Session,
    actor: Actor,
    action: str,
    object: tuple[str, str] | None,
    purpose: Purpose,
    checkpoint_id: str | None,
    detail: Mapping[str, Any],
) -> None:
    end = _lock_head(session)
    salt = None if purpose.reason is None else secrets.token_hex(16)
    event = Event(
        seq=end.seq + 1,
        at=datetime.now(UTC),
        actor_kind=actor.kind,
        actor_id=actor.id,
        actor_name=actor.name,
        action=action,
        object_kind=None if object is None else object[0],
        object_id=None if object is None else object[1],
        case_id=purpose.case_id,
        reason_digest=None if salt is None else reason_digest(salt, purpose.reason or ""),
        checkpoint_id=checkpoint_id,
        detail=_plain(detail),
        previous=end.hash,
        hash="",
    )
    hash = chained(end.hash, digest(event.content()))
    columns = {name: getattr(event, name) for name in _COLUMNS}
    values = {**columns, "hash": hash}
    if salt is None:
        session.execute(_APPEND, values)
    else:
        session.execute(_APPEND_WITH_REASON, {**values, "salt": salt, "reason": purpose.reason})


# Statements as they are, and each one trip to the server: others wait for the head meanwhile.
_COLUMNS = AuditEvent.__table__.columns.keys()
_INSERT = f"INSERT INTO audit_event ({', '.join(_COLUMNS)}) VALUES ({', '.join(f':{name}' for name in _COLUMNS)})"
_EXPLAIN = "INSERT INTO audit_reason (seq, salt, reason) VALUES (:seq, :salt, :reason)"
_MOVE = "UPDATE audit_head SET seq = :seq, hash = :hash"
_TYPES = [bindparam("detail", type_=JSONB), bindparam("actor_id", type_=Uuid), bindparam("case_id", type_=Uuid)]
_APPEND = text(f"WITH added AS ({_INSERT}) {_MOVE}").bindparams(*_TYPES)
_APPEND_WITH_REASON = text(f"WITH added AS ({_INSERT}), explained AS ({_EXPLAIN}) {_MOVE}").bindparams(*_TYPES)
_LOCK_HEAD = text("SELECT seq, hash FROM audit_head FOR UPDATE")


def _lock_head(session: Session) -> Head:
    """The end of the chain, held until the transaction ends."""
    found = session.execute(_LOCK_HEAD).one_or_none()
    if found is None:  # the very first act; two at once meet at the key
        session.execute(upsert(AuditHead).values(id=1, seq=0, hash=GENESIS).on_conflict_do_nothing())
        found = session.execute(_LOCK_HEAD).one()
    return Head(found.seq, found.hash)


def _count_failure() -> None:
    global write_failures
    with _counting:
        write_failures += 1


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of what a row says, as canonical JSON."""
    return hashlib.sha256(canonical(content)).hexdigest()


def chained(previous: str, digest: str) -> str:
    """The hash of a row: of the hash before it and its digest. So the digests alone prove that a chain is whole."""
    return hashlib.sha256(bytes.fromhex(previous) + bytes.fromhex(digest)).hexdigest()


def reason_digest(salt: str, reason: str) -> str:
    return hashlib.sha256(bytes.fromhex(salt) + reason.encode()).hexdigest()


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, in UTF-8; numbers so that the database gives them back the same.

    Raises ValueError for what JSON cannot say.
    """
    written = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return written.encode()


def _plain(value: Any) -> Any:
    """A whole number is an integer, whether it came as 2 or 2.0: JSONB does not remember which."""
    if isinstance(value, float):
        exact = Decimal(repr(value))
        return int(exact) if exact.is_finite() and exact == exact.to_integral_value() else value
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Integral):  # numpy's among them
        return int(value)
    if isinstance(value, UUID):
        return str(value)
    raise ValueError(f"{type(value).__name__} is nothing a detail of the audit can hold.")


# --------------------------------------------------------------------------------------------------------------------
# Reading


@dataclass(frozen=True)
class Wanted:
    """Which rows of the audit: those that meet everything that is given. `actor` is a name or an id."""

    actor: str | None = None
    action: str | None = None
    object_kind: str | None = None
    object_id: str | None = None
    case_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None


def head(session: Session) -> Head:
    """The end of the chain."""
    found = session.execute(select(AuditHead.seq, AuditHead.hash)).one_or_none()
    return Head(0, GENESIS) if found is None else Head(found.seq, found.hash)


def events(session: Session, wanted: Wanted, before: int | None = None, limit: int = 50) -> list[Event]:
    """Up to `limit` rows, the newest first, older than `before`."""
    chosen = _events().where(*_conditions(wanted)).order_by(AuditEvent.seq.desc()).limit(limit)
    if before is not None:
        chosen = chosen.where(AuditEvent.seq < before)
    return [Event(*row) for row in session.execute(chosen)]


def events_after(session: Session, seq: int, until: int, limit: int = PAGE) -> list[Event]:
    """Up to `limit` rows in the order of the chain, above `seq` and not above `until`."""
    chosen = _events().where(AuditEvent.seq > seq, AuditEvent.seq <= until).order_by(AuditEvent.seq).limit(limit)
    return [Event(*row) for row in session.execute(chosen)]


def about_case(session: Session, case_id: UUID, searches: Sequence[UUID], until: int) -> list[int]:
    """The rows, up to `until`, about a case and these searches: their `seq`, in order."""
    of_search = (AuditEvent.object_kind == "search") & (
        AuditEvent.object_id == any_(literal(list(map(str, searches)), ARRAY(Text)))
    )
    of_case = (AuditEvent.case_id == case_id) | (
        (AuditEvent.object_kind == "case") & (AuditEvent.object_id == str(case_id))
    )
    chosen = select(AuditEvent.seq).where(of_case | of_search, AuditEvent.seq <= until)
    return list(session.scalars(chosen.order_by(AuditEvent.seq)))


def _events() -> Select[Any]:
    columns = [getattr(AuditEvent, name) for name in Event.__dataclass_fields__ if hasattr(AuditEvent, name)]
    return select(*columns, AuditReason.salt, AuditReason.reason).outerjoin(
        AuditReason, AuditReason.seq == AuditEvent.seq
    )


def _conditions(wanted: Wanted) -> Iterator[ColumnElement[bool]]:
    if wanted.actor is not None:
        try:
            yield AuditEvent.actor_id == UUID(wanted.actor)
        except ValueError:
            yield AuditEvent.actor_name == wanted.actor
    for name in ("action", "object_kind", "object_id", "case_id"):
        if (value := getattr(wanted, name)) is not None:
            yield getattr(AuditEvent, name) == value
    if wanted.since is not None:
        yield AuditEvent.at >= wanted.since
    if wanted.until is not None:
        yield AuditEvent.at < wanted.until


# --------------------------------------------------------------------------------------------------------------------
# Forgetting


_FORGET = text("""
    UPDATE audit_reason SET salt = NULL, reason = NULL
    WHERE EXISTS (SELECT FROM unnest(:words) AS word WHERE strpos(lower(reason), word) > 0)
    RETURNING seq
""").bindparams(bindparam("words", type_=ARRAY(Text)))


def forget_reasons(session: Session, words: Sequence[str]) -> int:
    """Blank the reasons in which one of these words (in lower case) occurs, and record that; returns how many.

    The rows themselves stay as they are: their hashes cover a digest of the reason.
    """
    blanked = sorted(session.scalars(_FORGET, {"words": list(words)})) if words else []
    if blanked:
        record(session, SYSTEM, FORGOTTEN, detail={"seqs": blanked})
    return len(blanked)


FORGOTTEN = "audit.reasons_erased"
