"""Letting people and machines in: who sent a request, signing in and out, and every change of accounts.

A user shows a session cookie and, for changes, its CSRF token; a machine shows an API key as `Authorization: Bearer`.
Each request reads the row of its session or key, so what was revoked, disabled or narrowed is so at once, on every
replica. Every change is in the audit, in its own transaction. Passwords and keys themselves: credentials.py.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

from fastapi import Request
from sqlalchemy.orm import Session

from indexer import accounts, audit, gallery
from indexer.accounts import KeyRecord, UserRecord
from indexer.audit import Actor
from indexer.database import Database, transaction
from service import credentials
from service.errors import KINDS, Refusal
from service.limits import Backoff, Buckets
from service.principals import OPEN, Principal, Role
from service.settings import ServiceSettings

COOKIE = "person_search_session"
CSRF_HEADER = "X-CSRF-Token"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
KEYS_REMEMBERED = 1000
SETUP_LASTS = timedelta(hours=24)
FAILURES_PER_ADDRESS = 4  # times as many as per name: several people may sit behind one address

SYSTEM = Actor("system", None, "person-search")
WRONG = "Name or password is wrong."


@dataclass(frozen=True)
class SignedIn:
    """A session as it begins: the token goes into the cookie, and is nowhere else."""

    token: str
    principal: Principal


class Access:
    """Recognises who sends a request, and remembers for a while what that took."""

    def __init__(self, database: Database, settings: ServiceSettings) -> None:
        self.database, self.settings = database, settings
        self.idle = timedelta(minutes=settings.session_idle_minutes)
        self.lasts = timedelta(hours=settings.session_hours)
        self.buckets = Buckets(settings.rate_limit, settings.rate_limit_burst)
        self.names = Backoff(settings.sign_in_failures)
        self.addresses = Backoff(settings.sign_in_failures * FAILURES_PER_ADDRESS)
        self._verified: OrderedDict[bytes, str] = OrderedDict()  # SHA-256 of a key -> the argon2 hash it fits
        self._lock = threading.Lock()

    # ----------------------------------------------------------------------------------------------- every request

    def principal(self, request: Request) -> Principal:
        """Who sent this request. Raises Refusal `unauthenticated`, `csrf` or `rate_limited`."""
        if self.settings.auth == "open":
            return OPEN
        key = bearer(request)
        principal = self._of_cookie(request) if key is None else self._of_key(key)
        if wait := self.buckets.take(principal.id):
            raise too_many("Too many requests in a short time.", wait)
        return principal

    def _of_key(self, key: str) -> Principal:
        parsed = credentials.parse_key(key)
        if parsed is None:
            raise Refusal("unauthenticated", "This is no API key of this service: they begin with `psk_`.")
        lookup, secret = parsed
        with transaction(self.database.engine) as session:
            found = accounts.good_key(session, lookup)
        if found is None or not self._is_key(key, secret, found[1]):
            raise Refusal("unauthenticated", "This API key is unknown, was revoked, or has expired.")
        with transaction(self.database.engine) as session:
            accounts.touch_key(session, found[0])
        return of_key(found[0])

    def _is_key(self, key: str, secret: str, secret_hash: str) -> bool:
        """argon2 once for each key, then by memory. Remembered is which hash a key fits, not that it is good."""
        digest = hashlib.sha256(key.encode()).digest()
        with self._lock:
            if self._verified.get(digest) == secret_hash:
                return True
        if not credentials.is_secret(secret_hash, secret):
            return False
        with self._lock:
            self._verified[digest] = secret_hash
            if len(self._verified) > KEYS_REMEMBERED:
                self._verified.popitem(last=False)
        return True

    def _of_cookie(self, request: Request) -> Principal:
        token = request.cookies.get(COOKIE)
        if not token:
            raise Refusal("unauthenticated", KINDS["unauthenticated"].example)
        with transaction(self.database.engine) as session:
            found = accounts.session_user(session, credentials.token_hash(token), self.idle)
        if found is None:
            raise Refusal("unauthenticated", "The session is over. Sign in again.")
        sent = request.headers.get(CSRF_HEADER, "")
        if request.method not in SAFE_METHODS and not credentials.is_same(sent, credentials.csrf_of(token)):
            raise Refusal("csrf", KINDS["csrf"].example)
        return of_user(found[1])

    # ---------------------------------------------------------------------------------------------------- sessions

    def sign_in(self, name: str, password: str, address: str) -> SignedIn:
        """Begin a session. An unknown name takes as long as a wrong password and gets the same answer.

        Raises Refusal `unauthenticated`, and `rate_limited` after repeated failures.
        """
        with transaction(self.database.engine) as session:
            found = accounts.user_by_name(session, name)
        user = self._checked(name, password, address, found)
        token = credentials.new_token()
        with transaction(self.database.engine) as session:
            accounts.open_session(session, user.id, credentials.token_hash(token), self.lasts)
            audit.record(session, of_user(user).actor, "session.begin", ("user", str(user.id)))
        return SignedIn(token, of_user(user))

    def _checked(self, name: str, password: str, address: str, found: tuple[UserRecord, str] | None) -> UserRecord:
        self._refuse_hasty(name, address)
        known, hashed = found or (None, credentials.NOBODY)
        matches = credentials.is_password(hashed, password)
        if known is None or not matches or known.disabled_at is not None:
            self._failed(name, address, known)
            raise Refusal("unauthenticated", WRONG)
        self.names.succeeded(name.casefold())
        if credentials.is_outdated(hashed):
            renewed = {"password_hash": credentials.hash_password(password)}
            with transaction(self.database.engine) as session:
                accounts.update_user(session, known.id, renewed)
        return known

    def _refuse_hasty(self, name: str, address: str) -> None:
        if wait := max(self.names.wait(name.casefold()), self.addresses.wait(address)):
            raise too_many("Too many wrong passwords.", wait)

    def _failed(self, name: str, address: str, known: UserRecord | None) -> None:
        """Remember a failure. The name is kept only if it is one: people type passwords into the wrong field."""
        self.names.failed(name.casefold())
        self.addresses.failed(address)
        object = None if known is None else ("user", str(known.id))
        with transaction(self.database.engine) as session:
            audit.record(session, SYSTEM, "session.refused", object, detail={"known": known is not None})

    def sign_out(self, principal: Principal, token: str | None) -> None:
        if token is None:
            return
        with transaction(self.database.engine) as session:
            accounts.end_sessions(session, token_hash=credentials.token_hash(token))
            audit.record(session, principal.actor, "session.end", ("user", str(principal.id)))

    def change_password(self, principal: Principal, token: str, current: str, new: str, address: str) -> None:
        """Raises Refusal `forbidden` when the current password is wrong. All other sessions of the user end."""
        assert principal.id is not None
        with transaction(self.database.engine) as session:
            user = accounts.user_by_id(session, principal.id)
            assert user is not None
            hashed = accounts.password_hash(session, user.id)
        refuse_weak(user.name, new)
        try:
            self._checked(user.name, current, address, (user, hashed))
        except Refusal as refusal:
            if refusal.code == "unauthenticated":
                raise Refusal("forbidden", "The current password is wrong.", "/current_password") from refusal
            raise
        renewed = credentials.hash_password(new)
        with transaction(self.database.engine) as session:
            own = accounts.session_user(session, credentials.token_hash(token), self.idle)
            accounts.update_user(session, user.id, {"password_hash": renewed})
            accounts.end_sessions(session, user_id=user.id, but=own[0] if own else None)
            audit.record(session, principal.actor, "user.password", ("user", str(user.id)))

    # ---------------------------------------------------------------------------------------------- the first user

    def setup_token(self) -> str | None:
        """A new one-time token to create the first user with; None when there is a user already."""
        token = credentials.new_token()
        with transaction(self.database.engine) as session:
            if self.settings.auth == "open" or accounts.any_user(session):
                return None
            accounts.add_setup_token(session, credentials.token_hash(token), SETUP_LASTS)
        return token

    def set_up(self, token: str, name: str, password: str, address: str) -> UserRecord:
        """Create the first user, an admin. Raises Refusal `setup_refused` unless the token is good."""
        if wait := self.addresses.wait(address):
            raise too_many("Too many wrong tokens.", wait)
        refuse_weak(name, password)
        with transaction(self.database.engine) as session:
            accounts.lock_accounts(session)
            good = accounts.take_setup_token(session, credentials.token_hash(token))
            if good:
                user = accounts.create_user(session, name, credentials.hash_password(password), ["admin"], None)
                audit.record(session, SYSTEM, "user.create", ("user", str(user.id)), detail={"roles": ["admin"]})
                return user
        self.addresses.failed(address)
        raise Refusal(
            "setup_refused",
            "This set-up link was used, has expired, or is not of this service. Start the service again for a new one, "
            "or run `person-search user create` on its machine.",
        )


def bearer(request: Request) -> str | None:
    """The API key of a request, if it has one. Raises Refusal when the header says something else."""
    if "authorization" not in request.headers:
        return None
    scheme, _, key = request.headers["authorization"].partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Refusal("unauthenticated", "Send the API key as `Authorization: Bearer psk_...`.")
    return key.strip()


def address_of(request: Request) -> str:
    return request.client.host if request.client is not None else ""


def of_user(user: UserRecord) -> Principal:
    return Principal(user.id, user.name, "user", _roles(user.roles), _scope(user.cameras))


def of_key(key: KeyRecord) -> Principal:
    return Principal(key.id, key.name, "api_key", _roles(key.roles), _scope(key.cameras))


def _roles(names: Collection[str]) -> frozenset[Role]:
    return frozenset(cast("Collection[Role]", names))


def _scope(cameras: Collection[str] | None) -> frozenset[str] | None:
    return None if cameras is None else frozenset(cameras)


def too_many(sentence: str, wait: int) -> Refusal:
    plural = "second" if wait == 1 else "seconds"
    return Refusal("rate_limited", f"{sentence} Try again in {wait} {plural}.", retry_after=wait)


def refuse_weak(name: str, password: str) -> None:
    """What the length alone does not tell. Raises Refusal."""
    lowered = password.casefold()
    if len(set(lowered)) < 5 or (len(name) >= 4 and name.casefold() in lowered and len(password) < len(name) + 8):
        sentence = "This password is easy to guess: it is little more than the name, or one character over and over."
        raise Refusal("invalid_request", sentence, "/password")


# ------------------------------------------------------------------------------------------------------------ accounts
# Used by the routes and by the command line. The caller opens the transaction and hashes before it: that takes a while.


def create_user(
    session: Session,
    actor: Actor,
    name: str,
    password_hash: str,
    roles: Collection[str],
    cameras: Collection[str] | None,
) -> UserRecord:
    """Raises UserExists, and Refusal for unknown cameras."""
    refuse_unknown_cameras(session, cameras)
    accounts.lock_accounts(session)
    user = accounts.create_user(session, name, password_hash, roles, cameras)
    accounts.forget_setup_tokens(session)
    audit.record(session, actor, "user.create", ("user", str(user.id)), detail=_rights(user.roles, user.cameras))
    return user


def change_user(session: Session, actor: Actor, id: UUID, changes: Mapping[str, Any]) -> UserRecord:
    """Change `roles`, `cameras`, `disabled`, `password_hash`. A new password and disabling end all sessions; disabling
    also revokes the API keys this user made. Raises NotFound, LastAdmin, and Refusal for unknown cameras."""
    refuse_unknown_cameras(session, changes.get("cameras"))
    user = accounts.update_user(session, id, changes)
    revoked: list[str] = []
    if changes.get("disabled") or "password_hash" in changes:
        accounts.end_sessions(session, user_id=id)
    if changes.get("disabled"):
        revoked = [str(key) for key in accounts.revoke_keys_of(session, id)]
    detail = {**_rights(user.roles, user.cameras), "changed": sorted(changes), "revoked_keys": revoked}
    audit.record(session, actor, "user.change", ("user", str(id)), detail=detail)
    return user


def create_key(
    session: Session,
    actor: Actor,
    key: credentials.NewKey,
    name: str,
    roles: Collection[str],
    cameras: Collection[str] | None,
    expires_at: datetime,
) -> KeyRecord:
    """Raises Refusal for unknown cameras."""
    refuse_unknown_cameras(session, cameras)
    answers = None if actor.id is None else accounts.answering_user(session, actor.id)
    made = accounts.create_key(session, key.lookup, key.secret_hash, name, roles, cameras, expires_at, answers)
    detail = {**_rights(made.roles, made.cameras), "expires_at": expires_at.isoformat()}
    audit.record(session, actor, "api_key.create", ("api_key", str(made.id)), detail=detail)
    return made


def revoke_key(session: Session, actor: Actor, id: UUID) -> None:
    """Raises NotFound."""
    accounts.revoke_key(session, id)
    audit.record(session, actor, "api_key.revoke", ("api_key", str(id)))


def refuse_bad_expiry(expires_at: datetime, settings: ServiceSettings) -> None:
    """Every key ends some day, and not too late. Raises Refusal."""
    now = datetime.now(UTC)
    if not now < expires_at <= now + timedelta(days=settings.api_key_days_max):
        most = f"at most {settings.api_key_days_max} days from now"
        raise Refusal("invalid_request", f"expires_at: give a time in the future, {most}.", "/expires_at")


def refuse_unknown_cameras(session: Session, cameras: Collection[str] | None) -> None:
    if unknown := gallery.unknown_cameras(session, sorted(cameras or ())):
        names = ", ".join(repr(name) for name in unknown)
        raise Refusal("unknown_camera", f"There is no camera {names}. Add it first or correct its name.", "/cameras")


def _rights(roles: Collection[str], cameras: Collection[str] | None) -> dict[str, Any]:
    return {"roles": list(roles), "cameras": None if cameras is None else list(cameras)}
