"""The live index: a checkpoint's vectors in memory, loaded from the database once and following its changes since.

Checkpoint, encoder and index belong together and are replaced together, by one assignment: a search that took the old
ones finishes with the old ones, and vectors of two checkpoints never meet in one ranking. Nothing is written here.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from sqlalchemy.orm import Session

from indexer import gallery
from indexer.database import Database, transaction
from indexer.errors import GalleryError
from indexer.index import VectorIndex

log = logging.getLogger(__name__)

REFRESH_WAIT = 0.2  # seconds a refresh waits for one that is under way


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
    index: VectorIndex
    seq: int


class Replica(Generic[E]):
    """Keeps `state` up to date. Take `state` once per search: it may be another one a moment later."""

    def __init__(self, database: Database, encoder: E, spec: str = "flat") -> None:
        """Empty until `load`. Raises `InvalidSettings` for an index `spec` that does not exist."""
        self._database = database
        self._spec = spec
        self._updating = threading.Lock()
        self._stopping = threading.Event()
        self._follower: threading.Thread | None = None
        self.state = Live(encoder.checkpoint_id, encoder, VectorIndex(encoder.dim, spec), seq=0)

    def load(self) -> None:
        """Read all vectors of the checkpoint into a new index, which then takes the place of the old one.

        Raises `DatabaseUnavailable`; the old index stays then.
        """
        with self._updating:
            encoder = self.state.encoder
            index = VectorIndex(encoder.dim, self._spec)
            with transaction(self._database.engine) as session:
                snapshot = gallery.snapshot(session, encoder.checkpoint_id)
                for rows, vectors in snapshot.chunks:
                    index.add(rows, vectors)
            self.state = Live(encoder.checkpoint_id, encoder, index, snapshot.seq)
            log.info("loaded %d vectors of checkpoint %s", len(index), encoder.checkpoint_id)

    def switch(self, encoder: E) -> None:
        """Load the checkpoint of another encoder beside what is there, then have it answer in its place.

        Until then the old one answers and goes on following; searches that took it finish with it. Raises what `load`
        raises; the old one stays then.
        """
        beside = Replica(self._database, encoder, self._spec)
        beside.load()
        beside.refresh()  # what came while it was loading
        with self._updating:
            self.state = beside.state
        log.info("checkpoint %s answers searches now", encoder.checkpoint_id)

    def refresh(self, session: Session | None = None) -> None:
        """Take in what changed since; one small query if nothing did. Uses the given session, or one of its own.

        When another thread is at it already, wait for it, but not long: a search had better miss the newest images than
        be held up by thousands of them. Raises `DatabaseUnavailable`.
        """
        if not self._updating.acquire(timeout=REFRESH_WAIT):
            return
        try:
            if session is not None:
                self._follow(session)
            else:
                with transaction(self._database.engine) as own:
                    self._follow(own)
        finally:
            self._updating.release()

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

    def start_following(self, poll_seconds: float) -> None:
        """Refresh every `poll_seconds` in a thread of its own, until `stop`. A database that is away is waited for."""
        if self._follower is not None:
            raise RuntimeError("the replica is following already")
        self._stopping.clear()
        self._follower = threading.Thread(target=self._run, args=[poll_seconds], name="replica", daemon=True)
        self._follower.start()

    def stop(self) -> None:
        """Stop following; what was loaded stays searchable."""
        if self._follower is not None:
            self._stopping.set()
            self._follower.join()
            self._follower = None

    def _run(self, poll_seconds: float) -> None:
        away = False
        while not self._stopping.wait(poll_seconds):
            try:
                self.refresh()
            except GalleryError as error:
                if not away:  # once, not at every poll
                    log.warning("the index stays as it is: %s", error)
                away = True
            else:
                away = False
