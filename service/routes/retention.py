"""Retention policies: how many days images are kept, per camera and by default."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from indexer import audit, retention
from indexer.database import transaction
from service.context import CurrentContext
from service.errors import documented
from service.governance_schemas import A_POLICY, PolicyList, PolicyRequest, PolicyResponse
from service.principals import Principal, may
from service.routes.bodies import json_content, read_json, request_body
from service.schemas import Name

router = APIRouter(prefix="/api/v1/retention-policies", tags=["governance"])

EXAMPLES = {"one camera": A_POLICY, "all others": {"days": 90}}
ANSWER: dict[str, Any] = {**A_POLICY, "updated_at": "2026-09-02T08:00:00Z"}


async def read_policy(request: Request) -> PolicyRequest:
    return await read_json(request, PolicyRequest)


@router.get(
    "",
    responses={
        200: {"content": {"application/json": {"example": {"retention_policies": [ANSWER]}}}},
        **documented("database_unavailable"),
    },
)
def list_policies(context: CurrentContext, principal: Annotated[Principal, may("govern")]) -> PolicyList:
    """All policies, the default first. Without any, images are kept until somebody erases them."""
    with transaction(context.database.engine) as session:
        return PolicyList(retention_policies=[PolicyResponse(**vars(policy)) for policy in retention.policies(session)])


@router.put(
    "",
    responses={
        200: {"content": {"application/json": {"example": ANSWER}}},
        **documented(
            "cross_origin", "body_too_large", "unsupported_media_type", "unknown_camera", "database_unavailable"
        ),
    },
    openapi_extra=request_body(json_content(PolicyRequest, EXAMPLES)),
)
def set_policy(
    context: CurrentContext,
    principal: Annotated[Principal, may("govern")],
    asked: Annotated[PolicyRequest, Depends(read_policy)],
) -> PolicyResponse:
    """Keep the images of a camera, or of all cameras without a policy, for so many days. What is older goes soon."""
    with transaction(context.database.engine) as session:
        policy = retention.set_policy(session, asked.camera_id, asked.days)
        told = {"camera_id": asked.camera_id, "days": asked.days}
        audit.record(session, principal.actor, "retention.set", detail=told)
    return PolicyResponse(**vars(policy))


@router.delete("", status_code=204, responses=documented("cross_origin", "not_found", "database_unavailable"))
def remove_policy(
    context: CurrentContext,
    principal: Annotated[Principal, may("govern")],
    camera_id: Annotated[Name | None, Query(description="Left out: the default")] = None,
) -> None:
    """Remove the policy of a camera, or the default."""
    with transaction(context.database.engine) as session:
        retention.remove_policy(session, camera_id)
        audit.record(session, principal.actor, "retention.remove", detail={"camera_id": camera_id})
