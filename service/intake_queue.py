"""Deliveries that were received and wait to be taken in: one thread, one delivery at a time, a bounded number waiting.

What is taken in, and how, is `indexer.intake`. A delivery lives in a file without a name, so nothing is left behind
however the process ends; what was interrupted is marked in the ledger at the next start.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO
from uuid import UUID

import structlog

from indexer import audit, gallery
from indexer.database import Database, transaction
from indexer.filters import Scope
from indexer.idempotency import remember
from indexer.images import ImageStore
from indexer.intake import ingest_entries
from indexer.items import Entries, Entry
from indexer.presence import Presence
from indexer.tables import new_id
from service.errors import Refusal
from service.operations import refuse_when_full
from service.principals import Principal
from service.settings import ServiceSettings
from service.spool import Spool

SCOPE = "ingestions"  # of idempotency keys

log = structlog.get_logger(__name__)


class Stopped(Exception):  # noqa: N818
    """The service is being stopped."""


@dataclass(frozen=True)
class Delivery:
    """What arrived. `open` makes entries of the spooled file; two equal deliveries have equal fingerprints."""

    source: str
    open: Callable[[BinaryIO], Entries]
    fingerprint: str


@dataclass(frozen=True)
class Job:
    """One delivery, its directory checked."""

    ingestion_id: UUID
    spool: Spool
    entries: Entries
    source: str
    register_cameras: bool
    scope: Scope


class IntakeQueue:
    """Start it once; `place` reserves room for one delivery, from before its first byte to the end of its intake."""

    def __init__(
        self,
        database: Database,
        store: ImageStore,
        settings: ServiceSettings,
        observe: Callable[[Mapping[str, int]], object] = lambda states: None,
    ) -> None:
        """`observe` is told how many items ended in which state."""
        self.database, self.store, self.settings, self.observe = database, store, settings, observe
        self._places = threading.BoundedSemaphore(settings.ingestion_queue)
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._totals: dict[UUID, int] = {}
        self._presence = Presence(database)
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        """Raises DatabaseUnavailable."""
        self._presence.__enter__()
        self._thread.start()

    def stop(self) -> None:
        """Break off what is under way, within one image, and mark it and all that wait as interrupted."""
        self.stopping.set()
        self._jobs.put(None)
        self._thread.join()
        self._presence.__exit__(None, None, None)

    def total(self, ingestion_id: UUID) -> int | None:
        """How many items the delivery announces, while it waits or is under way."""
        return self._totals.get(ingestion_id)

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Room for one delivery; given back unless it was submitted. Raises Refusal when there is none."""
        if self.stopping.is_set() or not self._places.acquire(blocking=False):
            most = self.settings.ingestion_queue
            raise Refusal("queue_full", f"{most} archives are waiting or arriving already. Try again later.")
        place: Place | None = None
        try:
            place = Place(self)
            yield place
        finally:
            if place is None or not place.submitted:
                self._places.release()
            if place is not None and not place.submitted:
                place.spool.close()

    def submit(
        self, place: Place, delivery: Delivery, register_cameras: bool, key: str | None, principal: Principal
    ) -> UUID:
        """Check what the delivery's directory shows and line it up, or find it lined up before under this key.

        Keys of others are others. Raises ArchiveError and IdempotencyConflict.
        """
        entries = delivery.open(place.spool.file)
        ingestion_id = new_id()
        with transaction(self.database.engine) as session:
            if key is not None:
                fingerprint = f"{delivery.fingerprint} register_cameras={register_cameras}"
                whose = SCOPE if principal.id is None else f"{SCOPE} {principal.id}"
                earlier = remember(session, whose, key, fingerprint, ingestion_id)
                if earlier != ingestion_id:
                    return earlier
            ids = {"id": ingestion_id, "principal_id": principal.id}
            gallery.create_ingestion(session, delivery.source, owner=self._presence.key, **ids)
            told = {"announced": entries.total, "register_cameras": register_cameras}
            audit.record(session, principal.actor, "ingestion.create", ("ingestion", str(ingestion_id)), detail=told)
        self._totals[ingestion_id] = entries.total
        self._jobs.put(Job(ingestion_id, place.spool, entries, delivery.source, register_cameras, principal.cameras))
        place.submitted = True
        return ingestion_id

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._take_in(job)
            except Stopped:
                log.info("ingestion interrupted", ingestion=str(job.ingestion_id))
            except Exception:  # the ledger says so where it could; one bad archive must not end the thread
                log.exception("ingestion broke off", ingestion=str(job.ingestion_id))
            finally:
                job.spool.close()
                self._totals.pop(job.ingestion_id, None)
                self._places.release()

    def _take_in(self, job: Job) -> None:
        def entries() -> Iterator[Entry]:
            for entry in job.entries:
                if self.stopping.is_set():
                    raise Stopped
                refuse_when_full(self.settings)
                yield entry

        ingest_entries(
            self.database,
            self.store,
            entries(),
            job.source,
            register_cameras=job.register_cameras,
            limits=self.settings,
            ingestion_id=job.ingestion_id,
            presence=self._presence,
            scope=job.scope,
            observe=self.observe,
        )


class Place:
    """Room for one delivery: a spool to write it to."""

    def __init__(self, intake: IntakeQueue) -> None:
        self.spool = Spool(intake.settings)
        self.submitted = False
