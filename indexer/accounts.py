"""Users, sessions, API keys and set-up links in the database: every statement about them. Nothing here commits.

What a secret looks like, how it is hashed and who may do what is the caller's business (service/access.py). Times are
compared by the database's clock, so that several replicas agree on what has expired.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from indexer.access_tables import ApiKey, SetupToken, User, UserSession
from indexer.errors import LastAdmin, NotFound, UserExists
from indexer.tables import new_id

ACCOUNTS_LOCK = 7_305_820  # key of an advisory lock: one change of accounts at a time
TOUCHED = timedelta(minutes=1)  # how exactly it is known when a session or a key was last used

# --------------------------------------------------------------------------------------------------------------------
# Users


@dataclass(frozen=True)
class UserRecord:
    """A user as stored, without the hash of the password. `cameras` None: all of them."""

    id: UUID
    name: str
    roles: tuple[str, ...]
    cameras: tuple[str, ...] | None
    created_at: datetime
    disabled_at: datetime | None


def lock_accounts(session: Session) -> None:
    """Until the transaction ends nobody else changes accounts."""
    session.execute(select(func.pg_advisory_xact_lock(ACCOUNTS_LOCK)))


def any_user(session: Session) -> bool:
    return session.scalar(select(User.id).limit(1)) is not None


def users(session: Session) -> list[UserRecord]:
    """All users, by name."""
    return [_user(row) for row in session.scalars(select(User).order_by(func.lower(User.name)))]


def user_by_id(session: Session, id: UUID) -> UserRecord | None:
    row = session.get(User, id, populate_existing=True)
    return None if row is None else _user(row)


def user_by_name(session: Session, name: str) -> tuple[UserRecord, str] | None:
    """The user of this name, however it is capitalised, and the hash of the password."""
    row = session.scalar(select(User).where(func.lower(User.name) == func.lower(name)))
    return None if row is None else (_user(row), row.password_hash)


def password_hash(session: Session, id: UUID) -> str:
    found = session.scalar(select(User.password_hash).where(User.id == id))
    assert found is not None, "users are never deleted"
    return found


def create_user(
    session: Session, name: str, password_hash: str, roles: Collection[str], cameras: Collection[str] | None
) -> UserRecord:
    """Add a user. Raises `UserExists` when the name is taken, in whatever capitals."""
    values = {"name": name, "password_hash": password_hash, "roles": sorted(roles), "cameras": _sorted(cameras)}
    statement = upsert(User).values(id=new_id(), **values).on_conflict_do_nothing().returning(User)
    row = session.scalar(statement)
    if row is None:
        raise UserExists(f"There is a user {name!r} already. Choose another name, or change that user.")
    return _user(row)


def update_user(session: Session, id: UUID, changes: Mapping[str, Any]) -> UserRecord:
    """Change `roles`, `cameras`, `password_hash` or `disabled` (a bool). Raises `NotFound` and `LastAdmin`."""
    lock_accounts(session)
    values: dict[str, Any] = dict(changes)
    if "disabled" in values:
        values["disabled_at"] = func.coalesce(User.disabled_at, func.now()) if values.pop("disabled") else None
    for name in ("roles", "cameras"):
        if name in values:
            values[name] = _sorted(values[name])
    row = session.scalar(
        update(User).where(User.id == id).values(values).returning(User), execution_options={"populate_existing": True}
    )
    if row is None:
        raise NotFound(f"There is no user {id}.")
    if not _an_admin_is_left(session):
        raise LastAdmin("Nobody could manage accounts any more. Make somebody else an admin of all cameras first.")
    return _user(row)


def _an_admin_is_left(session: Session) -> bool:
    admins = select(User.id).where(User.roles.contains(["admin"]), User.cameras.is_(None), User.disabled_at.is_(None))
    return session.scalar(admins.limit(1)) is not None


def _user(row: User) -> UserRecord:
    cameras = None if row.cameras is None else tuple(row.cameras)
    return UserRecord(row.id, row.name, tuple(row.roles), cameras, row.created_at, row.disabled_at)


def _sorted(names: Collection[str] | None) -> list[str] | None:
    return None if names is None else sorted(set(names))


# --------------------------------------------------------------------------------------------------------------------
# Sessions


def open_session(session: Session, user_id: UUID, token_hash: bytes, lasts: timedelta) -> UUID:
    """Begin a session; sessions that ended long ago are forgotten by the way."""
    session.execute(delete(UserSession).where(UserSession.expires_at < func.now() - timedelta(days=1)))
    id = new_id()
    values = {"id": id, "user_id": user_id, "token_hash": token_hash, "expires_at": func.now() + lasts}
    session.execute(insert(UserSession).values(values))
    return id


def session_user(session: Session, token_hash: bytes, idle: timedelta) -> tuple[UUID, UserRecord] | None:
    """The session of this token and its user, if both are good still; the session counts as seen now."""
    found = session.execute(
        select(UserSession.id, User, (UserSession.last_seen_at < func.now() - TOUCHED).label("old"))
        .join(User, User.id == UserSession.user_id)
        .where(
            UserSession.token_hash == token_hash,
            UserSession.revoked_at.is_(None),
            UserSession.expires_at > func.now(),
            UserSession.last_seen_at > func.now() - idle,
            User.disabled_at.is_(None),
        )
    ).one_or_none()
    if found is None:
        return None
    if found.old:
        session.execute(update(UserSession).where(UserSession.id == found.id).values(last_seen_at=func.now()))
    return found.id, _user(found.User)


def end_sessions(
    session: Session, *, token_hash: bytes | None = None, user_id: UUID | None = None, but: UUID | None = None
) -> int:
    """End the session of a token, or all sessions of a user except one; returns how many."""
    assert (token_hash is None) != (user_id is None)
    whose = UserSession.user_id == user_id if token_hash is None else UserSession.token_hash == token_hash
    others = [] if but is None else [UserSession.id != but]
    ended = update(UserSession).where(whose, UserSession.revoked_at.is_(None), *others).values(revoked_at=func.now())
    return len(session.scalars(ended.returning(UserSession.id)).all())


# --------------------------------------------------------------------------------------------------------------------
# API keys


@dataclass(frozen=True)
class KeyRecord:
    """An API key as stored, without the hash of its secret. `created_by` is the user's name, None: on the machine."""

    id: UUID
    lookup: str
    name: str
    roles: tuple[str, ...]
    cameras: tuple[str, ...] | None
    created_by: str | None
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None


