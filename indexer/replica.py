"""The live index: a checkpoint's vectors in memory, loaded once and following the database's changes since.

Checkpoint, encoder and index belong together and are replaced together, by one assignment: a search that took the old
ones finishes with the old ones, and vectors of two checkpoints never meet in one ranking. The database is not written
to. It decides which vectors there are: a snapshot on disk only spares reading them, after each was compared with the
database by its digest, and what the index has too little or too much is put right whenever it is found.

An index in Milvus is shared by all replicas and outlives them. It is not made anew but compared in the same way, and
of the replicas one at a time writes to it: what that one reads from the database meanwhile is never older than what
another wrote, so none brings back what another removed.
"""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from indexer import checkpoints, gallery, snapshots
from indexer.database import Database, database_errors, transaction
from indexer.errors import GalleryError, IndexUnavailable
from indexer.gallery import Digests, Listing, Rows
from indexer.index import Block, Index, VectorIndex
from indexer.snapshots import BlockFile, SnapshotRefused

if TYPE_CHECKING:
    from indexer.milvus import Milvus

log = structlog.get_logger(__name__)

REFRESH_WAIT = 0.2  # seconds a refresh waits for one that is under way
AT_A_TIME = 4096  # rows that are read, and added, while a refresh may be waiting
SHARED_INDEX_LOCK = 7_305_831  # key of an advisory lock, unique within the database


class OfCheckpoint(Protocol):
    """What the replica asks of an encoder."""

    @property
    def checkpoint_id(self) -> str: ...
    @property
    def dim(self) -> int: ...


E = TypeVar("E", bound=OfCheckpoint)


@dataclass(frozen=True)
class Live(Generic[E]):
    """What answers searches: `index` holds what `checkpoint_id` made of the gallery, up to change `seq`."""

    checkpoint_id: str
    encoder: E
    index: Index
    seq: int


@dataclass(frozen=True)
class Gap:
    """How many rows the index lacked and how many it had too much, compared with the database at one moment."""

    missing: int = 0
    surplus: int = 0

    @property
    def total(self) -> int:
        return self.missing + self.surplus


