"""Case work in SQL: cases, who works on them, what they collected, and what each of them says of it.

A case exists for its members only. Its items come from searches, and what the search said of them is copied, because
rankings are kept for a day. None of these functions commits, or writes the audit: their callers do both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, Select, delete, func, insert, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from indexer import gallery
from indexer import searches as kept
from indexer.audit import Actor
from indexer.case_tables import CaseFile, CaseItem, CaseMember, CaseNote, CaseSearch, Verdict
from indexer.errors import CaseClosed, CaseConflict, NotFound, SearchExpired
from indexer.filters import Scope, in_scope
from indexer.searches import SearchRecord
from indexer.tables import Image, new_id

Word = Literal["match", "no_match", "unsure"]
Outcome = Literal["undecided", "confirmed", "rejected", "conflicting"]

EVERYBODY = UUID(int=0)  # who acts where the service is open to everybody on the machine
PEOPLE = ("user", "open")  # kinds of actors whose word counts towards a confirmation; a machine is nobody


@dataclass(frozen=True)
class CaseRecord:
    """A case as stored; `items` counts the erased ones, too."""

    id: UUID
    title: str
    state: str
    person_name: str
    created_at: datetime
    closed_at: datetime | None
    items: int


@dataclass(frozen=True)
class MemberRecord:
    person_id: UUID
    person_name: str
    added_at: datetime


@dataclass(frozen=True)
class NoteRecord:
    id: UUID
    note: str
    person_name: str
    created_at: datetime


@dataclass(frozen=True)
class VerdictRecord:
    """What one person says of one result of one search."""

    search_id: UUID
    image_id: UUID
    person_id: UUID
    person_kind: str
    person_name: str
    verdict: Word
    note: str | None
    at: datetime


@dataclass(frozen=True)
class CaseSearchRecord:
    """A search whose results are in the case: the request as it was understood, empty once it was erased."""

    search_id: UUID
    request: dict[str, Any]
    checkpoint_id: str
    ran_at: datetime


@dataclass(frozen=True)
class ItemRecord:
    """An item. `state`: present, erased (only the date is left), or withheld from whoever may not see its camera."""

    id: UUID
    state: Literal["present", "erased", "withheld"]
    image_id: UUID | None
    search_id: UUID
    rank: int
    similarity: float | None
    band: str | None
    checkpoint_id: str
    note: str | None
    person_name: str
    added_at: datetime
    erased_at: datetime | None
    image: gallery.ImageRecord | None
    verdicts: tuple[VerdictRecord, ...] = ()


def person_of(actor: Actor) -> UUID:
    return EVERYBODY if actor.id is None else actor.id


# --------------------------------------------------------------------------------------------------------------------
# Cases


def create(session: Session, actor: Actor, title: str) -> CaseRecord:
    """Open a case; who opens it is its first member."""
    person = {"person_id": person_of(actor), "person_name": actor.name}
    id = new_id()
    session.execute(insert(CaseFile).values(id=id, title=title, **person))
    session.execute(insert(CaseMember).values(case_id=id, **person))
    return case(session, id, actor)


def case(session: Session, id: UUID, actor: Actor) -> CaseRecord:
    """One case of this member's. Raises `NotFound`, whether there is none or it is other people's."""
    found = session.execute(_cases(actor).where(CaseFile.id == id)).one_or_none()
    if found is None:
        raise NotFound(f"There is no case {id}.")
    return _case(found)


def open_case(session: Session, id: UUID, actor: Actor) -> None:
    """Make sure that this member may change the case until the transaction ends. Raises `NotFound`, `CaseClosed`."""
    case(session, id, actor)
    state = session.scalar(select(CaseFile.state).where(CaseFile.id == id).with_for_update(read=True))
    if state != "open":
        raise CaseClosed(f"Case {id} is closed. Open it again to change it.")


def cases(
    session: Session, actor: Actor, state: str | None = None, before: UUID | None = None, limit: int = 50
) -> list[CaseRecord]:
    """Up to `limit` cases of this member's, the newest first, older than `before`."""
    chosen = _cases(actor).order_by(CaseFile.id.desc()).limit(limit)
    if state is not None:
        chosen = chosen.where(CaseFile.state == state)
    if before is not None:
        chosen = chosen.where(CaseFile.id < before)
    return [_case(row) for row in session.execute(chosen)]


def change(session: Session, id: UUID, actor: Actor, changes: Mapping[str, Any]) -> CaseRecord:
    """Set the `title` or the `state` of a case. Raises `NotFound`."""
    case(session, id, actor)
    values = dict(changes)
    if "state" in values:
        values["closed_at"] = func.now() if values["state"] == "closed" else None
    session.execute(update(CaseFile).where(CaseFile.id == id).values(values))
    return case(session, id, actor)


def _cases(actor: Actor) -> Select[Any]:
    items = select(func.count()).where(CaseItem.case_id == CaseFile.id).correlate(CaseFile).scalar_subquery()
    mine = (CaseMember.case_id == CaseFile.id) & (CaseMember.person_id == person_of(actor))
    return select(CaseFile, items.label("items")).join(CaseMember, mine).execution_options(populate_existing=True)


