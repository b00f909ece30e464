"""Searches: run one, read it again page by page, refine it with examples."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from indexer.database import transaction
from service import refinements, search
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
from service.schemas import EXAMPLE_ID, SEARCH_LIMIT_MAX
from service.search_schemas import (
    BY_BOTH,
    BY_EXAMPLES,
    BY_FILTER,
    BY_TEXT,
    RefinementRequest,
    SearchPage,
    SearchRequest,
    SearchResponse,
)

router = APIRouter(prefix="/api/v1/searches", tags=["searches"])

Caller = Annotated[Principal, may("search")]
EXAMPLES = {"by text": BY_TEXT, "with a filter": BY_FILTER, "by text and image": BY_BOTH, "by examples": BY_EXAMPLES}
UPLOADED = {"request": {"query": {}, "limit": 10}, "image": "(the file)"}
WITH_UPLOAD = form_content(["request"], UPLOADED, request=schema_of(SearchRequest), image=FILE)
EXAMPLE_PAGE: dict[str, Any] = {
    "results": [
        {
            "rank": 1,
            "image_id": EXAMPLE_ID,
            "similarity": 0.4127,
            "band": "possible",
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
            "group": None,
        }
    ],
    "next_cursor": "AAAAAQhQb0cVnOeWrXJ4mvYVq9o",
}
EXAMPLE_ANSWER: dict[str, Any] = {
    "id": "0199a1b2-8d4e-7f50-9b6c-7d8e9f0a1b2c",
    "parent_id": None,
    "request": {"query": {"text": "woman red coat black bag"}, "limit": 1},
    "checkpoint_id": "3f2a9c51d07be846",
    "exact": True,
    "candidates": 300,
    "ranked": 300,
    "pending": 0,
    "unknown_words": [],
    "warnings": [],
    "bands": {"strong": 0.5, "possible": 0.3},
    "took_ms": {"embed": 21.4, "filter": 0.1, "rank": 3.2},
    "created_at": "2026-09-02T08:00:00Z",
    "expires_at": "2026-09-03T08:00:00Z",
    **EXAMPLE_PAGE,
}
CREATED: dict[str, Any] = {"headers": LOCATION, "content": {"application/json": {"example": EXAMPLE_ANSWER}}}
PROBLEMS = (  # of a search, whichever way it comes
    "cross_origin",
    "unauthenticated",
    "forbidden",
    "no_text_branch",
    "not_indexed",
    "body_too_large",
    "unsupported_media_type",
    "unreadable_image",
    "image_too_small",
    "unknown_camera",
    "unknown_image",
    "invalid_crop",
    "invalid_filter",
    "purpose_required",
    "case_closed",
    "checkpoint_replaced",
    "database_unavailable",
    "index_unavailable",
    "busy",
    "deadline",
)


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


async def read_refinement(request: Request) -> RefinementRequest:
    return await read_json(request, RefinementRequest)


@router.post(
    "",
    status_code=201,
    responses={201: CREATED, **documented(*PROBLEMS, "not_found", "image_too_large", "unsupported_image")},
    openapi_extra=request_body(
        json_content(SearchRequest, EXAMPLES),
        WITH_UPLOAD,
    ),
)
def create_search(
    context: CurrentContext,
    principal: Caller,
    asked: Annotated[Asked, Depends(read_search)],
    admitted: Admitted,
    response: Response,
) -> SearchResponse:
    """Rank the gallery by a description, an image, examples, or all of them; the ranking is kept for 24 hours.

    The filter is applied before ranking, and the ranking is exact within it. A description made of unknown words only
    is still answered, with a warning that its ranking means little.
    """
    found = search.run(context, principal, asked.request, asked.image)
    response.headers["Location"] = f"/api/v1/searches/{found.id}"
    return found


@router.get(
    "/{search_id}",
    responses={
        200: {"content": {"application/json": {"example": EXAMPLE_ANSWER}}},
        **documented("unauthenticated", "forbidden", "not_found", "expired", "database_unavailable"),
    },
)
def get_search(context: CurrentContext, principal: Caller, search_id: UUID) -> SearchResponse:
    """A search of one's own again, with the ranking it had; images deleted since are left out."""
    with transaction(context.database.engine) as session:
        return search.again(session, search_id, principal)


@router.get(
    "/{search_id}/results",
    responses={
        200: {"content": {"application/json": {"example": EXAMPLE_PAGE}}},
        **documented("unauthenticated", "forbidden", "not_found", "expired", "invalid_cursor", "database_unavailable"),
    },
)
def get_results(
    context: CurrentContext,
    principal: Caller,
    search_id: UUID,
    cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before")] = None,
    limit: Annotated[int | None, Query(ge=1, le=SEARCH_LIMIT_MAX, description="Else that of the search")] = None,
) -> SearchPage:
    """A page of the frozen ranking: nothing moves, however many images are added or deleted meanwhile.

    Places of images that were deleted stay empty, so a page may be shorter than `limit`: only a null cursor is the end.
    """
    with transaction(context.database.engine) as session:
        return search.read_page(session, search_id, principal, cursor, limit)


@router.post(
    "/{search_id}/refinements",
    status_code=201,
    responses={201: CREATED, **documented("not_found", "expired", "checkpoint_conflict", *PROBLEMS)},
    openapi_extra=request_body(
        json_content(
            RefinementRequest,
            {"with examples": {"positive": [EXAMPLE_ID], "negative": []}, "in other words": {"text": "a man in red"}},
        )
    ),
)
def refine_search(
    context: CurrentContext,
    principal: Caller,
    search_id: UUID,
    asked: Annotated[RefinementRequest, Depends(read_refinement)],
    admitted: Admitted,
    response: Response,
) -> SearchResponse:
    """A new search that moves the old one towards some images and away from others, within the same filter.

    Examples add up from one refinement to the next; what is said last of an image holds.
    """
    found = refinements.refine(context, principal, search_id, asked)
    response.headers["Location"] = f"/api/v1/searches/{found.id}"
    return found
