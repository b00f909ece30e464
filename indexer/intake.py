"""Images into the gallery: file to the store, row to the database, line to the ledger. HTTP and command line meet here.

What is accepted is decided by images.py (pixels), metadata.py (fields) and gallery.py (what is there already).
Embedding comes later and elsewhere: the worker finds the new rows by itself.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from uuid import UUID

import structlog
from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from indexer import gallery, holds
from indexer.database import Database, transaction
from indexer.errors import CameraExists, DatabaseUnavailable, GalleryError, StorageFull, UnknownCamera
from indexer.filters import Scope, in_scope
from indexer.gallery import Added, NewImage, NewItem
from indexer.images import DEFAULT_LIMITS, ImageLimits, ImageStore, StoredImage
from indexer.items import Entry, Problem
from indexer.metadata import InvalidField, ItemMetadata, pointer_of
from indexer.presence import Presence, is_gone
from indexer.tables import Image, Ingestion

BATCH_ITEMS = 50  # one commit: progress shows, and a crash costs little
BATCH_BYTES = 64 * 2**20
SAVE_THREADS = 4  # decoding runs beside waiting for the disk
SAVES_AHEAD = 8
PAUSES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # seconds between tries while the database is away

INTERRUPTED = "It was interrupted. Send the same again: what is in already is kept, and the rest is completed."

BATCH_LOCK = 7_305_811  # key of an advisory lock, beside those of gallery.py

T = TypeVar("T")
log = structlog.get_logger(__name__)


def ingest_one(
    database: Database,
    store: ImageStore,
    data: bytes,
    metadata: ItemMetadata,
    *,
    limits: ImageLimits = DEFAULT_LIMITS,
    register_cameras: bool = False,
    scope: Scope = None,
    also: Callable[[Session, Added], object] = lambda session, added: None,
) -> Added:
    """Add one image, as the act of `actor`. Sending it again changes nothing and finds the same image. Cameras outside
    the scope are unknown.

    `also` is what happens in the same transaction, or the image is not added either.

    Raises what `ImageStore.save` and `gallery.add_image` raise, InvalidField for a sha256 that does not fit, and
    DatabaseUnavailable; then nothing was added.
    """
    if metadata.sha256 is not None and metadata.sha256 != hashlib.sha256(data).hexdigest():
        raise InvalidField("sha256", "is not that of the bytes received. Send the image again.")
    stored = store.save(data, limits)
    item = _Saved(Entry(0, metadata=metadata, data=data), stored)
    try:
        with transaction(database.engine) as session:
            added = _add(session, store, item, limits, register_cameras, scope)
            also(session, added)
            return added
    except DatabaseUnavailable:
        raise  # it may have been committed: the file stays
    except GalleryError:
        _remove_unused(database, store, stored.sha256)
        raise


def ingest_entries(
    database: Database,
    store: ImageStore,
    entries: Iterable[Entry],
    source: str,
    *,
    register_cameras: bool = False,
    progress: Callable[[int], None] | None = None,
    limits: ImageLimits = DEFAULT_LIMITS,
    ingestion_id: UUID | None = None,
    presence: Presence | None = None,
    scope: Scope = None,
    observe: Callable[[Mapping[str, int]], object] = lambda states: None,
) -> UUID:
    """Add all entries of an archive or a folder, each with a line in the ledger; returns the ingestion's id.

    An item's fault rejects that item. A fault of the whole (the archive, a full disk) ends the ingestion as failed,
    with its sentence in the ledger; what came before stays, and sending the same again completes the rest.
    `register_cameras` adds unknown cameras instead of rejecting their images. After each commit `progress` is called
    with the number of items done so far, and `observe` with how many of the last ones ended in which state.
    `ingestion_id` is that of an ingestion made by `gallery.create_ingestion`; if that is cancelled, nothing more is
    added. `presence` is this process's, if it has one. What lies outside the scope is as if it was not there: cameras
    are unknown, images cannot be changed. Raises DatabaseUnavailable once the database stays away.
    """
    with ExitStack() as stack:
        if presence is None:
            presence = stack.enter_context(Presence(database))
        if ingestion_id is None:
            with transaction(database.engine) as session:
                ingestion_id = gallery.create_ingestion(session, source, owner=presence.key)
        intake = _Intake(database, store, limits, register_cameras, ingestion_id, presence, scope, observe)
        try:
            if intake.begin():
                intake.take(entries, progress)
        except BaseException:
            intake.finish("failed", INTERRUPTED)
            raise
        if intake.failure is None:
            intake.finish("done", None)
        else:
            intake.finish("failed", str(intake.failure))
    return ingestion_id


def recover_interrupted(session: Session) -> int:
    """Close the ingestions whose process is gone, to be called at every start; returns how many.

    Those of a process that lives, under way or waiting in its queue, are left alone.
    """
    of_state = Ingestion.state.in_(["open", "receiving"])
    unfinished = session.execute(select(Ingestion.id, Ingestion.owner).where(of_state)).all()
    gone = {owner: is_gone(session, owner) for owner in {row.owner for row in unfinished}}
    recovered = [row.id for row in unfinished if gone[row.owner]]
    for id in recovered:
        gallery.finish_ingestion(session, id, "failed", INTERRUPTED)
    return len(recovered)


# --- one ingestion -----------------------------------------------------------------------------------------------


class _Cancelled(Exception):  # noqa: N818
    """Somebody cancelled the ingestion."""


@dataclass(frozen=True)
class _Saved:
    """An entry, and its file in the store or why there is none. None: it has no file, it changes an image."""

    entry: Entry
    outcome: StoredImage | Problem | None


class _Intake:
    """One ingestion under way. `failure` is what ended it early."""

    def __init__(
        self,
        database: Database,
        store: ImageStore,
        limits: ImageLimits,
        register_cameras: bool,
        ingestion_id: UUID,
        presence: Presence,
        scope: Scope,
        observe: Callable[[Mapping[str, int]], object],
    ) -> None:
        self.database, self.store, self.limits = database, store, limits
        self.observe = observe
        self.register_cameras, self.scope = register_cameras, scope
        self.ingestion_id, self.presence = ingestion_id, presence
        self.failure: GalleryError | None = None
        self._unplaced: list[str] = []  # files in the store whose images did not come to be added

    def begin(self) -> bool:
        """Whether there is anything to do: it may have been cancelled while it waited."""
        return self._persist(lambda session: gallery.take_ingestion(session, self.ingestion_id, self.presence.key))

    def take(self, entries: Iterable[Entry], progress: Callable[[int], None] | None) -> None:
        done = 0
        batch: list[_Saved] = []
        with closing(self._saved(self._read(entries))) as saved:
            try:
                for batch in _batches(saved):
                    refused, states = self._persist(partial(self._write, batch=batch))
                    self.observe(states)
                    for sha256 in refused:
                        _remove_unused(self.database, self.store, sha256)
                    done += len(batch)
                    if progress is not None:
                        progress(done)
                batch = []
            except StorageFull as error:  # within a batch, which was rolled back
                self.failure = error
            except _Cancelled:
                log.info("ingestion cancelled", ingestion=str(self.ingestion_id))
        self._unplaced += [item.outcome.sha256 for item in batch if isinstance(item.outcome, StoredImage)]
        for sha256 in set(self._unplaced):
            _remove_unused(self.database, self.store, sha256)

    def finish(self, state: str, error: str | None) -> None:
        self._persist(lambda session: gallery.finish_ingestion(session, self.ingestion_id, state, error))

    def _read(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Entries until one cannot be read; those before it still count."""
        try:
            yield from entries
        except GalleryError as error:
            self.failure = error

    def _saved(self, entries: Iterator[Entry]) -> Generator[_Saved, None, None]:
        """Entries in their order, their files saved a few ahead by threads, until the disk is full."""
        waiting: deque[tuple[Entry, Future[StoredImage] | None]] = deque()
        with ThreadPoolExecutor(SAVE_THREADS, thread_name_prefix="save") as pool:
            try:
                for entry in entries:
                    save = None if entry.data is None else pool.submit(self.store.save, entry.data, self.limits)
                    waiting.append((entry, save))
                    if len(waiting) > SAVES_AHEAD:
                        yield _outcome(*waiting.popleft())
                while waiting:
                    yield _outcome(*waiting.popleft())
            except StorageFull as error:
                self.failure = error
            finally:
                for _, save in waiting:
                    if save is not None and save.exception() is None:
                        self._unplaced.append(save.result().sha256)

    def _write(self, session: Session, batch: list[_Saved]) -> tuple[list[str], Counter[str]]:
        """The images of a batch and their lines in the ledger.

        Returns the files whose image was refused, and how many items ended in which state.
        """
        if not gallery.take_ingestion(session, self.ingestion_id, self.presence.key):
            raise _Cancelled
        first = batch[0].entry.position
        written = gallery.ingestion_items(session, self.ingestion_id, after=first - 1, limit=1)
        if written and written[0].position == first:
            return [], Counter()  # committed, but the database went away before it could say so
        # Two ingestions adding the same images in different order would wait for each other.
        session.execute(select(func.pg_advisory_xact_lock(BATCH_LOCK)))
        rejected, lines = [], []
        at_once = _add_new(session, batch, self.scope)
        for item in batch:
            outcome: Added | Problem
            if isinstance(item.outcome, Problem):
                outcome = item.outcome
            else:
                try:
                    outcome = self._add_or_change(session, item, at_once.get(item.entry.position))
                except (DatabaseUnavailable, StorageFull):
                    raise
                except GalleryError as error:
                    if item.outcome is not None:
                        rejected.append(item.outcome.sha256)
                    outcome = Problem(error.code, str(error), pointer_of(error))
            lines.append(_line(item.entry, outcome))
        gallery.add_items(session, self.ingestion_id, lines)
        return rejected, Counter(line.state for line in lines)

    def _add_or_change(self, session: Session, item: _Saved, added: Added | None) -> Added:
        """`added` if it was added with the others of its batch."""
        if item.outcome is None:
            return _change(session, item.entry, self.register_cameras, self.scope)
        if added is None:
            return _add(session, self.store, item, self.limits, self.register_cameras, self.scope)
        _keep_file(self.store, item, self.limits)
        return added

    def _persist(self, work: Callable[[Session], T]) -> T:
        """Run work in a transaction, again while the database is away, until it stays away."""
        for pause in PAUSES:
            try:
                with transaction(self.database.engine) as session:
                    return work(session)
            except DatabaseUnavailable:
                log.warning("database_lost", ingestion=str(self.ingestion_id), retry_in=pause)
                time.sleep(pause)
        with transaction(self.database.engine) as session:
            return work(session)


