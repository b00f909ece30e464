"""Single gallery images: add one, look at it, fetch its pixels, delete it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy.orm import Session

from indexer import audit, gallery
from indexer.changes import version
from indexer.database import transaction
from indexer.errors import NotFound
from indexer.gallery import Added, ImageRecord
from indexer.images import MEDIA_TYPES, THUMBNAIL_MEDIA_TYPE
from indexer.intake import ingest_one
from indexer.metadata import ItemMetadata, parse_metadata
from indexer.traces import Selection
from service.context import CurrentContext, current
from service.errors import Refusal, documented
from service.operations import refuse_when_full
from service.principals import Principal, may
from service.results import content_path
from service.routes.bodies import FILE, expect, file_part, form_content, read_form, request_body, schema_of, text_part
from service.schemas import EXAMPLE_ID, ImageMetadata, ImageResponse

router = APIRouter(prefix="/api/v1/images", tags=["images"])

EXAMPLE_METADATA = {"camera_id": "station-north", "captured_at": "2026-09-01T18:04:11+02:00", "tags": ["platform"]}
UPLOAD = form_content(
    ["image"], {"image": "(the file)", "metadata": EXAMPLE_METADATA}, image=FILE, metadata=schema_of(ImageMetadata)
)
EXAMPLE_IMAGE: dict[str, Any] = {
    "id": EXAMPLE_ID,
    "state": "indexed",
    "error": None,
    "external_id": "north-000123",
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "width": 128,
    "height": 384,
    "format": "JPEG",
    "byte_size": 18734,
    "camera_id": "station-north",
    "captured_at": "2026-09-01T16:04:11Z",
    "track_id": "north-17",
    "identity": None,
    "tags": ["platform"],
    "attributes": {},
    "created_at": "2026-09-02T07:30:00Z",
    "content": f"/api/v1/images/{EXAMPLE_ID}/content?variant=full",
    "thumbnail": f"/api/v1/images/{EXAMPLE_ID}/content?variant=thumb",
    "duplicate": False,
}
ACCESS = ("unauthenticated", "forbidden")
ETAG = {"ETag": {"description": "Names this version of what is known about the image", "schema": {"type": "string"}}}
LOCATION = {"Location": {"description": "Path of the new resource", "schema": {"type": "string"}}}


@dataclass(frozen=True)
class Upload:
    """One image as it was sent."""

    data: bytes
    metadata: ItemMetadata

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


async def read_upload(request: Request) -> AsyncIterator[Upload]:
    expect(request, "multipart/form-data")
    limit = current(request).settings.max_upload_bytes
    async with read_form(request, limit, files=["image"], texts=["metadata"]) as form:
        data = await file_part(form, "image")
        if data is None:
            raise Refusal("invalid_request", "The part 'image' is missing: send the image file in it.", "/image")
        text = await text_part(form, "metadata")
        yield Upload(data, checked_metadata(text) if text is not None else ItemMetadata())


def checked_metadata(text: str) -> ItemMetadata:
    """The part `metadata`, by the same rules as a line of metadata.jsonl."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refusal("malformed", f"The part 'metadata' is not valid JSON: {error}.") from error
    if not isinstance(line, dict):
        raise Refusal("invalid_metadata", "The part 'metadata' must be a JSON object.", "/metadata")
    for name in ("file", "path"):
        if name in line:
            sentence = f"The field {name!r} is for archives; here the part 'image' is the file."
            raise Refusal("invalid_metadata", sentence, f"/{name}")
    return parse_metadata(line)


def etag(image: ImageRecord) -> str:
    """The ETag of what is known about an image."""
    return f'"{version(image)}"'


def described(image: ImageRecord, *, duplicate: bool = False) -> ImageResponse:
    columns = {name: getattr(image, name) for name in ImageResponse.model_fields if hasattr(image, name)}
    paths = {"content": content_path(image.id), "thumbnail": content_path(image.id, "thumb")}
    return ImageResponse(**columns, **paths, duplicate=duplicate)


