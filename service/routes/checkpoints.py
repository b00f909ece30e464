"""Checkpoints: register one, watch it being embedded, let it answer searches, go back, let it go."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from indexer import checkpoints
from indexer.database import transaction
from indexer.gate import LabelledText
from service import upgrades
from service.checkpoint_schemas import (
    ActivationRequest,
    CheckpointDetail,
    CheckpointId,
    CheckpointList,
    CheckpointResponse,
    GateReport,
    GateRequest,
    LabelledDescription,
    RollbackRequest,
)
from service.context import Context, CurrentContext
from service.errors import documented
from service.operations import refuse_when_full
from service.principals import Principal, may
from service.routes.bodies import FILE, expect, json_content, read_json, request_body
from service.routes.deliveries import pump
from service.routes.images import LOCATION

router = APIRouter(prefix="/api/v1/checkpoints", tags=["checkpoints"])

Id = Annotated[CheckpointId, Path(alias="checkpoint_id")]
OCTETS = "application/octet-stream"

EXAMPLE_GATE: dict[str, Any] = {
    "candidate_id": "90be1f3377aa01c4",
    "active_id": "3f2a9c51d07be846",
    "passed": True,
    "refusals": [],
    "warnings": [],
    "missing": 0,
    "allow_missing": 0,
    "missing_images": [],
    "canaries": {"image": 1.0, "text": 1.0},
    "overlap": {"text": {"queries": 50, "mean": 0.74, "lowest": 0.3}},
    "rank1": {"image": {"queries": 500, "active": 0.912, "candidate": 0.931}},
}
EXAMPLE: dict[str, Any] = {
    "id": "90be1f3377aa01c4",
    "net": "axm_net",
    "dim": 512,
    "state": "candidate",
    "created_at": "2026-09-02T08:00:00Z",
    "activated_at": None,
    "previous_id": None,
    "coverage": {
        "images": 300,
        "embedded": 180,
        "pending": 119,
        "failed": 1,
        "per_second": 12.5,
        "seconds_left": 9.52,
    },
    "gate": {**EXAMPLE_GATE, "at": "2026-09-02T09:00:00Z"},
}
EXAMPLE_DETAIL = {
    **EXAMPLE,
    "info": {"net": "axm_net"},
    "events": [{"kind": "registered", "at": "2026-09-02T08:00:00Z", "detail": {"state": "candidate"}}],
}
BY_FORCE = {"allow_missing": 0, "force": True, "reason": "the old one cannot tell bags from backpacks"}
LABELLED = {"labelled_texts": [{"text": "a man in a red shirt", "identity": "p17"}]}


async def read_gate(request: Request) -> GateRequest:
    return await read_json(request, GateRequest)


async def read_activation(request: Request) -> ActivationRequest:
    return await read_json(request, ActivationRequest)


async def read_rollback(request: Request) -> RollbackRequest:
    return await read_json(request, RollbackRequest)


def answered_with(example: Any, *codes: str, status: int = 200, **more: Any) -> dict[int | str, dict[str, Any]]:
    return {status: {**more, "content": {"application/json": {"example": example}}}, **documented(*codes)}


CHANGING = ("cross_origin", "not_found", "checkpoint_conflict", "checkpoint_missing", "database_unavailable")
WITH_BODY = ("body_too_large", "unsupported_media_type")


@router.get("", responses=answered_with({"checkpoints": [EXAMPLE]}, "database_unavailable"))
def list_checkpoints(context: CurrentContext, principal: Annotated[Principal, may("upgrade")]) -> CheckpointList:
    """All checkpoints in the order they came, with how far their embeddings are."""
    with transaction(context.database.engine) as session:
        known = checkpoints.records(session)
    found = [CheckpointResponse(**upgrades.describe(context, record)) for record in known]
    return CheckpointList(checkpoints=found)


@router.post(
    "",
    status_code=201,
    responses=answered_with(
        EXAMPLE,
        "cross_origin",
        "body_too_large",
        "unsupported_media_type",
        "invalid_checkpoint",
        "database_unavailable",
        "storage_full",
        status=201,
        headers=LOCATION,
    ),
    openapi_extra=request_body({OCTETS: {"schema": FILE}}),
)
async def register_checkpoint(
    context: CurrentContext, principal: Annotated[Principal, may("upgrade")], request: Request, response: Response
) -> CheckpointResponse:
    """Send a checkpoint's file. It is verified and kept, and the workers begin to embed the gallery with it.

    Searches go on with the active one. Sending the same file again changes nothing, but brings back a retired one.
    """
    expect(request, OCTETS)
    refuse_when_full(context.settings)
    with context.files.upload() as path:
        with path.open("wb") as file:
            await pump(request, file.write, context.settings.max_checkpoint_bytes)
        encoder = await run_in_threadpool(context.files.admit, path, "The file sent")
    await run_in_threadpool(upgrades.register, context.database, encoder, principal.actor)
    response.headers["Location"] = f"/api/v1/checkpoints/{encoder.checkpoint_id}"
    return await run_in_threadpool(read, context, encoder.checkpoint_id)


@router.get("/{checkpoint_id}", responses=answered_with(EXAMPLE_DETAIL, "not_found", "database_unavailable"))
def get_checkpoint(
    context: CurrentContext, principal: Annotated[Principal, may("upgrade")], checkpoint_id: Id
) -> CheckpointDetail:
    """One checkpoint: how far it is, what it says of itself, what was done with it."""
    with transaction(context.database.engine) as session:
        record = checkpoints.record(session, checkpoint_id)
        done = checkpoints.events(session, checkpoint_id)
    events = [{"kind": event.kind, "at": event.created_at, "detail": event.detail} for event in done]
    return CheckpointDetail(**upgrades.describe(context, record), info=record.info, events=events)


@router.post(
    "/{checkpoint_id}/gate",
    responses=answered_with(EXAMPLE_GATE, *CHANGING, *WITH_BODY),
    openapi_extra=request_body(json_content(GateRequest, {"as it is": {}, "with labelled texts": LABELLED})),
)
def judge_checkpoint(
    context: CurrentContext,
    principal: Annotated[Principal, may("upgrade")],
    checkpoint_id: Id,
    asked: Annotated[GateRequest, Depends(read_gate)],
) -> GateReport:
    """Compare a candidate with the active checkpoint, and keep the report; nothing else changes."""
    texts = labelled(asked.labelled_texts)
    report = upgrades.gate(
        context, checkpoint_id, allow_missing=asked.allow_missing, labelled_texts=texts, actor=principal.actor
    )
    return GateReport(**report.as_json())


@router.post(
    "/{checkpoint_id}/activate",
    responses=answered_with(EXAMPLE, *CHANGING, *WITH_BODY, "gate_refused"),
    openapi_extra=request_body(json_content(ActivationRequest, {"if the gate agrees": {}, "by force": BY_FORCE})),
)
def activate_checkpoint(
    context: CurrentContext,
    principal: Annotated[Principal, may("upgrade")],
    checkpoint_id: Id,
    asked: Annotated[ActivationRequest, Depends(read_activation)],
) -> CheckpointResponse:
    """Have searches answered by a candidate, once the gate has judged it again.

    Every replica follows as soon as it has loaded it; until then it answers with the old one, as each answer says.
    """
    upgrades.activate(
        context,
        checkpoint_id,
        allow_missing=asked.allow_missing,
        force=asked.force,
        reason=asked.reason,
        labelled_texts=labelled(asked.labelled_texts),
        actor=principal.actor,
    )
    return read(context, checkpoint_id)


@router.post(
    "/{checkpoint_id}/rollback",
    responses=answered_with(EXAMPLE, *CHANGING, *WITH_BODY, "gate_refused"),
    openapi_extra=request_body(json_content(RollbackRequest, {"as it is": {}, "by force": BY_FORCE})),
)
def roll_back_checkpoint(
    context: CurrentContext,
    principal: Annotated[Principal, may("upgrade")],
    checkpoint_id: Id,
    asked: Annotated[RollbackRequest, Depends(read_rollback)],
) -> CheckpointResponse:
    """Leave this checkpoint, which must be the active one, for the one before it; the answer is that one.

    Naming the one to leave makes it safe to ask twice.
    """
    previous = upgrades.roll_back(
        context,
        checkpoint_id,
        allow_missing=asked.allow_missing,
        force=asked.force,
        reason=asked.reason,
        actor=principal.actor,
    )
    return read(context, previous)


@router.post("/{checkpoint_id}/retire", responses=answered_with(EXAMPLE, *CHANGING))
def retire_checkpoint(
    context: CurrentContext, principal: Annotated[Principal, may("upgrade")], checkpoint_id: Id
) -> CheckpointResponse:
    """Remove the embeddings and the file of a checkpoint that is not the active one."""
    upgrades.retire(context, checkpoint_id, principal.actor)
    return read(context, checkpoint_id)


def read(context: Context, checkpoint_id: str) -> CheckpointResponse:
    with transaction(context.database.engine) as session:
        record = checkpoints.record(session, checkpoint_id)
    return CheckpointResponse(**upgrades.describe(context, record))


def labelled(given: list[LabelledDescription]) -> list[LabelledText]:
    return [LabelledText(one.text, one.identity) for one in given]