def create_key(
    session: Session,
    lookup: str,
    secret_hash: str,
    name: str,
    roles: Collection[str],
    cameras: Collection[str] | None,
    expires_at: datetime,
    created_by: UUID | None,
) -> KeyRecord:
    """Add a key; `created_by` is the user who answers for it, None: the machine's owner."""
    values = {"lookup": lookup, "secret_hash": secret_hash, "name": name, "created_by": created_by}
    scoped = {"roles": _sorted(roles), "cameras": _sorted(cameras), "expires_at": expires_at}
    id = new_id()
    session.execute(insert(ApiKey).values(id=id, **values, **scoped))
    row = session.execute(_keys().where(ApiKey.id == id)).one()
    return _key(row.ApiKey, row.name)


def answering_user(session: Session, principal_id: UUID) -> UUID | None:
    """The user behind a principal: itself, or who made that API key."""
    made_it = select(ApiKey.created_by).where(ApiKey.id == principal_id)
    return session.scalar(select(User.id).where(User.id == principal_id).union_all(made_it))


def keys(session: Session) -> list[KeyRecord]:
    """All keys, the newest first; those that were revoked or expired, too."""
    return [_key(row.ApiKey, row.name) for row in session.execute(_keys().order_by(ApiKey.id.desc()))]


def _keys() -> Select[ApiKey, str]:
    return select(ApiKey, User.name).outerjoin(User, User.id == ApiKey.created_by)


def good_key(session: Session, lookup: str) -> tuple[KeyRecord, str] | None:
    """The key of this public part with the hash of its secret, unless it was revoked or has expired."""
    row = session.scalar(
        select(ApiKey).where(ApiKey.lookup == lookup, ApiKey.revoked_at.is_(None), ApiKey.expires_at > func.now())
    )
    return None if row is None else (_key(row, None), row.secret_hash)


def touch_key(session: Session, key: KeyRecord) -> None:
    """Note that a key is used."""
    if key.last_used_at is None or datetime.now(UTC) - key.last_used_at > TOUCHED:
        session.execute(update(ApiKey).where(ApiKey.id == key.id).values(last_used_at=func.now()))


def revoke_key(session: Session, id: UUID) -> None:
    """End a key for good; one that was revoked before stays revoked as of then. Raises `NotFound`."""
    ended = update(ApiKey).where(ApiKey.id == id).values(revoked_at=func.coalesce(ApiKey.revoked_at, func.now()))
    if session.scalar(ended.returning(ApiKey.id)) is None:
        raise NotFound(f"There is no API key {id}.")


def revoke_keys_of(session: Session, user_id: UUID) -> Sequence[UUID]:
    """End all keys that a user made; returns which."""
    theirs = (ApiKey.created_by == user_id, ApiKey.revoked_at.is_(None))
    return session.scalars(update(ApiKey).where(*theirs).values(revoked_at=func.now()).returning(ApiKey.id)).all()


def _key(row: ApiKey, created_by: str | None) -> KeyRecord:
    columns = {name: getattr(row, name) for name in KeyRecord.__dataclass_fields__}
    cameras = None if row.cameras is None else tuple(row.cameras)
    return KeyRecord(**{**columns, "roles": tuple(row.roles), "cameras": cameras, "created_by": created_by})


# --------------------------------------------------------------------------------------------------------------------
# The first user


def add_setup_token(session: Session, token_hash: bytes, lasts: timedelta) -> None:
    session.execute(delete(SetupToken).where(SetupToken.expires_at < func.now()))
    session.execute(insert(SetupToken).values(token_hash=token_hash, expires_at=func.now() + lasts))


def take_setup_token(session: Session, token_hash: bytes) -> bool:
    """Whether this token may create the first user; then it, and all others, are gone. Call it under the lock."""
    if any_user(session):
        return False
    good = (SetupToken.token_hash == token_hash, SetupToken.expires_at > func.now())
    if session.scalar(select(SetupToken.token_hash).where(*good)) is None:
        return False
    forget_setup_tokens(session)
    return True


def forget_setup_tokens(session: Session) -> None:
    session.execute(delete(SetupToken))
