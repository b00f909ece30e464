"""Erasing images for good: rows, embeddings, rankings and names, then files, then the proof that they are gone.

Everything that is left to do is in the database at every moment (see traces.py), so an erasure that was killed goes on
where it stopped: `Eraser.resume`, at every start and every sweep. Files go after rows, and the receipt is closed only
when a search for what was erased has found nothing in the database, the image store, the index and its copy on disk.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, TypeVar
from uuid import UUID

import numpy as np
import structlog
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from indexer import audit, case_exports, gallery, journal, searches, traces
from indexer.audit import SYSTEM, Actor, Purpose
from indexer.database import Database, database_errors, transaction
from indexer.errors import DatabaseUnavailable, IndexUnavailable
from indexer.holds import lock_governance
from indexer.images import ImageStore
from indexer.replica import Replica
from indexer.tables import new_id
from indexer.traces import ErasureRecord, Images, Selection

BATCH = 200  # images of one transaction, during which nobody else can record an embedding
AT_ONCE = 8  # erasures: each takes two connections, and with all of them holding one, none would get its second
PROBES = 100  # erased images whose vectors are searched for afterwards
PAUSES = (0.1, 0.3, 1.0, 3.0)  # seconds between tries when another change got in the way
INDEX_WAIT = 5.0  # seconds in which the index must have followed

ERASURE_LOCK = 7_305_821  # first key of an advisory lock, the second is the erasure's

T = TypeVar("T")
Probes = dict[UUID, gallery.Vectors]
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Eraser:
    """What an erasure reaches: the database, the image files, the journal, and the index if this process has one."""

    database: Database
    store: ImageStore
    journal: Path
    replica: Replica[Any] | None = None
    room: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(AT_ONCE), repr=False, compare=False)

    @property
    def exports(self) -> Path:
        """Where the exports of cases lie."""
        return self.journal.with_name(case_exports.FOLDER)

    def count(self, selection: Selection) -> Counter[str]:
        """What `erase` would remove. Raises `InvalidFilter`."""
        with transaction(self.database.engine) as session:
            return traces.count(session, selection)

    def erase(
        self, selection: Selection, reason: str, actor: Actor = SYSTEM, about: tuple[str, str] | None = None
    ) -> ErasureRecord:
        """Erase the selected images and return the receipt; its state is `running` if the proof failed so far.

        The audit says that `actor` did it, and to what: `about`, for which None is the erasure.
        Raises `UnderLegalHold`, `ReasonNamesPerson`, `InvalidFilter`; nothing was erased then. After any other error
        the erasure is decided, and is completed later.
        """
        described, names = selection.described(), selection.names()
        return self.erase_images(selection.images(), reason, described, names, actor, about)

    def erase_images(
        self,
        images: Images,
        reason: str,
        selection: dict[str, Any],
        names: list[str] | None = None,
        actor: Actor = SYSTEM,
        about: tuple[str, str] | None = None,
    ) -> ErasureRecord:
        """The same for the images that meet these conditions."""
        id = new_id()
        with self.room, only_one(self.database.engine, ERASURE_LOCK, _lock_key(id)):

            def decide(session: Session) -> None:
                if traces.erasure(session, id) is not None:  # it was decided, and only its commit seemed to fail
                    return
                count = traces.decide(session, id, images, reason, selection, names or [])
                told = {"erasure": str(id), "by": selection["by"], "images": count}
                action, object = ("image.delete", about) if about else ("erasure.create", ("erasure", str(id)))
                audit.record(session, actor, action, object, purpose=Purpose(reason=reason), detail=told)

            self._persist(decide)
            return self._carry_out(id)

    def resume(self) -> list[ErasureRecord]:
        """Complete what was begun and broken off, here or elsewhere; what another process is at is left to it."""
        with transaction(self.database.engine) as session:
            ids = traces.unfinished(session)
        completed = []
        for id in ids:
            with self.room, only_one(self.database.engine, ERASURE_LOCK, _lock_key(id)) as mine:
                if mine:
                    completed.append(self._carry_out(id))
                    log.info("erasure resumed", erasure=str(id), state=completed[-1].state)
        return completed

    def replay(self) -> int:
        """Erase again what the journal says was erased: the database may be an old one. Returns how many images."""
        with transaction(self.database.engine) as session:
            lock_governance(session)  # of several replicas that start at once, one decides
            return reinstate_missing(session, journal.read(self.journal))

    # ------------------------------------------------------------------------------------------------------------

    def _carry_out(self, id: UUID) -> ErasureRecord:
        """The rest of an erasure that was decided, from wherever it stands."""
        receipt, images = self._persist(
            lambda session: (traces.erasure(session, id), traces.erased_images(session, id))
        )
        assert receipt is not None
        ids = [image_id for image_id, _ in images]
        lines = journal.entries_of(id, receipt.created_at, receipt.reason, receipt.selection, ids)
        self.journal.parent.mkdir(parents=True, exist_ok=True)
        journal.append(self.journal, lines)
        probes = self._probes(ids)
        while self._persist(lambda session: traces.erase_batch(session, id, BATCH)):
            pass
        case_exports.remove_leftovers(self.database, self.exports)
        files = self._persist(lambda session: traces.waiting_files(session, id))
        for sha256 in files:
            self._persist(partial(self._remove_file, id, sha256))
        if (proof := self._proof(id, [row for _, row in images if row is not None], probes)) is not None:
            self._persist(lambda session: traces.finish(session, id, proof))
        closed = self._persist(lambda session: traces.erasure(session, id))
        assert closed is not None
        return closed

    def _probes(self, ids: list[UUID]) -> Probes:
        """Vectors of some of the images, kept in memory to search for them once they are gone."""
        if self.replica is None:
            return {}
        checkpoint_id = self.replica.state.checkpoint_id
        return self._persist(lambda session: gallery.vectors_of(session, ids[:PROBES], checkpoint_id))

    def _remove_file(self, id: UUID, sha256: str, session: Session) -> None:
        """Remove a file unless another image shows it, and forget its checksum."""
        unused = gallery.unused_file(session, sha256)
        if unused:
            self.store.remove(sha256)
            if self.store.files_of(sha256):
                raise OSError("a file was removed from the image store and is still there")
        traces.file_done(session, id, sha256, removed=unused)

    def _proof(self, id: UUID, rows: list[int], probes: Probes) -> str | None:
        """The sentence of what was searched and found empty; None, and a line in the log, if something is left."""
        # A search that ran meanwhile may have frozen its ranking just now.
        self._persist(lambda session: searches.forget_rows(session, rows))
        if left := self._persist(lambda session: traces.remains(session, id)):
            log.error("erasure incomplete", erasure=str(id), left=dict(left))
            return None
        looked, in_index = f"Looked for {len(rows)} images by their ids", ""
        if self.replica is not None:
            try:
                left_in = "index" if not self._gone_from_index(rows, probes) else "index on disk"
                gone = left_in != "index" and self.replica.forget(np.array(rows, np.int64))
            except IndexUnavailable as error:
                left_in, gone = str(error), False
            if not gone:
                log.error("erasure incomplete", erasure=str(id), left=left_in)
                return None
            looked += f", and searched for {len(probes)} of them by their vectors"
            in_index = ", in the index, in its copy on disk"
        found = f"none is in the database{in_index} or in a kept ranking"
        return f"{looked}: {found}, and no file of theirs is left that no other image shows."

    def _gone_from_index(self, rows: list[int], probes: Probes) -> bool:
        """Whether the index of this process has none of the rows, and finds none of them by its vector."""
        assert self.replica is not None
        end = time.monotonic() + INDEX_WAIT
        while True:
            self.replica.refresh()
            index = self.replica.state.index
            if not len(index.present(np.array(rows, np.int64))):
                break
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        vectors = [vector for vector in probes.values() if vector.shape == (index.dim,)]
        if not vectors:
            return True
        _, found = index.search(np.stack(vectors), 10)
        return not np.isin(found, rows).any()

    def _persist(self, work: Callable[[Session], T]) -> T:
        """Run work in a transaction, again when another change got in its way. Raises `DatabaseUnavailable`."""
        for pause in PAUSES:
            try:
                with transaction(self.database.engine) as session:
                    return work(session)
            except DatabaseUnavailable:
                time.sleep(pause)
        with transaction(self.database.engine) as session:
            return work(session)


def reinstate_missing(session: Session, entries: list[journal.JournalEntry]) -> int:
    """Decide the erasures of the journal again whose receipt is missing or whose images are back; returns how many.

    The journal knows no names. So where a receipt is missing of an erasure that was asked for by name, everything goes
    that may bear names of nobody's image any more.
    """
    back: set[UUID] = set()
    for entry in entries:
        here = traces.still_there(session, entry.image_ids)
        unknown = traces.erasure(session, entry.erasure_id) is None
        if unknown and entry.selection.get("by") in traces.BY_NAME:
            traces.forget_lone_names(session)
        if here or unknown:
            described = (entry.erasure_id, entry.created_at, entry.reason, entry.selection)
            traces.reinstate(session, *described, entry.image_ids, running=bool(here))
        back |= here
    return len(back)


@contextmanager
def only_one(engine: Engine, *key: int) -> Iterator[bool]:
    """Whether this process alone holds the key: an advisory lock on a connection of its own, which ends with it."""
    with database_errors():
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    try:
        with database_errors():
            taken = connection.scalar(select(func.pg_try_advisory_lock(*key)))
        yield bool(taken)
    finally:
        connection.invalidate()  # dropped instead of pooled, and the lock with it
        connection.close()


def _lock_key(id: UUID) -> int:
    return id.int & 0x7FFFFFFF  # the random end of a UUIDv7
