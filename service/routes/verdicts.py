"""Verdicts: what one person says of one result, of a search or in a case."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request

from indexer import audit, cases
from indexer.database import transaction
from service.case_schemas import A_VERDICT, EXAMPLE_ITEM, EXAMPLE_VERDICT, ItemResponse, VerdictRequest, VerdictResponse
from service.context import CurrentContext
from service.principals import Principal, may
from service.routes.bodies import json_content, read_json, request_body
from service.routes.cases import CHANGING, READING, WITH_BODY, answered, described_item, described_verdict, record

router = APIRouter(prefix="/api/v1", tags=["cases"])

BODY = request_body(json_content(VerdictRequest, {"it is them": A_VERDICT, "it is not": {"verdict": "no_match"}}))


async def read_verdict(request: Request) -> VerdictRequest:
    return await read_json(request, VerdictRequest)


@router.post(
    "/searches/{search_id}/results/{image_id}/verdicts",
    status_code=201,
    responses=answered(EXAMPLE_VERDICT, *READING, "cross_origin", *WITH_BODY, "expired", status=201),
    openapi_extra=BODY,
)
def judge_result(
    context: CurrentContext,
    principal: Annotated[Principal, may("judge")],
    search_id: UUID,
    image_id: UUID,
    asked: Annotated[VerdictRequest, Depends(read_verdict)],
) -> VerdictResponse:
    """Say what you think of a result. Saying something else later replaces it; the audit has both."""
    with transaction(context.database.engine) as session:
        cases.ranked(session, search_id, image_id, principal.actor, principal.cameras)
        said = cases.judge(session, principal.actor, search_id, image_id, asked.verdict, asked.note)
        told = {"verdict": asked.verdict, "image": str(image_id)}
        audit.record(session, principal.actor, "verdict.give", ("search", str(search_id)), detail=told)
    return described_verdict(said)


@router.post(
    "/cases/{case_id}/items/{item_id}/verdicts",
    status_code=201,
    responses=answered(EXAMPLE_ITEM, *CHANGING, *WITH_BODY, "case_conflict", status=201),
    openapi_extra=BODY,
)
def judge_item(
    context: CurrentContext,
    principal: Annotated[Principal, may("judge")],
    case_id: UUID,
    item_id: UUID,
    asked: Annotated[VerdictRequest, Depends(read_verdict)],
) -> ItemResponse:
    """Say what you think of an item; the answer is the item with everybody's verdicts.

    It is confirmed once enough different people say that it is a match and nobody that it is none. What machines say
    with their keys is shown, and confirms nothing.
    """
    scope = principal.cameras
    with transaction(context.database.engine) as session:
        cases.open_case(session, case_id, principal.actor)
        item = cases.present_item(session, case_id, item_id, scope)
        assert item.image_id is not None
        cases.judge(session, principal.actor, item.search_id, item.image_id, asked.verdict, asked.note)
        judged = cases.item(session, case_id, item_id, scope)
        told = {"verdict": asked.verdict, "image": str(item.image_id)}
        record(session, principal, "verdict.give", case_id, ("case_item", item_id), told)
    return described_item(judged, context.settings.verdicts_needed)
