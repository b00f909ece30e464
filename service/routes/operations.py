"""For whoever runs the service: is it alive, is it ready, what is it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import APIRouter, Request, Response

from service.context import CurrentContext
from service.errors import RETRY_AFTER_SECONDS, documented
from service.operations import ReadinessProbe
from service.schemas import Liveness, Readiness, Version

router = APIRouter(tags=["operations"])

READY = {
    "ready": True,
    "checks": [
        {
            "name": "schema",
            "ok": True,
            "required": True,
            "detail": "The database answers and its schema is current.",
        },
        {"name": "index", "ok": True, "required": True, "detail": "The index has all 300 vectors."},
        {"name": "worker", "ok": True, "required": False, "detail": "1 worker is connected, 0 images wait."},
    ],
}
NOT_READY = {
    "ready": False,
    "checks": [
        {"name": "index", "ok": False, "required": True, "detail": "The index has 280 vectors, the database 300."}
    ],
}


ALIVE = {"alive": True}
RUNNING = {
    "name": "person-search",
    "version": "0.1.0",
    "api": "v1",
    "checkpoint_id": "3f2a9c51d07be846",
    "net": "axm_net",
    "has_text": True,
}


def answered(example: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {"application/json": {"example": example}}}, **documented(public=True)}


def own_version() -> str:
    try:
        return version("person-search")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0+unknown"


@router.get("/livez", responses=answered(ALIVE))
async def livez() -> Liveness:
    """The process turns. Says nothing about the database."""
    return Liveness()


@router.get(
    "/readyz",
    responses={
        200: {"content": {"application/json": {"example": READY}}},
        503: {
            "model": Readiness,
            "description": "At least one check fails",
            "headers": {"Retry-After": {"description": "Seconds", "schema": {"type": "string"}}},
            "content": {"application/json": {"example": NOT_READY}},
        },
        **documented(public=True),
    },
)
def readyz(request: Request, response: Response) -> Readiness:
    """Whether searches are answered, and answered fully; each check by name.

    A check that is not `required` is information, and passes or fails without making the service unready.
    """
    state = request.app.state
    probe: ReadinessProbe = state.readiness
    found = probe.answer(state.context, state.stopping)
    if not found.ready:
        response.status_code = 503
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS["not_ready"])
    return found


@router.get("/version", responses=answered(RUNNING))
def get_version(context: CurrentContext) -> Version:
    """Which program and which checkpoint answer here."""
    live = context.replica.state
    return Version(
        name="person-search",
        version=own_version(),
        api="v1",
        checkpoint_id=live.checkpoint_id,
        net=live.encoder.info.get("net"),
        has_text=live.encoder.has_text,
    )
