"""Batch intake: receive a delivery of images, tell what became of each of its items, stop it, try failed ones again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from indexer import audit, gallery
from indexer.database import transaction
from indexer.errors import DatabaseUnavailable, NotFound
from indexer.gallery import IngestionRecord
from service.context import Context, CurrentContext
from service.errors import documented
from service.operations import refuse_when_full
from service.principals import Principal, may
from service.progress import Pace
from service.routes.bodies import request_body
from service.routes.deliveries import CONTENTS, receive
from service.routes.images import LOCATION
from service.schemas import (
    EXAMPLE_ID,
    IngestionItem,
    IngestionItems,
    IngestionProgress,
    IngestionResponse,
    ItemCounts,
    ItemState,
)

router = APIRouter(prefix="/api/v1/ingestions", tags=["ingestions"])

Follower = Annotated[Principal, may("ingest", "configure")]

HEARTBEAT_SECONDS = 15.0  # between two signs of life on a stream of events: proxies cut silent connections

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


EVENT = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": ["progress", "done"]},
        "data": {"type": "string", "description": "An IngestionProgress as JSON"},
    },
    "required": ["event", "data"],
}
EXAMPLE_EVENTS = """\
event: progress
data: {"id": "0199a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b", "state": "receiving", ..., "rate": 41.5, "seconds_left": 4.3}

: still here

event: done
data: {"id": "0199a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b", "state": "done", ..., "rate": 41.2, "seconds_left": 0.0}

