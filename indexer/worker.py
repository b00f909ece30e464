"""The worker: claims images that lack an embedding, decodes them in threads, embeds them, records the vectors.

Start as many as there are machines: PostgreSQL hands out the work. A worker may be killed at any moment; what it held
goes to another one when its lease runs out, and the lease token keeps a late one from writing. What to do with a vector
is not decided here, nor which images exist.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Protocol, Self, TypeVar
from uuid import UUID

import numpy as np
import structlog
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy.orm import Session

from indexer import gallery, tables
from indexer.database import Database, transaction
from indexer.errors import DatabaseUnavailable, GalleryError, StorageFull
from indexer.gallery import Claim, ClaimedImage
from indexer.images import BACKDROP, ImageStore
from indexer.settings import GallerySettings

Vectors = NDArray[np.float32]
T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between tries while the database is away
FILE_RETRY_SECONDS = 5.0  # a file that cannot be read now (a network folder) may be readable later
RENEWALS = 60  # of one claim: an encoder that hangs must not hold its images for ever

log = structlog.get_logger(__name__)


class WrongCheckpoint(GalleryError):  # noqa: N818  (named like the other errors of the gallery)
    """The worker's checkpoint is not one the gallery wants."""

    code = "wrong_checkpoint"


class EncoderLike(Protocol):
    """What the worker asks of an encoder."""

    @property
    def checkpoint_id(self) -> str: ...
    @property
    def dim(self) -> int: ...
    def embed_images(self, images: Sequence[Image.Image]) -> Vectors:
        """RGB images -> unit rows (N, dim)."""
        ...


def run(
    database: Database,
    store: ImageStore,
    encoder: EncoderLike,
    settings: GallerySettings,
    stop: threading.Event,
    once: bool = False,
) -> None:
    """Embed images until `stop` is set; with `once`, until there is nothing left to claim.

    Once `stop` is set the batch in the encoder is finished, everything else handed back. A database that goes away is
    waited for. Raises WrongCheckpoint if the gallery is not searched with this encoder's checkpoint, and what the
    encoder raises when it no longer embeds any image at all.
    """
    with (
        _Leases(database, encoder.checkpoint_id, settings.lease_seconds) as leases,
        ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode") as decoders,
    ):
        worker = _Worker(database, store, encoder, settings, stop, leases, decoders)
        store.remove_leftovers()
        log.info("worker_started", checkpoint=encoder.checkpoint_id)
        try:
            worker.work(once)
        except (DatabaseUnavailable, StorageFull):  # raised only once `stop` ended the waiting
            log.warning("stopped_without_database")
        finally:
            worker.release_all()
            log.info("worker_stopped")


@dataclass(frozen=True)
class _Batch:
    """Claimed images and their pixels, which may still be decoding."""

    claim: Claim
    images: list[Future[Image.Image]]

    @property
    def is_fresh(self) -> bool:
        return all(item.attempts == 1 for item in self.claim.items)


@dataclass
class _Outcome:
    """What became of a batch: vectors of `rows`, and for the others a sentence."""

    rows: list[int] = field(default_factory=list)
    vectors: list[Vectors] = field(default_factory=list)  # each (dim,)
    failures: dict[int, str] = field(default_factory=dict)
    retries: dict[int, str] = field(default_factory=dict)


