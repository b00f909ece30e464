"""Backup and restore: the tables at one moment, the image and checkpoint files they name, the journal of erasures.

Written by this program itself, through COPY, and not by pg_dump: it works alike on the embedded server and on any
other, and restores into another version of PostgreSQL. Left out is what is made from the tables: the vector index, and
columns that the database computes.

    DIR/manifest.json           what is in the backup, with checksums; written last, so without it there is no backup
    DIR/tables/NAME.copy.gz     each table in PostgreSQL's text format
    DIR/images/ab/cd/SHA256     the original files, as in the image store
    DIR/files.txt               their names
    DIR/checkpoints/ID.safetensors   the networks the gallery is embedded with
    DIR/erasures.jsonl          the erasure journal of that moment
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import psycopg
from psycopg import sql
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from indexer import audit, audit_anchors, audit_restore, journal, traces
from indexer.checkpoints import SUFFIX, WANTED
from indexer.database import Database, migrate_to, revision_of, transaction
from indexer.erasure import Eraser, reinstate_missing
from indexer.errors import BackupRefused, StorageFull
from indexer.holds import lock_governance
from indexer.images import ImageStore
from indexer.journal import JournalEntry
from indexer.retention import remove_orphans
from indexer.tables import Base, Camera, Checkpoint, Image, Ingestion

FORMAT = 1
CHUNK = 2**20
DISCONNECT_SECONDS = 5.0
BATCH = 1000  # images erased in one statement while a backup is restored


@dataclass(frozen=True)
class Table:
    """One table of a backup. `sha256` is that of the compressed file."""

    name: str
    columns: list[str]
    rows: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What is in a backup. `missing` counts images whose file was gone from the store already."""

    format: int
    created_at: str
    revision: str
    tables: list[Table]
    sequences: dict[str, int]
    images: int
    files: int
    file_bytes: int
    missing: int
    checkpoints: dict[str, str]  # name of the file -> its checksum
    file_list_sha256: str
    journal_sha256: str

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)


# --------------------------------------------------------------------------------------------------------------------
# Create


def create(
    database: Database, store: ImageStore, journal_file: Path, folder: Path, checkpoints: Path | None = None
) -> Manifest:
    """Write a backup into a new or empty folder; the service may go on meanwhile.

    `checkpoints` is the folder of the checkpoint files; those of retired ones are left out.

    Raises `BackupRefused`, `StorageFull`.
    """
    if folder.exists() and any(folder.iterdir()):
        raise BackupRefused(f"{folder} is not empty. Give a new folder for each backup.")
    with _disk_errors():
        (folder / "tables").mkdir(parents=True, exist_ok=True)
        with transaction(database.engine) as session:
            _without_limits(session)
            session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            revision = revision_of(session)
            tables = [_write_table(session, table.name, folder) for table in Base.metadata.sorted_tables]
            sequences = _sequences(session)
            wanted = list(session.scalars(select(Image.sha256).distinct().order_by(Image.sha256)))
            images = session.scalar(select(func.count()).select_from(Image)) or 0
            wanted_checkpoints = list(session.scalars(select(Checkpoint.id).where(Checkpoint.state.in_(WANTED))))
        copied = {sha256: size for sha256 in wanted if (size := _copy_image(store, sha256, folder)) is not None}
        _write(folder / "files.txt", "".join(f"{sha256}\n" for sha256 in copied).encode())
        # After the files: an image erased while they were copied is in this journal, and stays away after a restore.
        _write(folder / journal.NAME, journal_file.read_bytes() if journal_file.exists() else b"")
        manifest = Manifest(
            format=FORMAT,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            revision=revision,
            tables=tables,
            sequences=sequences,
            images=images,
            files=len(copied),
            file_bytes=sum(copied.values()),
            missing=len(wanted) - len(copied),
            checkpoints=_copy_checkpoints(checkpoints, wanted_checkpoints, folder),
            file_list_sha256=_sha256(folder / "files.txt"),
            journal_sha256=_sha256(folder / journal.NAME),
        )
        _write(folder / "manifest.json", _signed(manifest))
    return manifest


def _write_table(session: Session, name: str, folder: Path) -> Table:
    columns = [column.name for column in Base.metadata.tables[name].columns if column.computed is None]
    rows, path = 0, folder / "tables" / f"{name}.copy.gz"
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 1, raw, mtime=0) as packed:
        with _cursor(session) as cursor, cursor.copy(_copy(name, columns, "TO STDOUT")) as copy:
            for block in copy:
                rows += bytes(block).count(b"\n")  # a line break within a value is written as \n
                packed.write(block)
        packed.close()
        os.fsync(raw.fileno())
    return Table(name, columns, rows, _sha256(path))