"""


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
            "idempotency_conflict",
            "queue_full",
            "database_unavailable",
            "storage_full",
        ),
    },
    openapi_extra=request_body(*CONTENTS),
)
async def create_ingestion(
    context: CurrentContext,
    principal: Annotated[Principal, may("ingest")],
    request: Request,
    response: Response,
    register_cameras: bool = False,
    idempotency_key: Annotated[
        str | None,
        Header(min_length=1, max_length=255, description="Sent again within 24 hours, it gets the same ingestion"),
    ] = None,
) -> IngestionResponse:
    """Send images in bulk, in one of four forms; each is described by one JSON object a line.

    A zip or a tar (also gzipped) with `metadata.jsonl` in it, raw or as the form part `archive`; a form with the part
    `manifest` and its files as parts `files`; a JSON body that names a manifest this service can read; or, as
    `application/x-ndjson`, lines about images that are there already, by their `external_id`.

    Faults of the whole are refused at once; a fault of one item rejects that item alone, in the ledger. Sending the
    same twice changes nothing. `register_cameras` adds unknown cameras instead of rejecting their images.
    """
    refuse_when_full(context.settings)
    with context.intake.place() as place:
        delivery = await receive(request, place.spool, context.settings)
        arguments = (place, delivery, register_cameras, idempotency_key, principal)
        ingestion_id = await run_in_threadpool(context.intake.submit, *arguments)
    response.headers["Location"] = f"/api/v1/ingestions/{ingestion_id}"
    return await run_in_threadpool(read_ingestion, context, ingestion_id)


def read_ingestion(context: Context, ingestion_id: UUID) -> IngestionResponse:
    with transaction(context.database.engine) as session:
        found = existing(gallery.ingestion(session, ingestion_id), ingestion_id)
    return IngestionResponse(
        id=found.id,
        state=found.state,
        source=found.source,
        total=context.intake.total(found.id) if found.total is None else found.total,
        counts=ItemCounts(**vars(found.counts)),
        done=found.state in ("done", "failed", "cancelled") and found.counts.pending == 0,
        error=found.error,
        created_at=found.created_at,
        finished_at=found.finished_at,
    )


def existing(ingestion: IngestionRecord | None, ingestion_id: UUID) -> IngestionRecord:
    if ingestion is None:
        raise NotFound(f"There is no ingestion {ingestion_id}.")
    return ingestion


def own(session: Session, ingestion_id: UUID, principal: Principal) -> None:
    """Raises NotFound also for a delivery of somebody else, unless the caller looks after all of them."""
    found = existing(gallery.ingestion(session, ingestion_id), ingestion_id)
    if found.principal_id != principal.id and "configure" not in principal.permissions:
        raise NotFound(f"There is no ingestion {ingestion_id}.")


@router.get(
    "/{ingestion_id}",
    responses={
        200: {"content": {"application/json": {"example": EXAMPLE_INGESTION}}},
        **documented("not_found", "database_unavailable"),
    },
)
def get_ingestion(context: CurrentContext, principal: Follower, ingestion_id: UUID) -> IngestionResponse:
    """How far an ingestion is: how many items are in which state. Deliveries of others are for an admin alone."""
    with transaction(context.database.engine) as session:
        own(session, ingestion_id, principal)
    return read_ingestion(context, ingestion_id)


@router.post(
    "/{ingestion_id}/retry",
    status_code=202,
    responses={
        202: {
            "description": "The failed images are embedded again",
            "content": {"application/json": {"example": EXAMPLE_INGESTION}},
        },
        **documented("cross_origin", "not_found", "nothing_to_retry", "database_unavailable"),
    },
)
def retry_ingestion(context: CurrentContext, principal: Follower, ingestion_id: UUID) -> IngestionResponse:
    """Try the images that failed to be embedded once more. What was rejected has to be corrected and sent again."""
    with transaction(context.database.engine) as session:
        own(session, ingestion_id, principal)
        gallery.retry_failed(session, ingestion_id)
        audit.record(session, principal.actor, "ingestion.retry", ("ingestion", str(ingestion_id)))
    return read_ingestion(context, ingestion_id)


@router.post(
    "/{ingestion_id}/cancel",
    responses={
        200: {"content": {"application/json": {"example": {**EXAMPLE_INGESTION, "state": "cancelled"}}}},
        **documented("cross_origin", "not_found", "ingestion_finished", "database_unavailable"),
    },
)
def cancel_ingestion(context: CurrentContext, principal: Follower, ingestion_id: UUID) -> IngestionResponse:
    """Stop an ingestion that waits or is being read. What is in already stays; nothing more comes in."""
    with transaction(context.database.engine) as session:
        own(session, ingestion_id, principal)
        gallery.cancel_ingestion(session, ingestion_id)
        audit.record(session, principal.actor, "ingestion.cancel", ("ingestion", str(ingestion_id)))
    return read_ingestion(context, ingestion_id)


@router.get(
    "/{ingestion_id}/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "`progress` whenever a count changes, `done` at the end, a comment in between",
            "content": {"text/event-stream": {"schema": EVENT, "example": EXAMPLE_EVENTS}},
        },
        **documented("not_found", "database_unavailable"),
    },
)
async def get_events(context: CurrentContext, principal: Follower, ingestion_id: UUID) -> Response:
    """How far an ingestion is, told as it goes on (Server-Sent Events). The data of each event is an
    `IngestionProgress`: the ingestion, with its rate and the time left."""
    await run_in_threadpool(get_ingestion, context, principal, ingestion_id)
    return StreamingResponse(events(context, ingestion_id), media_type="text/event-stream")


async def events(context: Context, ingestion_id: UUID) -> AsyncIterator[str]:
    """Every change of an ingestion until nothing is pending, or the service stops."""
    pace = Pace()
    shown: IngestionResponse | None = None
    spoken = time.monotonic()
    while not context.intake.stopping.is_set():
        now = time.monotonic()
        state = shown
        with suppress(DatabaseUnavailable):  # it comes back, and the stream goes on
            state = await run_in_threadpool(read_ingestion, context, ingestion_id)
        if state is not None:
            pace.add(now, sum(vars(state.counts).values()) - state.counts.pending)
        if state is not None and state != shown:
            left = 0.0 if state.done else pace.seconds_left(state.total)
            progress = IngestionProgress(**vars(state), rate=pace.rate, seconds_left=left)
            yield f"event: {'done' if state.done else 'progress'}\ndata: {progress.model_dump_json()}\n\n"
            if state.done:
                return
            shown, spoken = state, now
        elif now - spoken >= HEARTBEAT_SECONDS:
            yield ": still here\n\n"
            spoken = now
        await asyncio.sleep(context.settings.poll_seconds)


@router.get(
    "/{ingestion_id}/items",
    responses={
        200: {"content": {"application/json": {"example": EXAMPLE_ITEMS}}},
        **documented("not_found", "database_unavailable"),
    },
)
def get_items(
    context: CurrentContext,
    principal: Follower,
    ingestion_id: UUID,
    state: ItemState | None = None,
    after: Annotated[int, Query(ge=-1, lt=2**31, description="Items above this position")] = -1,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> IngestionItems:
    """What became of each item, in the order of the archive."""
    with transaction(context.database.engine) as session:
        own(session, ingestion_id, principal)
        found = gallery.ingestion_items(session, ingestion_id, state, after, limit)
    items = [IngestionItem(**vars(item)) for item in found]
    return IngestionItems(items=items, next_after=items[-1].position if len(items) == limit else None)
