"""Request and response bodies of case work; strict as those of schemas.py."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import Field, StringConstraints, model_validator

from service.schemas import EXAMPLE_ID, Name, RequestBody, ResponseBody, optional
from service.search_schemas import ResultImage

Note = Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=r"^[^\x00-\x08\x0B\x0C\x0E-\x1F\x7F]+$")]
State = Literal["open", "closed"]
Word = Literal["match", "no_match", "unsure"]

A_CASE: dict[str, Any] = {"title": "Missing since 1 September, north entrance"}
A_CHANGE: dict[str, Any] = {"state": "closed"}
A_MEMBER: dict[str, Any] = {"person_id": EXAMPLE_ID, "name": "m.berger"}
AN_ITEM: dict[str, Any] = {"search_id": EXAMPLE_ID, "image_id": EXAMPLE_ID, "note": "the same bag as on the platform"}
A_NOTE: dict[str, Any] = {"note": "Asked the operator of the south entrance for images of the same hour."}
A_VERDICT: dict[str, Any] = {"verdict": "match", "note": "scar on the left hand"}


class CaseRequest(RequestBody):
    title: Name = Field(description="Kept as long as the case; better a reference than a name")


class CaseChange(RequestBody):
    title: Name = optional()
    state: State = optional()

    @model_validator(mode="after")
    def something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("There is nothing to change: give a title, a state, or both.")
        return self


class MemberRequest(RequestBody):
    person_id: UUID = Field(description="The id of a user")
    name: Name = optional(description="Only where the service is open: elsewhere people go by their accounts' names")


class ItemRequest(RequestBody):
    """A result of a search that is still kept."""

    search_id: UUID
    image_id: UUID
    note: Note | None = None


class NoteChange(RequestBody):
    note: Note | None = Field(description="null: none")


class NoteRequest(RequestBody):
    note: Note


class VerdictRequest(RequestBody):
    verdict: Word
    note: Note | None = None


class ExportRequest(RequestBody):
    reason: Name | None = Field(None, description="Why the case leaves the system; kept in the audit")


class Member(ResponseBody):
    person_id: UUID = Field(description="Zeros stand for everybody, where the service is open to this machine")
    name: str
    added_at: datetime


class CaseResponse(ResponseBody):
    id: UUID
    title: str
    state: State
    created_by: str
    created_at: datetime
    closed_at: datetime | None
    items: int = Field(description="Erased ones are counted, too")


class CaseDetail(CaseResponse):
    members: list[Member]


class CaseList(ResponseBody):
    cases: list[CaseResponse]
    next_before: UUID | None = Field(description="Pass as `before` for the next page; null at the end")


class MemberList(ResponseBody):
    members: list[Member]


class VerdictResponse(ResponseBody):
    search_id: UUID
    image_id: UUID
    person_id: UUID
    name: str
    verdict: Word
    note: str | None
    at: datetime


class ItemResponse(ResponseBody):
    id: UUID
    state: Literal["present", "erased", "withheld"] = Field(
        description="erased: only this line is left; withheld: you may not see the camera"
    )
    image_id: UUID | None
    search_id: UUID
    rank: int
    similarity: float | None
    band: str | None
    checkpoint_id: str
    note: str | None
    added_by: str
    added_at: datetime
    erased_at: datetime | None
    image: ResultImage | None
    outcome: Literal["undecided", "confirmed", "rejected", "conflicting"] = Field(
        description="`confirmed` takes the word of as many different people as the service asks for, two by default"
    )
    verdicts: list[VerdictResponse]


class ItemList(ResponseBody):
    items: list[ItemResponse]
    next_after: UUID | None = Field(description="Pass as `after` for the next page; null at the end")


class NoteResponse(ResponseBody):
    id: UUID
    note: str
    name: str
    created_at: datetime


class NoteList(ResponseBody):
    notes: list[NoteResponse]


class ExportResponse(ResponseBody):
    id: UUID
    case_id: UUID
    images: int
    byte_size: int | None
    sha256: str | None = Field(description="Of the zip")
    created_by: str
    created_at: datetime
    expires_at: datetime
    content: str = Field(description="Path of the zip")


class ExportList(ResponseBody):
    exports: list[ExportResponse]


EXAMPLE_VERDICT: dict[str, Any] = {
    "search_id": EXAMPLE_ID,
    "image_id": EXAMPLE_ID,
    "person_id": EXAMPLE_ID,
    "name": "m.berger",
    **A_VERDICT,
    "at": "2026-09-02T08:10:00Z",
}
EXAMPLE_CASE: dict[str, Any] = {
    "id": EXAMPLE_ID,
    **A_CASE,
    "state": "open",
    "created_by": "m.berger",
    "created_at": "2026-09-02T08:00:00Z",
    "closed_at": None,
    "items": 3,
}
EXAMPLE_MEMBER = {"person_id": EXAMPLE_ID, "name": "m.berger", "added_at": "2026-09-02T08:00:00Z"}
EXAMPLE_ITEM: dict[str, Any] = {
    "id": EXAMPLE_ID,
    "state": "present",
    "image_id": EXAMPLE_ID,
    "search_id": EXAMPLE_ID,
    "rank": 3,
    "similarity": 0.4127,
    "band": "possible",
    "checkpoint_id": "3f2a9c51d07be846",
    "note": AN_ITEM["note"],
    "added_by": "m.berger",
    "added_at": "2026-09-02T08:05:00Z",
    "erased_at": None,
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
    "outcome": "undecided",
    "verdicts": [EXAMPLE_VERDICT],
}
EXAMPLE_NOTE = {"id": EXAMPLE_ID, **A_NOTE, "name": "m.berger", "created_at": "2026-09-02T08:20:00Z"}
EXAMPLE_EXPORT: dict[str, Any] = {
    "id": EXAMPLE_ID,
    "case_id": EXAMPLE_ID,
    "images": 3,
    "byte_size": 184_320,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "created_by": "m.berger",
    "created_at": "2026-09-02T09:00:00Z",
    "expires_at": "2026-09-03T09:00:00Z",
    "content": f"/api/v1/cases/{EXAMPLE_ID}/exports/{EXAMPLE_ID}/content",
}
