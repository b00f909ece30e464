"""Response bodies of the audit."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from service.schemas import EXAMPLE_ID, ResponseBody

EXAMPLE_EVENT: dict[str, Any] = {
    "seq": 1042,
    "at": "2026-09-02T08:00:00.123456Z",
    "actor": {"kind": "user", "id": EXAMPLE_ID, "name": "m.berger"},
    "action": "image.view",
    "object": {"kind": "image", "id": EXAMPLE_ID},
    "case_id": None,
    "reason": None,
    "reason_salt": None,
    "reason_digest": None,
    "checkpoint_id": None,
    "detail": {},
    "previous": "5b0fdf0c1f0d4c5e0c7a1c1a0a9fbf6ff1b7d0d3c4b0a1f2e3d4c5b6a7980f1e",
    "hash": "c1d2e3f4a5b60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90",
}
EXAMPLE_EVENTS = {"events": [EXAMPLE_EVENT], "next_before": 1042}
EXAMPLE_VERIFICATION: dict[str, Any] = {
    "sound": True,
    "rows": 1042,
    "head": {"seq": 1042, "hash": EXAMPLE_EVENT["hash"]},
    "anchors": 31,
    "reasons_erased": 0,
    "fault": None,
}


class AuditActor(ResponseBody):
    kind: str = Field(description="user, api_key, open (a service that is open to this machine), or system")
    id: UUID | None
    name: str


class AuditObject(ResponseBody):
    kind: str
    id: str


class AuditEvent(ResponseBody):
    seq: int = Field(description="1, 2, 3, ... without gaps")
    at: datetime
    actor: AuditActor
    action: str
    object: AuditObject | None
    case_id: UUID | None
    reason: str | None = Field(description="null where none was given, or where it named somebody who was erased")
    reason_salt: str | None
    reason_digest: str | None = Field(description="SHA-256 of the salt's bytes and the reason")
    checkpoint_id: str | None
    detail: dict[str, Any]
    previous: str = Field(description="The hash of the row before; of the first row, zeros")
    hash: str = Field(description="SHA-256 of the bytes of `previous` and of the digest of the row's canonical JSON")


class AuditEvents(ResponseBody):
    events: list[AuditEvent]
    next_before: int | None = Field(description="Pass as `before` for the next page; null at the end")


class AuditHead(ResponseBody):
    seq: int
    hash: str


class AuditFault(ResponseBody):
    seq: int = Field(description="The first row that is not what was written")
    kind: Literal["changed", "removed", "reordered", "inserted", "truncated", "anchor"]
    detail: str


class AuditVerification(ResponseBody):
    sound: bool
    rows: int = Field(description="Rows read, up to the fault if there is one")
    head: AuditHead
    anchors: int = Field(description="Earlier heads, from the file beside the database, with which the chain agrees")
    reasons_erased: int = Field(description="Reasons that were blanked, because they named somebody who was erased")
    fault: AuditFault | None
