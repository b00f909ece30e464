"""Who did what, when and why: one row an act, written in the transaction of the act itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy.orm import Session


@dataclass(frozen=True)
class Actor:
    """Who acted; `id` is None for the system itself and where the service is open to everybody on the machine."""

    kind: Literal["user", "api_key", "open", "system"]
    id: UUID | None
    name: str


@dataclass(frozen=True)
class Purpose:
    """Why: a case, a reason in words, or both."""

    case_id: UUID | None = None
    reason: str | None = None


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
    """
