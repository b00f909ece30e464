"""The audit, for auditors: read it, have it verified, take it away. Each of these is an act in it, too."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from indexer import audit, audit_anchors, audit_verify
from indexer.audit import Wanted
from indexer.database import transaction
from indexer.errors import AuditUnavailable
from service.audit_schemas import (
    EXAMPLE_EVENT,
    EXAMPLE_EVENTS,
    EXAMPLE_VERIFICATION,
    AuditEvent,
    AuditEvents,
    AuditVerification,
)
from service.context import CurrentContext
from service.errors import documented
from service.principals import Principal, may
from service.schemas import Moment, Name

router = APIRouter(prefix="/api/v1/audit-events", tags=["audit"])

LINES = "application/x-ndjson"
EXAMPLE_LINES = f'{json.dumps(EXAMPLE_EVENT)}\n{{"head": {json.dumps(EXAMPLE_VERIFICATION["head"])}}}\n'
FORBIDDEN = ("unauthenticated", "forbidden", "database_unavailable")


@router.get(
    "",
    responses={200: {"content": {"application/json": {"example": EXAMPLE_EVENTS}}}, **documented(*FORBIDDEN)},
)
def list_events(
    context: CurrentContext,
    principal: Annotated[Principal, may("audit")],
    actor: Annotated[Name | None, Query(description="Name or id of who acted")] = None,
    action: Annotated[Name | None, Query(description="As search.run or image.view")] = None,
    object_kind: Annotated[Name | None, Query(description="As search or image")] = None,
    object_id: Name | None = None,
    case_id: UUID | None = None,
    since: Annotated[Moment | None, Query(description="From this time on")] = None,
    until: Annotated[Moment | None, Query(description="Before this time")] = None,
    before: Annotated[int | None, Query(ge=1, lt=2**63, description="Rows before this `seq`")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> AuditEvents:
    """Acts, the newest first, that meet everything that is asked for."""
    wanted = Wanted(actor, action, object_kind, object_id, case_id, since, until)
    with transaction(context.database.engine) as session:
        found = audit.events(session, wanted, before, limit)
        asked = sorted(name for name, value in vars(wanted).items() if value is not None)
        audit.record(session, principal.actor, "audit.read", detail={"rows": len(found), "by": asked})
    shown = [AuditEvent.model_validate(event.as_json()) for event in found]
    return AuditEvents(events=shown, next_before=found[-1].seq if len(found) == limit else None)


@router.get(
    "/verification",
    responses={200: {"content": {"application/json": {"example": EXAMPLE_VERIFICATION}}}, **documented(*FORBIDDEN)},
)
def verify_events(context: CurrentContext, principal: Annotated[Principal, may("audit")]) -> AuditVerification:
    """Read the whole chain and hold it against the heads that were written down beside the database.

    A chain that is not sound is a 200 with `sound: false`: the first row that is wrong, and what is wrong with it.
    """
    found = audit_verify.verify(context.database, context.settings.data_dir / audit_anchors.NAME)
    sound = found.fault is None
    with suppress(*([] if sound else [AuditUnavailable])), transaction(context.database.engine) as session:
        told = {"sound": sound, "rows": found.rows}
        audit.record(session, principal.actor, "audit.verify", detail=told)
    if sound:
        audit_anchors.drop(context.database, context.settings.data_dir / audit_anchors.NAME)
    return AuditVerification(
        sound=sound,
        rows=found.rows,
        head=vars(found.head),
        anchors=found.anchors,
        reasons_erased=found.reasons_erased,
        fault=None if found.fault is None else vars(found.fault),
    )


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "One JSON object a line, oldest first; the last line is the head of the chain",
            "content": {LINES: {"schema": {"type": "string"}, "example": EXAMPLE_LINES}},
        },
        **documented(*FORBIDDEN),
    },
)
def export_events(context: CurrentContext, principal: Annotated[Principal, may("audit")]) -> StreamingResponse:
    """All of the audit as it is now, to be kept elsewhere. `person-search audit verify --file` checks it."""
    with transaction(context.database.engine) as session:
        audit.record(session, principal.actor, "audit.export")
    return StreamingResponse(audit_verify.export(context.database), media_type=LINES)