def _copy_image(store: ImageStore, sha256: str, folder: Path) -> int | None:
    """Copy one file; its size, or None if it is not in the store any more."""
    target = folder / "images" / store.path(sha256).relative_to(store.root)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(store.path(sha256), target)
    except FileNotFoundError:
        return None
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return target.stat().st_size


def _copy_checkpoints(source: Path | None, ids: list[str], folder: Path) -> dict[str, str]:
    """Copy the files of these checkpoints, if there are any: a gallery may use the one that comes with the program."""
    found: dict[str, str] = {}
    for name in sorted(f"{id}{SUFFIX}" for id in ids):
        if source is None or not (source / name).exists():
            continue
        target = folder / "checkpoints" / name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source / name, target)
        with target.open("rb") as file:
            os.fsync(file.fileno())
        found[name] = _sha256(target)
    return found


# --------------------------------------------------------------------------------------------------------------------
# Verify


def verify(folder: Path) -> Manifest:
    """Read all of a backup and compare it with its checksums. Raises `BackupRefused` naming the first damage."""
    manifest = read_manifest(folder)
    for table in manifest.tables:
        _compare(folder / "tables" / f"{table.name}.copy.gz", table.sha256)
    _compare(folder / "files.txt", manifest.file_list_sha256)
    _compare(folder / journal.NAME, manifest.journal_sha256)
    for name, sha256 in manifest.checkpoints.items():
        _compare(folder / "checkpoints" / name, sha256)
    images = ImageStore(folder / "images")
    for sha256 in file_list(folder):
        _compare(images.path(sha256), sha256)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Raises `BackupRefused` if it is absent, damaged, or of a newer program."""
    path = folder / "manifest.json"
    try:
        signed = json.loads(path.read_bytes())
        claimed = signed.pop("sha256")
        found = Manifest(**{**signed, "tables": [Table(**table) for table in signed["tables"]]})
    except FileNotFoundError:
        raise BackupRefused(f"There is no complete backup in {folder}: its manifest.json is missing.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackupRefused(f"The manifest {path} cannot be read. Use another backup.") from error
    if json.loads(_signed(found))["sha256"] != claimed:
        raise BackupRefused(f"The manifest {path} was changed after it was written. Use another backup.")
    if found.format > FORMAT:
        raise BackupRefused(
            f"The backup in {folder} was made by a newer version of this program. Install that version."
        )
    return found


def file_list(folder: Path) -> list[str]:
    return (folder / "files.txt").read_text().split()


def _compare(path: Path, expected: str) -> None:
    if not path.is_file():
        raise BackupRefused(f"The backup is damaged: {path} is missing. Use another backup.")
    if _sha256(path) != expected:
        raise BackupRefused(f"The backup is damaged: {path} is not what was written. Use another backup.")


# --------------------------------------------------------------------------------------------------------------------
# Restore


def restore(
    database: Database,
    store: ImageStore,
    journal_file: Path,
    folder: Path,
    *,
    replace: bool = False,
    snapshots: Path | None = None,
    checkpoints: Path | None = None,
) -> int:
    """Put a backup in the place of the gallery, without whom was erased since; returns how many images that left out.

    All in one transaction: whatever goes wrong, the gallery is what it was before. `snapshots` is the folder of the
    index on disk, which is removed: it is of another gallery then, and may hold vectors of whom was erased.
    `checkpoints` is the folder that gets the checkpoint files. The audit of this gallery goes on where the backup is an
    earlier state of it. Raises `BackupRefused` for a damaged backup, for a gallery that is not empty unless `replace`,
    and while others use it.
    """
    manifest = verify(folder)
    database.engine.dispose()  # only this restore may be connected
    with _disk_errors(), transaction(database.engine) as session:
        _without_limits(session)
        _refuse_unsuitable(session, replace)
        lock_governance(session)
        entries = [*_known_here(session), *journal.read(journal_file), *journal.read(folder / journal.NAME)]
        audit_restore.set_aside(session)
        _load(session, manifest, folder)
        went_on = audit_restore.go_on(session)
        left_out = reinstate_missing(session, entries)
        for id in traces.unfinished(session):
            while traces.erase_batch(session, id, BATCH):
                pass
        _adopt_files(session, store, folder)
        if checkpoints is not None:
            _adopt_checkpoints(manifest, folder, checkpoints)
        # Before the commit: from then on, the journal must know everybody who was erased.
        journal_file.parent.mkdir(parents=True, exist_ok=True)
        known = set(map(_key, journal.read(journal_file)))
        journal.append(journal_file, [entry for entry in entries if _key(entry) not in known])
        if snapshots is not None and snapshots.exists():
            shutil.rmtree(snapshots)
        told = {"made": manifest.created_at, "images": manifest.images, "left_out": left_out}
        audit.record(session, audit.SYSTEM, "backup.restore", detail=told)
    audit_anchors.drop(database, journal_file.with_name(audit_anchors.NAME), restored=not went_on)
    eraser = Eraser(database, store, journal_file)
    eraser.resume()
    remove_orphans(eraser, grace_seconds=0)
    return left_out


def _adopt_files(session: Session, store: ImageStore, folder: Path) -> None:
    """Copy the files of the images that are left, unless they were missing when the backup was made."""
    backup, listed = ImageStore(folder / "images"), set(file_list(folder))
    for sha256 in session.scalars(select(Image.sha256).distinct()):
        if sha256 in listed:
            store.adopt(sha256, backup.path(sha256))


def _adopt_checkpoints(manifest: Manifest, folder: Path, checkpoints: Path) -> None:
    """Their names are hashes of their content, so a file that is there already is the same."""
    checkpoints.mkdir(parents=True, exist_ok=True)
    for name, sha256 in manifest.checkpoints.items():
        target = checkpoints / name
        if not target.exists() or _sha256(target) != sha256:
            _write(target, (folder / "checkpoints" / name).read_bytes())


def _key(entry: JournalEntry) -> tuple[Any, ...]:
    return entry.erasure_id, entry.image_ids


def _refuse_unsuitable(session: Session, replace: bool) -> None:
    end = time.monotonic() + DISCONNECT_SECONDS
    while _others(session):
        if time.monotonic() > end:
            raise BackupRefused("The gallery is in use. Stop the service and all workers, then restore.")
        time.sleep(0.1)  # a connection that was just closed is seen for a moment
    used = any(session.scalar(select(table.id).limit(1)) is not None for table in (Image, Ingestion, Camera))
    if used and not replace:
        raise BackupRefused("The gallery is not empty. Give --replace to put the backup in its place.")


def _others(session: Session) -> int:
    """How many other connections of this program the database has at this moment."""
    session.execute(text("SELECT pg_stat_clear_snapshot()"))  # else a transaction sees what it saw at first
    statement = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'person-search' AND pid <> pg_backend_pid()"
    )
    return session.scalar(statement) or 0


def _known_here(session: Session) -> list[JournalEntry]:
    """The erasures of the database that is about to be replaced, should its journal have been lost."""
    found: list[JournalEntry] = []
    before = None
    while page := traces.erasures(session, before, limit=200):
        for receipt in page:
            ids = [image_id for image_id, _ in traces.erased_images(session, receipt.id)]
            found += journal.entries_of(receipt.id, receipt.created_at, receipt.reason, receipt.selection, ids)
        before = page[-1].id
    return found


def _load(session: Session, manifest: Manifest, folder: Path) -> None:
    """Drop all tables, make those of the backup's schema, fill them, and bring the schema up to date.

    Sequences never go back: a row number or a change number that was used here is not used again.
    """
    connection, before = session.connection(), _sequences(session)
    Base.metadata.drop_all(connection)
    connection.execute(text("DROP TABLE IF EXISTS alembic_version"))
    migrate_to(connection, manifest.revision)
    for table in manifest.tables:
        _read_table(session, table, folder)
    for name, value in {**before, **manifest.sequences}.items():
        further = {"name": name, "value": max(value, before.get(name, 0))}
        connection.execute(text("SELECT setval(CAST(:name AS regclass), :value)"), further)
    migrate_to(connection, "head")
    session.expire_all()


def _read_table(session: Session, table: Table, folder: Path) -> None:
    with gzip.open(folder / "tables" / f"{table.name}.copy.gz", "rb") as packed, _cursor(session) as cursor:
        with cursor.copy(_copy(table.name, table.columns, "FROM STDIN")) as copy:
            while block := packed.read(CHUNK):
                copy.write(block)
        if cursor.rowcount != table.rows:
            raise BackupRefused(f"The table {table.name} has {cursor.rowcount} rows instead of {table.rows}.")


# --------------------------------------------------------------------------------------------------------------------


def _without_limits(session: Session) -> None:
    session.execute(text("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"))


def _sequences(session: Session) -> dict[str, int]:
    """The sequences that were used, and where they stand."""
    found = session.execute(
        text(
            "SELECT sequencename, last_value FROM pg_sequences"
            " WHERE schemaname = current_schema() AND last_value IS NOT NULL"
        )
    )
    return dict(sorted((name, value) for name, value in found))


@contextmanager
def _cursor(session: Session) -> Iterator[psycopg.Cursor[Any]]:
    connection = cast("psycopg.Connection[Any]", session.connection().connection.driver_connection)
    with connection.cursor() as cursor:
        yield cursor


def _copy(table: str, columns: list[str], direction: str) -> sql.Composed:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    return sql.SQL("COPY {} ({}) " + direction).format(sql.Identifier(table), names)


def _signed(manifest: Manifest) -> bytes:
    """The manifest as JSON, with its own checksum."""
    body = asdict(manifest)
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps({**body, "sha256": digest}, indent=2).encode()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("The disk is full. Free some space, then start again with an empty folder.") from error
        raise
