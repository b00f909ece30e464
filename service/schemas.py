"""Request and response bodies of the HTTP interface; those of searches are in search_schemas.py, filters in
filter_schemas.py.

Requests are strict: an unknown field, a wrong type or a null inside a filter is refused, because a mistyped filter must
fail rather than widen a search. Responses may grow. Nothing here touches the database or the network.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

from indexer.metadata import MAX_ATTRIBUTES, MAX_STRING, MAX_TAG, MAX_TAGS

TEXT_MAX = 512  # characters of a description, after normalising
SEARCH_LIMIT_MAX = 200

EXAMPLE_ID = "0199a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b"


def normalise_text(text: str) -> str:
    """What a user typed, as the encoder gets it: NFKC, no control characters, single spaces; 1 to 512 characters."""
    text = unicodedata.normalize("NFKC", text)
    text = "".join(c for c in text if unicodedata.category(c) != "Cc" or c.isspace())
    text = re.sub(r"\s+", " ", text).strip()
    if not any(unicodedata.category(c)[0] in "LNPS" for c in text):  # also refuses lone joiners and combining marks
        raise ValueError("The description is empty. Describe the person in a few words, or leave `text` out.")
    if len(text) > TEXT_MAX:
        raise ValueError(f"The description has {len(text)} characters; at most {TEXT_MAX} are accepted. Shorten it.")
    return text


Description = Annotated[str, StringConstraints(min_length=1), AfterValidator(normalise_text)]
# Control characters never belong in a name, and PostgreSQL cannot store the zero byte at all.
Name = Annotated[str, StringConstraints(min_length=1, max_length=MAX_STRING, pattern=r"^[^\x00-\x1F\x7F]+$")]
CameraId = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x20\x7F/]{1,100}$")]
Time = Annotated[AwareDatetime, Field(description="RFC 3339 with a zone", examples=["2026-09-01T18:00:00Z"])]


def _written_out(moment: Any) -> Any:
    """A parameter of an address is always text, which pydantic would also take as seconds since 1970."""
    if isinstance(moment, str) and not re.match(r"\d{4}-\d\d-\d\d[Tt ]", moment):
        raise ValueError("Write the time as 2026-09-01T18:00:00Z.")
    return moment


Moment = Annotated[AwareDatetime, BeforeValidator(_written_out)]  # a time in the address of a call


class RequestBody(BaseModel):
    """Base of everything a client sends: strict types, no unknown fields, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ResponseBody(BaseModel):
    """Base of everything the service answers."""

    model_config = ConfigDict(frozen=True)


def optional(**constraints: Any) -> Any:
    """A field that may be left out but not be null: `{"camera_id": null}` is a mistake, not "any camera"."""
    return Field(default_factory=lambda: None, **constraints)


# ------------------------------------------------------------------------------------------------------ images


class ImageMetadata(RequestBody):
    """What is known about one image; everything is optional. Describes the part `metadata`; the checks themselves are
    those of `indexer.metadata`, the same as for a line of metadata.jsonl."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "external_id": "north-000123",
                    "camera_id": "station-north",
                    "captured_at": "2026-09-01T18:04:11+02:00",
                    "track_id": "north-17",
                    "tags": ["platform"],
                }
            ]
        }
    )

    external_id: Name | None = None
    sha256: str | None = Field(None, pattern=r"^[0-9a-fA-F]{64}$", description="Checked against the file, if given")
    camera_id: Name | None = None
    captured_at: Time | None = None
    track_id: Name | None = None
    identity: Name | None = None
    tags: list[Annotated[Name, StringConstraints(max_length=MAX_TAG)]] | None = Field(None, max_length=MAX_TAGS)
    attributes: dict[str, Any] | None = Field(None, max_length=MAX_ATTRIBUTES)


class ImageChanges(RequestBody):
    """What is to be known about an image from now on: a field that is sent replaces what was there, null removes it,
    and what is left out stays. The checks are those of `indexer.metadata`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"identity": None, "tags": ["platform", "checked"]}]})

    external_id: Name | None = None
    camera_id: Name | None = None
    captured_at: Time | None = None
    track_id: Name | None = None
    identity: Name | None = None
    tags: list[Annotated[Name, StringConstraints(max_length=MAX_TAG)]] | None = Field(None, max_length=MAX_TAGS)
    attributes: dict[str, Any] | None = Field(None, max_length=MAX_ATTRIBUTES)


