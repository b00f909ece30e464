"""Secrets: how passwords are hashed, what API keys and tokens look like. Nothing here knows the database.

Passwords: argon2id as OWASP recommends it (19 MiB, 2 passes), since people choose them. API keys: argon2id, too, but
cheap, since a key has 256 random bits, which no number of guesses finds. Tokens of sessions and set-up links have as
many and must be looked up by their hash, so that is SHA-256.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from service.errors import Refusal

_PASSWORDS = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_KEYS = PasswordHasher(time_cost=1, memory_cost=8 * 1024, parallelism=1)

AT_ONCE = 2  # hashes computed at a time: each takes memory, and strangers decide how many are asked for
WAITING = 8  # that may wait for their turn; the threads that wait here are missing elsewhere
_turn = threading.BoundedSemaphore(AT_ONCE)
_room = threading.BoundedSemaphore(AT_ONCE + WAITING)

NOBODY = _PASSWORDS.hash(secrets.token_hex(32))  # verified for names nobody has, so that they cost the same time

KEY_PREFIX = "psk"


def hash_password(password: str) -> str:
    """Raises Refusal (429) while too many others want the same."""
    with _one_of_few():
        return _PASSWORDS.hash(_normal(password))


def is_password(hashed: str, password: str) -> bool:
    """Whether this is the password; takes equally long for all. Raises Refusal (429)."""
    with _one_of_few():
        return _verified(_PASSWORDS, hashed, _normal(password))


def is_outdated(hashed: str) -> bool:
    """Whether the password would be hashed otherwise today."""
    return _PASSWORDS.check_needs_rehash(hashed)


def _normal(password: str) -> str:
    return unicodedata.normalize("NFKC", password)  # the same keys on another keyboard


def _verified(hasher: PasswordHasher, hashed: str, secret: str) -> bool:
    try:
        return hasher.verify(hashed, secret)
    except (VerifyMismatchError, InvalidHashError):
        return False


@contextmanager
def _one_of_few() -> Iterator[None]:
    if not _room.acquire(blocking=False):
        raise Refusal("rate_limited", "Too many people sign in at this moment. Try again in a second.", retry_after=1)
    try:
        with _turn:
            yield
    finally:
        _room.release()


# ------------------------------------------------------------------------------------------------------------ API keys


@dataclass(frozen=True)
class NewKey:
    """A key as it is shown once, its public part, and what is stored of its secret."""

    key: str
    lookup: str
    secret_hash: str


def new_key() -> NewKey:
    """`psk_LOOKUP_SECRET`: the prefix tells scanners what it is, LOOKUP finds the row, SECRET is 256 random bits."""
    lookup, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    return NewKey(f"{KEY_PREFIX}_{lookup}_{secret}", lookup, _KEYS.hash(secret))


def parse_key(key: str) -> tuple[str, str] | None:
    """(lookup, secret) of a key, None when it does not look like one."""
    prefix, _, rest = key.partition("_")
    lookup, _, secret = rest.partition("_")
    is_key = prefix == KEY_PREFIX and lookup.isascii() and lookup.isalnum() and 0 < len(secret) <= 128
    return (lookup, secret) if is_key else None


def is_secret(hashed: str, secret: str) -> bool:
    """Whether this is the secret of a key. Raises Refusal (429)."""
    with _one_of_few():
        return _verified(_KEYS, hashed, secret)


# -------------------------------------------------------------------------------------------------------------- tokens


def new_token() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def csrf_of(session_token: str) -> str:
    """What our page can say and a page elsewhere cannot. It follows from the session's token: nothing is stored."""
    return hmac.new(session_token.encode("utf-8", "surrogateescape"), b"csrf", hashlib.sha256).hexdigest()


def is_same(one: str, other: str) -> bool:
    """Compared in a time that tells nothing about where they differ."""
    return hmac.compare_digest(one.encode("utf-8", "surrogateescape"), other.encode("utf-8", "surrogateescape"))
