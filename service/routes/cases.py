"""Cases: open one, work on it with others, collect results of searches in it, remark on them.

A case that is not the caller's is as if absent. What is changed is written to the audit under the case.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy.orm import Session

from indexer import accounts, audit, cases
from indexer.audit import Purpose
from indexer.cases import CaseRecord, ItemRecord, MemberRecord, NoteRecord, VerdictRecord
from indexer.database import transaction
from service.case_schemas import (
    A_CASE,
    A_CHANGE,
    A_MEMBER,
    A_NOTE,
    AN_ITEM,
    EXAMPLE_CASE,
    EXAMPLE_ITEM,
    EXAMPLE_MEMBER,
    EXAMPLE_NOTE,
    CaseChange,
    CaseDetail,
    CaseList,
    CaseRequest,
    CaseResponse,
    ItemList,
    ItemRequest,
    ItemResponse,
    Member,
    MemberList,
    MemberRequest,
    NoteChange,
    NoteList,
    NoteRequest,
    NoteResponse,
    State,
    VerdictResponse,
)
from service.context import CurrentContext
from service.errors import Refusal, documented
from service.principals import Principal, may
from service.results import result_image
from service.routes.bodies import json_content, read_json, request_body
from service.routes.images import LOCATION

router = APIRouter(prefix="/api/v1/cases", tags=["cases"])

Investigator = Annotated[Principal, may("case")]
READING = ("unauthenticated", "forbidden", "not_found", "database_unavailable")
CHANGING = (*READING, "cross_origin", "case_closed")
WITH_BODY = ("body_too_large", "unsupported_media_type")


async def read_case(request: Request) -> CaseRequest:
    return await read_json(request, CaseRequest)


async def read_change(request: Request) -> CaseChange:
    return await read_json(request, CaseChange)


async def read_member(request: Request) -> MemberRequest:
    return await read_json(request, MemberRequest)


async def read_item(request: Request) -> ItemRequest:
    return await read_json(request, ItemRequest)


async def read_note(request: Request) -> NoteRequest:
    return await read_json(request, NoteRequest)


async def read_note_change(request: Request) -> NoteChange:
    return await read_json(request, NoteChange)


def answered(example: Any, *codes: str, status: int = 200, **more: Any) -> dict[int | str, dict[str, Any]]:
    return {status: {**more, "content": {"application/json": {"example": example}}}, **documented(*codes)}


def record(
    session: Session,
    principal: Principal,
    action: str,
    case_id: UUID,
    about: tuple[str, UUID] | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """An act in a case; about the case itself, if not about something in it."""
    kind, id = about or ("case", case_id)
    audit.record(session, principal.actor, action, (kind, str(id)), purpose=Purpose(case_id), detail=detail)


# ------------------------------------------------------------------------------------------------------------- cases


@router.post(
    "",
    status_code=201,
    responses=answered(
        EXAMPLE_CASE,
        *("unauthenticated", "forbidden", "cross_origin", "database_unavailable", *WITH_BODY),
        status=201,
        headers=LOCATION,
    ),
    openapi_extra=request_body(json_content(CaseRequest, {"a case": A_CASE})),
)
def create_case(
    context: CurrentContext,
    principal: Investigator,
    asked: Annotated[CaseRequest, Depends(read_case)],
    response: Response,
) -> CaseResponse:
    """Open a case. Who opens it works on it; add the others."""
    with transaction(context.database.engine) as session:
        case = cases.create(session, principal.actor, asked.title)
        record(session, principal, "case.create", case.id)
    response.headers["Location"] = f"/api/v1/cases/{case.id}"
    return described(case)


@router.get(
    "",
    responses=answered(
        {"cases": [EXAMPLE_CASE], "next_before": None}, "unauthenticated", "forbidden", "database_unavailable"
    ),
)
def list_cases(
    context: CurrentContext,
    principal: Investigator,
    state: State | None = None,
    before: Annotated[UUID | None, Query(description="Cases older than this one")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> CaseList:
    """The cases you work on, the newest first."""
    with transaction(context.database.engine) as session:
        found = cases.cases(session, principal.actor, state, before, limit)
    shown = [described(case) for case in found]
    return CaseList(cases=shown, next_before=found[-1].id if len(found) == limit else None)


@router.get("/{case_id}", responses=answered({**EXAMPLE_CASE, "members": [EXAMPLE_MEMBER]}, *READING))
def get_case(context: CurrentContext, principal: Investigator, case_id: UUID) -> CaseDetail:
    """One case, and who works on it."""
    with transaction(context.database.engine) as session:
        case = cases.case(session, case_id, principal.actor)
        members = cases.members(session, case_id)
    return CaseDetail(**vars(described(case)), members=[described_member(member) for member in members])


@router.patch(
    "/{case_id}",
    responses=answered({**EXAMPLE_CASE, **A_CHANGE}, *READING, "cross_origin", *WITH_BODY),
    openapi_extra=request_body(json_content(CaseChange, {"close it": A_CHANGE, "another title": A_CASE})),
)
def change_case(
    context: CurrentContext,
    principal: Investigator,
    case_id: UUID,
    asked: Annotated[CaseChange, Depends(read_change)],
) -> CaseResponse:
    """Close a case, open it again, or give it another title. Nothing else can be changed in a closed one."""
    changes = {name: getattr(asked, name) for name in asked.model_fields_set}
    with transaction(context.database.engine) as session:
        case = cases.change(session, case_id, principal.actor, changes)
        told = {"changed": sorted(changes), **({"state": asked.state} if "state" in changes else {})}
        record(session, principal, "case.change", case_id, detail=told)
    return described(case)


def described(case: CaseRecord) -> CaseResponse:
    return CaseResponse(**vars(case), created_by=case.person_name)


# ----------------------------------------------------------------------------------------------------------- members


@router.post(
    "/{case_id}/members",
    responses=answered({"members": [EXAMPLE_MEMBER]}, *CHANGING, *WITH_BODY),
    openapi_extra=request_body(json_content(MemberRequest, {"a user": A_MEMBER})),
)
def add_member(
    context: CurrentContext,
    principal: Investigator,
    case_id: UUID,
    asked: Annotated[MemberRequest, Depends(read_member)],
) -> MemberList:
    """Let another user work on the case; the answer is everybody who does. They still see only their own cameras."""
    is_open = context.settings.auth == "open"
    with transaction(context.database.engine) as session:
        cases.open_case(session, case_id, principal.actor)
        name = name_given(asked) if is_open else name_of_user(session, asked.person_id)
        added = cases.add_member(session, case_id, asked.person_id, name)
        members = cases.members(session, case_id)
        if added:
            record(session, principal, "case.member_add", case_id, ("user", asked.person_id))
    return MemberList(members=[described_member(member) for member in members])


@router.delete("/{case_id}/members/{person_id}", status_code=204, responses=documented(*CHANGING, "case_conflict"))
def remove_member(context: CurrentContext, principal: Investigator, case_id: UUID, person_id: UUID) -> None:
    """Take somebody off the case. Somebody has to stay."""
    with transaction(context.database.engine) as session:
        cases.open_case(session, case_id, principal.actor)
        cases.remove_member(session, case_id, person_id)
        record(session, principal, "case.member_remove", case_id, ("user", person_id))


def name_given(asked: MemberRequest) -> str:
    """Where nobody signs in, people are who they are said to be. Raises Refusal without a name."""
    if "name" not in asked.model_fields_set:
        sentence = "This service is open, so nobody signs in here: give the name of this person, too."
        raise Refusal("invalid_request", sentence, "/name")
    return asked.name


def name_of_user(session: Session, id: UUID) -> str:
    """Raises Refusal for whom there is no account, or one that is disabled."""
    user = accounts.user_by_id(session, id)
    if user is None or user.disabled_at is not None:
        sentence = f"There is no user {id} who could sign in. Correct the id, or ask an admin for it."
        raise Refusal("not_found", sentence, "/person_id")
    return user.name


def described_member(member: MemberRecord) -> Member:
    return Member(person_id=member.person_id, name=member.person_name, added_at=member.added_at)


# ------------------------------------------------------------------------------------------------------------- items


@router.post(
    "/{case_id}/items",
    status_code=201,
    responses={
        **answered(EXAMPLE_ITEM, *CHANGING, *WITH_BODY, "expired", status=201, headers=LOCATION),
        200: {
            "description": "This image was in the case already; nothing changed",
            "model": ItemResponse,
            "headers": LOCATION,
            "content": {"application/json": {"example": EXAMPLE_ITEM}},
        },
    },
    openapi_extra=request_body(json_content(ItemRequest, {"a result": AN_ITEM})),
)
def add_item(
    context: CurrentContext,
    principal: Investigator,
    case_id: UUID,
    asked: Annotated[ItemRequest, Depends(read_item)],
    response: Response,
) -> ItemResponse:
    """Put a result of a search into the case, with its rank and what was asked. An image is in a case once."""
    with transaction(context.database.engine) as session:
        cases.open_case(session, case_id, principal.actor)
        found = cases.ranked(session, asked.search_id, asked.image_id, principal.actor, principal.cameras)
        id, added = cases.add_item(session, case_id, principal.actor, found, asked.note)
        item = cases.item(session, case_id, id, principal.cameras)
        if added:
            told = {"image": str(found.image_id), "search": str(found.search.id), "rank": found.rank}
            record(session, principal, "case.item_add", case_id, ("case_item", id), told)
    response.status_code = 201 if added else 200
    response.headers["Location"] = f"/api/v1/cases/{case_id}/items/{id}"
    return described_item(item, context.settings.verdicts_needed)


@router.get("/{case_id}/items", responses=answered({"items": [EXAMPLE_ITEM], "next_after": None}, *READING))
def list_items(
    context: CurrentContext,
    principal: Investigator,
    case_id: UUID,
    after: Annotated[UUID | None, Query(description="Items added after this one")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> ItemList:
    """What was collected, in the order it was added, with everybody's verdicts."""
    with transaction(context.database.engine) as session:
        cases.case(session, case_id, principal.actor)
        found = cases.items(session, case_id, principal.cameras, after, limit)
    shown = [described_item(item, context.settings.verdicts_needed) for item in found]
    return ItemList(items=shown, next_after=found[-1].id if len(found) == limit else None)


