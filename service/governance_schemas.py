"""Request and response bodies of erasures, legal holds and retention policies; strict as those of schemas.py."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import Field, StringConstraints, model_validator

from service.filter_schemas import Filter
from service.schemas import EXAMPLE_ID, CameraId, Name, RequestBody, ResponseBody, Time, optional

IDS_MAX = 1000
Reason = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00-\x1F\x7F]+$")]

BY_FILTER: dict[str, Any] = {
    "filter": {"camera_id": {"eq": "station-north"}, "captured_at": {"lt": "2026-06-01T00:00:00Z"}},
    "reason": "The lease of the north entrance ended.",
    "dry_run": True,
}
BY_IDENTITY: dict[str, Any] = {"identity": "visitor-17", "reason": "Request of the person concerned, file 2026/14."}
BY_IDS: dict[str, Any] = {"image_ids": [EXAMPLE_ID], "reason": "Taken by mistake."}
A_HOLD: dict[str, Any] = {
    "reason": "Court order 12/2026",
    "camera_id": "station-north",
    "captured_from": "2026-09-01T00:00:00Z",
    "captured_until": "2026-09-02T00:00:00Z",
}
A_POLICY: dict[str, Any] = {"camera_id": "station-north", "days": 30}


class ErasureRequest(RequestBody):
    """Whom to erase: exactly one of `image_ids`, `external_ids`, `identity` and `filter`. The reason is kept."""

    image_ids: list[UUID] = optional(min_length=1, max_length=IDS_MAX)
    external_ids: list[Name] = optional(min_length=1, max_length=IDS_MAX)
    identity: Name = optional()
    filter: Filter = optional(description="The language of searches; it must have at least one condition.")
    reason: Reason = Field(description="Kept in the receipt for good, so it must not name the person.")
    dry_run: bool = Field(False, description="Only count what would be erased.")

    @model_validator(mode="after")
    def exactly_one(self) -> Self:
        if len(self.model_fields_set & {"image_ids", "external_ids", "identity", "filter"}) != 1:
            raise ValueError("Say whom to erase by exactly one of image_ids, external_ids, identity and filter.")
        if "filter" in self.model_fields_set and not self.filter.comparisons() and not self.filter.any:
            raise ValueError("An empty filter would erase everything. Add a condition.")
        return self


class ErasureCounts(ResponseBody):
    images: int = 0
    embeddings: int = Field(0, description="Of all checkpoints")
    files: int = Field(0, description="Removed, with their thumbnails")
    files_shared: int = Field(0, description="Left, because another image shows them")
    rankings: int = Field(0, description="Kept searches that had one of the images among their results")
    searches: int = Field(0, description="Kept searches that asked for the person; they have expired now")
    saved_searches: int = Field(0, description="Saved searches that asked for the person; they are gone")
    ledger_lines: int = Field(0, description="Lines of ingestions that named the person; they are blank now")
    ingestions: int = Field(0, description="Ingestions whose source or error named the person; it is blank now")
    gate_reports: int = Field(0, description="Reports on checkpoints that listed one of the images")
    case_items: int = Field(0, description="Items of cases; a line with the date stays of each")
    verdicts: int = Field(0, description="Verdicts on the images")
    case_texts: int = Field(0, description="Titles and notes of cases that named the person; they are blank now")
    case_exports: int = Field(0, description="Exports of cases that had one of the images and were still kept here")
    audit_reasons: int = Field(0, description="Reasons in the audit that named the person; the rows stay")
    request_keys: int = Field(0, description="Idempotency-Keys that named the person; they are forgotten")
    held: int = Field(0, description="Under legal hold: with any of these, nothing is erased")


class ErasureResponse(ResponseBody):
    id: UUID | None = Field(description="null for a dry run")
    state: Literal["counted", "running", "done"] = Field(description="`counted`: a dry run, nothing was erased")
    reason: str
    selection: dict[str, Any] = Field(description="How the images were selected, without what was selected")
    counts: ErasureCounts
    proof: str | None = Field(description="What was searched afterwards and found empty")
    created_at: datetime | None
    finished_at: datetime | None


class ErasureList(ResponseBody):
    erasures: list[ErasureResponse]
    next_before: UUID | None = Field(description="Pass as `before` for the next page; null at the end")


class HoldRequest(RequestBody):
    """What to hold: exactly one of `image_ids`, `identity` and `camera_id`, the camera with a time if need be."""

    reason: Reason
    image_ids: list[UUID] = optional(min_length=1, max_length=IDS_MAX)
    identity: Name = optional()
    camera_id: CameraId = optional()
    captured_from: Time = optional()
    captured_until: Time = optional(
        description="Not included. Where it is not known when an image was taken, when it was added counts."
    )

    @model_validator(mode="after")
    def exactly_one(self) -> Self:
        given = self.model_fields_set
        if len(given & {"image_ids", "identity", "camera_id"}) != 1:
            raise ValueError("Say what to hold by exactly one of image_ids, identity and camera_id.")
        if given & {"captured_from", "captured_until"} and "camera_id" not in given:
            raise ValueError("A time belongs to a camera. Add camera_id, or leave the time out.")
        return self


class HoldResponse(ResponseBody):
    id: UUID
    reason: str
    image_ids: list[UUID] | None
    identity: str | None
    camera_id: str | None
    captured_from: datetime | None
    captured_until: datetime | None
    images: int = Field(description="How many images it protects now; later ones may be added")
    created_at: datetime


class HoldList(ResponseBody):
    legal_holds: list[HoldResponse]


class PolicyRequest(RequestBody):
    """How many days images are kept, from when they were taken, or were added where that is not known."""

    camera_id: Name | None = Field(None, description="null or left out: every camera without a policy of its own")
    days: int = Field(ge=1, le=36_500)


class PolicyResponse(ResponseBody):
    camera_id: str | None
    days: int
    updated_at: datetime


class PolicyList(ResponseBody):
    retention_policies: list[PolicyResponse]
