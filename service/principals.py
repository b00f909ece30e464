"""Who is asking, and what they may do: roles give permissions, a camera scope limits which images exist for them.

A handler takes its caller as `Annotated[Principal, may("search")]`, before anything that reads the body; whoever lacks
the permission never reaches it. The scope goes into the SQL of every query about images (`principal.cameras`), so that
what lies outside it is as if absent. How somebody is recognised is in access.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from fastapi import Depends, Request
from fastapi.routing import APIRoute

from indexer.audit import Actor
from indexer.filters import Scope
from service.errors import Refusal

if TYPE_CHECKING:
    from service.context import Context

Role = Literal["operator", "investigator", "ingest", "auditor", "admin"]
Permission = Literal[
    "search",  # run and read searches, facets, explanations, saved searches
    "view",  # metadata and pixels of images
    "judge",  # verdicts on results
    "case",  # cases and their items
    "export",  # take a case out of the system
    "ingest",  # add images, follow and cancel one's own deliveries
    "erase",  # erasures and single deletions
    "govern",  # retention and legal holds
    "upgrade",  # checkpoints
    "configure",  # cameras; follow and cancel everybody's deliveries
    "accounts",  # users and API keys
    "audit",  # read, verify and export the audit
]

PERMISSIONS: Mapping[Role, frozenset[Permission]] = {
    "operator": frozenset({"search", "view", "judge"}),
    "investigator": frozenset({"search", "view", "judge", "case", "export"}),
    "ingest": frozenset({"ingest"}),
    "auditor": frozenset({"audit"}),
    "admin": frozenset({"erase", "govern", "upgrade", "configure", "accounts"}),
}

# What concerns the whole gallery is not for those who see a part of it: an admin of one camera could widen that scope.
OF_THE_WHOLE: frozenset[Permission] = frozenset({"erase", "govern", "upgrade", "configure", "accounts"})


@dataclass(frozen=True)
class Principal:
    """A signed-in user, the holder of an API key, or everybody, where the service is open (`demo`, on loopback).

    cameras: which cameras' images exist for them; None: all of them, and those without a camera.
    """

    id: UUID | None
    name: str
    kind: Literal["user", "api_key", "open"]
    roles: frozenset[Role]
    cameras: Scope = None

    @property
    def permissions(self) -> frozenset[Permission]:
        """What the roles allow, without what concerns the whole gallery where the scope is a part of it."""
        allowed: frozenset[Permission] = frozenset().union(*(PERMISSIONS[role] for role in self.roles))
        return allowed if self.cameras is None else allowed - OF_THE_WHOLE

    @property
    def actor(self) -> Actor:
        """As the audit names them."""
        return Actor(self.kind, self.id, self.name)


OPEN = Principal(None, "open", "open", frozenset(PERMISSIONS))


def current_principal(request: Request) -> Principal:
    """Who sent this request. Raises Refusal `unauthenticated`, `csrf` or `rate_limited`."""
    found: Principal | None = getattr(request.state, "principal", None)
    if found is None:
        context: Context = request.app.state.context
        request.state.principal = found = context.access.principal(request)
    return found


def may(*permissions: Permission) -> Any:
    """The caller as a dependency, if they have one of these permissions, or, without any named, if they are signed in.

    Raises Refusal `forbidden` otherwise.
    """
    return Depends(_permitted(permissions))


@functools.cache
def _permitted(permissions: tuple[Permission, ...]) -> Callable[[Request], Principal]:
    def permitted(request: Request) -> Principal:
        principal = current_principal(request)
        if permissions and principal.permissions.isdisjoint(permissions):
            raise Refusal("forbidden", _refused(principal, permissions))
        return principal

    _needs[permitted] = permissions
    return permitted


def _refused(principal: Principal, permissions: tuple[Permission, ...]) -> str:
    if any(permission in PERMISSIONS[role] for role in principal.roles for permission in permissions):
        return "This concerns the whole gallery, so it takes an account without a camera scope."
    return f"Your roles do not include the permission to {' or '.join(permissions)}."


_needs: dict[Any, tuple[Permission, ...]] = {}


def needs(route: APIRoute) -> tuple[Permission, ...] | None:
    """One of which permissions a route needs; (): signed in is enough; None: it answers everybody."""
    calls = [dependency.call for dependency in route.dependant.dependencies]
    return next((_needs[call] for call in calls if call in _needs), None)
