"""Legal holds: what nobody may erase, and no policy either, until the hold is lifted."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request

from indexer import audit, holds
from indexer.audit import Purpose
from indexer.database import transaction
from indexer.holds import NewHold
from service.context import CurrentContext
from service.errors import documented
from service.governance_schemas import A_HOLD, HoldList, HoldRequest, HoldResponse
from service.principals import Principal, may
from service.routes.bodies import json_content, read_json, request_body
from service.schemas import EXAMPLE_ID

router = APIRouter(prefix="/api/v1/legal-holds", tags=["governance"])

EXAMPLES = {"a camera for a day": A_HOLD, "an identity": {"reason": "Court order 13/2026", "identity": "visitor-17"}}
ANSWER: dict[str, Any] = {
    "id": EXAMPLE_ID,
    **A_HOLD,
    "image_ids": None,
    "identity": None,
    "images": 240,
    "created_at": "2026-09-02T08:00:00Z",
}


async def read_hold(request: Request) -> HoldRequest:
    return await read_json(request, HoldRequest)


@router.get(
    "",
    responses={
        200: {"content": {"application/json": {"example": {"legal_holds": [ANSWER]}}}},
        **documented("database_unavailable"),
    },
)
def list_holds(context: CurrentContext, principal: Annotated[Principal, may("govern")]) -> HoldList:
    """All holds in force, the oldest first."""
    with transaction(context.database.engine) as session:
        return HoldList(legal_holds=[HoldResponse(**vars(hold)) for hold in holds.legal_holds(session)])


@router.post(
    "",
    status_code=201,
    responses={
        201: {"content": {"application/json": {"example": ANSWER}}},
        **documented(
            "cross_origin",
            "not_found",
            "body_too_large",
            "unsupported_media_type",
            "invalid_metadata",
            "unknown_camera",
            "database_unavailable",
        ),
    },
    openapi_extra=request_body(json_content(HoldRequest, EXAMPLES)),
)
def place_hold(
    context: CurrentContext,
    principal: Annotated[Principal, may("govern")],
    asked: Annotated[HoldRequest, Depends(read_hold)],
) -> HoldResponse:
    """Hold images by their ids, by an identity, or by a camera and a time. Images that arrive later are held, too."""
    hold = NewHold(
        **{**{name: getattr(asked, name) for name in asked.model_fields_set}, "image_ids": tuple(asked.image_ids or ())}
    )
    with transaction(context.database.engine) as session:
        placed = holds.place_hold(session, hold)
        purpose, told = Purpose(reason=hold.reason), {"images": placed.images}
        audit.record(
            session, principal.actor, "hold.place", ("legal_hold", str(placed.id)), purpose=purpose, detail=told
        )
    return HoldResponse(**vars(placed))


@router.delete("/{hold_id}", status_code=204, responses=documented("cross_origin", "not_found", "database_unavailable"))
def lift_hold(context: CurrentContext, principal: Annotated[Principal, may("govern")], hold_id: UUID) -> None:
    """Lift a hold. What a retention policy finds too old by then goes with the next sweep."""
    with transaction(context.database.engine) as session:
        holds.lift_hold(session, hold_id)
        audit.record(session, principal.actor, "hold.lift", ("legal_hold", str(hold_id)))
