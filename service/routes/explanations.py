"""Why an image is in a ranking."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter

from service import explanations
from service.context import CurrentContext
from service.errors import documented
from service.principals import Principal, may
from service.schemas import EXAMPLE_ID
from service.search_schemas import ExplanationResponse

router = APIRouter(prefix="/api/v1/searches", tags=["searches"])

EXAMPLE_ANSWER: dict[str, Any] = {
    "search_id": "0199a1b2-8d4e-7f50-9b6c-7d8e9f0a1b2c",
    "image_id": EXAMPLE_ID,
    "checkpoint_id": "3f2a9c51d07be846",
    "text": "a woman in a red jacket and black boots",
    "similarity": 0.4127,
    "strip_bounds": [[0.0, 0.5], [0.5, 1.0]],
    "phrases": [
        {"phrase": "red jacket", "strips": [0.21, 0.01], "best_strip": 0},
        {"phrase": "black boots", "strips": [0.02, 0.09], "best_strip": 1},
    ],
    "note": explanations.NOTE,
}


@router.get(
    "/{search_id}/results/{image_id}/explanation",
    responses={
        200: {"content": {"application/json": {"example": EXAMPLE_ANSWER}}},
        **documented(
            "unauthenticated",
            "forbidden",
            "not_found",
            "checkpoint_conflict",
            "expired",
            "no_explanation",
            "database_unavailable",
        ),
    },
)
def get_explanation(
    context: CurrentContext, principal: Annotated[Principal, may("search")], search_id: UUID, image_id: UUID
) -> ExplanationResponse:
    """Which phrases of the description met which part of the body in this image, as far as the network tells.

    **This is not evidence**: it shows how a similarity came about, not whether this is the person. The body is cut into
    strips from head to feet; a number says what a strip carries of a phrase. Takes seconds. A 501 for a network that
    does not see strips, for a search without text, and for a text that names nothing to look for.
    """
    return explanations.explain(context, principal, search_id, image_id)