def _batches(items: Iterator[_Saved]) -> Iterator[list[_Saved]]:
    """Groups of one commit each, bounded in number and in bytes."""
    batch: list[_Saved] = []
    size = 0
    for item in items:
        batch.append(item)
        size += len(item.entry.data or b"")
        if len(batch) >= BATCH_ITEMS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _outcome(entry: Entry, save: Future[StoredImage] | None) -> _Saved:
    if save is None:
        return _Saved(entry, entry.problem)
    try:
        return _Saved(entry, save.result())
    except StorageFull:
        raise
    except GalleryError as error:
        return _Saved(entry, Problem(error.code, str(error), "/file"))


def _line(entry: Entry, outcome: Added | Problem) -> NewItem:
    """The ledger line of one item."""
    line = partial(NewItem, entry.position, external_id=entry.external_id, file=entry.file)
    if isinstance(outcome, Problem):
        return line("rejected", code=outcome.code, reason=outcome.reason, pointer=outcome.pointer)
    return line("duplicate" if outcome.duplicate else "accepted", image_id=outcome.image_id)


def _add_new(session: Session, batch: list[_Saved], scope: Scope) -> dict[int, Added]:
    """The images of a batch that nothing stands in the way of, by position, added with few statements.

    None of a batch that also changes images: there the order of the lines counts.
    """
    saved = [item for item in batch if isinstance(item.outcome, StoredImage)]
    saved = [item for item in saved if (known := item.entry.metadata) and _is_within(scope, known.camera_id)]
    if any(item.outcome is None for item in batch):
        return {}
    ids = gallery.add_images(session, [_new_image(item) for item in saved])
    return {
        item.entry.position: Added(id, duplicate=False) for item, id in zip(saved, ids, strict=True) if id is not None
    }


