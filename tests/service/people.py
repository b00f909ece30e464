"""Several people at one service: each a client of their own, told apart by a header that only tests understand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import httpx
import pytest
from fastapi import Request

from service import principals
from service.principals import OPEN, Principal
from tests.service.conftest import DEADLINE, Service

HEADER = "X-Test-Person"

ANNA = Principal(UUID(int=0xA), "anna", "user", frozenset({"investigator"}))
BERT = Principal(UUID(int=0xB), "bert", "user", frozenset({"investigator"}))
CARL = Principal(UUID(int=0xC), "carl", "user", frozenset({"investigator"}))
DORA = Principal(UUID(int=0xD), "dora", "user", frozenset({"auditor"}))
EDDA = Principal(UUID(int=0xE), "edda", "user", frozenset({"operator"}))
NORTH = Principal(UUID(int=0xF), "nora", "user", frozenset({"investigator"}), frozenset({"north"}))
ROBOT = Principal(UUID(int=0x10), "robot", "api_key", frozenset({"investigator"}))
PEOPLE = {person.name: person for person in (ANNA, BERT, CARL, DORA, EDDA, NORTH, ROBOT)}


def told_by_header(request: Request) -> Principal:
    return PEOPLE.get(request.headers.get(HEADER, ""), OPEN)


@contextmanager
def people_known() -> Iterator[None]:
    """While it lasts, services of this process take the header's word for who is asking; without it, all is open."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(principals, "current_principal", told_by_header)
        yield


def client(service: Service, person: Principal) -> httpx.Client:
    return httpx.Client(
        base_url=service.http.base_url, headers={HEADER: person.name}, timeout=DEADLINE, trust_env=False
    )
