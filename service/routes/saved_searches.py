"""Saved searches: requests under a name, to be run again. They are their owner's alone."""

from __future__ import annotations

import json
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from pydantic import ValidationError
from sqlalchemy.orm import Session

from indexer import audit, searches
from indexer.database import transaction
from indexer.searches import SavedSearchRecord
from service import search
from service.admission import Admitted
from service.context import CurrentContext
from service.errors import Refusal, documented, invalid
from service.principals import Principal, may
from service.routes.bodies import json_content, read_json, request_body
from service.routes.images import LOCATION
from service.routes.searches import CREATED, PROBLEMS
from service.schemas import EXAMPLE_ID
from service.search_schemas import (
    BY_FILTER,
    BY_TEXT,
    RunRequest,
    SavedSearchChange,
    SavedSearchList,
    SavedSearchRequest,
    SavedSearchResponse,
    SearchRequest,
    SearchResponse,
)

router = APIRouter(prefix="/api/v1/saved-searches", tags=["searches"])

Caller = Annotated[Principal, may("search")]
SAVED: dict[str, Any] = {"name": "Red jackets at night", "request": BY_FILTER}
EXAMPLE_ANSWER: dict[str, Any] = {
    "id": EXAMPLE_ID,
    **SAVED,
    "created_at": "2026-09-02T08:00:00Z",
    "updated_at": "2026-09-02T08:00:00Z",
}


async def read_saved(request: Request) -> SavedSearchRequest:
    return await read_json(request, SavedSearchRequest)


async def read_change(request: Request) -> SavedSearchChange:
    return await read_json(request, SavedSearchChange)


async def read_run(request: Request) -> RunRequest:
    return await read_json(request, RunRequest)


def own(session: Session, id: UUID, principal: Principal) -> SavedSearchRecord:
    saved = searches.saved_search(session, id)
    if saved is None or saved.owner != principal.id:
        raise Refusal("not_found", f"There is no saved search {id}.")
    return saved


def storable(asked: SearchRequest, pointer: str) -> dict[str, Any]:
    """A request to keep. Raises Refusal when it needs a picture that is not in the gallery."""
    image = asked.query.image
    if image is not None and image.image_id is None:
        sentence = "A picture of your own cannot be kept. Add it to the gallery, and give its image_id."
        raise Refusal("invalid_request", sentence, f"{pointer}/query/image")
    return asked.model_dump(mode="json", by_alias=True, exclude_unset=True)


def described(saved: SavedSearchRecord) -> SavedSearchResponse:
    return SavedSearchResponse(**{name: getattr(saved, name) for name in SavedSearchResponse.model_fields})


def note(session: Session, principal: Principal, act: str, id: UUID) -> None:
    audit.record(session, principal.actor, f"saved_search.{act}", ("saved_search", str(id)))


@router.post(
    "",
    status_code=201,
    responses={
        201: {"headers": LOCATION, "content": {"application/json": {"example": EXAMPLE_ANSWER}}},
        **documented(
            "cross_origin",
            "unauthenticated",
            "forbidden",
            "body_too_large",
            "unsupported_media_type",
            "database_unavailable",
        ),
    },
    openapi_extra=request_body(json_content(SavedSearchRequest, {"a search": SAVED})),
)
def save_search(
    context: CurrentContext,
    principal: Caller,
    asked: Annotated[SavedSearchRequest, Depends(read_saved)],
    response: Response,
) -> SavedSearchResponse:
    """Save a search under a name. An erasure that finds the person's name or images in it removes it."""
    request = storable(asked.request, "/request")
    with transaction(context.database.engine) as session:
        saved = searches.keep(session, principal.id, asked.name, request)
        note(session, principal, "create", saved.id)
    response.headers["Location"] = f"/api/v1/saved-searches/{saved.id}"
    return described(saved)


@router.get(
    "",
    responses={
        200: {"content": {"application/json": {"example": {"saved_searches": [EXAMPLE_ANSWER]}}}},
        **documented("unauthenticated", "forbidden", "database_unavailable"),
    },
)
def list_saved_searches(context: CurrentContext, principal: Caller) -> SavedSearchList:
    """The caller's saved searches, the newest first."""
    with transaction(context.database.engine) as session:
        return SavedSearchList(
            saved_searches=[described(one) for one in searches.saved_searches(session, principal.id)]
        )


@router.get(
    "/{saved_search_id}",
    responses={
        200: {"content": {"application/json": {"example": EXAMPLE_ANSWER}}},
        **documented("unauthenticated", "forbidden", "not_found", "database_unavailable"),
    },
)
def get_saved_search(context: CurrentContext, principal: Caller, saved_search_id: UUID) -> SavedSearchResponse:
    """One saved search."""
    with transaction(context.database.engine) as session:
        return described(own(session, saved_search_id, principal))


@router.patch(
    "/{saved_search_id}",
    responses={
        200: {"content": {"application/json": {"example": EXAMPLE_ANSWER}}},
        **documented(
            "cross_origin",
            "unauthenticated",
            "forbidden",
            "not_found",
            "body_too_large",
            "unsupported_media_type",
            "database_unavailable",
        ),
    },
    openapi_extra=request_body(
        json_content(SavedSearchChange, {"a name": {"name": "Red jackets"}, "a request": {"request": BY_TEXT}})
    ),
)
def change_saved_search(
    context: CurrentContext,
    principal: Caller,
    saved_search_id: UUID,
    asked: Annotated[SavedSearchChange, Depends(read_change)],
) -> SavedSearchResponse:
    """Give a saved search another name, another request, or both."""
    changes: dict[str, Any] = {}
    if asked.name is not None:
        changes["name"] = asked.name
    if asked.request is not None:
        changes["request"] = storable(asked.request, "/request")
    with transaction(context.database.engine) as session:
        own(session, saved_search_id, principal)
        searches.change_saved(session, saved_search_id, changes)
        note(session, principal, "change", saved_search_id)
        return described(own(session, saved_search_id, principal))


@router.delete(
    "/{saved_search_id}",
    status_code=204,
    responses=documented("cross_origin", "unauthenticated", "forbidden", "not_found", "database_unavailable"),
)
def delete_saved_search(context: CurrentContext, principal: Caller, saved_search_id: UUID) -> None:
    """Forget a saved search; searches that were run from it stay."""
    with transaction(context.database.engine) as session:
        own(session, saved_search_id, principal)
        searches.remove_saved(session, saved_search_id)
        note(session, principal, "delete", saved_search_id)


@router.post(
    "/{saved_search_id}/run",
    status_code=201,
    responses={201: CREATED, **documented("not_found", *PROBLEMS)},
    openapi_extra=request_body(
        json_content(RunRequest, {"as it is": {}, "with a reason": {"purpose": {"reason": "missing person"}}})
    ),
)
def run_saved_search(
    context: CurrentContext,
    principal: Caller,
    saved_search_id: UUID,
    asked: Annotated[RunRequest, Depends(read_run)],
    admitted: Admitted,
    response: Response,
) -> SearchResponse:
    """Run a saved search now; the answer is that of POST /searches."""
    with transaction(context.database.engine) as session:
        kept = own(session, saved_search_id, principal).request
    if asked.purpose is not None:
        kept = {**kept, "purpose": asked.purpose.model_dump(mode="json", exclude_unset=True)}
    try:
        request = SearchRequest.model_validate_json(json.dumps(kept))
    except ValidationError as error:  # an older version of this program accepted it
        raise invalid({**one, "loc": ("body", *one["loc"])} for one in error.errors()) from error
    found = search.run(context, principal, request, None)
    response.headers["Location"] = f"/api/v1/searches/{found.id}"
    return found
