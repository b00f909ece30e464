"""A case as a zip that a stranger can check: images, what was said of them, who did what, and the sums of it all.

It is written to a file in the data folder, one image at a time, and lies there until it expires or one of its images
is erased. A row says what is being built before the file exists, so that an erasure in between takes it along.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any
from uuid import UUID

from sqlalchemy import Select, any_, delete, func, insert, select, update
from sqlalchemy.orm import Session

from indexer import audit, audit_verify, cases, checkpoints, gallery
from indexer.audit import Actor, Head
from indexer.case_tables import CaseExport
from indexer.cases import CaseRecord, CaseSearchRecord, ItemRecord, MemberRecord, NoteRecord
from indexer.database import Database, transaction
from indexer.errors import CaseConflict, NotFound
from indexer.filters import Scope, in_scope
from indexer.images import ImageStore
from indexer.tables import Image, new_id

FOLDER = "case-exports"  # in the data folder
CHUNK = 2**20
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # with which a cell becomes a formula when a spreadsheet opens it
COLUMNS = (  # of manifest.csv; manifest.json has the same fields
    *("item_id", "state", "erased_at", "file", "image_id", "sha256", "external_id", "identity", "camera_id"),
    *("captured_at", "search_id", "query", "checkpoint_id", "rank", "similarity", "band", "outcome", "verdicts"),
    *("note", "added_by", "added_at"),
)

README = """\
Case {case}, exported {at} by {who}.

images/               the files as they were added, named by the id of their image
manifest.csv, .json   one line for each item: where it comes from, how it was found, what everybody said of it
queries.json          the searches by which the items were found
checkpoint.json       the networks that ranked them; their ids are the checksums of what they learned
audit-extract.jsonl   who did what in this case, with hashes
SHA256SUMS            the sums of all other files

Is it complete and unchanged?

    sha256sum -c SHA256SUMS

An image is what the system was given if its sum is also the sha256 of its line in manifest.csv.

Is the account of what was done true?

    person-search audit verify --file audit-extract.jsonl

Each row of the audit carries a hash over its content and the hash of the row before. Rows of this case and its searches
are here in full, the others in between by the digest of their content, so that the chain can be followed from the first
row shown to its end at the time of this export. Ask whoever runs the system whether row {seq} has the hash
{hash}.