def _case(row: Row[Any]) -> CaseRecord:
    columns = {name: getattr(row.CaseFile, name) for name in CaseRecord.__dataclass_fields__ if name != "items"}
    return CaseRecord(**columns, items=row.items)


# --------------------------------------------------------------------------------------------------------------------
# Members and notes


def members(session: Session, case_id: UUID) -> list[MemberRecord]:
    """Everybody who works on the case, in the order they came."""
    found = session.scalars(
        select(CaseMember).where(CaseMember.case_id == case_id).order_by(CaseMember.added_at, CaseMember.person_id)
    )
    return [MemberRecord(member.person_id, member.person_name, member.added_at) for member in found]


def add_member(session: Session, case_id: UUID, person_id: UUID, person_name: str) -> bool:
    """Let somebody work on the case; False if they do already."""
    values = {"case_id": case_id, "person_id": person_id, "person_name": person_name}
    added = upsert(CaseMember).values(values).on_conflict_do_nothing().returning(CaseMember.person_id)
    return session.scalar(added) is not None


def remove_member(session: Session, case_id: UUID, person_id: UUID) -> None:
    """Take somebody off the case. Raises `NotFound`, and `CaseConflict` for the last one."""
    present = session.scalars(
        select(CaseMember.person_id).where(CaseMember.case_id == case_id).order_by("person_id").with_for_update()
    ).all()
    if person_id not in present:
        raise NotFound(f"There is no member {person_id} of this case.")
    if len(present) == 1:
        raise CaseConflict("A case needs somebody who works on it. Add another member before you remove the last one.")
    session.execute(delete(CaseMember).where(CaseMember.case_id == case_id, CaseMember.person_id == person_id))


def add_note(session: Session, case_id: UUID, actor: Actor, note: str) -> NoteRecord:
    """Write a remark on the case as a whole."""
    values = {"id": new_id(), "case_id": case_id, "note": note, "person_name": actor.name}
    added = insert(CaseNote).values(**values, person_id=person_of(actor)).returning(CaseNote)
    return _note(session.scalars(added).one())


def notes(session: Session, case_id: UUID) -> list[NoteRecord]:
    """All remarks on the case, the oldest first."""
    found = session.scalars(select(CaseNote).where(CaseNote.case_id == case_id).order_by(CaseNote.id))
    return [_note(row) for row in found]


def _note(row: CaseNote) -> NoteRecord:
    return NoteRecord(row.id, row.note, row.person_name, row.created_at)


# --------------------------------------------------------------------------------------------------------------------
# Items


@dataclass(frozen=True)
class Ranked:
    """A result of a kept search."""

    search: SearchRecord
    image_id: UUID
    rank: int
    similarity: float
    band: str | None


def ranked(session: Session, search_id: UUID, image_id: UUID, actor: Actor, scope: Scope) -> Ranked:
    """The place of an image in a kept ranking of the actor's own. Raises `SearchExpired`, and `NotFound`, also for
    searches of others and for images out of scope.
    """
    search = kept.by_id(session, search_id)
    if search is None or search.owner != actor.id:
        raise NotFound(f"There is no search {search_id}.")
    if search.expires_at <= datetime.now(UTC):
        raise SearchExpired("This search has expired: rankings are kept for 24 hours. Run it again.")
    row = kept.row_of(session, image_id, scope)
    place = None if row is None else kept.place_of(session, search, row)
    if place is None:
        raise NotFound(f"The search {search_id} has no result {image_id}.")
    rank, similarity = place
    return Ranked(search, image_id, rank, similarity, kept.band(similarity, search.request.get("bands")))


def add_item(session: Session, case_id: UUID, actor: Actor, found: Ranked, note: str | None) -> tuple[UUID, bool]:
    """Put a result into a case: the item's id, and whether it is new. An image is in a case once."""
    search = found.search
    asked = {"case_id": case_id, "search_id": search.id, "request": search.request["asked"]}
    told = {"checkpoint_id": search.checkpoint_id, "ran_at": search.created_at}
    session.execute(upsert(CaseSearch).values(**asked, **told).on_conflict_do_nothing())
    values = {
        "id": new_id(),
        "case_id": case_id,
        "image_id": found.image_id,
        "search_id": search.id,
        "rank": found.rank,
        "similarity": found.similarity,
        "band": found.band,
        "checkpoint_id": search.checkpoint_id,
        "note": note,
        "person_id": person_of(actor),
        "person_name": actor.name,
    }
    added = session.scalar(upsert(CaseItem).values(values).on_conflict_do_nothing().returning(CaseItem.id))
    if added is not None:
        return added, True
    here = select(CaseItem.id).where(CaseItem.case_id == case_id, CaseItem.image_id == found.image_id)
    return session.scalars(here).one(), False


