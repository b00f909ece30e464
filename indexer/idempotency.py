"""Requests that must not be carried out twice: each is kept for a day under the key its sender chose."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from indexer.errors import IdempotencyConflict
from indexer.tables import IdempotencyKey

KEPT = timedelta(hours=24)


def remember(session: Session, scope: str, key: str, fingerprint: str, resource_id: UUID) -> UUID:
    """What this key stands for: `resource_id`, or the resource that the same request made before.

    Call it in the transaction that makes the resource: of two requests at once the second waits here for the first.
    Raises IdempotencyConflict when the key was used for something else.
    """
    forget_expired(session)
    values = {"scope": scope, "key": key, "fingerprint": fingerprint, "resource_id": resource_id}
    statement = upsert(IdempotencyKey).values(**values, expires_at=func.now() + KEPT).on_conflict_do_nothing()
    if session.scalar(statement.returning(IdempotencyKey.resource_id)) is not None:
        return resource_id
    mine = (IdempotencyKey.scope == scope, IdempotencyKey.key == key)
    known = session.execute(select(IdempotencyKey.fingerprint, IdempotencyKey.resource_id).where(*mine)).one()
    if known.fingerprint != fingerprint:
        raise IdempotencyConflict(
            "This Idempotency-Key was sent with another request within 24 hours. Use a new key for a new request."
        )
    found: UUID = known.resource_id
    return found


def forget_expired(session: Session) -> None:
    """Forget the keys that no longer stand for anything."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.expires_at <= func.now()))
