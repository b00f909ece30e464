"""Facets: what a filter could be made of, counted."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from indexer.database import transaction
from indexer.facets import facets
from service.context import CurrentContext
from service.errors import documented
from service.filters import refuse_unknown, refuse_unknown_zone
from service.principals import Principal, may
from service.routes.bodies import json_content, read_json, request_body
from service.search_schemas import FacetRequest, FacetResponse, HourCount, IdentityCounts, NameCount

router = APIRouter(prefix="/api/v1/images", tags=["searches"])

EXAMPLES: dict[str, Any] = {
    "everything": {},
    "of an evening": {
        "filter": {"captured_at": {"gte": "2026-09-01T16:00:00Z", "lt": "2026-09-02T00:00:00Z"}},
        "tz": "Europe/Berlin",
        "limit": 10,
    },
}
EXAMPLE_ANSWER: dict[str, Any] = {
    "images": 300,
    "cameras": [{"value": "station-north", "count": 180}, {"value": None, "count": 120}],
    "sites": [{"value": "Station", "count": 180}, {"value": None, "count": 120}],
    "tags": [{"value": "platform", "count": 40}],
    "days": [{"value": "2026-09-01", "count": 180}],
    "hours": [{"hour": 18, "count": 100}, {"hour": 19, "count": 80}],
    "identity": {"known": 12, "unknown": 288},
}


async def read_facets(request: Request) -> FacetRequest:
    return await read_json(request, FacetRequest)


@router.post(
    "/facets",
    responses={
        200: {"content": {"application/json": {"example": EXAMPLE_ANSWER}}},
        **documented(
            "cross_origin",
            "unauthenticated",
            "forbidden",
            "body_too_large",
            "unsupported_media_type",
            "unknown_camera",
            "invalid_filter",
            "database_unavailable",
        ),
    },
    openapi_extra=request_body(json_content(FacetRequest, EXAMPLES)),
)
def count_facets(
    context: CurrentContext,
    principal: Annotated[Principal, may("search")],
    asked: Annotated[FacetRequest, Depends(read_facets)],
) -> FacetResponse:
    """How many of the images that pass a filter are of each camera, site, tag, day and hour, and of known people.

    Only images the caller may see are counted, embedded or not. Days and hours are those of the zone `tz`; images
    without a time are in none.
    """
    with transaction(context.database.engine) as session:
        refuse_unknown(session, asked.filter, principal.cameras)
        refuse_unknown_zone(session, asked.tz, "/tz")
        found = facets(session, asked.filter.conditions(), principal.cameras, asked.tz, asked.limit)
    return FacetResponse(
        images=found.images,
        cameras=[NameCount(value=value, count=count) for value, count in found.cameras],
        sites=[NameCount(value=value, count=count) for value, count in found.sites],
        tags=[NameCount(value=value, count=count) for value, count in found.tags],
        days=[NameCount(value=value, count=count) for value, count in found.days],
        hours=[HourCount(hour=hour, count=count) for hour, count in found.hours],
        identity=IdentityCounts(known=found.known, unknown=found.unknown),
    )
