"""Archives that were received and wait to be taken in: one thread, one archive at a time, a bounded number waiting.

What is taken in, and how, is `indexer.intake`. An archive lives in a file without a name, so nothing is left behind
however the process ends; what was interrupted is marked in the ledger at the next start.
"""

from __future__ import annotations

import queue
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast
from uuid import UUID

import structlog

from indexer import gallery
from indexer.archives import Entries, Entry, read_zip
from indexer.database import Database, transaction
from indexer.images import ImageStore
from indexer.intake import ingest_entries
from service.errors import Refusal
from service.settings import ServiceSettings

log = structlog.get_logger(__name__)


class Stopped(Exception):  # noqa: N818
    """The service is being stopped."""


@dataclass(frozen=True)
class Job:
    """One archive, its directory checked."""

    ingestion_id: UUID
    file: BinaryIO
    entries: Entries
    source: str
    register_cameras: bool


class IntakeQueue:
    """Start it once; `place` reserves room for one archive, from before its first byte to the end of its intake."""

    def __init__(self, database: Database, store: ImageStore, settings: ServiceSettings) -> None:
        self.database, self.store, self.settings = database, store, settings
        self._places = threading.BoundedSemaphore(settings.ingestion_queue)
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._totals: dict[UUID, int] = {}
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Break off what is under way, within one image, and mark it and all that wait as interrupted."""
        self.stopping.set()
        self._jobs.put(None)
        self._thread.join()

    def total(self, ingestion_id: UUID) -> int | None:
        """How many items the archive's directory announces, while it waits or is under way."""
        return self._totals.get(ingestion_id)

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Room for one archive; given back unless it was submitted. Raises Refusal when there is none."""
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
                place.file.close()

    def submit(self, file: BinaryIO, source: str, register_cameras: bool) -> UUID:
        """Check the archive's directory and line it up. Raises ArchiveError."""
        entries = read_zip(file, self.settings)
        with transaction(self.database.engine) as session:
            ingestion_id = gallery.create_ingestion(session, source)
        self._totals[ingestion_id] = entries.total
        self._jobs.put(Job(ingestion_id, file, entries, source, register_cameras))
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
                job.file.close()
                self._totals.pop(job.ingestion_id, None)
                self._places.release()

    def _take_in(self, job: Job) -> None:
        def entries() -> Iterator[Entry]:
            for entry in job.entries:
                if self.stopping.is_set():
                    raise Stopped
                yield entry

        ingest_entries(
            self.database,
            self.store,
            entries(),
            job.source,
            register_cameras=job.register_cameras,
            limits=self.settings,
            ingestion_id=job.ingestion_id,
        )


class Place:
    """Room for one archive: a file to write it to."""

    def __init__(self, intake: IntakeQueue) -> None:
        self._intake = intake
        self.submitted = False
        folder = intake.settings.data_dir / "archives"
        folder.mkdir(parents=True, exist_ok=True)
        self.file = cast("BinaryIO", tempfile.TemporaryFile(dir=folder))  # noqa: SIM115  (the queue closes it)

    def submit(self, source: str, register_cameras: bool) -> UUID:
        """Hand the written archive over. Raises ArchiveError for what its directory shows."""
        ingestion_id = self._intake.submit(self.file, source, register_cameras)
        self.submitted = True
        return ingestion_id
