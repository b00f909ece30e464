"""Images on their way in: what is added, what is a duplicate, what is refused, and that nothing is lost on the way.

On a real PostgreSQL and a real image store.
"""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import func, select, text

from indexer import gallery, intake
from indexer.database import Database, connect, transaction
from indexer.errors import (
    ArchiveError,
    DatabaseUnavailable,
    ExternalIdConflict,
    ImageTooSmall,
    StorageFull,
    UnknownCamera,
)
from indexer.images import ImageStore, Limits
from indexer.intake import INTERRUPTED, ingest_entries, ingest_one, recover_interrupted
from indexer.items import Entry, Problem
from indexer.metadata import InvalidField, ItemMetadata

NOON = datetime(2026, 9, 1, 12, tzinfo=UTC)
DEADLINE = 30.0


def picture(seed: int, size: tuple[int, int] = (16, 24)) -> bytes:
    buffer = io.BytesIO()
    blocks = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(blocks).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def entry(position: int, data: bytes | None = None, **known: Any) -> Entry:
    metadata = ItemMetadata(file=f"{position}.png", **known)
    data = picture(position) if data is None else data
    return Entry(position, metadata.file, metadata.external_id, metadata, data)


def entries(count: int) -> list[Entry]:
    return [entry(i, external_id=f"x{i}") for i in range(count)]


def states(database: Database, id: UUID) -> list[str]:
    return [item.code or item.state for item in items(database, id)]


def items(database: Database, id: UUID) -> Sequence[gallery.ItemRecord]:
    with transaction(database.engine) as session:
        return gallery.ingestion_items(session, id, limit=10_000)


def record(database: Database, id: UUID) -> gallery.IngestionRecord:
    with transaction(database.engine) as session:
        found = gallery.ingestion(session, id)
    assert found is not None
    return found


def image_count(database: Database) -> int:
    with transaction(database.engine) as session:
        return session.scalar(select(func.count()).select_from(text("image"))) or 0


def files(store: ImageStore) -> set[str]:
    return {path.name for path in store.root.rglob("*") if path.is_file()}


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


# --- one image ---------------------------------------------------------------------------------------------------


def test_one_image_is_stored_and_waits_for_its_embedding(database: Database, store: ImageStore) -> None:
    data = picture(1, (16, 40))
    with transaction(database.engine) as session:
        gallery.add_camera(session, "gate")
        gallery.ensure_checkpoint(session, "c1", "grid", 48, {}, "")
    known = ItemMetadata(
        external_id="x",
        camera_id="gate",
        captured_at=NOON,
        track_id="t",
        identity="p",
        tags=("a", "b"),
        attributes={"n": 1},
    )
    added = ingest_one(database, store, data, known)
    assert not added.duplicate
    with transaction(database.engine) as session:
        image = gallery.image_by_id(session, added.image_id)
        assert gallery.pending_count(session, "c1") == 1
    assert image is not None
    assert (image.width, image.height, image.format, image.byte_size) == (16, 40, "PNG", len(data))
    assert (image.external_id, image.camera_id, image.captured_at) == ("x", "gate", NOON)
    assert (image.track_id, image.identity, image.tags, image.attributes) == ("t", "p", ("a", "b"), {"n": 1})
    assert store.path(image.sha256).read_bytes() == data
    again = ingest_one(database, store, data, known)
    assert (again.image_id, again.duplicate) == (added.image_id, True)


def test_a_refused_image_leaves_neither_row_nor_file(database: Database, store: ImageStore) -> None:
    ingest_one(database, store, picture(1), ItemMetadata(external_id="x"))
    before = files(store)
    refusals: list[tuple[bytes, ItemMetadata, type[Exception]]] = [
        (picture(2), ItemMetadata(camera_id="nowhere"), UnknownCamera),
        (picture(2), ItemMetadata(external_id="x"), ExternalIdConflict),
        (picture(2), ItemMetadata(sha256="0" * 64), InvalidField),
        (picture(2, (4, 4)), ItemMetadata(), ImageTooSmall),
    ]
    for data, metadata, error in refusals:
        with pytest.raises(error):
            ingest_one(database, store, data, metadata)
    assert image_count(database) == 1
    assert files(store) == before


