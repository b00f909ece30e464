"""The caller's own session: sign in, who am I, change the password, sign out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from service import credentials
from service.access import COOKIE, address_of
from service.access_schemas import A_PASSWORD, A_SESSION, A_SIGN_IN, PasswordRequest, SessionResponse, SignInRequest
from service.context import CurrentContext
from service.errors import Refusal, documented
from service.principals import Principal, may
from service.routes.bodies import json_content, read_json, request_body

router = APIRouter(prefix="/api/v1/session", tags=["access"])

WITH_BODY = ("cross_origin", "body_too_large", "unsupported_media_type")


async def read_sign_in(request: Request) -> SignInRequest:
    return await read_json(request, SignInRequest)


async def read_password(request: Request) -> PasswordRequest:
    return await read_json(request, PasswordRequest)


def described(principal: Principal, token: str | None) -> SessionResponse:
    return SessionResponse(
        id=principal.id,
        name=principal.name,
        kind=principal.kind,
        roles=sorted(principal.roles),
        permissions=sorted(principal.permissions),
        cameras=None if principal.cameras is None else sorted(principal.cameras),
        csrf_token=credentials.csrf_of(token) if token is not None else None,
    )


def token_of(principal: Principal, request: Request) -> str:
    """The session's token. Raises Refusal for those who have no session."""
    if principal.kind != "user":
        raise Refusal("forbidden", "This is about a session, and an API key or an open service has none.")
    return request.cookies[COOKIE]


@router.post(
    "",
    status_code=201,
    responses={
        201: {
            "description": "Signed in; the cookie is set",
            "headers": {"Set-Cookie": {"description": "HttpOnly, SameSite=Strict", "schema": {"type": "string"}}},
            "content": {"application/json": {"example": A_SESSION}},
        },
        **documented(*WITH_BODY, "unauthenticated", "rate_limited", "database_unavailable", public=True),
    },
    openapi_extra=request_body(json_content(SignInRequest, {"name and password": A_SIGN_IN})),
)
def sign_in(
    context: CurrentContext,
    asked: Annotated[SignInRequest, Depends(read_sign_in)],
    request: Request,
    response: Response,
) -> SessionResponse:
    """Begin a session with name and password: a cookie for the browser, a CSRF token for the page.

    After repeated failures a name and an address have to wait, longer each time.
    """
    begun = context.access.sign_in(asked.name, asked.password, address_of(request))
    response.set_cookie(
        COOKIE,
        begun.token,
        max_age=int(context.access.lasts.total_seconds()),
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return described(begun.principal, begun.token)


@router.get("", responses={200: {"content": {"application/json": {"example": A_SESSION}}}, **documented()})
def get_session(principal: Annotated[Principal, may()], request: Request) -> SessionResponse:
    """Who the caller is, by session or API key, and what they may do."""
    return described(principal, token_of(principal, request) if principal.kind == "user" else None)


@router.delete("", status_code=204, responses=documented("cross_origin"))
def sign_out(
    context: CurrentContext, principal: Annotated[Principal, may()], request: Request, response: Response
) -> None:
    """End the session, here and wherever else its cookie may be."""
    context.access.sign_out(principal, token_of(principal, request))
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")


@router.put(
    "/password",
    status_code=204,
    responses=documented(*WITH_BODY),
    openapi_extra=request_body(json_content(PasswordRequest, {"a new password": A_PASSWORD})),
)
def change_password(
    context: CurrentContext,
    principal: Annotated[Principal, may()],
    asked: Annotated[PasswordRequest, Depends(read_password)],
    request: Request,
) -> None:
    """Change the own password, which takes the current one. All other sessions of the user end."""
    token = token_of(principal, request)
    context.access.change_password(principal, token, asked.current_password, asked.new_password, address_of(request))
