"""Searches: run one, or read one again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from indexer.database import transaction
from service import search
from service.admission import Admitted
from service.context import CurrentContext, current
from service.errors import Refusal, documented
from service.principals import Principal, may
from service.routes.bodies import (
    FILE,
    expect,
    file_part,
    form_content,
    json_content,
    parse,
    read_form,
    read_json,
    request_body,
    schema_of,
    text_part,
)
from service.routes.images import LOCATION
from service.schemas import EXAMPLE_ID, EXAMPLE_SEARCH, SearchRequest, SearchResponse

router = APIRouter(prefix="/api/v1/searches", tags=["searches"])

BY_TEXT = {"query": {"text": "woman red coat black bag"}, "limit": 10}
BY_BOTH = {
    "query": {
        "text": "the same man without the hat",
        "image": {"image_id": EXAMPLE_ID},
        "weights": {"text": 0.4, "image": 0.6},
    }
}
EXAMPLES = {"by text": BY_TEXT, "with a filter": EXAMPLE_SEARCH, "by text and image": BY_BOTH}
UPLOADED = {"request": {"query": {}, "limit": 10}, "image": "(the file)"}
WITH_UPLOAD = form_content(["request"], UPLOADED, request=schema_of(SearchRequest), image=FILE)
EXAMPLE_ANSWER: dict[str, Any] = {
    "id": "0199a1b2-8d4e-7f50-9b6c-7d8e9f0a1b2c",
    "request": {"query": {"text": "woman red coat black bag"}, "limit": 1},
    "checkpoint_id": "3f2a9c51d07be846",
    "exact": True,
    "candidates": 300,
    "pending": 0,
    "unknown_words": [],
    "warnings": [],
    "took_ms": {"embed": 21.4, "filter": 0.1, "rank": 3.2},
    "created_at": "2026-09-02T08:00:00Z",
    "expires_at": "2026-09-03T08:00:00Z",
    "results": [
        {
            "rank": 1,
            "image_id": EXAMPLE_ID,
            "similarity": 0.4127,
            "band": None,
            "image": {
                "camera_id": "station-north",
                "captured_at": "2026-09-01T16:04:11Z",
                "tags": ["platform"],
                "identity": None,
                "track_id": "north-17",
                "external_id": "north-000123",
                "width": 128,
                "height": 384,
                "content": f"/api/v1/images/{EXAMPLE_ID}/content?variant=full",
                "thumbnail": f"/api/v1/images/{EXAMPLE_ID}/content?variant=thumb",
            },
        }
    ],
    "next_cursor": None,
}


@dataclass(frozen=True)
class Asked:
    """A search as it was sent."""

    request: SearchRequest
    image: bytes | None = None


async def read_search(request: Request) -> AsyncIterator[Asked]:
    if expect(request, "application/json", "multipart/form-data") == "application/json":
        yield Asked(await read_json(request, SearchRequest))
        return
    limit = current(request).settings.max_upload_bytes
    async with read_form(request, limit, files=["image"], texts=["request"]) as form:
        text = await text_part(form, "request")
        if text is None:
            raise Refusal("invalid_request", "The part 'request' is missing: send the search in it.", "/request")
        yield Asked(parse(SearchRequest, text), await file_part(form, "image"))


@router.post(
    "",
    status_code=201,
    responses={
        201: {"headers": LOCATION, "content": {"application/json": {"example": EXAMPLE_ANSWER}}},
        **documented(
            "cross_origin",
            "no_text_branch",
            "not_indexed",
            "body_too_large",
            "image_too_large",
            "unsupported_media_type",
            "unsupported_image",
            "unreadable_image",
            "image_too_small",
            "unknown_camera",
            "unknown_image",
            "purpose_required",
            "checkpoint_replaced",
            "database_unavailable",
            "busy",
            "deadline",
        ),
    },
    openapi_extra=request_body(
        json_content(SearchRequest, EXAMPLES),
        WITH_UPLOAD,
    ),
)
def create_search(
    context: CurrentContext,
    principal: Annotated[Principal, may("search")],
    asked: Annotated[Asked, Depends(read_search)],
    admitted: Admitted,
    response: Response,
) -> SearchResponse:
    """Rank the gallery by a description, an image, or both; the ranking is kept for 24 hours.

    A description made of unknown words only is still answered, with a warning that its ranking means little.
    """
    found = search.run(context, asked.request, asked.image, principal.cameras)
    best = found.results[0].similarity if found.results else None
    context.metrics.searched(found.took_ms, found.candidates, best)
    response.headers["Location"] = f"/api/v1/searches/{found.id}"
    return found


@router.get(
    "/{search_id}",
    responses={
        200: {"content": {"application/json": {"example": EXAMPLE_ANSWER}}},
        **documented("not_found", "expired", "database_unavailable"),
    },
)
def get_search(
    context: CurrentContext, principal: Annotated[Principal, may("search")], search_id: UUID
) -> SearchResponse:
    """A search again, with the ranking it had; images deleted since are left out."""
    with transaction(context.database.engine) as session:
        return search.again(session, search_id, principal.cameras)
