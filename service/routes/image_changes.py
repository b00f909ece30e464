"""What is known about an image changed, an image kept in step with another system, and what was seen around it.

A change says which version it is of: the ETag of the image it was decided on, in If-Match.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from sqlalchemy.orm import Session

from indexer import audit, changes, gallery
from indexer.changes import version
from indexer.database import transaction
from indexer.errors import Changed
from indexer.gallery import MAX_NAME, Added, ImageRecord
from indexer.images import decode
from indexer.intake import ingest_one
from indexer.metadata import ItemMetadata, parse_metadata
from indexer.traces import Selection
from service.context import Context, CurrentContext
from service.errors import Refusal, documented
from service.operations import refuse_when_full
from service.principals import Principal, may
from service.routes.bodies import JSON_LIMIT, expect, json_content, limited, parse, request_body
from service.routes.images import (
    ACCESS,
    ETAG,
    EXAMPLE_IMAGE,
    LOCATION,
    UPLOAD,
    Upload,
    described,
    etag,
    existing,
    read_upload,
)
from service.schemas import ImageChanges, ImageResponse, NeighbourImage, Neighbours

router = APIRouter(prefix="/api/v1/images", tags=["images"])

EXAMPLES = {
    "an identity, and no track": {"identity": "visitor-17", "track_id": None},
    "tags": {"tags": ["platform", "checked"]},
}
IfMatch = Annotated[str | None, Header(alias="If-Match", description="ETag of the version to change; * for any")]


@dataclass(frozen=True)
class Change:
    """Fields that were sent, and their values as columns."""

    values: dict[str, Any]


async def read_change(request: Request) -> Change:
    expect(request, "application/json")
    data = b"".join([chunk async for chunk in limited(request, JSON_LIMIT)])
    parse(ImageChanges, data)
    line = json.loads(data)
    return Change(columns(parse_metadata(line), line))


def columns(metadata: ItemMetadata, names: Any) -> dict[str, Any]:
    """The columns of an image that these fields are."""
    values = {name: getattr(metadata, name) for name in changes.KNOWN if name in names}
    return values | ({"tags": list(metadata.tags)} if "tags" in values else {})


def versions(if_match: str) -> frozenset[str] | None:
    """The versions that If-Match names; None for any."""
    return None if if_match.strip() == "*" else frozenset(re.findall(r'(?<!W/)"([^"]*)"', if_match))


@router.patch(
    "/{image_id}",
    responses={
        200: {"headers": ETAG, "content": {"application/json": {"example": EXAMPLE_IMAGE}}},
        **documented(
            *ACCESS,
            "cross_origin",
            "not_found",
            "external_id_conflict",
            "duplicate_content",
            "precondition_failed",
            "precondition_required",
            "body_too_large",
            "unsupported_media_type",
            "invalid_metadata",
            "time_without_zone",
            "unknown_camera",
            "legal_hold",
            "database_unavailable",
        ),
    },
    openapi_extra=request_body(json_content(ImageChanges, EXAMPLES)),
)
def change_image(
    context: CurrentContext,
    principal: Annotated[Principal, may("ingest")],
    image_id: UUID,
    change: Annotated[Change, Depends(read_change)],
    response: Response,
    if_match: IfMatch = None,
) -> ImageResponse:
    """Change what is known about an image. Who, where and when stay as they are while it is under legal hold.

    Searches find it by its new metadata at once. `If-Match` says which version the change was decided on.
    """
    if if_match is None:
        raise Refusal("precondition_required", "Send If-Match with the ETag of the image as you saw it, or `*`.")
    with transaction(context.database.engine) as session:
        image, _ = changed(session, principal, image_id, change.values, versions(if_match))
    response.headers["ETag"] = etag(image)
    return described(image)


def changed(
    session: Session, principal: Principal, id: UUID, values: dict[str, Any], seen: frozenset[str] | None = None
) -> tuple[ImageRecord, bool]:
    """The image as it is after these changes, and whether they made any, which the audit then has."""
    image, changed = changes.change_image(session, id, values, principal.cameras, seen)
    if changed:
        detail = {"fields": sorted(values)}
        audit.record(session, principal.actor, "image.change", ("image", str(id)), detail=detail)
    return image, changed


# ---------------------------------------------------------------------------------------------------- by external id


@router.put(
    "/by-external-id/{external_id:path}",
    responses={
        200: {
            "description": "It was there: as sent now, or it was so already",
            "headers": {**LOCATION, **ETAG},
            "content": {"application/json": {"example": {**EXAMPLE_IMAGE, "duplicate": True}}},
        },
        201: {
            "description": "Added, or added in the place of another file; searchable as soon as it is embedded",
            "model": ImageResponse,
            "headers": {**LOCATION, **ETAG},
            "content": {"application/json": {"example": {**EXAMPLE_IMAGE, "state": "pending"}}},
        },
        **documented(
            *ACCESS,
            "cross_origin",
            "external_id_conflict",
            "duplicate_content",
            "precondition_failed",
            "body_too_large",
            "image_too_large",
            "unsupported_media_type",
            "unsupported_image",
            "unreadable_image",
            "image_too_small",
            "invalid_metadata",
            "time_without_zone",
            "unknown_camera",
            "legal_hold",
            "database_unavailable",
            "storage_full",
        ),
    },
    openapi_extra=request_body(UPLOAD),
)
def put_image(
    context: CurrentContext,
    principal: Annotated[Principal, may("ingest")],
    external_id: Annotated[str, Path(min_length=1, max_length=MAX_NAME, examples=["north-000123"])],
    upload: Annotated[Upload, Depends(read_upload)],
    response: Response,
    if_match: IfMatch = None,
    if_none_match: Annotated[str | None, Header(alias="If-None-Match", description="*: only add")] = None,
) -> ImageResponse:
    """Make the image of this external id what is sent, whatever was there. Sending it again changes nothing.

    Metadata that is left out is unknown afterwards. Another file than before is another image, with another id: the
    one before is erased, which needs the permission to erase, and is refused under legal hold.
    """
    refuse_when_full(context.settings)
    scope, metadata = principal.cameras, of_external_id(external_id, upload)
    changes.refuse_outside(scope, metadata.camera_id)
    with transaction(context.database.engine) as session:
        before = changes.by_external_id(session, external_id, scope)
    if before is not None and if_none_match is not None:
        raise Changed(f"There is an image {external_id!r} already, and nothing was changed.")
    seen = None if if_match is None else versions(if_match)
    if if_match is not None and (before is None or (seen is not None and version(before) not in seen)):
        raise Changed(f"The image {external_id!r} is not as you saw it any more, and nothing was changed.")

    if before is not None and before.sha256 == upload.sha256:
        with transaction(context.database.engine) as session:
            image, anew = changed(session, principal, before.id, columns(metadata, changes.KNOWN), seen)
        answer = described(image, duplicate=not anew)
    else:
        if before is not None:
            erase_replaced(context, principal, before, upload, metadata)
        image = add(context, principal, upload, metadata)
        response.status_code = 201
        answer = described(image)
    response.headers["Location"] = f"/api/v1/images/{image.id}"
    response.headers["ETag"] = etag(image)
    return answer


def of_external_id(external_id: str, upload: Upload) -> ItemMetadata:
    """The metadata that was sent, with the external id of the address. Raises Refusal, `InvalidMetadata`."""
    named = parse_metadata({"external_id": external_id})
    if upload.metadata.external_id not in (None, external_id):
        raise Refusal("invalid_metadata", "The external id is in the address already; leave it out.", "/external_id")
    if upload.metadata.sha256 not in (None, upload.sha256):
        raise Refusal("invalid_metadata", "The sha256 is not that of the bytes received. Send it again.", "/sha256")
    return replace(upload.metadata, external_id=named.external_id)


def erase_replaced(
    context: Context, principal: Principal, image: ImageRecord, upload: Upload, metadata: ItemMetadata
) -> None:
    """Erase the image whose external id another file is to have, if that can be added. Raises Refusal, GalleryError."""
    if "erase" not in principal.permissions:
        sentence = "This external id has another file. Replacing it erases that one: your roles do not include that."
        raise Refusal("forbidden", sentence)
    decode(upload.data, context.settings)
    with transaction(context.database.engine) as session:
        changes.refuse_double(session, upload.sha256, metadata.camera_id, metadata.captured_at, image.id)
    context.eraser.erase(Selection(image_ids=(image.id,)), "Replaced by another file of its external id.")


def add(context: Context, principal: Principal, upload: Upload, metadata: ItemMetadata) -> ImageRecord:
    def record(session: Session, added: Added) -> None:
        if not added.duplicate:
            audit.record(session, principal.actor, "image.add", ("image", str(added.image_id)))
            return
        there = changes.by_external_id(session, str(metadata.external_id), principal.cameras)
        if there is None or there.id != added.image_id:
            raise changes.double(added.image_id)
        changed(session, principal, added.image_id, columns(metadata, changes.KNOWN))  # two sent it at once

    settings = context.settings
    added = ingest_one(context.database, context.store, upload.data, metadata, limits=settings, also=record)
    with transaction(context.database.engine) as session:
        return existing(gallery.image_by_id(session, added.image_id, principal.cameras), added.image_id)


# -------------------------------------------------------------------------------------------------------- neighbours


@router.get(
    "/{image_id}/neighbours",
    responses={
        200: {
            "content": {
                "application/json": {"example": {"images": [{**EXAMPLE_IMAGE, "seconds": -4.5}], "complete": True}}
            }
        },
        **documented(*ACCESS, "not_found", "database_unavailable"),
    },
)
def get_neighbours(
    context: CurrentContext,
    principal: Annotated[Principal, may("view")],
    image_id: UUID,
    seconds: Annotated[float, Query(ge=0, le=86_400, allow_inf_nan=False, description="Before and after")] = 60,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Neighbours:
    """What the same camera took around this image, in the order of time; nothing if its camera or time is not known."""
    with transaction(context.database.engine) as session:
        found = changes.around(session, image_id, seconds, limit, principal.cameras)
    return Neighbours(
        images=[
            NeighbourImage(**described(image).model_dump(), seconds=apart)
            for image, apart in zip(found.images, found.seconds, strict=True)
        ],
        complete=found.complete,
    )