def test_a_refusal_does_not_cost_another_image_its_file(database: Database, store: ImageStore) -> None:
    ingest_one(database, store, picture(1), ItemMetadata())
    with pytest.raises(UnknownCamera):
        ingest_one(database, store, picture(1), ItemMetadata(camera_id="nowhere"))
    assert files(store) == {hashlib.sha256(picture(1)).hexdigest()}


def test_the_same_picture_at_another_time_is_another_image(database: Database, store: ImageStore) -> None:
    first = ingest_one(database, store, picture(1), ItemMetadata())
    second = ingest_one(database, store, picture(1), ItemMetadata(captured_at=NOON))
    assert not second.duplicate and first.image_id != second.image_id
    assert len(files(store)) == 1


def test_limits_are_the_callers(database: Database, store: ImageStore) -> None:
    with pytest.raises(ImageTooSmall, match="at least 100"):
        ingest_one(database, store, picture(1), ItemMetadata(), limits=Limits(min_image_side=100))


def test_a_file_removed_with_another_image_meanwhile_is_stored_again(
    database: Database, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = store.save
    calls = []

    def save_and_lose_it(*args: Any) -> Any:
        stored = save(*args)
        calls.append(stored)
        if len(calls) == 1:
            store.remove(stored.sha256)
        return stored

    monkeypatch.setattr(store, "save", save_and_lose_it)
    ingest_one(database, store, picture(1), ItemMetadata())
    assert len(files(store)) == 1


# --- many images -------------------------------------------------------------------------------------------------


def test_each_item_has_its_line_in_the_ledger(database: Database, store: ImageStore) -> None:
    given = [
        entry(0, external_id="x"),
        Entry(1, problem=Problem("invalid_json", "Line 2: not valid JSON.", None)),
        entry(2, data=b"no image"),
        entry(3, data=picture(0), external_id="y"),  # the pixels of the first, under another name
        entry(4, external_id="x"),  # the name of the first, with other pixels
        entry(5, camera_id="nowhere"),
        entry(6, data=picture(6, (4, 4))),
        entry(7),
    ]
    id = ingest_entries(database, store, iter(given), "a test")
    ledger = items(database, id)
    assert [(item.position, item.code or item.state) for item in ledger] == [
        (0, "pending"),
        (1, "invalid_json"),
        (2, "unreadable_image"),
        (3, "duplicate"),
        (4, "external_id_conflict"),
        (5, "unknown_camera"),
        (6, "image_too_small"),
        (7, "pending"),
    ]
    assert [item.pointer for item in ledger] == [None, None, "/file", None, "/external_id", "/camera_id", "/file", None]
    assert ledger[3].image_id == ledger[0].image_id
    assert all((item.reason or "").endswith(".") for item in ledger if item.state == "rejected")
    assert (ledger[0].external_id, ledger[0].file) == ("x", "0.png")
    done = record(database, id)
    assert (done.state, done.error, done.total, done.source) == ("done", None, 8, "a test")
    assert files(store) == {hashlib.sha256(picture(i)).hexdigest() for i in (0, 7)}, "of the refused no file is left"


def test_sending_the_same_again_changes_nothing(database: Database, store: ImageStore) -> None:
    first = ingest_entries(database, store, entries(7), "first")
    before = (image_count(database), files(store))
    second = ingest_entries(database, store, entries(7), "second")
    assert states(database, first) == ["pending"] * 7
    assert states(database, second) == ["duplicate"] * 7
    assert [item.image_id for item in items(database, first)] == [item.image_id for item in items(database, second)]
    assert (image_count(database), files(store)) == before


def test_unknown_cameras_can_be_registered_on_the_way(database: Database, store: ImageStore) -> None:
    given = [entry(i, camera_id=f"c{i % 2}") for i in range(4)]
    id = ingest_entries(database, store, given, "a test", register_cameras=True)
    assert states(database, id) == ["pending"] * 4
    with transaction(database.engine) as session:
        assert [camera.id for camera in gallery.cameras(session)] == ["c0", "c1"]


def test_progress_shows_in_steps_and_an_existing_ingestion_is_filled(database: Database, store: ImageStore) -> None:
    with transaction(database.engine) as session:
        id = gallery.create_ingestion(session, "made before")
    seen: list[tuple[int, int]] = []

    def progress(done: int) -> None:
        seen.append((done, len(items(database, id))))

    assert ingest_entries(database, store, entries(120), "ignored", progress=progress, ingestion_id=id) == id
    assert seen == [(50, 50), (100, 100), (120, 120)], "what is reported as done is committed"
    assert record(database, id).source == "made before"


def test_large_files_are_committed_in_smaller_steps(
    database: Database, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "BATCH_BYTES", 2 * len(picture(0)))
    seen: list[int] = []
    ingest_entries(database, store, entries(5), "a test", progress=seen.append)
    assert seen == [2, 4, 5]


def broken_after(count: int, error: BaseException) -> Iterator[Entry]:
    yield from entries(count)
    raise error


def test_an_archive_that_breaks_keeps_what_came_before(database: Database, store: ImageStore) -> None:
    broken = broken_after(60, ArchiveError("It unpacks to too much.", code="archive_too_large"))
    id = ingest_entries(database, store, broken, "a test")
    ended = record(database, id)
    assert (ended.state, ended.error, ended.total) == ("failed", "It unpacks to too much.", 60)
    assert states(database, id) == ["pending"] * 60
    again = ingest_entries(database, store, entries(70), "again")
    assert states(database, again) == ["duplicate"] * 60 + ["pending"] * 10


def test_a_full_disk_ends_it_with_its_sentence(
    database: Database, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, full = store.save, hashlib.sha256(picture(55)).hexdigest()

    def fill_up(data: bytes, *args: Any) -> Any:
        if hashlib.sha256(data).hexdigest() == full:
            raise StorageFull("The disk is full.")
        return save(data, *args)

    monkeypatch.setattr(store, "save", fill_up)
    id = ingest_entries(database, store, entries(70), "a test")
    ended = record(database, id)
    assert (ended.state, ended.error) == ("failed", "The disk is full.")
    assert states(database, id) == ["pending"] * 55


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a bug")])
def test_whatever_interrupts_it_is_raised_and_noted(
    database: Database, store: ImageStore, error: BaseException
) -> None:
    with transaction(database.engine) as session:
        id = gallery.create_ingestion(session, "a test")
    with pytest.raises(type(error)):
        ingest_entries(database, store, broken_after(60, error), "a test", ingestion_id=id)
    ended = record(database, id)
    assert (ended.state, ended.error) == ("failed", INTERRUPTED)
    assert states(database, id) == ["pending"] * 50


def test_two_ingestions_of_the_same_images_at_once(database: Database, store: ImageStore) -> None:
    given = entries(150)

    def ingest(order: Iterable[Entry]) -> UUID:
        renumbered = (Entry(i, e.file, e.external_id, e.metadata, e.data) for i, e in enumerate(order))
        return ingest_entries(database, store, renumbered, "a test")

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(ingest, [given, given[::-1]])
    assert image_count(database) == 150
    counts = [record(database, id).counts for id in (first, second)]
    assert [record(database, id).state for id in (first, second)] == ["done", "done"]
    assert counts[0].pending + counts[1].pending == 150, "of each pair one added the image"
    assert counts[0].duplicate + counts[1].duplicate == 150


def terminate_all(database: Database) -> None:
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )


def test_a_lost_connection_costs_no_item(
    database: Database, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "PAUSES", (0.01,) * 20)
    calls = []
    add_images = gallery.add_images

    def add_and_lose_connection(*args: Any) -> list[UUID | None]:
        added = add_images(*args)
        calls.append(args)
        if len(calls) in (1, 3):  # in the middle of the first batch, which is then written again, and of the second
            terminate_all(database)
        return added

    monkeypatch.setattr(gallery, "add_images", add_and_lose_connection)
    id = ingest_entries(database, store, entries(110), "a test")
    assert len(calls) == 5, "three batches, two of them written again"
    assert states(database, id) == ["pending"] * 110
    assert record(database, id).state == "done"


def test_a_commit_whose_answer_was_lost_is_not_repeated(
    database: Database, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "PAUSES", (0.01,) * 20)
    persist = intake._Intake._persist
    lost: list[bool] = []

    def commit_and_lose_the_answer(self: intake._Intake, work: Any) -> Any:
        def once(session: Any) -> Any:
            if not lost:
                lost.append(True)
                with transaction(database.engine) as other:
                    work(other)
                raise DatabaseUnavailable("The answer to the commit never came.")
            return work(session)

        return persist(self, once)

    monkeypatch.setattr(intake._Intake, "_persist", commit_and_lose_the_answer)
    id = ingest_entries(database, store, entries(60), "a test")
    assert lost
    assert states(database, id) == ["pending"] * 60


def test_a_database_that_stays_away_is_said(
    database: Database, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "PAUSES", (0.01,) * 2)
    with transaction(database.engine) as session:
        id = gallery.create_ingestion(session, "a test")

    def gone(*_: Any, **__: Any) -> Any:
        raise DatabaseUnavailable("The database cannot be reached; try again in a moment.")

    with monkeypatch.context() as patched:
        patched.setattr(gallery, "ingestion_items", gone)
        patched.setattr(gallery, "finish_ingestion", gone)
        with pytest.raises(DatabaseUnavailable):
            ingest_entries(database, store, entries(3), "a test", ingestion_id=id)
    with transaction(database.engine) as session:
        assert recover_interrupted(session) == 1
    assert record(database, id).error == INTERRUPTED


# --- killed ------------------------------------------------------------------------------------------------------


def _ingest_and_hang(url: str, root: Path, id: UUID) -> None:
    """A process that takes in 70 images and then waits for more, for ever."""
    engine = connect(url)

    def hang() -> Iterator[Entry]:
        yield from entries(70)
        threading.Event().wait()

    ingest_entries(Database(engine, url), ImageStore(root), hang(), "killed", ingestion_id=id)


def test_kill_9_loses_nothing_and_the_next_start_says_so(database: Database, store: ImageStore) -> None:
    with transaction(database.engine) as session:
        id = gallery.create_ingestion(session, "killed")
    process = multiprocessing.get_context("spawn").Process(
        target=_ingest_and_hang, args=(database.url, store.root, id), daemon=True
    )
    process.start()
    deadline = time.monotonic() + DEADLINE
    while len(items(database, id)) < 50:
        assert time.monotonic() < deadline and process.is_alive()
        time.sleep(0.02)
    with transaction(database.engine) as session:
        assert recover_interrupted(session) == 0, "a running ingestion is left alone"
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(DEADLINE)
    while record(database, id).state == "receiving":  # the server notices a moment later that the process is gone
        assert time.monotonic() < deadline
        with transaction(database.engine) as session:
            recover_interrupted(session)
        time.sleep(0.02)
    interrupted = record(database, id)
    assert (interrupted.state, interrupted.error, interrupted.total) == ("failed", INTERRUPTED, 50)
    again = ingest_entries(database, store, entries(70), "again")
    assert states(database, again) == ["duplicate"] * 50 + ["pending"] * 20
    store.remove_leftovers(older_than_seconds=0)  # of a file it was writing
    assert image_count(database) == len(files(store)) == 70
    with transaction(database.engine) as session:
        assert recover_interrupted(session) == 0
