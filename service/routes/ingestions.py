"""Batch intake: receive an archive, then tell what became of each of its items."""

from __future__ import annotations

import shutil
from typing import IO, Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from indexer import gallery
from indexer.database import transaction
from indexer.errors import NotFound
from indexer.gallery import IngestionRecord
from service.context import Context, CurrentContext
from service.errors import Refusal, documented
from service.operations import refuse_when_full
from service.routes.bodies import FILE, expect, form_content, limited, read_form, request_body
from service.routes.images import LOCATION
from service.schemas import EXAMPLE_ID, IngestionItem, IngestionItems, IngestionResponse, ItemCounts, ItemState

router = APIRouter(prefix="/api/v1/ingestions", tags=["ingestions"])

BUFFER = 1024 * 1024
FORM_OVERHEAD = 64 * 1024
ZIP = {"application/zip": {"schema": FILE}}
ZIP_FORM = form_content(["archive"], {"archive": "(the zip)"}, archive=FILE)

EXAMPLE_INGESTION: dict[str, Any] = {
    "id": EXAMPLE_ID,
    "state": "receiving",
    "source": "zip over HTTP",
    "total": 300,
    "counts": {"pending": 180, "indexed": 115, "duplicate": 3, "rejected": 2, "failed": 0, "removed": 0},
    "done": False,
    "error": None,
    "created_at": "2026-09-02T07:30:00Z",
    "finished_at": None,
}
EXAMPLE_ITEMS = {
    "items": [
        {
            "position": 17,
            "state": "rejected",
            "external_id": "north-000123",
            "file": "north/000123.jpg",
            "image_id": None,
            "code": "unreadable_image",
            "reason": "The file cannot be read as an image: it is damaged or cut short.",
            "pointer": "/file",
        }
    ],
    "next_after": None,
}


@router.post(
    "",
    status_code=202,
    responses={
        202: {
            "description": "Received; read the ingestion to see what becomes of its items",
            "headers": LOCATION,
            "content": {"application/json": {"example": EXAMPLE_INGESTION}},
        },
        **documented(
            "cross_origin",
            "body_too_large",
            "unsupported_media_type",
            "invalid_archive",
            "queue_full",
            "database_unavailable",
            "storage_full",
        ),
    },
    openapi_extra=request_body(ZIP, ZIP_FORM),
)
async def create_ingestion(
    context: CurrentContext, request: Request, response: Response, register_cameras: bool = False
) -> IngestionResponse:
    """Send a zip with `metadata.jsonl` in it: one JSON object a line for each image.

    Faults of the archive's directory are refused at once; a fault of one item rejects that item alone, in the ledger.
    Sending the same archive twice changes nothing. `register_cameras` adds unknown cameras instead of rejecting their
    images.
    """
    kind = expect(request, "application/zip", "multipart/form-data")
    refuse_when_full(context.settings)
    with context.intake.place() as place:
        if kind == "application/zip":
            await receive_stream(request, place.file, context.settings.max_ingestion_bytes)
        else:
            await receive_form(request, place.file, context.settings.max_ingestion_bytes)
        ingestion_id = await run_in_threadpool(place.submit, "zip over HTTP", register_cameras)
    response.headers["Location"] = f"/api/v1/ingestions/{ingestion_id}"
    return await run_in_threadpool(read_ingestion, context, ingestion_id)


async def receive_stream(request: Request, target: IO[bytes], limit: int) -> None:
    buffer = bytearray()
    async for chunk in limited(request, limit):
        buffer += chunk
        if len(buffer) >= BUFFER:
            await run_in_threadpool(target.write, bytes(buffer))
            buffer.clear()
    await run_in_threadpool(target.write, bytes(buffer))


async def receive_form(request: Request, target: IO[bytes], limit: int) -> None:
    async with read_form(request, limit + FORM_OVERHEAD, files=["archive"], texts=[]) as form:
        archive = form.get("archive")
        if not isinstance(archive, UploadFile):
            raise Refusal("invalid_request", "The part 'archive' is missing: send the zip in it.", "/archive")
        await run_in_threadpool(shutil.copyfileobj, archive.file, target, BUFFER)


def read_ingestion(context: Context, ingestion_id: UUID) -> IngestionResponse:
    with transaction(context.database.engine) as session:
        found = existing(gallery.ingestion(session, ingestion_id), ingestion_id)
    return IngestionResponse(
        id=found.id,
        state=found.state,
        source=found.source,
        total=context.intake.total(found.id) if found.total is None else found.total,
        counts=ItemCounts(**vars(found.counts)),
        done=found.state in ("done", "failed") and found.counts.pending == 0,
        error=found.error,
        created_at=found.created_at,
        finished_at=found.finished_at,
    )


def existing(ingestion: IngestionRecord | None, ingestion_id: UUID) -> IngestionRecord:
    if ingestion is None:
        raise NotFound(f"There is no ingestion {ingestion_id}.")
    return ingestion


@router.get(
    "/{ingestion_id}",
    responses={
        200: {"content": {"application/json": {"example": EXAMPLE_INGESTION}}},
        **documented("not_found", "database_unavailable"),
    },
)
def get_ingestion(context: CurrentContext, ingestion_id: UUID) -> IngestionResponse:
    """How far an ingestion is: how many items are in which state."""
    return read_ingestion(context, ingestion_id)


@router.get(
    "/{ingestion_id}/items",
    responses={
        200: {"content": {"application/json": {"example": EXAMPLE_ITEMS}}},
        **documented("not_found", "database_unavailable"),
    },
)
def get_items(
    context: CurrentContext,
    ingestion_id: UUID,
    state: ItemState | None = None,
    after: Annotated[int, Query(ge=-1, lt=2**31, description="Items above this position")] = -1,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> IngestionItems:
    """What became of each item, in the order of the archive."""
    with transaction(context.database.engine) as session:
        existing(gallery.ingestion(session, ingestion_id), ingestion_id)
        found = gallery.ingestion_items(session, ingestion_id, state, after, limit)
    items = [IngestionItem(**vars(item)) for item in found]
    return IngestionItems(items=items, next_after=items[-1].position if len(items) == limit else None)