# --- one image ---------------------------------------------------------------------------------------------------


def _add(
    session: Session, store: ImageStore, item: _Saved, limits: ImageLimits, register_cameras: bool, scope: Scope
) -> Added:
    """The row of a saved image."""
    assert item.entry.metadata is not None
    _refuse_beyond(scope, item.entry.metadata.camera_id)
    image = _new_image(item)
    added = _with_camera(session, item.entry.metadata, register_cameras, lambda: gallery.add_image(session, image))
    _keep_file(store, item, limits)
    return added


def _keep_file(store: ImageStore, item: _Saved, limits: ImageLimits) -> None:
    """Save the file once more if it was removed with another image meanwhile; now that its row is added, it stays."""
    assert isinstance(item.outcome, StoredImage) and item.entry.data is not None
    if not store.path(item.outcome.sha256).exists():
        store.save(item.entry.data, limits)


def _new_image(item: _Saved) -> NewImage:
    stored, metadata = item.outcome, item.entry.metadata
    assert isinstance(stored, StoredImage) and metadata is not None
    return NewImage(
        sha256=stored.sha256,
        width=stored.width,
        height=stored.height,
        format=stored.format,
        byte_size=stored.byte_size,
        external_id=metadata.external_id,
        camera_id=metadata.camera_id,
        captured_at=metadata.captured_at,
        track_id=metadata.track_id,
        identity=metadata.identity,
        tags=metadata.tags,
        attributes=metadata.attributes,
    )