An item without a file is listed for the count: its image was erased on the date given, may not be seen by who made this
export, or its file was missing. Nothing of erased images is in here.
"""


@dataclass(frozen=True)
class ExportRecord:
    """An export as stored; `sha256` and `byte_size` are those of the zip, once it is `ready`."""

    id: UUID
    case_id: UUID
    state: str
    person_name: str
    image_ids: list[UUID]
    byte_size: int | None
    sha256: str | None
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True)
class Contents:
    """Everything an export tells, as it was at one moment; the images are read when they are written."""

    case: CaseRecord
    members: list[MemberRecord]
    notes: list[NoteRecord]
    items: list[ItemRecord]
    searches: list[CaseSearchRecord]
    checkpoints: list[dict[str, Any]]
    rows: list[int]  # of the audit, about this case and its searches
    head: Head


# --------------------------------------------------------------------------------------------------------------------
# Rows


def begin(session: Session, case_id: UUID, actor: Actor, scope: Scope, hours: float) -> ExportRecord:
    """Note that an export is being built, and of which images."""
    shown = [item.image_id for item in cases.items(session, case_id, scope) if item.image_id is not None]
    values = {"id": new_id(), "case_id": case_id, "image_ids": shown}
    person = {"person_id": cases.person_of(actor), "person_name": actor.name}
    until = func.now() + timedelta(hours=hours)
    added = insert(CaseExport).values(**values, **person, expires_at=until).returning(CaseExport)
    return _record(session.scalars(added).one())


def export(session: Session, case_id: UUID, export_id: UUID, scope: Scope) -> ExportRecord:
    """One export that is ready. Raises `NotFound`, also where it shows images out of scope."""
    found = session.scalar(_ready(case_id, scope).where(CaseExport.id == export_id))
    if found is None:
        raise NotFound(f"There is no export {export_id} of this case; it may have expired. Export the case again.")
    return _record(found)


def exports(session: Session, case_id: UUID, scope: Scope) -> list[ExportRecord]:
    """All exports of a case that are ready, the newest first; those with images out of scope are left out."""
    return [_record(row) for row in session.scalars(_ready(case_id, scope).order_by(CaseExport.id.desc()))]


def _ready(case_id: UUID, scope: Scope) -> Select[Any]:
    """Exports that can be fetched: written to the end, not expired, and with images in scope only."""
    seen = select(func.count(Image.id)).where(Image.id == any_(CaseExport.image_ids), *in_scope(scope))
    return select(CaseExport).where(
        CaseExport.case_id == case_id,
        CaseExport.state == "ready",
        CaseExport.expires_at > func.now(),
        seen.correlate(CaseExport).scalar_subquery() == func.cardinality(CaseExport.image_ids),
    )


def _finish(session: Session, id: UUID, byte_size: int, sha256: str) -> ExportRecord | None:
    """None if an erasure took the export away meanwhile."""
    values = {"state": "ready", "byte_size": byte_size, "sha256": sha256}
    found = session.scalar(update(CaseExport).where(CaseExport.id == id).values(values).returning(CaseExport))
    return None if found is None else _record(found)


def _record(row: CaseExport) -> ExportRecord:
    return ExportRecord(**{name: getattr(row, name) for name in ExportRecord.__dataclass_fields__})


def collect(session: Session, export: ExportRecord, actor: Actor, scope: Scope) -> Contents:
    """What the export tells. Must be the first thing in its transaction."""
    gallery.stay_at_one_moment(session)
    case_id, head = export.case_id, audit.head(session)
    searches = cases.searches(session, case_id)
    shown = cases.items(session, case_id, scope)
    used = sorted({item.checkpoint_id for item in shown} | {search.checkpoint_id for search in searches})
    return Contents(
        case=cases.case(session, case_id, actor),
        members=cases.members(session, case_id),
        notes=cases.notes(session, case_id),
        items=[item for item in shown if item.image_id is None or item.image_id in export.image_ids],
        searches=searches,
        checkpoints=[_checkpoint(checkpoints.record(session, id)) for id in used],
        rows=audit.about_case(session, case_id, [search.search_id for search in searches], head.seq),
        head=head,
    )


def _checkpoint(record: checkpoints.CheckpointRecord) -> dict[str, Any]:
    return {"id": record.id, "net": record.net, "dim": record.dim, "info": record.info}


# --------------------------------------------------------------------------------------------------------------------
# Files


def build(
    database: Database,
    store: ImageStore,
    folder: Path,
    export: ExportRecord,
    actor: Actor,
    scope: Scope,
    verdicts_needed: int,
    check_room: Callable[[], None] = lambda: None,
) -> ExportRecord:
    """Write the zip of an export that was begun. `check_room` is called before each image, and may raise.

    Raises `CaseConflict` if an image of it was erased meanwhile, and nothing is left.
    """
    with transaction(database.engine) as session:
        contents = collect(session, export, actor, scope)
    folder.mkdir(parents=True, exist_ok=True)
    path = file_of(folder, export.id)
    finished: ExportRecord | None = None
    try:
        with path.open("wb") as file:
            _write(file, database, store, export, contents, verdicts_needed, check_room)
        with path.open("rb") as written:
            sha256 = hashlib.file_digest(written, "sha256").hexdigest()
            size = written.seek(0, io.SEEK_END)
        with transaction(database.engine) as session:
            finished = _finish(session, export.id, size, sha256)
    except FileNotFoundError:
        if _is_there(database, export.id):
            raise
    finally:
        if finished is None:
            path.unlink(missing_ok=True)
            with transaction(database.engine) as session:
                session.execute(delete(CaseExport).where(CaseExport.id == export.id))
    if finished is None:
        raise CaseConflict("An image of this case was erased while it was exported. Export it again.")
    return finished


def _is_there(database: Database, id: UUID) -> bool:
    with transaction(database.engine) as session:
        return session.scalar(select(CaseExport.id).where(CaseExport.id == id)) is not None


def file_of(folder: Path, id: UUID) -> Path:
    return folder / f"{id}.zip"


def remove_expired(database: Database, folder: Path) -> int:
    """Forget exports whose time is over, and remove their files; returns how many files."""
    with transaction(database.engine) as session:
        session.execute(delete(CaseExport).where(CaseExport.expires_at <= func.now()))
    return remove_leftovers(database, folder)


def remove_leftovers(database: Database, folder: Path) -> int:
    """Remove files that no row knows: their export expired, broke off, or an image of it was erased."""
    files = {path.stem: path for path in folder.glob("*.zip")}
    if not files:
        return 0
    with transaction(database.engine) as session:
        known = set(map(str, session.scalars(select(CaseExport.id))))
    gone = [path for stem, path in files.items() if stem not in known]
    for path in gone:
        path.unlink(missing_ok=True)
    return len(gone)


class _Zip:
    """A zip that is written from start to end, and remembers the sum of every file in it."""

    def __init__(self, file: IO[bytes], at: datetime) -> None:
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED)
        self._at = at.timetuple()[:6]
        self.sums: dict[str, str] = {}

    @contextmanager
    def entry(self, name: str, *, packed: bool = True) -> Iterator[Callable[[bytes], None]]:
        info = zipfile.ZipInfo(name, self._at)
        info.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
        info.external_attr = 0o644 << 16
        sum = hashlib.sha256()
        with self._zip.open(info, "w", force_zip64=True) as entry:

            def write(data: bytes) -> None:
                sum.update(data)
                entry.write(data)

            yield write
        self.sums[name] = sum.hexdigest()

    def text(self, name: str, text: str) -> None:
        with self.entry(name) as write:
            write(text.encode())

    def json(self, name: str, value: Any) -> None:
        self.text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def close(self, *, broken_off: bool = False) -> None:
        if not broken_off:
            self.text("SHA256SUMS", "".join(f"{sum}  {name}\n" for name, sum in sorted(self.sums.items())))
        with suppress(*([OSError] if broken_off else [])):  # what a full disk did not take, it does not take now
            self._zip.close()


def _write(
    file: IO[bytes],
    database: Database,
    store: ImageStore,
    export: ExportRecord,
    contents: Contents,
    verdicts_needed: int,
    check_room: Callable[[], None],
) -> None:
    zip = _Zip(file, export.created_at)
    try:
        _fill(zip, database, store, export, contents, verdicts_needed, check_room)
    except BaseException:
        zip.close(broken_off=True)
        raise
    zip.close()


def _fill(
    zip: _Zip,
    database: Database,
    store: ImageStore,
    export: ExportRecord,
    contents: Contents,
    verdicts_needed: int,
    check_room: Callable[[], None],
) -> None:
    lines = []
    queries = {search.search_id: search for search in contents.searches}
    for item in contents.items:
        check_room()
        line = _line(item, queries.get(item.search_id), verdicts_needed)
        if item.image is not None:
            line["file"] = _add_image(zip, store, item.image)
        lines.append(line)
    zip.json("manifest.json", {**_about(export, contents), "items": lines})
    zip.text("manifest.csv", _table(lines))
    zip.json("queries.json", [_query(search) for search in contents.searches])
    zip.json("checkpoint.json", contents.checkpoints)
    with zip.entry("audit-extract.jsonl") as write:
        for text in _extract(database, contents.rows, contents.head):
            write(text.encode())
    at, head = export.created_at.astimezone(UTC).isoformat(timespec="seconds"), contents.head
    told = {"case": export.case_id, "at": at, "who": export.person_name, "seq": head.seq, "hash": head.hash}
    zip.text("README.txt", README.format(**told))


def _add_image(zip: _Zip, store: ImageStore, image: gallery.ImageRecord) -> str | None:
    """The name of the file in the zip; None where the store has lost it."""
    name = f"images/{image.id}.{image.format.lower()}"
    try:
        source = store.path(image.sha256).open("rb")
    except FileNotFoundError:
        return None
    with source, zip.entry(name, packed=False) as write:
        while block := source.read(CHUNK):
            write(block)
    return name


def _extract(database: Database, rows: Sequence[int], head: Head) -> Iterator[str]:
    """The rows that concern the case in full, those between them by their digests, and the head."""
    shown = set(rows)
    if rows:
        for page in audit_verify.pages(database, head.seq, after=rows[0] - 1):
            for event in page:
                yield audit_verify.event_line(event) if event.seq in shown else audit_verify.link_line(event)
    yield audit_verify.head_line(head)


def _about(export: ExportRecord, contents: Contents) -> dict[str, Any]:
    case = contents.case
    return {
        "case": {"id": str(case.id), "title": case.title, "state": case.state, "created_at": _time(case.created_at)},
        "export": {"id": str(export.id), "at": _time(export.created_at), "by": export.person_name},
        "members": [member.person_name for member in contents.members],
        "notes": [{"at": _time(n.created_at), "by": n.person_name, "note": n.note} for n in contents.notes],
        "audit_head": {"seq": contents.head.seq, "hash": contents.head.hash},
    }


def _line(item: ItemRecord, query: CaseSearchRecord | None, verdicts_needed: int) -> dict[str, Any]:
    image = item.image
    return {
        "item_id": str(item.id),
        "state": item.state,
        "erased_at": _time(item.erased_at),
        "file": None,
        "image_id": None if image is None else str(image.id),
        "sha256": None if image is None else image.sha256,
        "external_id": None if image is None else image.external_id,
        "identity": None if image is None else image.identity,
        "camera_id": None if image is None else image.camera_id,
        "captured_at": None if image is None else _time(image.captured_at),
        "search_id": str(item.search_id),
        "query": None if query is None else query.request.get("query"),
        "checkpoint_id": item.checkpoint_id,
        "rank": item.rank,
        "similarity": item.similarity,
        "band": item.band,
        "outcome": cases.outcome(item.verdicts, verdicts_needed),
        "verdicts": [
            {
                "by": one.person_name,
                "kind": one.person_kind,
                "verdict": one.verdict,
                "note": one.note,
                "at": _time(one.at),
            }
            for one in item.verdicts
        ],
        "note": item.note,
        "added_by": item.person_name,
        "added_at": _time(item.added_at),
    }


def _query(search: CaseSearchRecord) -> dict[str, Any]:
    return {
        "search_id": str(search.search_id),
        "ran_at": _time(search.ran_at),
        "checkpoint_id": search.checkpoint_id,
        "request": search.request or None,  # None: it named somebody who was erased
    }


def _table(lines: Sequence[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for line in lines:
        said = "; ".join(f"{one['by']}: {one['verdict']}" for one in line["verdicts"])
        query = None if line["query"] is None else line["query"].get("text")
        shown = {**line, "verdicts": said, "query": query}
        writer.writerow([cell(shown[name]) for name in COLUMNS])
    return out.getvalue()


def cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: text that begins like one gets an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()
