"""Cameras: the names images refer to. A camera outside the caller's scope is as if absent."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request

from indexer import audit, cameras, gallery
from indexer.database import transaction
from service.context import CurrentContext
from service.errors import documented
from service.principals import Principal, may
from service.routes.bodies import json_content, read_json, request_body
from service.schemas import CameraChanges, CameraList, CameraRequest, CameraResponse

router = APIRouter(prefix="/api/v1/cameras", tags=["cameras"])
Reader = Annotated[Principal, may("search", "view", "ingest", "configure")]

EXAMPLE_CAMERA = {"id": "station-north", "name": "North entrance", "site": "Station"}
EXAMPLE_ANSWER = {**EXAMPLE_CAMERA, "created_at": "2026-09-01T12:00:00Z", "images": 1240}
ONE: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {"example": EXAMPLE_ANSWER}}}}
ACCESS = ("unauthenticated", "forbidden")

CameraPath = Annotated[str, Path(min_length=1, max_length=gallery.MAX_NAME, examples=["station-north"])]


async def read_camera(request: Request) -> CameraRequest:
    return await read_json(request, CameraRequest)


async def read_changes(request: Request) -> CameraChanges:
    return await read_json(request, CameraChanges)


@router.get(
    "",
    responses={
        200: {"content": {"application/json": {"example": {"cameras": [EXAMPLE_ANSWER]}}}},
        **documented(*ACCESS, "database_unavailable"),
    },
)
def list_cameras(context: CurrentContext, principal: Reader) -> CameraList:
    """The cameras in the scope of the caller, by id, and how many images each has."""
    with transaction(context.database.engine) as session:
        found = cameras.cameras(session, principal.cameras)
    return CameraList(cameras=[CameraResponse(**vars(camera)) for camera in found])


@router.post(
    "",
    status_code=201,
    responses={
        201: {"content": {"application/json": {"example": {**EXAMPLE_ANSWER, "images": 0}}}},
        **documented(
            *ACCESS,
            "cross_origin",
            "camera_exists",
            "body_too_large",
            "unsupported_media_type",
            "database_unavailable",
        ),
    },
    openapi_extra=request_body(json_content(CameraRequest, {"a camera": EXAMPLE_CAMERA})),
)
def add_camera(
    context: CurrentContext,
    principal: Annotated[Principal, may("configure")],
    camera: Annotated[CameraRequest, Depends(read_camera)],
) -> CameraResponse:
    """Add a camera, so that images and filters can name it."""
    with transaction(context.database.engine) as session:
        added = gallery.add_camera(session, camera.id, camera.name, camera.site)
        audit.record(session, principal.actor, "camera.create", ("camera", camera.id))
    return CameraResponse(**vars(added), images=0)


@router.get("/{camera_id:path}", responses={**ONE, **documented(*ACCESS, "not_found", "database_unavailable")})
def get_camera(context: CurrentContext, principal: Reader, camera_id: CameraPath) -> CameraResponse:
    """One camera, and how many images it has."""
    with transaction(context.database.engine) as session:
        return CameraResponse(**vars(cameras.camera(session, camera_id, principal.cameras)))


@router.patch(
    "/{camera_id:path}",
    responses={
        **ONE,
        **documented(
            *ACCESS,
            "cross_origin",
            "not_found",
            "body_too_large",
            "unsupported_media_type",
            "database_unavailable",
        ),
    },
    openapi_extra=request_body(json_content(CameraChanges, {"another name": {"name": "North entrance"}})),
)
def change_camera(
    context: CurrentContext,
    principal: Annotated[Principal, may("configure")],
    camera_id: CameraPath,
    changes: Annotated[CameraChanges, Depends(read_changes)],
) -> CameraResponse:
    """Change the name or the site of a camera; its id is what images refer to, and stays."""
    values = changes.model_dump(exclude_unset=True)
    with transaction(context.database.engine) as session:
        changed = cameras.change_camera(session, camera_id, values, principal.cameras)
        audit.record(session, principal.actor, "camera.change", ("camera", camera_id), detail={"fields": [*values]})
    return CameraResponse(**vars(changed))


@router.delete(
    "/{camera_id:path}",
    status_code=204,
    responses=documented(*ACCESS, "cross_origin", "not_found", "camera_in_use", "database_unavailable"),
)
def remove_camera(
    context: CurrentContext, principal: Annotated[Principal, may("configure")], camera_id: CameraPath
) -> None:
    """Remove a camera, with its retention policy. Not while images or a legal hold name it."""
    with transaction(context.database.engine) as session:
        cameras.remove_camera(session, camera_id, principal.cameras)
        audit.record(session, principal.actor, "camera.remove", ("camera", camera_id))