@router.get("/{case_id}/items/{item_id}", responses=answered(EXAMPLE_ITEM, *READING))
def get_item(context: CurrentContext, principal: Investigator, case_id: UUID, item_id: UUID) -> ItemResponse:
    """One item, with everybody's verdicts."""
    with transaction(context.database.engine) as session:
        cases.case(session, case_id, principal.actor)
        item = cases.item(session, case_id, item_id, principal.cameras)
    return described_item(item, context.settings.verdicts_needed)


@router.patch(
    "/{case_id}/items/{item_id}",
    responses=answered(EXAMPLE_ITEM, *CHANGING, *WITH_BODY, "case_conflict"),
    openapi_extra=request_body(json_content(NoteChange, {"a note": A_NOTE})),
)
def change_item(
    context: CurrentContext,
    principal: Investigator,
    case_id: UUID,
    item_id: UUID,
    asked: Annotated[NoteChange, Depends(read_note_change)],
) -> ItemResponse:
    """Change the note on an item. It goes with the image when that is erased."""
    with transaction(context.database.engine) as session:
        cases.open_case(session, case_id, principal.actor)
        cases.present_item(session, case_id, item_id, principal.cameras)
        cases.change_item(session, item_id, asked.note)
        item = cases.item(session, case_id, item_id, principal.cameras)
        record(session, principal, "case.item_change", case_id, ("case_item", item_id))
    return described_item(item, context.settings.verdicts_needed)


