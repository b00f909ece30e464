"""Erasures: erase people for good, count before, read the receipts afterwards."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from indexer import traces
from indexer.database import transaction
from indexer.errors import NotFound
from indexer.traces import ErasureRecord, Selection
from service.context import CurrentContext
from service.errors import documented
from service.filters import refuse_unknown
from service.governance_schemas import (
    BY_FILTER,
    BY_IDENTITY,
    BY_IDS,
    ErasureCounts,
    ErasureList,
    ErasureRequest,
    ErasureResponse,
)
from service.principals import Principal, may
from service.routes.bodies import json_content, read_json, request_body
from service.routes.images import LOCATION
from service.schemas import EXAMPLE_ID

router = APIRouter(prefix="/api/v1/erasures", tags=["governance"])

EXAMPLES = {"by identity": BY_IDENTITY, "by a filter, only counted": BY_FILTER, "by ids": BY_IDS}
RECEIPT: dict[str, Any] = {
    "id": EXAMPLE_ID,
    "state": "done",
    "reason": "Request of the person concerned, file 2026/14.",
    "selection": {"by": "identity"},
    "counts": {
        "images": 12,
        "embeddings": 24,
        "files": 11,
        "files_shared": 1,
        "rankings": 3,
        "searches": 1,
        "saved_searches": 0,
        "ledger_lines": 12,
        "ingestions": 1,
        "request_keys": 0,
        "held": 0,
    },
    "proof": "Looked for 12 images by their ids, and searched for 12 of them by their vectors: none is in the "
    "database, in the index, in its copy on disk or in a kept ranking, and no file of theirs is left that no other "
    "image shows.",
    "created_at": "2026-09-02T08:00:00Z",
    "finished_at": "2026-09-02T08:00:01Z",
}
COUNTED = {**RECEIPT, "id": None, "state": "counted", "proof": None, "created_at": None, "finished_at": None}


async def read_erasure(request: Request) -> ErasureRequest:
    return await read_json(request, ErasureRequest)


@router.post(
    "",
    status_code=201,
    responses={
        201: {
            "description": "Erased; the receipt",
            "headers": LOCATION,
            "content": {"application/json": {"example": RECEIPT}},
        },
        200: {
            "description": "A dry run: what would be erased",
            "model": ErasureResponse,
            "content": {"application/json": {"example": COUNTED}},
        },
        **documented(
            "cross_origin",
            "body_too_large",
            "unsupported_media_type",
            "unknown_camera",
            "invalid_filter",
            "reason_names_person",
            "legal_hold",
            "database_unavailable",
            "storage_full",
        ),
    },
    openapi_extra=request_body(json_content(ErasureRequest, EXAMPLES)),
)
def create_erasure(
    context: CurrentContext,
    principal: Annotated[Principal, may("erase")],
    asked: Annotated[ErasureRequest, Depends(read_erasure)],
    response: Response,
) -> ErasureResponse:
    """Erase images for good: rows, files, thumbnails, embeddings, frozen rankings, names in ledgers, and the index.

    Afterwards all of these are searched, and the receipt says what was found. Nothing is erased when one of the images
    is under legal hold. An id that no image has is no error: what else bears the name is still blanked. If the service
    is stopped in the middle, its next start completes the erasure.
    """
    with transaction(context.database.engine) as session:
        if asked.filter is not None:
            refuse_unknown(session, asked.filter)
    selection = selected(asked)
    if asked.dry_run:
        response.status_code = 200
        return ErasureResponse(
            id=None,
            state="counted",
            reason=asked.reason,
            selection=selection.described(),
            counts=ErasureCounts(**context.eraser.count(selection)),
            proof=None,
            created_at=None,
            finished_at=None,
        )
    receipt = context.eraser.erase(selection, asked.reason, principal.actor)
    response.headers["Location"] = f"/api/v1/erasures/{receipt.id}"
    return described(receipt)


def selected(asked: ErasureRequest) -> Selection:
    return Selection(
        image_ids=tuple(asked.image_ids or ()),
        external_ids=tuple(asked.external_ids or ()),
        identity=asked.identity,
        filter=None if asked.filter is None else asked.filter.conditions(),
    )


def described(receipt: ErasureRecord) -> ErasureResponse:
    return ErasureResponse(**{**vars(receipt), "counts": ErasureCounts(**receipt.counts)})


@router.get(
    "",
    responses={
        200: {"content": {"application/json": {"example": {"erasures": [RECEIPT], "next_before": None}}}},
        **documented("database_unavailable"),
    },
)
def list_erasures(
    context: CurrentContext,
    principal: Annotated[Principal, may("erase")],
    before: Annotated[UUID | None, Query(description="Receipts older than this one")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> ErasureList:
    """Receipts, the newest first; those of retention among them."""
    with transaction(context.database.engine) as session:
        found = [described(receipt) for receipt in traces.erasures(session, before, limit)]
    return ErasureList(erasures=found, next_before=found[-1].id if len(found) == limit else None)


@router.get(
    "/{erasure_id}",
    responses={
        200: {"content": {"application/json": {"example": RECEIPT}}},
        **documented("not_found", "database_unavailable"),
    },
)
def get_erasure(
    context: CurrentContext, principal: Annotated[Principal, may("erase")], erasure_id: UUID
) -> ErasureResponse:
    """One receipt. It holds nothing of what was erased."""
    with transaction(context.database.engine) as session:
        receipt = traces.erasure(session, erasure_id)
    if receipt is None:
        raise NotFound(f"There is no erasure {erasure_id}.")
    return described(receipt)
