"""API keys: what machines show instead of a password. Each has roles, cameras and an end."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request

from indexer import accounts
from indexer.database import transaction
from service import access, credentials
from service.access_schemas import A_KEY, A_KEY_REQUEST, A_NEW_KEY, KeyList, KeyRequest, KeyResponse, NewKeyResponse
from service.context import CurrentContext
from service.errors import documented
from service.principals import Principal, may
from service.routes.bodies import json_content, read_json, request_body

router = APIRouter(prefix="/api/v1/api-keys", tags=["access"])


async def read_key(request: Request) -> KeyRequest:
    return await read_json(request, KeyRequest)


@router.get("", responses={200: {"content": {"application/json": {"example": {"api_keys": [A_KEY]}}}}, **documented()})
def list_keys(context: CurrentContext, principal: Annotated[Principal, may("accounts")]) -> KeyList:
    """All API keys, the newest first; revoked and expired ones, too. The secrets are nowhere to be read."""
    with transaction(context.database.engine) as session:
        return KeyList(api_keys=[KeyResponse(**vars(key)) for key in accounts.keys(session)])


@router.post(
    "",
    status_code=201,
    responses={
        201: {"content": {"application/json": {"example": A_NEW_KEY}}},
        **documented("cross_origin", "body_too_large", "unsupported_media_type", "unknown_camera"),
    },
    openapi_extra=request_body(json_content(KeyRequest, {"for the intake of one camera": A_KEY_REQUEST})),
)
def create_key(
    context: CurrentContext,
    principal: Annotated[Principal, may("accounts")],
    asked: Annotated[KeyRequest, Depends(read_key)],
) -> NewKeyResponse:
    """Make an API key. The answer is the only place where it is ever shown."""
    access.refuse_bad_expiry(asked.expires_at, context.settings)
    new = credentials.new_key()
    with transaction(context.database.engine) as session:
        made = access.create_key(
            session, principal.actor, new, asked.name, asked.roles, asked.cameras, asked.expires_at
        )
    return NewKeyResponse(**vars(made), key=new.key)


@router.delete("/{key_id}", status_code=204, responses=documented("cross_origin", "not_found"))
def revoke_key(context: CurrentContext, principal: Annotated[Principal, may("accounts")], key_id: UUID) -> None:
    """Revoke a key: it is refused from the next request on, by every replica."""
    with transaction(context.database.engine) as session:
        access.revoke_key(session, principal.actor, key_id)
