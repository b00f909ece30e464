"""The first start: whoever holds the link that `serve` printed creates the first user, once."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from service.access import address_of
from service.access_schemas import A_SETUP, A_USER, SetupRequest, UserResponse
from service.context import CurrentContext
from service.errors import documented
from service.routes.bodies import json_content, read_json, request_body

router = APIRouter(prefix="/api/v1/setup", tags=["access"])

EXAMPLE = {**A_USER, "name": "kim", "roles": ["admin"], "cameras": None}


async def read_setup(request: Request) -> SetupRequest:
    return await read_json(request, SetupRequest)


@router.post(
    "",
    status_code=201,
    responses={
        201: {"description": "Created; sign in now", "content": {"application/json": {"example": EXAMPLE}}},
        **documented(
            "cross_origin",
            "setup_refused",
            "body_too_large",
            "unsupported_media_type",
            "rate_limited",
            "database_unavailable",
            public=True,
        ),
    },
    openapi_extra=request_body(json_content(SetupRequest, {"the first user": A_SETUP})),
)
def set_up(
    context: CurrentContext, asked: Annotated[SetupRequest, Depends(read_setup)], request: Request
) -> UserResponse:
    """Create the first user, an admin, with the one-time token of the set-up link. Later ones are made at /users."""
    return UserResponse(**vars(context.access.set_up(asked.token, asked.name, asked.password, address_of(request))))
