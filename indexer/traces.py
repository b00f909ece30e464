"""What an image leaves in the database, and how all of it goes: the SQL of erasures. None of these functions commits.

An erasure is decided in one transaction, which writes down every image it removes; batches then remove them, each in a
transaction that takes rows, embeddings, rankings and ledger lines together and notes the files. So whatever happens in
between, what is left to do is in the database. The order of things is in erasure.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CursorResult,
    Executable,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import InstrumentedAttribute, Session

from indexer import audit, case_traces, searches
from indexer.embeddings import lock_changes
from indexer.errors import ReasonNamesPerson
from indexer.filters import ImageFilter, conditions
from indexer.governance_tables import ErasedImage, Erasure, ErasureFile
from indexer.holds import is_held, lock_governance, refuse_held
from indexer.tables import Embedding, Image, IngestionItem, RemovedImage, change_seq

SHORTEST_NAME = 4  # characters: a shorter name is looked for as a value, not within free text

Images = list[ColumnElement[bool]]  # conditions on `Image`, to be ANDed


@dataclass(frozen=True)
class Selection:
    """Whom to erase: exactly one of these."""

    image_ids: tuple[UUID, ...] = ()
    external_ids: tuple[str, ...] = ()
    identity: str | None = None
    filter: ImageFilter | None = None

    def images(self) -> Images:
        """Raises `InvalidFilter`."""
        if self.filter is not None:
            return conditions(self.filter)
        if self.identity is not None:
            return [Image.identity == self.identity]
        if self.external_ids:
            return [Image.external_id == any_(_array(self.external_ids, Text()))]
        return [Image.id == any_(_array(self.image_ids, Uuid()))]

    def names(self) -> list[str]:
        """Names that are to be forgotten even where no image bears them."""
        return [*self.external_ids, *([self.identity] if self.identity is not None else [])]

    def described(self) -> dict[str, Any]:
        """How the images were selected, without what was selected."""
        if self.filter is not None:
            fields = {f"{one.field} {one.op}" for one in (*self.filter.all, *self.filter.any)}
            return {"by": "filter", "conditions": sorted(fields)}
        if self.identity is not None:
            return {"by": "identity"}
        if self.external_ids:
            return {"by": "external_ids", "given": len(self.external_ids)}
        return {"by": "image_ids", "given": len(self.image_ids)}


BY_NAME = ("identity", "external_ids")  # selections that name somebody, perhaps without an image


@dataclass(frozen=True)
class ErasureRecord:
    """The receipt of an erasure. `proof` says what was searched afterwards, and found empty."""

    id: UUID
    state: str
    reason: str
    selection: dict[str, Any]
    counts: dict[str, int]
    proof: str | None
    created_at: datetime
    finished_at: datetime | None


def erasure(session: Session, id: UUID) -> ErasureRecord | None:
    """One receipt."""
    found = session.get(Erasure, id, populate_existing=True)
    return None if found is None else _record(found)


def erasures(session: Session, before: UUID | None = None, limit: int = 50) -> list[ErasureRecord]:
    """Up to `limit` receipts, the newest first, older than `before`."""
    statement = select(Erasure).order_by(Erasure.id.desc()).limit(limit)
    return [
        _record(row) for row in session.scalars(statement if before is None else statement.where(Erasure.id < before))
    ]


def _record(row: Erasure) -> ErasureRecord:
    return ErasureRecord(**{name: getattr(row, name) for name in ErasureRecord.__dataclass_fields__})


# --------------------------------------------------------------------------------------------------------------------
# Deciding


def count(session: Session, selection: Selection) -> Counter[str]:
    """What erasing the selection would remove, and how many of its images are `held`, without removing anything."""
    chosen = select(Image.row, Image.sha256, is_held().label("held")).where(*selection.images()).cte("chosen")
    used_elsewhere = (
        select(Image.row)
        .where(Image.sha256 == chosen.c.sha256, Image.row.not_in(select(chosen.c.row)))
        .correlate(chosen)
        .exists()
    )
    files = select(func.count(chosen.c.sha256.distinct()))
    found = session.execute(
        select(
            select(func.count()).select_from(chosen).scalar_subquery(),
            select(func.count()).select_from(chosen).where(chosen.c.held).scalar_subquery(),
            select(func.count()).where(Embedding.image_row.in_(select(chosen.c.row))).scalar_subquery(),
            files.where(~used_elsewhere).scalar_subquery(),
            files.where(used_elsewhere).scalar_subquery(),
        )
    ).one()
    return Counter(dict(zip(("images", "held", "embeddings", "files", "files_shared"), found, strict=True)))


def decide(
    session: Session, id: UUID, images: Images, reason: str, selection: dict[str, Any], names: Sequence[str] = ()
) -> int:
    """Write down that these images are to be erased, under this id; returns how many. From the commit on, they are.

    Raises `UnderLegalHold` and `ReasonNamesPerson`; then nothing was written.
    """
    lock_governance(session)
    refuse_held(session, images)
    _refuse_names(session, reason, images, names)
    session.execute(insert(Erasure).values(id=id, reason=reason, selection=selection))
    chosen = select(literal(id, Uuid()), Image.id, Image.row).where(*images)
    remember = insert(ErasedImage).from_select(["erasure_id", "image_id", "image_row"], chosen)
    decided = _changed(session, remember.execution_options(preserve_rowcount=True))
    counts = Counter(images=0, **_forget_names(session, names, values=names, files=[]))
    counts["audit_reasons"] = audit.forget_reasons(session, _words(names))
    _add_counts(session, id, counts)
    return decided


def _refuse_names(session: Session, reason: str, images: Images, names: Sequence[str]) -> None:
    """The reason outlives the person: it must not name them."""
    named = [name for name in names if len(name) >= SHORTEST_NAME and name.lower() in reason.lower()]
    for column in (Image.external_id, Image.identity):
        within = func.strpos(func.lower(literal(reason)), func.lower(column)) > 0
        long = func.length(column) >= SHORTEST_NAME
        named += [name for name in session.scalars(select(column).where(*images, long, within).limit(1)) if name]
    if named:
        raise ReasonNamesPerson(
            f"The reason is kept in the receipt, so it must not name who is erased. Write it without {named[0]!r}."
        )


def reinstate(
    session: Session,
    id: UUID,
    created_at: datetime,
    reason: str,
    selection: dict[str, Any],
    images: Sequence[UUID],
    *,
    running: bool,
) -> None:
    """Decide an erasure of an earlier database again; `running` if some of its images are back."""
    values = {"id": id, "created_at": created_at, "reason": reason, "selection": selection}
    gone = {"state": "done", "finished_at": func.now(), "proof": "Replayed from the journal: none of it was there."}
    session.execute(upsert(Erasure).values(**values, **gone).on_conflict_do_nothing())
    given = select(func.unnest(_array(images, Uuid())).label("id")).subquery()
    rows = select(literal(id, Uuid()), given.c.id, Image.row).outerjoin(Image, Image.id == given.c.id)
    statement = upsert(ErasedImage).from_select(["erasure_id", "image_id", "image_row"], rows)
    row = func.coalesce(statement.excluded.image_row, ErasedImage.image_row)
    session.execute(statement.on_conflict_do_update(index_elements=["erasure_id", "image_id"], set_={"image_row": row}))
    if running:
        again = {"state": "running", "finished_at": None, "proof": None}
        session.execute(update(Erasure).where(Erasure.id == id).values(again))


def still_there(session: Session, images: Sequence[UUID]) -> set[UUID]:
    """Those of the images that are in the database."""
    return set(session.scalars(select(Image.id).where(Image.id == any_(_array(images, Uuid())))))


# --------------------------------------------------------------------------------------------------------------------
# Removing


def erase_batch(session: Session, id: UUID, limit: int) -> int:
    """Remove up to `limit` images of an erasure with everything the database has of them; returns how many."""
    lock_changes(session)
    mine = and_(ErasedImage.image_id == Image.id, ErasedImage.erasure_id == id)
    columns = (Image.id, Image.row, Image.external_id, Image.identity, Image.track_id, Image.sha256)
    found = session.execute(
        select(*columns).join(ErasedImage, mine).order_by(Image.row).limit(limit).with_for_update(of=Image)
    ).all()
    if not found:
        return 0
    rows, ids = [image.row for image in found], [image.id for image in found]
    counts = Counter(images=len(found))
    of_rows = Embedding.image_row == any_(_array(rows, BigInteger()))
    counts["embeddings"] = session.scalar(select(func.count()).where(of_rows)) or 0

    lines = select(IngestionItem.file).where(IngestionItem.image_id == any_(_array(ids, Uuid())))
    files = [file for file in session.scalars(lines.distinct()) if file is not None]
    counts["ledger_lines"] = _changed(session, _blank(IngestionItem.image_id == any_(_array(ids, Uuid()))))

    counts += case_traces.forget_images(session, ids)
    session.execute(delete(Image).where(Image.row == any_(_array(rows, BigInteger()))))  # and its embeddings with it
    session.execute(
        insert(RemovedImage).from_select(
            ["seq", "image_row"], select(change_seq.next_value(), func.unnest(_array(rows, BigInteger())))
        )
    )
    remembered = [{"erasure_id": id, "sha256": sha256} for sha256 in {image.sha256 for image in found}]
    session.execute(upsert(ErasureFile).on_conflict_do_nothing(), remembered)

    names = [image.external_id for image in found if image.external_id is not None]
    names += _unused(session, Image.identity, {image.identity for image in found})
    names += _unused(session, Image.track_id, {image.track_id for image in found})
    values = [*names, *map(str, ids), *_unused(session, Image.sha256, {image.sha256 for image in found})]
    counts += _forget_names(session, names, values, files)
    counts["rankings"] = searches.forget_rows(session, rows)
    counts["gate_reports"] = _changed(session, _FORGET_REPORTS, {"images": list(map(str, ids))})
    counts["audit_reasons"] = audit.forget_reasons(session, _words(names))  # the last: from here the audit waits for us
    _add_counts(session, id, counts)
    return len(found)


def _unused(session: Session, column: InstrumentedAttribute[Any], values: set[str | None]) -> list[str]:
    """Those values that no image has any more: what lives on elsewhere is not forgotten."""
    given = {value for value in values if value is not None}
    return sorted(given - set(session.scalars(select(column).where(column.in_(given)).distinct())))


def _blank(*where: ColumnElement[bool]) -> Executable:
    """Lines of the ledger stay, for the totals; what they say of the person goes."""
    reason = case((IngestionItem.reason.is_not(None), "The image was erased."), else_=None)
    return update(IngestionItem).where(*where).values(external_id=None, file=None, reason=reason)


def _forget_names(session: Session, names: Sequence[str], values: Sequence[str], files: Sequence[str]) -> Counter[str]:
    """Blank what else bears these names: lines of the ledger without an image, searches that asked for them, saved or
    not, what an ingestion says of its source and its end, and keys of requests.

    `values` are looked for as whole values within the request of a search and as keys, the longer `names` within the
    text of searches, ingestions and keys as well.
    """
    if not names and not values and not files:
        return Counter()
    lone = and_(
        IngestionItem.image_id.is_(None),
        or_(
            IngestionItem.external_id == any_(_array(names, Text())),
            IngestionItem.file == any_(_array([*names, *files], Text())),
        ),
    )
    words = _words(names)
    told = {"words": [*words, *_words(files)]}
    asked_for, saved = searches.forget_names(session, values, words)
    return case_traces.forget_names(session, values, words) + Counter(
        ledger_lines=_changed(session, _blank(lone)),
        searches=asked_for,
        saved_searches=saved,
        ingestions=_changed(session, _FORGET_INGESTIONS, told),
        request_keys=_changed(session, _FORGET_KEYS, {"values": list(values), "words": words}),
    )


def _words(names: Iterable[str]) -> list[str]:
    """Names that are long enough to be looked for within free text."""
    return [name.lower() for name in names if len(name) >= SHORTEST_NAME]


# A source is the path of a manifest, an error may name the file at which an archive was given up.
_FORGET_INGESTIONS = text("""
    UPDATE ingestion SET
        source = CASE WHEN EXISTS (SELECT FROM unnest(:words) AS word WHERE strpos(lower(source), word) > 0)
                 THEN 'It named an image that was erased.' ELSE source END,
        error = CASE WHEN EXISTS (SELECT FROM unnest(:words) AS word WHERE strpos(lower(error), word) > 0)
                THEN 'It named an image that was erased.' ELSE error END
    WHERE EXISTS (SELECT FROM unnest(:words) AS word WHERE strpos(lower(concat_ws(' ', source, error)), word) > 0)
