"""Request and response bodies of searches, saved searches, facets and explanations; strict as those of schemas.py."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import Field, StringConstraints, model_validator

from service.filter_schemas import Filter, ZoneName
from service.schemas import (
    EXAMPLE_ID,
    SEARCH_LIMIT_MAX,
    TEXT_MAX,
    Description,
    Name,
    RequestBody,
    ResponseBody,
    optional,
)

EXAMPLES_MAX = 50  # positive or negative examples of one search
GROUP_MEMBERS_MAX = 10
DEPTH_MAX = 10_000
SIDE_MAX = 100_000  # pixels; no accepted image is longer
FACET_VALUES_MAX = 500

BY_TEXT: dict[str, Any] = {"query": {"text": "woman red coat black bag"}, "limit": 10}
BY_FILTER: dict[str, Any] = {
    "query": {"text": "a woman in a red jacket with a black backpack", "negative_text": "with a hat"},
    "filter": {
        "camera_id": {"in": ["station-north", "station-south"]},
        "captured_at": {"gte": "2026-09-01T18:00:00Z", "lt": "2026-09-02T06:00:00Z"},
        "time_of_day": {"gte": "20:00", "lt": "06:00", "tz": "Europe/Berlin"},
        "tags": {"none": ["staff"]},
        "attributes": {"carriage": {"eq": 3}},
        "any": [{"identity": {"exists": False}}, {"height_px": {"gte": 96}}],
    },
    "group_by": "track_id",
    "limit": 50,
    "purpose": {"reason": "missing person"},
}
BY_BOTH: dict[str, Any] = {
    "query": {
        "text": "the same man without the hat",
        "image": {"image_id": EXAMPLE_ID, "crop": {"left": 10, "top": 0, "width": 64, "height": 160}},
        "weights": {"text": 0.4, "image": 0.6},
    }
}
BY_EXAMPLES: dict[str, Any] = {"query": {"positive_image_ids": [EXAMPLE_ID]}, "order_by": "captured_at", "depth": 100}


# ----------------------------------------------------------------------------------------------------- requests


class CropBox(RequestBody):
    """A part of the image, in pixels of the upright one: the person, where the picture shows more than that."""

    left: int = Field(ge=0, le=SIDE_MAX)
    top: int = Field(ge=0, le=SIDE_MAX)
    width: int = Field(ge=1, le=SIDE_MAX)
    height: int = Field(ge=1, le=SIDE_MAX)


class QueryImage(RequestBody):
    """An image to search with: one of the gallery by `image_id`, or the one sent as the multipart part `image`.

    With `crop` only that part of it counts.
    """

    image_id: UUID = optional()
    crop: CropBox = optional()

    @model_validator(mode="after")
    def something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("This says nothing of the image. Give image_id or crop, or leave `image` out.")
        return self


class Weights(RequestBody):
    """How much text and image count when both are given. Only their ratio matters."""

    text: float = Field(ge=0, le=1000)
    image: float = Field(ge=0, le=1000)

    @model_validator(mode="after")
    def not_both_zero(self) -> Self:
        if self.text == 0 and self.image == 0:
            raise ValueError("Both weights are 0, so nothing would be searched for. Raise at least one.")
        return self


class Query(RequestBody):
    """What to look for: at least one of text, image and positive examples."""

    text: Description | None = Field(None, description=f"1 to {TEXT_MAX} characters after normalising (NFKC).")
    image: QueryImage | None = None
    weights: Weights | None = Field(
        None,
        description="Only with both text and image; without it they count equally, or are read together by a network "
        "that can.",
    )
    negative_text: Description | None = Field(
        None, description="What the person does not look like; counts half of everything else together."
    )
    positive_image_ids: list[UUID] = Field([], max_length=EXAMPLES_MAX, description="Images of somebody like that")
    negative_image_ids: list[UUID] = Field([], max_length=EXAMPLES_MAX, description="Images of others")

    @model_validator(mode="after")
    def not_both(self) -> Self:
        if both := set(self.positive_image_ids) & set(self.negative_image_ids):
            raise ValueError(f"The image {min(both)} is a positive and a negative example. Take it out of one.")
        return self


class PurposeRequest(RequestBody):
    """Why somebody searches; kept in the audit."""

    case_id: UUID = optional()
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00-\x1F\x7F]+$")] = optional()

    @model_validator(mode="after")
    def something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("This purpose says nothing. Give a case_id, a reason, or both.")
        return self


class SearchRequest(RequestBody):
    """What to look for, where, and how to show it."""

    query: Query
    filter: Filter = Filter()
    limit: int = Field(50, ge=1, le=SEARCH_LIMIT_MAX)
    group_by: Literal["track_id", "camera_id", "identity"] | None = Field(
        None, description="One result a group, its most similar image; an image whose group is unknown stands alone."
    )
    group_members: int = Field(
        3, ge=0, le=GROUP_MEMBERS_MAX, description="How many further images of a group to show, the most similar ones"
    )
    order_by: Literal["similarity", "captured_at", "-captured_at"] = Field(
        "similarity",
        description="By time: the `depth` most similar images, the earliest first, or with - the latest; those without "
        "a time come last. A group stands where its most similar image does.",
    )
    depth: int = Field(200, ge=1, le=DEPTH_MAX, description="How many of the most similar images to order by time")
    purpose: PurposeRequest | None = None


class RefinementRequest(RequestBody):
    """What a search gets right and wrong. At least one of these; the rest is as it was."""

    positive: list[UUID] = Field([], max_length=EXAMPLES_MAX, description="Images of the person")
    negative: list[UUID] = Field([], max_length=EXAMPLES_MAX, description="Images of others")
    text: Description | None = Field(None, description="In place of the text before")
    purpose: PurposeRequest | None = None

    @model_validator(mode="after")
    def something(self) -> Self:
        if not self.positive and not self.negative and self.text is None:
            raise ValueError("There is nothing to refine with. Give positive or negative images, or another text.")
        if both := set(self.positive) & set(self.negative):
            raise ValueError(f"The image {min(both)} is a positive and a negative example. Take it out of one.")
        return self


class SavedSearchRequest(RequestBody):
    """A search to keep under a name. A picture of your own cannot be kept; add it to the gallery first."""

    name: Name
    request: SearchRequest


class SavedSearchChange(RequestBody):
    """Another name or another request."""

    name: Name = optional()
    request: SearchRequest = optional()

    @model_validator(mode="after")
    def something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("There is nothing to change. Give a name, a request, or both.")
        return self


class RunRequest(RequestBody):
    """How to run a saved search this time."""

    purpose: PurposeRequest | None = None


class FacetRequest(RequestBody):
    """Which images to count."""

    filter: Filter = Filter()
    tz: ZoneName = Field("UTC", description="The IANA zone whose days and hours are counted")
    limit: int = Field(50, ge=1, le=FACET_VALUES_MAX, description="Of each: at most so many values, the most frequent")


# ---------------------------------------------------------------------------------------------------- responses


class ResultImage(ResponseBody):
    camera_id: str | None
    captured_at: datetime | None
    tags: list[str]
    identity: str | None
    track_id: str | None
    external_id: str | None
    width: int
    height: int
    content: str = Field(description="Path of the stored file")
    thumbnail: str = Field(description="Path of a small version")


class Hit(ResponseBody):
    """One image and how similar it is."""

    image_id: UUID
    similarity: float = Field(description="Cosine of query and image, -1 to 1; higher is better")
    band: Literal["strong", "possible", "weak"] | None = Field(
        None, description="Calibrated on validation data for this kind of query; null where the checkpoint has no bands"
    )
    image: ResultImage


class ResultGroup(ResponseBody):
    """The other images a result stands for."""

    key: str | None = Field(description="The track, camera or identity they share; null: unknown, so it stands alone")
    size: int = Field(description="Images of the group in the whole ranking, not only on this page")
    members: list[Hit] = Field(description="The next most similar ones")


class Result(Hit):
    rank: int = Field(description="Place in the ranking, the same whenever it is read")
    group: ResultGroup | None = Field(None, description="null unless the search is grouped")


class Bands(ResponseBody):
    """Least similarity of a strong and of a possible result."""

    strong: float
    possible: float


class SearchPage(ResponseBody):
    """A part of a ranking. Shorter than `limit` where images were deleted since: only a null cursor is the end."""

    results: list[Result]
    next_cursor: str | None = Field(None, description="Pass as `cursor` for the next page; null at the end")


class SearchResponse(SearchPage):
    id: UUID
    parent_id: UUID | None = Field(None, description="The search this one refines")
    request: dict[str, Any] = Field(description="The request as it was understood")
    checkpoint_id: str
    exact: bool = Field(description="True: every allowed image was compared, none was skipped")
    candidates: int = Field(description="Images that passed the filter and could be ranked")
    ranked: int = Field(0, description="Places of the frozen ranking: images, or groups of them")
    pending: int = Field(description="Gallery images not embedded yet, so not searchable yet")
    unknown_words: list[str] = Field(description="Words of the description the checkpoint never met in training")
    warnings: list[str]
    bands: Bands | None = Field(None, description="null: not measured for this kind of query")
    took_ms: dict[str, float]
    created_at: datetime
    expires_at: datetime


class SavedSearchResponse(ResponseBody):
    id: UUID
    name: str
    request: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class SavedSearchList(ResponseBody):
    saved_searches: list[SavedSearchResponse]


class NameCount(ResponseBody):
    value: str | None = Field(description="null: images where it is unknown")
    count: int


class HourCount(ResponseBody):
    hour: int = Field(description="0 to 23")
    count: int


class IdentityCounts(ResponseBody):
    known: int
    unknown: int


class FacetResponse(ResponseBody):
    """Counts of the images that pass the filter, searchable or not yet."""

    images: int
    cameras: list[NameCount] = Field(description="The most frequent first")
    sites: list[NameCount] = Field(description="The most frequent first")
    tags: list[NameCount] = Field(description="The most frequent first; an image counts for each of its tags")
    days: list[NameCount] = Field(description="The latest days that have images, the earliest of them first")
    hours: list[HourCount] = Field(description="Hours of the day that have images")
    identity: IdentityCounts


class PhraseExplanation(ResponseBody):
    phrase: str
    strips: list[float] = Field(
        description="What each strip carries of the phrase, in cosine similarity; the top first"
    )
    best_strip: int = Field(description="Index of the strip that stands out most from the mean of all phrases")


class ExplanationResponse(ResponseBody):
    """How the network came to a similarity. It says nothing of whether this is the person: it is not evidence."""

    search_id: UUID
    image_id: UUID
    checkpoint_id: str
    text: str
    similarity: float = Field(description="Of the whole image and the whole text")
    strip_bounds: list[tuple[float, float]] = Field(description="Top and bottom of each strip, of the image's height")
    phrases: list[PhraseExplanation]
    note: str