def _change(session: Session, entry: Entry, register_cameras: bool, scope: Scope) -> Added:
    """What a line without a file says about an image that is there."""
    metadata = entry.metadata
    assert metadata is not None and metadata.external_id is not None
    changes = {name: getattr(metadata, name) for name in entry.changes}
    if "tags" in changes:
        changes["tags"] = list(metadata.tags)
    if "camera_id" in changes:
        _refuse_beyond(scope, metadata.camera_id)

    def change() -> Added:
        if gallery.is_storable([metadata.external_id, changes]):  # else no image is called so, or can become so
            mine = and_(Image.external_id == metadata.external_id, *in_scope(scope))
            holds.refuse_change(session, mine, changes)
        return gallery.update_image(session, str(metadata.external_id), changes, metadata.sha256, scope)

    return _with_camera(session, metadata, register_cameras, change)


def _refuse_beyond(scope: Scope, camera_id: str | None) -> None:
    """Raise UnknownCamera for one outside the scope, and for none where there is a scope."""
    if _is_within(scope, camera_id):
        return
    if camera_id is None:
        raise UnknownCamera("The image names no camera, and only images of certain cameras may be added. Name its own.")
    raise gallery.no_camera(camera_id)


def _is_within(scope: Scope, camera_id: str | None) -> bool:
    return scope is None or camera_id in scope


def _with_camera(session: Session, metadata: ItemMetadata, register_cameras: bool, work: Callable[[], Added]) -> Added:
    """Do the work; if only its camera is unknown, and that may be added, add it and do the work again."""
    try:
        return work()
    except UnknownCamera:
        if not register_cameras or metadata.camera_id is None:
            raise
    with suppress(CameraExists):  # somebody else added it just now
        gallery.add_camera(session, metadata.camera_id)
    return work()


def _remove_unused(database: Database, store: ImageStore, sha256: str) -> None:
    """Remove a file whose image was refused, unless another image has it."""
    with transaction(database.engine) as session:
        if gallery.unused_file(session, sha256):
            store.remove(sha256)
