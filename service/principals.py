"""Who is asking, and what they may do: roles give permissions, a camera scope limits which images exist for them.

A handler takes its caller as `Annotated[Principal, may("search")]`; whoever lacks the permission never reaches it. The
scope goes into the SQL of every query about images (`principal.cameras`), so that what lies outside it is as if absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from fastapi import Depends, Request

from indexer.audit import Actor
from indexer.filters import Scope
from service.errors import Refusal

Role = Literal["operator", "investigator", "ingest", "auditor", "admin"]
Permission = Literal[
    "search",  # run and read searches, facets, explanations, saved searches
    "view",  # metadata and pixels of images
    "judge",  # verdicts on results
    "case",  # cases and their items
    "export",  # take a case out of the system
    "ingest",  # add images, follow and cancel deliveries
    "erase",  # erasures and single deletions
    "govern",  # retention and legal holds
    "upgrade",  # checkpoints
    "configure",  # cameras
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
        return frozenset().union(*(PERMISSIONS[role] for role in self.roles))

    @property
    def actor(self) -> Actor:
        """As the audit names them."""
        return Actor(self.kind, self.id, self.name)


OPEN = Principal(None, "open", "open", frozenset(PERMISSIONS))


def current_principal(request: Request) -> Principal:
    """Who sent this request. Raises Refusal `unauthenticated` when nobody can be told."""
    return OPEN


def may(permission: Permission) -> Any:
    """The caller as a dependency, if they have this permission. Raises Refusal `forbidden` otherwise."""

    def permitted(request: Request) -> Principal:
        principal = current_principal(request)
        if permission not in principal.permissions:
            raise Refusal("forbidden", f"Your roles do not include the permission to {permission}.")
        return principal

    return Depends(permitted)
