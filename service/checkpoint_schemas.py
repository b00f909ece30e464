"""Request and response bodies about checkpoints."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import Field, StringConstraints, model_validator

from service.schemas import Description, Name, RequestBody, ResponseBody

LABELLED_TEXTS_MAX = 1000
CheckpointId = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z_-]{1,64}$")]


class LabelledDescription(RequestBody):
    """A description, and the identity in the gallery that it describes."""

    text: Description
    identity: Name


class RollbackRequest(RequestBody):
    """How an image missing afterwards is dealt with."""

    allow_missing: int = Field(0, ge=0, le=10**9, description="Images that may be lost to search")
    force: bool = Field(False, description="Go on although it is refused; needs a reason")
    reason: Name | None = Field(None, description="Kept with what was done")

    @model_validator(mode="after")
    def forced_for_a_reason(self) -> Self:
        if self.force and self.reason is None:
            raise ValueError("To overrule a refusal, say why: add a reason.")
        return self


class GateRequest(RequestBody):
    """What the gate accepts, and what it can measure text search on."""

    allow_missing: int = Field(0, ge=0, le=10**9, description="Images that may be lost to search")
    labelled_texts: list[LabelledDescription] = Field(default_factory=list, max_length=LABELLED_TEXTS_MAX)


class ActivationRequest(RollbackRequest):
    labelled_texts: list[LabelledDescription] = Field(default_factory=list, max_length=LABELLED_TEXTS_MAX)


class CoverageResponse(ResponseBody):
    images: int
    embedded: int
    pending: int
    failed: int
    per_second: float = Field(description="Embedded lately")
    seconds_left: float | None = Field(description="null while nothing is being embedded")


class MissingImage(ResponseBody):
    image_id: UUID
    state: Literal["pending", "failed"]
    error: str | None


class OverlapResponse(ResponseBody):
    queries: int
    mean: float
    lowest: float


class Rank1Response(ResponseBody):
    queries: int
    active: float
    candidate: float


class GateReport(ResponseBody):
    """What the gate found when it compared a candidate with the checkpoint that was active then."""

    candidate_id: str
    active_id: str
    passed: bool
    refusals: list[str]
    warnings: list[str]
    missing: int = Field(description="Images that are found now and would not be found")
    allow_missing: int
    missing_images: list[MissingImage] = Field(description="The first of them")
    canaries: dict[str, float] = Field(description="Cosine with the vector stored when it was registered")
    overlap: dict[str, OverlapResponse] = Field(description="Share of the first ten that stays, by text and by image")
    rank1: dict[str, Rank1Response] = Field(description="On labelled images, across cameras, and on labelled texts")


class LastGateReport(GateReport):
    at: datetime


class CheckpointResponse(ResponseBody):
    id: str
    net: str
    dim: int
    state: Literal["active", "candidate", "retired"]
    created_at: datetime
    activated_at: datetime | None
    previous_id: str | None = Field(description="What a rollback goes back to")
    coverage: CoverageResponse | None = Field(description="null once retired")
    gate: LastGateReport | None = Field(description="The last report")


class CheckpointEvent(ResponseBody):
    kind: Literal["registered", "gate", "activated", "rolled_back", "retired"]
    at: datetime
    detail: dict[str, Any]


class CheckpointDetail(CheckpointResponse):
    info: dict[str, Any] = Field(description="What the checkpoint says of itself")
    events: list[CheckpointEvent] = Field(description="What was done with it, the last first")


class CheckpointList(ResponseBody):
    checkpoints: list[CheckpointResponse]
