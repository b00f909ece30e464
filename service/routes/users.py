"""Users: who may sign in, with which roles, for which cameras."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from indexer import accounts
from indexer.database import transaction
from indexer.errors import NotFound
from service import access, credentials
from service.access_schemas import A_USER, A_USER_REQUEST, UserChange, UserList, UserRequest, UserResponse
from service.context import CurrentContext
from service.errors import documented
from service.principals import Principal, may
from service.routes.bodies import json_content, read_json, request_body
from service.routes.images import LOCATION

router = APIRouter(prefix="/api/v1/users", tags=["access"])

CHANGES = {
    "other cameras": {"cameras": ["station-north", "station-south"]},
    "another role, all cameras": {"roles": ["investigator"], "cameras": None},
    "disable": {"disabled": True},
    "a new password": {"password": "quiet-anvil-lantern-3"},
}
CHANGING = ("cross_origin", "body_too_large", "unsupported_media_type", "unknown_camera")


async def read_user(request: Request) -> UserRequest:
    return await read_json(request, UserRequest)


async def read_change(request: Request) -> UserChange:
    return await read_json(request, UserChange)


@router.get("", responses={200: {"content": {"application/json": {"example": {"users": [A_USER]}}}}, **documented()})
def list_users(context: CurrentContext, principal: Annotated[Principal, may("accounts")]) -> UserList:
    """All users, by name; disabled ones, too."""
    with transaction(context.database.engine) as session:
        return UserList(users=[UserResponse(**vars(user)) for user in accounts.users(session)])


@router.post(
    "",
    status_code=201,
    responses={
        201: {"headers": LOCATION, "content": {"application/json": {"example": A_USER}}},
        **documented(*CHANGING, "user_exists"),
    },
    openapi_extra=request_body(json_content(UserRequest, {"an operator of one camera": A_USER_REQUEST})),
)
def create_user(
    context: CurrentContext,
    principal: Annotated[Principal, may("accounts")],
    asked: Annotated[UserRequest, Depends(read_user)],
    response: Response,
) -> UserResponse:
    """Add a user. Tell them the password by another way, and have them change it."""
    access.refuse_weak(asked.name, asked.password)
    hashed = credentials.hash_password(asked.password)
    with transaction(context.database.engine) as session:
        user = access.create_user(session, principal.actor, asked.name, hashed, asked.roles, asked.cameras)
    response.headers["Location"] = f"/api/v1/users/{user.id}"
    return UserResponse(**vars(user))


@router.get(
    "/{user_id}",
    responses={200: {"content": {"application/json": {"example": A_USER}}}, **documented("not_found")},
)
def get_user(context: CurrentContext, principal: Annotated[Principal, may("accounts")], user_id: UUID) -> UserResponse:
    """One user."""
    with transaction(context.database.engine) as session:
        user = accounts.user_by_id(session, user_id)
    if user is None:
        raise NotFound(f"There is no user {user_id}.")
    return UserResponse(**vars(user))


@router.patch(
    "/{user_id}",
    responses={
        200: {"content": {"application/json": {"example": A_USER}}},
        **documented(*CHANGING, "not_found", "last_admin"),
    },
    openapi_extra=request_body(json_content(UserChange, CHANGES)),
)
def change_user(
    context: CurrentContext,
    principal: Annotated[Principal, may("accounts")],
    user_id: UUID,
    asked: Annotated[UserChange, Depends(read_change)],
) -> UserResponse:
    """Change roles or cameras, reset the password, disable or enable. It holds from the next request on.

    A new password and disabling end all sessions of the user; disabling also revokes the API keys they made.
    """
    changes: dict[str, Any] = {name: getattr(asked, name) for name in asked.model_fields_set}
    if "password" in changes:
        changes["password_hash"] = credentials.hash_password(changes.pop("password"))
    with transaction(context.database.engine) as session:
        return UserResponse(**vars(access.change_user(session, principal.actor, user_id, changes)))