def items(
    session: Session, case_id: UUID, scope: Scope, after: UUID | None = None, limit: int | None = None
) -> list[ItemRecord]:
    """Items in the order they were added, with the verdicts of everybody."""
    chosen = select(CaseItem).where(CaseItem.case_id == case_id).order_by(CaseItem.id).limit(limit)
    if after is not None:
        chosen = chosen.where(CaseItem.id > after)
    return _items(session, session.scalars(chosen.execution_options(populate_existing=True)).all(), scope)


def item(session: Session, case_id: UUID, item_id: UUID, scope: Scope) -> ItemRecord:
    """One item. Raises `NotFound`."""
    chosen = select(CaseItem).where(CaseItem.case_id == case_id, CaseItem.id == item_id)
    found = _items(session, session.scalars(chosen.execution_options(populate_existing=True)).all(), scope)
    if not found:
        raise NotFound(f"There is no item {item_id} in this case.")
    return found[0]


def present_item(session: Session, case_id: UUID, item_id: UUID, scope: Scope) -> ItemRecord:
    """An item that can be worked on. Raises `NotFound` also for one that is out of scope, `CaseConflict` if erased."""
    found = item(session, case_id, item_id, scope)
    if found.state == "withheld":
        raise NotFound(f"There is no item {item_id} in this case.")
    if found.state == "erased":
        raise CaseConflict("The image of this item was erased; only the line that says so is left.")
    return found


def change_item(session: Session, item_id: UUID, note: str | None) -> None:
    session.execute(update(CaseItem).where(CaseItem.id == item_id).values(note=note))


def remove_item(session: Session, item_id: UUID) -> None:
    session.execute(delete(CaseItem).where(CaseItem.id == item_id))


def searches(session: Session, case_id: UUID) -> list[CaseSearchRecord]:
    """The searches whose results are, or were, in the case."""
    found = session.scalars(
        select(CaseSearch).where(CaseSearch.case_id == case_id).order_by(CaseSearch.ran_at, CaseSearch.search_id)
    )
    return [CaseSearchRecord(row.search_id, row.request, row.checkpoint_id, row.ran_at) for row in found]


def _items(session: Session, rows: Sequence[CaseItem], scope: Scope) -> list[ItemRecord]:
    ids = [row.image_id for row in rows if row.image_id is not None]
    visible = session.execute(select(Image.row, Image.id).where(Image.id.in_(ids), *in_scope(scope))).all()
    images = {image.id: image for image in gallery.images_by_row(session, [row for row, _ in visible]).values()}
    judged = verdicts(session, [(row.search_id, row.image_id) for row in rows if row.image_id in images])
    return [_item(row, images.get(row.image_id) if row.image_id else None, judged) for row in rows]


def _item(row: CaseItem, image: gallery.ImageRecord | None, judged: Iterable[VerdictRecord]) -> ItemRecord:
    columns = {name: getattr(row, name) for name in ItemRecord.__dataclass_fields__ if hasattr(CaseItem, name)}
    if image is not None:
        mine = tuple(one for one in judged if (one.search_id, one.image_id) == (row.search_id, image.id))
        return ItemRecord(**columns, state="present", image=image, verdicts=mine)
    hidden = {"image_id": None, "similarity": None, "band": None, "note": None}
    state: Literal["erased", "withheld"] = "erased" if row.image_id is None else "withheld"
    return ItemRecord(**{**columns, **hidden}, state=state, image=None)


# --------------------------------------------------------------------------------------------------------------------
# Verdicts


def judge(
    session: Session, actor: Actor, search_id: UUID, image_id: UUID, verdict: Word, note: str | None
) -> VerdictRecord:
    """Say what one thinks of a result; saying something else later replaces it."""
    said = {"person_kind": actor.kind, "person_name": actor.name, "verdict": verdict, "note": note, "at": func.now()}
    key = {"search_id": search_id, "image_id": image_id, "person_id": person_of(actor)}
    statement = upsert(Verdict).values(**key, **said).on_conflict_do_update(index_elements=list(key), set_=said)
    found = session.scalars(statement.returning(Verdict), execution_options={"populate_existing": True}).one()
    return _verdict(found)


def verdicts(session: Session, results: Sequence[tuple[UUID, UUID | None]]) -> list[VerdictRecord]:
    """What everybody says of these results, each a search and an image; in the order it was said."""
    if not results:
        return []
    these = tuple_(Verdict.search_id, Verdict.image_id).in_(results)
    return [_verdict(row) for row in session.scalars(select(Verdict).where(these).order_by(Verdict.at))]


def outcome(said: Sequence[VerdictRecord], needed: int) -> Outcome:
    """What several people say together: `confirmed` and `rejected` take `needed` of them and nobody who contradicts."""
    words = {one.verdict for one in said}
    if {"match", "no_match"} <= words:
        return "conflicting"
    for word, decided in (("match", "confirmed"), ("no_match", "rejected")):
        people = {one.person_id for one in said if one.verdict == word and one.person_kind in PEOPLE}
        if len(people) >= needed:
            return "confirmed" if decided == "confirmed" else "rejected"
    return "undecided"


def _verdict(row: Verdict) -> VerdictRecord:
    return VerdictRecord(**{name: getattr(row, name) for name in VerdictRecord.__dataclass_fields__})