@router.delete("/{case_id}/items/{item_id}", status_code=204, responses=documented(*CHANGING, "case_conflict"))
def remove_item(context: CurrentContext, principal: Investigator, case_id: UUID, item_id: UUID) -> None:
    """Take an item out of the case. The image stays in the gallery; the line of an erased one stays in the case."""
    with transaction(context.database.engine) as session:
        cases.open_case(session, case_id, principal.actor)
        item = cases.present_item(session, case_id, item_id, principal.cameras)
        cases.remove_item(session, item_id)
        told = {"image": str(item.image_id)}
        record(session, principal, "case.item_remove", case_id, ("case_item", item_id), told)


def described_item(item: ItemRecord, verdicts_needed: int) -> ItemResponse:
    shown = {name: value for name, value in vars(item).items() if name not in ("image", "verdicts", "person_name")}
    return ItemResponse(
        **shown,
        added_by=item.person_name,
        image=None if item.image is None else result_image(item.image),
        outcome=cases.outcome(item.verdicts, verdicts_needed),
        verdicts=[described_verdict(verdict) for verdict in item.verdicts],
    )


def described_verdict(verdict: VerdictRecord) -> VerdictResponse:
    return VerdictResponse(**vars(verdict), name=verdict.person_name)


# ------------------------------------------------------------------------------------------------------------- notes


@router.post(
    "/{case_id}/notes",
    status_code=201,
    responses=answered(EXAMPLE_NOTE, *CHANGING, *WITH_BODY, status=201),
    openapi_extra=request_body(json_content(NoteRequest, {"a note": A_NOTE})),
)
def add_note(
    context: CurrentContext,
    principal: Investigator,
    case_id: UUID,
    asked: Annotated[NoteRequest, Depends(read_note)],
) -> NoteResponse:
    """Remark on the case as a whole. Remarks are neither changed nor removed."""
    with transaction(context.database.engine) as session:
        cases.open_case(session, case_id, principal.actor)
        note = cases.add_note(session, case_id, principal.actor, asked.note)
        record(session, principal, "case.note_add", case_id, ("case_note", note.id))
    return described_note(note)


@router.get("/{case_id}/notes", responses=answered({"notes": [EXAMPLE_NOTE]}, *READING))
def list_notes(context: CurrentContext, principal: Investigator, case_id: UUID) -> NoteList:
    """All remarks on the case, the oldest first."""
    with transaction(context.database.engine) as session:
        cases.case(session, case_id, principal.actor)
        found = cases.notes(session, case_id)
    return NoteList(notes=[described_note(note) for note in found])


def described_note(note: NoteRecord) -> NoteResponse:
    return NoteResponse(**vars(note), name=note.person_name)
