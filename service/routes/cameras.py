"""Cameras: the names images refer to."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from indexer import audit, gallery
from indexer.database import transaction
from service.context import CurrentContext
from service.errors import documented
from service.principals import Principal, may
from service.routes.bodies import json_content, read_json, request_body
from service.schemas import CameraList, CameraRequest, CameraResponse

router = APIRouter(prefix="/api/v1/cameras", tags=["cameras"])

EXAMPLE_CAMERA = {"id": "station-north", "name": "North entrance", "site": "Station"}
EXAMPLE_ANSWER = {**EXAMPLE_CAMERA, "created_at": "2026-09-01T12:00:00Z"}


async def read_camera(request: Request) -> CameraRequest:
    return await read_json(request, CameraRequest)


@router.get(
    "",
    responses={
        200: {"content": {"application/json": {"example": {"cameras": [EXAMPLE_ANSWER]}}}},
        **documented("database_unavailable"),
    },
)
def list_cameras(
    context: CurrentContext, principal: Annotated[Principal, may("search", "view", "ingest", "configure")]
) -> CameraList:
    """The cameras in the scope of the caller, by id."""
    with transaction(context.database.engine) as session:
        cameras = gallery.cameras(session, principal.cameras)
    return CameraList(cameras=[CameraResponse(**vars(camera)) for camera in cameras])


@router.post(
    "",
    status_code=201,
    responses={
        201: {"content": {"application/json": {"example": EXAMPLE_ANSWER}}},
        **documented(
            "cross_origin", "camera_exists", "body_too_large", "unsupported_media_type", "database_unavailable"
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
    return CameraResponse(**vars(added))