class ImageResponse(ResponseBody):
    id: UUID
    state: Literal["pending", "indexed", "failed"] = Field(description="Searchable once `indexed`")
    error: str | None = Field(description="Why it could not be embedded")
    external_id: str | None
    sha256: str
    width: int
    height: int
    format: str
    byte_size: int
    camera_id: str | None
    captured_at: datetime | None
    track_id: str | None
    identity: str | None
    tags: list[str]
    attributes: dict[str, Any]
    created_at: datetime
    content: str
    thumbnail: str
    duplicate: bool = Field(False, description="True when this very image was there already and nothing changed")


class NeighbourImage(ImageResponse):
    seconds: float = Field(description="After the image in question; negative: before it")


class Neighbours(ResponseBody):
    """What the camera of an image took around it, in the order of time."""

    images: list[NeighbourImage]
    complete: bool = Field(description="False: there are more than `limit`; these are the nearest in time")


# -------------------------------------------------------------------------------------------------- ingestions


ItemState = Literal["pending", "indexed", "duplicate", "rejected", "failed", "removed"]


class ItemCounts(ResponseBody):
    pending: int
    indexed: int
    duplicate: int
    rejected: int
    failed: int
    removed: int = Field(description="Accepted, but the image was deleted since")


class IngestionResponse(ResponseBody):
    id: UUID
    state: Literal["open", "receiving", "done", "failed", "cancelled"]
    source: str
    total: int | None = Field(description="Items in the archive, once known")
    counts: ItemCounts
    done: bool = Field(description="Nothing is pending any more: every accepted image is searchable or has failed")
    error: str | None
    created_at: datetime
    finished_at: datetime | None


class IngestionProgress(IngestionResponse):
    """The data of one event."""

    rate: float | None = Field(description="Items a second over the last half minute, once that can be told")
    seconds_left: float | None = Field(description="Until nothing is pending, at this rate")


class ReferenceRequest(RequestBody):
    """A manifest that the service can read by itself."""

    manifest: Annotated[str, StringConstraints(min_length=1, max_length=2048)] = Field(
        description="A path, or a URL like s3://bucket/day/metadata.jsonl, below one of PERSON_SEARCH_INTAKE_ROOTS; "
        "its lines name files beside it"
    )


class IngestionItem(ResponseBody):
    position: int
    state: ItemState
    external_id: str | None
    file: str | None
    image_id: UUID | None
    code: str | None = Field(description="Why it was rejected, for machines")
    reason: str | None = Field(description="Why it was rejected, for people")
    pointer: str | None = Field(description="The field of its metadata the reason is about, if it is about one")


class IngestionItems(ResponseBody):
    items: list[IngestionItem]
    next_after: int | None = Field(description="Pass as `after` for the next page; null at the end")


# ----------------------------------------------------------------------------------------------------- cameras


class CameraRequest(RequestBody):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"id": "station-north", "name": "North entrance", "site": "Station"}]}
    )

    id: CameraId
    name: Name | None = None
    site: Name | None = None


class CameraChanges(RequestBody):
    """A field that is sent replaces what was there, null removes it, and what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "North entrance, upper level"}]})

    name: Name | None = None
    site: Name | None = None


class CameraResponse(ResponseBody):
    id: str
    name: str | None
    site: str | None
    created_at: datetime
    images: int = Field(description="How many images are from this camera")


class CameraList(ResponseBody):
    cameras: list[CameraResponse]


# -------------------------------------------------------------------------------------------------- operations


class Check(ResponseBody):
    """`required` is false where searches are answered all the same."""

    name: str
    ok: bool
    required: bool = True
    detail: str


class Readiness(ResponseBody):
    ready: bool
    checks: list[Check]


class Liveness(ResponseBody):
    alive: Literal[True] = True


class Version(ResponseBody):
    name: str
    version: str
    api: str
    checkpoint_id: str
    net: str | None
    has_text: bool


# ------------------------------------------------------------------------------------------------------ errors


class ProblemError(ResponseBody):
    pointer: str = Field(description="JSON pointer into the request body, or the name of the parameter")
    code: str
    detail: str


class Problem(ResponseBody):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    errors: list[ProblemError] = Field(default_factory=list)