""").bindparams(bindparam("words", type_=ARRAY(Text)))

# Other keys stay: sent again, their request finds its ingestion, instead of bringing back what was erased.
_FORGET_KEYS = text("""
    DELETE FROM idempotency_key
    WHERE key = ANY(:values) OR EXISTS (SELECT FROM unnest(:words) AS word WHERE strpos(lower(key), word) > 0)
""").bindparams(bindparam("values", type_=ARRAY(Text)), bindparam("words", type_=ARRAY(Text)))

# A report of the gate lists images that a checkpoint could not embed, with the reason, which may speak of the image.
_FORGET_REPORTS = text("""
    UPDATE checkpoint_event SET detail = jsonb_set(detail, '{missing_images}', (
        SELECT coalesce(jsonb_agg(image ORDER BY place), '[]')
        FROM jsonb_array_elements(detail -> 'missing_images') WITH ORDINALITY AS entry (image, place)
        WHERE image ->> 'image_id' <> ALL(:images)))
    WHERE kind = 'gate' AND EXISTS (
        SELECT FROM jsonb_array_elements(detail -> 'missing_images') AS image WHERE image ->> 'image_id' = ANY(:images))
""").bindparams(bindparam("images", type_=ARRAY(Text)))


def forget_lone_names(session: Session) -> None:
    """Blank every name that belongs to no image here, whoever it is: lines of the ledger, what ingestions say, searches
    and keys of requests. For a restored database that is older than an erasure by name.
    """
    session.execute(_blank(IngestionItem.image_id.is_(None)))
    session.execute(
        text(
            "UPDATE ingestion SET source = 'It may have named somebody who was erased.',"
            " error = CASE WHEN error IS NOT NULL THEN 'It may have named somebody who was erased.' END"
        )
    )
    searches.forget_all(session)
    session.execute(text("DELETE FROM idempotency_key"))


# --------------------------------------------------------------------------------------------------------------------
# Afterwards


def unfinished(session: Session) -> list[UUID]:
    """Erasures that were decided and not completed, the oldest first."""
    return list(session.scalars(select(Erasure.id).where(Erasure.state == "running").order_by(Erasure.id)))


def erased_images(session: Session, id: UUID) -> list[tuple[UUID, int | None]]:
    """The images of an erasure: id and row."""
    found = session.execute(
        select(ErasedImage.image_id, ErasedImage.image_row).where(ErasedImage.erasure_id == id).order_by("image_id")
    )
    return [(image_id, row) for image_id, row in found]


def waiting_files(session: Session, id: UUID) -> list[str]:
    """The files of an erasure that are still to be looked at."""
    return list(session.scalars(select(ErasureFile.sha256).where(ErasureFile.erasure_id == id).order_by("sha256")))


def file_done(session: Session, id: UUID, sha256: str, *, removed: bool) -> None:
    """A file was removed, or left because another image shows it. Its checksum is forgotten."""
    mine = (ErasureFile.erasure_id == id, ErasureFile.sha256 == sha256)
    if _changed(session, delete(ErasureFile).where(*mine)):  # else this was done, and only its commit seemed to fail
        _add_counts(session, id, Counter({"files" if removed else "files_shared": 1}))


def remains(session: Session, id: UUID) -> Counter[str]:
    """What the database still has of an erasure's images, by table; empty when it is complete."""
    erased = select(ErasedImage.image_id).where(ErasedImage.erasure_id == id)
    rows = select(ErasedImage.image_row).where(ErasedImage.erasure_id == id)
    reported = text(
        "SELECT count(*) FROM checkpoint_event, jsonb_array_elements(detail -> 'missing_images') AS image, erased_image"
        " WHERE kind = 'gate' AND erasure_id = :id AND image_id::text = image ->> 'image_id'"
    )
    return +Counter(
        image=session.scalar(select(func.count()).where(Image.id.in_(erased))) or 0,
        embedding=session.scalar(select(func.count()).where(Embedding.image_row.in_(rows))) or 0,
        ingestion_item=session.scalar(select(func.count()).where(IngestionItem.image_id.in_(erased))) or 0,
        erasure_file=session.scalar(select(func.count()).where(ErasureFile.erasure_id == id)) or 0,
        search=searches.rankings_with(session, [row for row in session.scalars(rows) if row is not None]),
        checkpoint_event=session.scalar(reported, {"id": id}) or 0,
        **case_traces.remains(session, id),
    )


def finish(session: Session, id: UUID, proof: str) -> None:
    """Close the receipt."""
    done = {"state": "done", "proof": proof, "finished_at": func.now()}
    session.execute(update(Erasure).where(Erasure.id == id).values(done))


def _add_counts(session: Session, id: UUID, counts: Counter[str]) -> None:
    row = session.get_one(Erasure, id, populate_existing=True, with_for_update=True)
    row.counts = dict(Counter(row.counts) + counts) | {"images": row.counts.get("images", 0) + counts["images"]}
    session.flush()


def _array(values: Iterable[Any], of: Any) -> ColumnElement[Any]:
    return literal(list(values), ARRAY(of))


def _changed(session: Session, statement: Executable, values: dict[str, Any] | None = None) -> int:
    return cast("CursorResult[Any]", session.execute(statement, values)).rowcount