class Replica(Generic[E]):
    """Keeps `state` up to date. Take `state` once per search: it may be another one a moment later.

    `gap` is what the last comparison with the database found, and put right; `mended` counts all rows put right so far.
    """

    def __init__(
        self,
        database: Database,
        encoder: E,
        spec: str = "flat",
        snapshots: Path | None = None,
        keep_free: int = 0,
        scratch: Path | None = None,
        milvus: Milvus | None = None,
    ) -> None:
        """Empty until `load`. Raises `InvalidSettings` for an index `spec` that does not exist.

        `snapshots` is the folder where the index is kept from one start to the next, None for nowhere; it is not
        written where less than `keep_free` bytes of disk would be left. `scratch` is the folder on whose disk a
        compressed index has its vectors, None for where temporary files are. With `milvus` the index is there, and
        neither `spec` nor the folders are of any consequence.
        """
        self._database = database
        self._spec, self._scratch, self._milvus = spec, scratch, milvus
        self._snapshots, self._keep_free = snapshots, keep_free
        self._files: WeakKeyDictionary[Block, BlockFile] = WeakKeyDictionary()
        self._saved: tuple[str, int, int] | None = None  # what is on the disk: checkpoint, seq, mended
        self._saving = threading.Lock()
        self._updating = threading.Lock()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self.gap = Gap()
        self.mended = 0
        self.state = Live(encoder.checkpoint_id, encoder, VectorIndex(encoder.dim, spec, scratch), seq=0)

    # --- loading

    def load(self) -> None:
        """Make a new index of all vectors of the checkpoint, which then takes the place of the old one.

        They are read from the snapshot if there is one that agrees with the database, else from the database. One in
        Milvus is made equal to the database. Raises `DatabaseUnavailable`, `IndexUnavailable`; the old one stays then.
        """
        with self._updating:
            self.state = self._loaded(self.state.encoder)

    def _loaded(self, encoder: E) -> Live[E]:
        started = time.monotonic()
        try:
            live, read = (
                self._from_milvus(encoder, self._milvus)
                if self._milvus is not None
                else self._from_snapshot(encoder) or self._from_database(encoder)
            )
        except SnapshotRefused as refused:
            log.warning("index_snapshot_refused", reason=str(refused), checkpoint=encoder.checkpoint_id)
            self._discard(encoder.checkpoint_id)
            live, read = self._from_database(encoder)
        log.info(
            "index_loaded",
            checkpoint=encoder.checkpoint_id,
            vectors=len(live.index),
            read_from_database=read,
            seconds=round(time.monotonic() - started, 3),
        )
        return live

    def _from_database(self, encoder: E) -> tuple[Live[E], int]:
        index = VectorIndex(encoder.dim, self._spec, self._scratch)
        with transaction(self._database.engine) as session:
            snapshot = gallery.snapshot(session, encoder.checkpoint_id)
            for rows, vectors in snapshot.chunks:
                index.add(rows, vectors)
        return Live(encoder.checkpoint_id, encoder, index, snapshot.seq), len(index)

    def _from_snapshot(self, encoder: E) -> tuple[Live[E], int] | None:
        """From the snapshot, and from the database only what is not in it; also how many vectors that were.

        Raises `SnapshotRefused` if there is one that cannot be used.
        """
        if self._snapshots is None:
            return None
        id, index = encoder.checkpoint_id, VectorIndex(encoder.dim, self._spec, self._scratch)
        held: list[tuple[Rows, Digests]] = []
        with snapshots.opened(snapshots.folder_of(self._snapshots, id), id, encoder.dim, self._spec) as saved:
            if saved is None:
                return None
            for block in saved.blocks():
                try:
                    index.add(block.rows, block.vectors)
                except ValueError as error:
                    raise SnapshotRefused(f"its vectors cannot be indexed: {error}") from error
                held.append((block.rows, block.digests))
        seq = saved.manifest.seq
        rows = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in held)])
        digests = np.concatenate([np.empty(0, np.uint64), *(digests for _, digests in held)])
        if len(index) != len(rows):
            raise SnapshotRefused("it holds a row twice")
        with transaction(self._database.engine) as session:
            listed = gallery.listing(session, id)
            _refuse_foreign(session, seq, rows, digests, listed)
            index.remove(np.setdiff1d(rows, listed.rows))
            missing = np.setdiff1d(listed.rows, rows)
            for start in range(0, len(missing), AT_A_TIME):
                index.add(*gallery.ready_vectors(session, id, missing[start : start + AT_A_TIME]))
        self._saved = (id, seq, self.mended)
        return Live(id, encoder, index, listed.seq), len(missing)

    def _from_milvus(self, encoder: E, milvus: Milvus) -> tuple[Live[E], int]:
        """The collection of the checkpoint, compared with the database; also how many vectors it lacked."""
        id, index = encoder.checkpoint_id, milvus.index(encoder.checkpoint_id, encoder.dim)
        with transaction(self._database.engine) as session:
            listed = gallery.listing(session, id)
        live = Live(id, encoder, index, listed.seq)
        rows, digests = index.listing()
        _, here, there = np.intersect1d(rows, listed.rows, assume_unique=True, return_indices=True)
        different = rows[here[digests[here] != listed.digests[there]]]
        suspects = np.union1d(np.setxor1d(listed.rows, rows), different)
        read = 0
        for start in range(0, len(suspects), AT_A_TIME):
            part = suspects[start : start + AT_A_TIME]
            with self._writing(), transaction(self._database.engine) as session:
                index.remove(np.intersect1d(part, different))
                gallery.stay_at_one_moment(session)
                read += self._put_right(session, live, part).missing
        return live, read

    def _discard(self, checkpoint_id: str) -> None:
        assert self._snapshots is not None
        try:
            snapshots.discard(snapshots.folder_of(self._snapshots, checkpoint_id))
        except OSError as error:
            log.warning("index_snapshot_not_removed", reason=error.strerror, checkpoint=checkpoint_id)

    # --- following

    def switch(self, encoder: E) -> None:
        """Load the checkpoint of another encoder beside what is there, then have it answer in its place.

        Until then the old one answers and goes on following; searches that took it finish with it. Raises what `load`
        raises; the old one stays then.
        """
        folders = (self._snapshots, self._keep_free, self._scratch)
        beside = Replica(self._database, encoder, self._spec, *folders, self._milvus)
        beside.load()
        beside.refresh()  # what came while it was loading
        with self._updating:  # an erasure finds the rows gone from the old index, or waits and looks into the new one
            beside.refresh()
            beside.state.index.compact()
            self.state = beside.state
        log.info("index_switched", checkpoint=encoder.checkpoint_id, vectors=len(beside.state.index))

    def refresh(self, session: Session | None = None) -> None:
        """Take in what changed since; one small query if nothing did. Uses the given session, or one of its own.

        When another thread is at it already, wait for it, but not long: a search had better miss the newest images than
        be held up by thousands of them. Raises `DatabaseUnavailable`, `IndexUnavailable`.
        """
        if not self._updating.acquire(timeout=REFRESH_WAIT):
            return
        try:
            if session is None:
                with transaction(self._database.engine) as own:
                    self._take_in(own)
            else:
                self._take_in(session)
        finally:
            self._updating.release()

    def _take_in(self, session: Session) -> None:
        if self._milvus is None:
            self._follow(session)
        elif gallery.changes_since(session, self.state.checkpoint_id, self.state.seq, limit=1).seq != self.state.seq:
            with self._writing(), transaction(self._database.engine) as own:  # which sees what others did before it
                self._follow(own)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """With an index that is shared, be the only replica that writes to it; others wait. Raises
        `DatabaseUnavailable`.

        The lock is on a connection of its own, so that whoever holds it begins to read the database only then.
        """
        if self._milvus is None:
            yield
            return
        with database_errors():
            connection = self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            with database_errors():
                connection.execute(select(func.pg_advisory_lock(SHARED_INDEX_LOCK)))
            yield
        finally:
            connection.invalidate()  # dropped instead of pooled, and the lock with it
            connection.close()

    def _follow(self, session: Session) -> None:
        while True:
            live = self.state
            changes = gallery.changes_since(session, live.checkpoint_id, live.seq)
            if changes.seq == live.seq:
                return
            if len(changes.removed_rows):
                live.index.remove(changes.removed_rows)
            if len(changes.added_rows):
                live.index.add(changes.added_rows, changes.added_vectors)
            self.state = replace(live, seq=changes.seq)

    # --- watching

    def mend(self) -> Gap:
        """Compare the rows of the index with those of the database and put right what differs; returns what that was.

        Searches go on meanwhile, and so do refreshes. Also lets go of the memory of removed vectors, and of snapshots
        of other checkpoints that hold some, which nobody keeps up to date, or that were retired. An index that Milvus
        has lost is loaded again. Raises `DatabaseUnavailable`, `IndexUnavailable`.
        """
        live = self.state
        if self._milvus is not None and live.checkpoint_id not in self._milvus.checkpoints():
            log.warning("index_lost", checkpoint=live.checkpoint_id)
            self.load()
            return self.gap
        with transaction(self._database.engine) as session:
            listed = gallery.listing(session, live.checkpoint_id)
            self._discard_outdated(session, live.checkpoint_id)
        if live.seq > listed.drawn:
            log.warning("index_ahead_of_database", seq=live.seq, drawn=listed.drawn, checkpoint=live.checkpoint_id)
            self.load()
            return self.gap
        # Most of these, if not all, are changes that came between the listing and now.
        suspects = np.setxor1d(listed.rows, live.index.rows)
        gaps = [self._mend(live, suspects[n : n + AT_A_TIME]) for n in range(0, len(suspects), AT_A_TIME)]
        self.gap = Gap(sum(gap.missing for gap in gaps), sum(gap.surplus for gap in gaps))
        if self.gap.total:
            self.mended += self.gap.total
            log.warning(
                "index_mended", missing=self.gap.missing, surplus=self.gap.surplus, checkpoint=live.checkpoint_id
            )
        live.index.compact()
        return self.gap

    def _discard_outdated(self, session: Session, loaded: str) -> None:
        for folder in self._folders():
            if folder.name == loaded:
                continue
            seq = snapshots.sequence(folder)
            retired = checkpoints.is_retired(session, folder.name)
            if seq is None or retired or len(gallery.removed_since(session, seq)):
                self._discard(folder.name)
        for id in [] if self._milvus is None else self._milvus.checkpoints():
            if id != loaded and checkpoints.is_retired(session, id):
                assert self._milvus is not None
                self._milvus.drop(id)

    def _folders(self) -> list[Path]:
        """The snapshots there are, of whatever checkpoint."""
        if self._snapshots is None or not self._snapshots.exists():
            return []
        return [folder for folder in self._snapshots.iterdir() if folder.is_dir()]

    def _mend(self, live: Live[E], suspects: Rows) -> Gap:
        with self._updating, self._writing(), transaction(self._database.engine) as session:
            if self.state.index is not live.index:
                return Gap()  # replaced meanwhile, by one that was loaded later
            gallery.stay_at_one_moment(session)
            self._follow(session)
            return self._put_right(session, live, suspects)

    def _put_right(self, session: Session, live: Live[E], suspects: Rows) -> Gap:
        """Have the index hold those of the rows (N,) that the database has, and no others of them."""
        rows, vectors = gallery.ready_vectors(session, live.checkpoint_id, suspects)
        held = live.index.present(suspects)
        missing, surplus = ~np.isin(rows, held), np.setdiff1d(held, rows)
        if missing.any():
            live.index.add(rows[missing], vectors[missing])
        live.index.remove(surplus)
        return Gap(int(missing.sum()), len(surplus))

    # --- keeping

    def save(self) -> None:
        """Write the index to disk, if there is a folder for it and something changed since it was written last.

        Nothing of a removed vector is left in memory or in the files afterwards. Raises `StorageFull` and OSError; what
        was written before stays then.
        """
        if self._snapshots is None:
            return
        with self._alone_on_disk(self._snapshots):
            with self._updating, transaction(self._database.engine) as session:
                self._follow(session)  # what another service has erased from this folder must not be written again
            live, mended = self.state, self.mended
            if self._saved == (live.checkpoint_id, live.seq, mended):
                return
            started = time.monotonic()
            live.index.compact()
            folder = snapshots.folder_of(self._snapshots, live.checkpoint_id)
            id, index = live.checkpoint_id, live.index
            assert isinstance(index, VectorIndex), "an index in Milvus has no snapshots"
            manifest = snapshots.write(folder, id, self._spec, live.seq, index, self._files, self._keep_free)
            self._saved = (id, live.seq, mended)
            seconds = round(time.monotonic() - started, 3)
            log.info("index_saved", checkpoint=id, vectors=manifest.count, seconds=seconds)

    def forget(self, rows: Rows) -> bool:
        """Leave no vector of removed rows (N,) in memory, nor in the snapshot, or in Milvus, of any checkpoint.

        False if one is still in the index or on the disk. Raises OSError, `IndexUnavailable`.
        """
        if self._milvus is not None:
            return self._milvus.forget(rows)
        self.state.index.compact()
        if self._snapshots is None:
            return not np.isin(rows, self.state.index.rows).any()
        with self._alone_on_disk(self._snapshots):  # nobody is about to write what was in memory a moment ago
            self._saved = None  # what is on the disk may lack blocks now: the next save writes them
            for folder in self._folders():
                snapshots.forget(folder, rows)
            kept = any(snapshots.holds(folder, rows) for folder in self._folders())
        return not kept and not np.isin(rows, self.state.index.rows).any()

    @contextmanager
    def _alone_on_disk(self, folder: Path) -> Iterator[None]:
        """No other thread, and no other service on the same data folder, writes snapshots meanwhile."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        with self._saving, folder.with_name(f"{folder.name}.lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    # --- threads

    def start_following(self, poll_seconds: float, check_seconds: float = 60, save_seconds: float = 60) -> None:
        """Until `stop`, refresh, mend and save every so many seconds, each in a thread of its own.

        A database that is away is waited for.
        """
        if self._threads:
            raise RuntimeError("the replica is following already")
        self._stopping.clear()
        jobs: dict[str, tuple[float, Callable[[], object]]] = {
            "follow": (poll_seconds, self.refresh),
            "mend": (check_seconds, self.mend),
        }
        if self._snapshots is not None:
            jobs["save"] = (save_seconds, self.save)
        for name, job in jobs.items():
            thread = threading.Thread(target=self._repeat, args=[name, *job], name=f"replica-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Stop following, and save; what was loaded stays searchable."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        try:
            self.save()
        except (GalleryError, OSError) as error:
            log.warning("index_not_saved", reason=str(error))

    def _repeat(self, name: str, seconds: float, job: Callable[[], object]) -> None:
        failing = False
        while not self._stopping.wait(seconds):
            try:
                job()
            except (GalleryError, OSError) as error:
                if not failing:  # once, not every time
                    said = {"milvus": str(error.__cause__)} if isinstance(error, IndexUnavailable) else {}
                    log.warning("index_stays_as_it_is", job=name, reason=str(error), **said)
                failing = True
            else:
                failing = False


def _refuse_foreign(session: Session, seq: int, rows: Rows, digests: Digests, listed: Listing) -> None:
    """Raise `SnapshotRefused` unless these rows (N,) and digests (N,) are what the database had at change `seq`.

    They may have more, that came later, or was removed later.
    """
    if seq > listed.drawn:
        raise SnapshotRefused(
            f"it goes up to change {seq}, the database only to {listed.drawn}: it was restored, or another"
        )
    _, here, there = np.intersect1d(rows, listed.rows, assume_unique=True, return_indices=True)
    if different := int((digests[here] != listed.digests[there]).sum()):
        raise SnapshotRefused(f"{different} of its vectors are not those of the database")
    lacking = (listed.seqs <= seq) & ~np.isin(listed.rows, rows)
    if lacking.any():
        raise SnapshotRefused(f"it lacks {int(lacking.sum())} vectors that the database had by then")
    gone = np.setdiff1d(rows, listed.rows)
    if len(gone) and (unknown := len(np.setdiff1d(gone, gallery.removed_since(session, seq)))):
        raise SnapshotRefused(f"{unknown} of its vectors belong to images that the database did not have by then")