class _Worker:
    def __init__(
        self,
        database: Database,
        store: ImageStore,
        encoder: EncoderLike,
        settings: GallerySettings,
        stop: threading.Event,
        leases: _Leases,
        decoders: ThreadPoolExecutor,
    ) -> None:
        self.database, self.store, self.encoder, self.settings, self.stop = database, store, encoder, settings, stop
        self.leases, self.decoders = leases, decoders
        self.checkpoint_id = encoder.checkpoint_id

    def work(self, once: bool) -> None:
        self._wait_for_checkpoint(once)
        ahead: _Batch | None = None
        while not self.stop.is_set():
            batch = ahead or self._claim()
            if batch is None:
                if once:
                    return
                self.stop.wait(self.settings.poll_seconds)
                continue
            ahead = self._claim_ahead(batch)
            self._embed(batch)

    def _wait_for_checkpoint(self, once: bool) -> None:
        """Refuse to embed with a checkpoint nobody asked for; wait where none was chosen yet."""
        waiting = False
        while not self._persist(self._is_wanted):
            if once:
                raise WrongCheckpoint("The gallery has no checkpoint yet. Start the service first; it registers one.")
            if not waiting:
                log.info("waiting_for_checkpoint")
            waiting = True
            if self.stop.wait(self.settings.poll_seconds):
                return

    def _is_wanted(self, session: Session) -> bool:
        active = gallery.active_checkpoint(session)
        own = session.get(tables.Checkpoint, self.checkpoint_id)
        if own is not None and own.dim != self.encoder.dim:
            raise WrongCheckpoint(
                f"Checkpoint {self.checkpoint_id} is registered with {own.dim} dimensions, but this encoder gives "
                f"{self.encoder.dim}. Start the worker with the file that was registered."
            )
        if active is not None and (own is None or own.state == "retired"):
            raise WrongCheckpoint(
                f"The gallery uses checkpoint {active.id}, but this worker was started with {self.checkpoint_id}. "
                "Start it with the gallery's checkpoint, or register this one first."
            )
        return own is not None

    # --- claims

    def _claim(self) -> _Batch | None:
        def claim(session: Session) -> Claim:
            return gallery.claim_unembedded(
                session,
                self.checkpoint_id,
                self.settings.batch_size,
                self.settings.lease_seconds,
                self.settings.max_attempts,
            )

        claimed = self._persist(claim)
        if not claimed.items:
            return None
        self.leases.hold(claimed.token)
        return _Batch(claimed, [self.decoders.submit(self.store.open, item.sha256) for item in claimed.items])

    def _claim_ahead(self, current: _Batch) -> _Batch | None:
        """The next batch, to be decoded while the encoder works: only ever fresh images beside fresh images.

        An image that was tried before runs with no other in hand, so that if it takes the worker down no other is
        blamed with it.
        """
        if not current.is_fresh or self.stop.is_set():
            return None
        ahead = self._claim()
        if ahead is not None and not ahead.is_fresh:
            self._release(ahead.claim.token)
            return None
        return ahead

    def _release(self, token: UUID) -> None:
        self._persist(partial(_release, checkpoint_id=self.checkpoint_id, token=token))
        self.leases.drop(token)

    def release_all(self) -> None:
        """Hand back whatever is still held; if the database is away, the leases run out by themselves."""
        for token in self.leases.held():
            try:
                with transaction(self.database.engine) as session:
                    gallery.release(session, self.checkpoint_id, token)
            except DatabaseUnavailable:
                log.warning("claim_not_released")
            self.leases.drop(token)

    # --- one batch

    def _embed(self, batch: _Batch) -> None:
        started = time.monotonic()
        outcome = _Outcome()
        decoded: list[tuple[int, Image.Image]] = []
        for item, future in zip(batch.claim.items, batch.images, strict=True):
            self._collect(item, future, decoded, outcome)
        waited = time.monotonic() - started
        if decoded:
            try:
                self._encode(decoded, outcome)
            except Exception:  # not handed back but left to its lease: one of these may be what broke the encoder,
                self.leases.drop(batch.claim.token)  # and only a counted attempt finds out which
                raise
        embedding = time.monotonic() - started - waited
        recorded = self._persist(partial(self._record, token=batch.claim.token, outcome=outcome))
        if len(outcome.rows) + len(outcome.failures) + len(outcome.retries) < len(batch.claim.items):
            self._release(batch.claim.token)  # stopped in between: the rest is for others
        self.leases.drop(batch.claim.token)
        log.info(
            "images_embedded",
            images=recorded,
            late=len(outcome.rows) - recorded,  # the lease ran out and others have done it
            failed=len(outcome.failures),
            postponed=len(outcome.retries),
            decode_wait_ms=round(1000 * waited),
            embed_ms=round(1000 * embedding),
        )

    def _collect(
        self, item: ClaimedImage, future: Future[Image.Image], decoded: list[tuple[int, Image.Image]], outcome: _Outcome
    ) -> None:
        try:
            decoded.append((item.row, future.result()))
        except GalleryError as error:
            outcome.failures[item.row] = str(error)
        except OSError as error:
            outcome.retries[item.row] = f"The image's file could not be read ({error.strerror})."

    def _encode(self, decoded: list[tuple[int, Image.Image]], outcome: _Outcome) -> None:
        """One call for all; if that fails, one for each, so that only the culprit fails."""
        try:
            vectors = self._vectors([image for _, image in decoded])
        except Exception as error:
            if len(decoded) > 1:
                log.warning(
                    "batch_refused", images=len(decoded), error=repr(error)[:200]
                )  # the encoder never sees a name
                for pair in decoded:
                    if self.stop.is_set():
                        return
                    self._encode([pair], outcome)
                return
            self._check_encoder()
            log.warning("image_refused", row=decoded[0][0], error=repr(error)[:200])
            outcome.failures[decoded[0][0]] = f"The encoder could not embed this image ({type(error).__name__})."
            return
        for (row, _), vector in zip(decoded, vectors, strict=True):
            if np.isfinite(vector).all():
                outcome.rows.append(row)
                outcome.vectors.append(vector)
            else:
                outcome.failures[row] = "The encoder gave no finite embedding for this image."

    def _vectors(self, images: Sequence[Image.Image]) -> Vectors:
        vectors = self.encoder.embed_images(images)
        assert vectors.shape == (len(images), self.encoder.dim), vectors.shape
        return vectors

    def _check_encoder(self) -> None:
        """Tell an image the encoder cannot take from an encoder that is broken: a lost GPU must not fail a gallery."""
        try:
            self._vectors([Image.new("RGB", (64, 128), BACKDROP)])
        except Exception:
            log.error("encoder_broken")
            raise

    def _record(self, session: Session, token: UUID, outcome: _Outcome) -> int:
        recorded = 0
        if outcome.rows:
            vectors = np.stack(outcome.vectors)
            recorded = gallery.record_embeddings(session, self.checkpoint_id, token, outcome.rows, vectors)
        for row, error in outcome.failures.items():
            gallery.record_failure(session, self.checkpoint_id, token, row, error)
        for row, error in outcome.retries.items():
            gallery.record_failure(session, self.checkpoint_id, token, row, error, retry_seconds=FILE_RETRY_SECONDS)
        return recorded

    def _persist(self, work: Callable[[Session], T]) -> T:
        """Run work in a transaction, again until the database answers. Raises DatabaseUnavailable only after `stop`."""
        pause = FIRST_PAUSE
        while True:
            try:
                with transaction(self.database.engine) as session:
                    return work(session)
            except (DatabaseUnavailable, StorageFull) as error:
                log.warning("database_lost", code=error.code, retry_in=pause)
                if self.stop.wait(pause):
                    raise
                pause = min(2 * pause, LONGEST_PAUSE)


def _release(session: Session, checkpoint_id: str, token: UUID) -> int:
    return gallery.release(session, checkpoint_id, token)


class _Leases:
    """Renews what is held from a thread of its own, so that no encoder call is too long for its lease."""

    def __init__(self, database: Database, checkpoint_id: str, seconds: float) -> None:
        self.database, self.checkpoint_id, self.seconds = database, checkpoint_id, seconds
        self._renewals: dict[UUID, int] = {}
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="leases", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    def hold(self, token: UUID) -> None:
        with self._lock:
            self._renewals[token] = 0

    def drop(self, token: UUID) -> None:
        with self._lock:
            self._renewals.pop(token, None)

    def held(self) -> list[UUID]:
        with self._lock:
            return list(self._renewals)

    def _renew(self) -> None:
        while not self._end.wait(self.seconds / 3):
            for token in self._due():
                try:
                    with transaction(self.database.engine) as session:
                        gallery.renew_lease(session, self.checkpoint_id, token, self.seconds)
                except DatabaseUnavailable:
                    log.warning("lease_not_renewed")

    def _due(self) -> list[UUID]:
        with self._lock:
            due = [token for token, renewals in self._renewals.items() if renewals < RENEWALS]
            for token in due:
                self._renewals[token] += 1
            return due
