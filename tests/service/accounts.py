"""Users and API keys for tests, made as `person-search user create` and `api-key create` make them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import httpx

from indexer.accounts import KeyRecord, UserRecord
from indexer.audit import Actor
from indexer.database import transaction
from service import access, credentials
from tests.service.conftest import DEADLINE, Service

PASSWORD = "plum-tram-orbit-7"
ON_THE_MACHINE = Actor("system", None, "test")
EVERY_ROLE = ("operator", "investigator", "ingest", "auditor", "admin")


def user(service: Service, name: str, *roles: str, cameras: Sequence[str] | None = None) -> UserRecord:
    hashed = credentials.hash_password(PASSWORD)
    with transaction(service.database.engine) as session:
        return access.create_user(session, ON_THE_MACHINE, name, hashed, roles, cameras)


def key(
    service: Service, *roles: str, cameras: Sequence[str] | None = None, actor: Actor = ON_THE_MACHINE
) -> tuple[str, KeyRecord]:
    """(the key, what is stored of it)"""
    new = credentials.new_key()
    end = datetime.now(UTC) + timedelta(days=1)
    with transaction(service.database.engine) as session:
        return new.key, access.create_key(session, actor, new, "a key", roles, cameras, end)


def visitor(service: Service, key: str | None = None) -> httpx.Client:
    """A client of its own: no cookies of others, and the key if there is one. Close it."""
    headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
    return httpx.Client(base_url=service.http.base_url, timeout=DEADLINE, trust_env=False, headers=headers)


def sign_in(service: Service, name: str, password: str = PASSWORD) -> httpx.Client:
    """A client with a session, which sends its CSRF token. Close it."""
    with visitor(service) as first:
        answer = first.post("/api/v1/session", json={"name": name, "password": password})
    assert answer.status_code == 201, answer.text
    client = visitor(service)
    client.cookies.update(answer.cookies)
    client.headers["X-CSRF-Token"] = answer.json()["csrf_token"]
    return client