@router.post(
    "",
    status_code=201,
    responses={
        201: {
            "description": "Added; searchable as soon as it is embedded",
            "headers": {**LOCATION, **ETAG},
            "content": {"application/json": {"example": {**EXAMPLE_IMAGE, "state": "pending"}}},
        },
        200: {
            "description": "This image was there already; nothing changed",
            "model": ImageResponse,
            "headers": {**LOCATION, **ETAG},
            "content": {"application/json": {"example": {**EXAMPLE_IMAGE, "duplicate": True}}},
        },
        **documented(
            *ACCESS,
            "cross_origin",
            "external_id_conflict",
            "body_too_large",
            "image_too_large",
            "unsupported_media_type",
            "unsupported_image",
            "unreadable_image",
            "image_too_small",
            "invalid_metadata",
            "time_without_zone",
            "unknown_camera",
            "database_unavailable",
            "storage_full",
        ),
    },
    openapi_extra=request_body(UPLOAD),
)
def add_image(
    context: CurrentContext,
    principal: Annotated[Principal, may("ingest")],
    upload: Annotated[Upload, Depends(read_upload)],
    response: Response,
) -> ImageResponse:
    """Add one image. It can be found as soon as the worker has embedded it."""
    refuse_when_full(context.settings)

    def record(session: Session, added: Added) -> None:
        told = {"duplicate": added.duplicate}
        audit.record(session, principal.actor, "image.add", ("image", str(added.image_id)), detail=told)

    arguments = (context.database, context.store, upload.data, upload.metadata)
    added = ingest_one(*arguments, limits=context.settings, scope=principal.cameras, also=record)
    context.metrics.ingested({"duplicate" if added.duplicate else "accepted": 1})
    with transaction(context.database.engine) as session:
        image = existing(gallery.image_by_id(session, added.image_id, principal.cameras), added.image_id)
    response.status_code = 200 if added.duplicate else 201
    response.headers["Location"] = f"/api/v1/images/{added.image_id}"
    response.headers["ETag"] = etag(image)
    return described(image, duplicate=added.duplicate)


def existing(image: ImageRecord | None, image_id: UUID) -> ImageRecord:
    if image is None:
        raise NotFound(f"There is no image {image_id}.")
    return image


@router.get(
    "/{image_id}",
    responses={
        200: {"headers": ETAG, "content": {"application/json": {"example": EXAMPLE_IMAGE}}},
        **documented(*ACCESS, "not_found", "database_unavailable"),
    },
)
def get_image(
    context: CurrentContext, principal: Annotated[Principal, may("view")], image_id: UUID, response: Response
) -> ImageResponse:
    """What is known about one image, and whether it is searchable yet."""
    with transaction(context.database.engine) as session:
        image = existing(gallery.image_by_id(session, image_id, principal.cameras), image_id)
    response.headers["ETag"] = etag(image)
    return described(image)


@router.delete(
    "/{image_id}",
    status_code=204,
    responses=documented(*ACCESS, "cross_origin", "not_found", "legal_hold", "database_unavailable"),
)
def delete_image(context: CurrentContext, principal: Annotated[Principal, may("erase")], image_id: UUID) -> None:
    """Delete one image for good, as an erasure: row, embeddings, file and thumbnail. It vanishes from searches at once.

    Not while it is under legal hold.
    """
    with transaction(context.database.engine) as session:
        existing(gallery.image_by_id(session, image_id, principal.cameras), image_id)
    about = ("image", str(image_id))
    context.eraser.erase(Selection(image_ids=(image_id,)), "Deleted by its id.", principal.actor, about)


@router.get(
    "/{image_id}/content",
    response_class=Response,
    responses={
        200: {
            "description": "The file as it was added, or a small WebP of it",
            "headers": {"ETag": {"description": "The sha256 of the original file", "schema": {"type": "string"}}},
            "content": {
                media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in MEDIA_TYPES.values()
            },
        },
        304: {"description": "Not changed since the ETag in If-None-Match"},
        **documented(*ACCESS, "not_found", "database_unavailable"),
    },
)
def get_content(
    context: CurrentContext,
    principal: Annotated[Principal, may("view")],
    request: Request,
    image_id: UUID,
    variant: Literal["full", "thumb"] = "full",
) -> Response:
    """The pixels of one image. Caches must not keep them: a deleted image has to be gone.

    Each look at a full image is in the audit; thumbnails come with the search that is there already.
    """
    with transaction(context.database.engine) as session:
        image = existing(gallery.image_by_id(session, image_id, principal.cameras), image_id)
    headers = {"ETag": f'"{image.sha256}"', "Cache-Control": "private, no-store"}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if variant == "thumb":
        with transaction(context.database.engine) as session:
            gallery.hold_file(session, image.sha256)  # an erasure waits, or was here before: it must leave no thumbnail
            existing(gallery.image_by_id(session, image_id, principal.cameras), image_id)
            small = context.store.thumbnail(image.sha256)
        return Response(small, media_type=THUMBNAIL_MEDIA_TYPE, headers=headers)
    try:
        data = context.store.path(image.sha256).read_bytes()
    except FileNotFoundError as error:
        raise NotFound("The image's file is missing from the store. Send the image again.") from error
    with transaction(context.database.engine) as session:
        audit.record(session, principal.actor, "image.view", ("image", str(image_id)))
    return Response(data, media_type=MEDIA_TYPES[image.format], headers=headers)
