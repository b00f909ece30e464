"""Acting as somebody in tests that are about what somebody may see, whatever way they signed in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

import pytest

from indexer.filters import Scope
from service import principals
from service.principals import Principal, Role


def somebody(*roles: Role, cameras: Scope = None, id: UUID | None = None) -> Principal:
    return Principal(id or uuid4(), "somebody", "user", frozenset(roles or ("operator",)), cameras)


@contextmanager
def acting_as(principal: Principal) -> Iterator[Principal]:
    """Every request in here is this principal's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(principals, "current_principal", lambda request: principal)
        yield principal
