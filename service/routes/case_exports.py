"""Exports of cases: a zip with everything in it, which anybody can check elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, BinaryIO
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse

from indexer import audit, case_exports, cases
from indexer.audit import Purpose
from indexer.case_exports import ExportRecord
from indexer.database import transaction
from indexer.errors import NotFound
from service.case_schemas import EXAMPLE_EXPORT, ExportList, ExportRequest, ExportResponse
from service.context import CurrentContext
from service.errors import documented
from service.operations import refuse_when_full
from service.principals import Principal, may
from service.routes.bodies import FILE, json_content, read_json, request_body
from service.routes.cases import READING, WITH_BODY, answered, record
from service.routes.images import LOCATION

router = APIRouter(prefix="/api/v1/cases/{case_id}/exports", tags=["cases"])

Exporter = Annotated[Principal, may("export")]
ZIP = "application/zip"
EXAMPLES = {"as it is": {}, "with a reason": {"reason": "Handed to the court, file 12/2026."}}


async def read_export(request: Request) -> ExportRequest:
    return await read_json(request, ExportRequest)


@router.post(
    "",
    status_code=201,
    responses=answered(
        EXAMPLE_EXPORT,
        *(*READING, "cross_origin", "case_conflict", *WITH_BODY, "storage_full"),
        status=201,
        headers=LOCATION,
    ),
    openapi_extra=request_body(json_content(ExportRequest, EXAMPLES)),
)
def export_case(
    context: CurrentContext,
    principal: Exporter,
    case_id: UUID,
    asked: Annotated[ExportRequest, Depends(read_export)],
    response: Response,
) -> ExportResponse:
    """Put all of a case into a zip: images, what was said of them, the searches, the audit, and the sums of it all.

    What was erased is not in it, nor what you may not see. It can be fetched for a day, unless one of its images is
    erased before.
    """
    settings, scope = context.settings, principal.cameras
    refuse_when_full(settings)
    with transaction(context.database.engine) as session:
        cases.case(session, case_id, principal.actor)
        begun = case_exports.begin(session, case_id, principal.actor, scope, settings.case_export_hours)
        purpose, told = Purpose(case_id, asked.reason), {"images": len(begun.image_ids)}
        audit.record(
            session, principal.actor, "case.export", ("case_export", str(begun.id)), purpose=purpose, detail=told
        )
    made = case_exports.build(
        context.database,
        context.store,
        context.eraser.exports,
        begun,
        principal.actor,
        scope,
        settings.verdicts_needed,
        lambda: refuse_when_full(settings),
    )
    response.headers["Location"] = f"/api/v1/cases/{case_id}/exports/{made.id}"
    return described(made)


@router.get("", responses=answered({"exports": [EXAMPLE_EXPORT]}, *READING))
def list_exports(context: CurrentContext, principal: Exporter, case_id: UUID) -> ExportList:
    """The exports of a case that can be fetched, the newest first; those with images you may not see are left out."""
    with transaction(context.database.engine) as session:
        cases.case(session, case_id, principal.actor)
        found = case_exports.exports(session, case_id, principal.cameras)
    return ExportList(exports=[described(export) for export in found])


@router.get("/{export_id}", responses=answered(EXAMPLE_EXPORT, *READING))
def get_export(context: CurrentContext, principal: Exporter, case_id: UUID, export_id: UUID) -> ExportResponse:
    """An export: its size and its sum. It is gone when it has expired or one of its images was erased."""
    with transaction(context.database.engine) as session:
        cases.case(session, case_id, principal.actor)
        return described(case_exports.export(session, case_id, export_id, principal.cameras))


@router.get(
    "/{export_id}/content",
    response_class=StreamingResponse,
    responses={200: {"description": "The zip", "content": {ZIP: {"schema": FILE}}}, **documented(*READING)},
)
def get_export_content(
    context: CurrentContext, principal: Exporter, case_id: UUID, export_id: UUID
) -> StreamingResponse:
    """The zip itself. Every time it is fetched is in the audit."""
    with transaction(context.database.engine) as session:
        cases.case(session, case_id, principal.actor)
        found = case_exports.export(session, case_id, export_id, principal.cameras)
        try:
            file = case_exports.file_of(context.eraser.exports, found.id).open("rb")
        except FileNotFoundError as error:
            raise NotFound("The file of this export is gone. Export the case again.") from error
        record(session, principal, "case.export_fetch", case_id, ("case_export", export_id))
    name = f'attachment; filename="case-{case_id}.zip"'
    headers = {"Content-Length": str(found.byte_size), "Content-Disposition": name}
    return StreamingResponse(pieces(file), media_type=ZIP, headers=headers)


def pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while block := file.read(case_exports.CHUNK):
            yield block


def described(export: ExportRecord) -> ExportResponse:
    path = f"/api/v1/cases/{export.case_id}/exports/{export.id}/content"
    return ExportResponse(**vars(export), images=len(export.image_ids), created_by=export.person_name, content=path)
