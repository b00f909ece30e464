"""The worker: claims images that lack an embedding, decodes them in threads, embeds them, records the vectors.

It serves every wanted checkpoint with one loop: the active one first, so that new images are found soon, then the
backlog of a candidate, the newest images first. Start as many as there are machines: PostgreSQL hands out the work. A
worker may be killed at any moment; what it held goes to another one when its lease runs out, and the lease token keeps
a late one from writing. What to do with a vector is not decided here, nor which images exist.
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

from indexer import checkpoints, gallery, tables
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
ENCODERS_KEPT = 2  # in memory: that of the active checkpoint and that of a candidate
TURN_SECONDS = 30.0  # a candidate keeps its turn for this long, so that encoders are not loaded for every image
RELOAD_SECONDS = 30.0  # until a checkpoint that could not be loaded is tried again

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


@dataclass(frozen=True)
class Embedded:
    """What became of a batch, in numbers of images."""

    encoder: EncoderLike
    images: int  # that were given to the encoder
    embedded: int
    late: int  # the lease ran out and others have done it
    failed: int
    postponed: int


def run(
    database: Database,
    store: ImageStore,
    encoder: EncoderLike | None,
    settings: GallerySettings,
    stop: threading.Event,
    once: bool = False,
    *,
    load: Callable[[str], EncoderLike] | None = None,
    observe: Callable[[Embedded], object] = lambda batch: None,
) -> None:
    """Embed images until `stop` is set; with `once`, until there is nothing left to claim.

    `encoder` is of the checkpoint this worker was started with, if of a certain one. `load` gives the encoder of any
    other checkpoint the gallery wants; without it only that of `encoder` is served. `observe` is told of every batch.
    Once `stop` is set the batch in the encoder is finished, everything else handed back. A database that goes away is
    waited for. Raises WrongCheckpoint if the gallery does not want this encoder's checkpoint, and what the encoder
    raises when it no longer embeds any image at all.
    """
    assert encoder is not None or load is not None
    with (
        _Leases(database, settings.lease_seconds) as leases,
        ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode") as decoders,
    ):
        worker = _Worker(database, store, encoder, load, settings, stop, leases, decoders, observe)
        store.remove_leftovers()
        log.info("worker_started", checkpoint=encoder.checkpoint_id if encoder is not None else "any")
        try:
            worker.work(once)
        except (DatabaseUnavailable, StorageFull):  # raised only once `stop` ended the waiting
            log.warning("stopped_without_database")
        finally:
            worker.release_all()
            log.info("worker_stopped")


@dataclass(frozen=True)
class _Batch:
    """Claimed images, the encoder they are for, and their pixels, which may still be decoding."""

    encoder: EncoderLike
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


class _Encoders:
    """Encoders in memory, as many as needed at once; those of the gallery's checkpoints are loaded when work comes."""

    def __init__(self, own: EncoderLike | None, load: Callable[[str], EncoderLike] | None) -> None:
        self._load = load
        self._kept = {own.checkpoint_id: own} if own is not None else {}  # the last used is the last
        self._failed: dict[str, float] = {}  # when a checkpoint could not be loaded
        self._turn: tuple[str, float] | None = None  # the candidate being served, and since when

    def in_turn(self, with_work: Sequence[str], active: str | None) -> list[str]:
        """The checkpoints to look for work for, in this order: the active one, then the candidates by turns."""
        if self._load is None:
            return [id for id in with_work if id in self._kept]
        candidates = [id for id in with_work if id != active]
        if self._turn is not None and self._turn[0] in candidates:
            served, since = self._turn
            candidates.remove(served)
            candidates.insert(0 if time.monotonic() < since + TURN_SECONDS else len(candidates), served)
        return [id for id in with_work if id == active] + candidates

    def get(self, checkpoint_id: str, is_active: bool) -> EncoderLike | None:
        """The encoder of a checkpoint, or None while it cannot be loaded: the others' images need not wait for it."""
        if not is_active and (self._turn is None or self._turn[0] != checkpoint_id):
            self._turn = checkpoint_id, time.monotonic()
        encoder = self._kept.pop(checkpoint_id, None)
        if encoder is None:
            if time.monotonic() < self._failed.get(checkpoint_id, -RELOAD_SECONDS) + RELOAD_SECONDS:
                return None
            while len(self._kept) >= ENCODERS_KEPT:
                del self._kept[next(iter(self._kept))]
            assert self._load is not None
            try:
                encoder = self._load(checkpoint_id)
            except GalleryError as error:
                self._failed[checkpoint_id] = time.monotonic()
                log.error("checkpoint_not_loaded", checkpoint=checkpoint_id, error=str(error))
                return None
            log.info("checkpoint_loaded", checkpoint=checkpoint_id)
        self._kept[checkpoint_id] = encoder
        return encoder


class _Worker:
    def __init__(
        self,
        database: Database,
        store: ImageStore,
        encoder: EncoderLike | None,
        load: Callable[[str], EncoderLike] | None,
        settings: GallerySettings,
        stop: threading.Event,
        leases: _Leases,
        decoders: ThreadPoolExecutor,
        observe: Callable[[Embedded], object],
    ) -> None:
        self.database, self.store, self.settings, self.stop = database, store, settings, stop
        self.observe = observe
        self.leases, self.decoders = leases, decoders
        self.own = encoder
        self.encoders = _Encoders(encoder, load)

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
        active = checkpoints.active_id(session)
        if self.own is None:
            return active is not None
        id = self.own.checkpoint_id
        known = session.get(tables.Checkpoint, id)
        if known is not None and known.dim != self.own.dim:
            raise WrongCheckpoint(
                f"Checkpoint {id} is registered with {known.dim} dimensions, but this encoder gives "
                f"{self.own.dim}. Start the worker with the file that was registered."
            )
        if active is not None and (known is None or known.state == "retired"):
            raise WrongCheckpoint(
                f"The gallery uses checkpoint {active}, but this worker was started with {id}. "
                "Start it with the gallery's checkpoint, or register this one first."
            )
        return known is not None

    # --- claims

    def _claim(self, *, only_fresh: bool = False) -> _Batch | None:
        with_work, active = self._persist(lambda session: (checkpoints.with_work(session), _active(session)))
        for checkpoint_id in self.encoders.in_turn(with_work, active):
            encoder = self.encoders.get(checkpoint_id, checkpoint_id == active)
            if encoder is None:
                continue
            claimed = self._persist(partial(self._claim_for, checkpoint_id=checkpoint_id, active=active))
            if not claimed.items:
                continue
            self.leases.hold(claimed.token, checkpoint_id)
            if only_fresh and any(item.attempts > 1 for item in claimed.items):
                self._release(checkpoint_id, claimed.token)
                return None
            images = [self.decoders.submit(self.store.open, item.sha256) for item in claimed.items]
            return _Batch(encoder, claimed, images)
        return None

    def _claim_for(self, session: Session, checkpoint_id: str, active: str | None) -> Claim:
        return gallery.claim_unembedded(
            session,
            checkpoint_id,
            self.settings.batch_size,
            self.settings.lease_seconds,
            self.settings.max_attempts,
            newest_first=checkpoint_id != active,
        )

    def _claim_ahead(self, current: _Batch) -> _Batch | None:
        """The next batch, to be decoded while the encoder works: only ever fresh images beside fresh images.

        An image that was tried before runs with no other in hand, not even in the decoder, so that if it takes the
        worker down no other is blamed with it.
        """
        return self._claim(only_fresh=True) if current.is_fresh and not self.stop.is_set() else None

    def _release(self, checkpoint_id: str, token: UUID) -> None:
        self._persist(partial(_release, checkpoint_id=checkpoint_id, token=token))
        self.leases.drop(token)

    def release_all(self) -> None:
        """Hand back whatever is still held; if the database is away, the leases run out by themselves."""
        for token, checkpoint_id in self.leases.held().items():
            try:
                with transaction(self.database.engine) as session:
                    gallery.release(session, checkpoint_id, token)
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
                self._encode(batch.encoder, decoded, outcome)
            except Exception:  # not handed back but left to its lease: one of these may be what broke the encoder,
                self.leases.drop(batch.claim.token)  # and only a counted attempt finds out which
                raise
        embedding = time.monotonic() - started - waited
        recorded = self._persist(partial(_record, batch=batch, outcome=outcome))
        if len(outcome.rows) + len(outcome.failures) + len(outcome.retries) < len(batch.claim.items):
            self._release(batch.encoder.checkpoint_id, batch.claim.token)  # stopped in between: the rest is for others
        self.leases.drop(batch.claim.token)
        done = Embedded(
            batch.encoder,
            images=len(decoded),
            embedded=recorded,
            late=len(outcome.rows) - recorded,
            failed=len(outcome.failures),
            postponed=len(outcome.retries),
        )
        self.observe(done)
        log.info(
            "images_embedded",
            checkpoint=batch.encoder.checkpoint_id,
            images=done.embedded,
            late=done.late,
            failed=done.failed,
            postponed=done.postponed,
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

    def _encode(self, encoder: EncoderLike, decoded: list[tuple[int, Image.Image]], outcome: _Outcome) -> None:
        """One call for all; if that fails, one for each, so that only the culprit fails."""
        try:
            vectors = _vectors(encoder, [image for _, image in decoded])
        except Exception as error:
            if len(decoded) > 1:
                log.warning(
                    "batch_refused", images=len(decoded), error=repr(error)[:200]
                )  # the encoder never sees a name
                for pair in decoded:
                    if self.stop.is_set():
                        return
                    self._encode(encoder, [pair], outcome)
                return
            _check_encoder(encoder)
            log.warning("image_refused", row=decoded[0][0], error=repr(error)[:200])
            outcome.failures[decoded[0][0]] = f"The encoder could not embed this image ({type(error).__name__})."
            return
        for (row, _), vector in zip(decoded, vectors, strict=True):
            if np.isfinite(vector).all():
                outcome.rows.append(row)
                outcome.vectors.append(vector)
            else:
                outcome.failures[row] = "The encoder gave no finite embedding for this image."

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


def _vectors(encoder: EncoderLike, images: Sequence[Image.Image]) -> Vectors:
    vectors = encoder.embed_images(images)
    assert vectors.shape == (len(images), encoder.dim), vectors.shape
    return vectors


def _check_encoder(encoder: EncoderLike) -> None:
    """Tell an image the encoder cannot take from an encoder that is broken: a lost GPU must not fail a gallery."""
    try:
        _vectors(encoder, [Image.new("RGB", (64, 128), BACKDROP)])
    except Exception:
        log.error("encoder_broken")
        raise


def _record(session: Session, batch: _Batch, outcome: _Outcome) -> int:
    checkpoint_id, token = batch.encoder.checkpoint_id, batch.claim.token
    recorded = 0
    if outcome.rows:
        vectors = np.stack(outcome.vectors)
        recorded = gallery.record_embeddings(session, checkpoint_id, token, outcome.rows, vectors)
    for row, error in outcome.failures.items():
        gallery.record_failure(session, checkpoint_id, token, row, error)
    for row, error in outcome.retries.items():
        gallery.record_failure(session, checkpoint_id, token, row, error, retry_seconds=FILE_RETRY_SECONDS)
    return recorded


def _active(session: Session) -> str | None:
    return checkpoints.active_id(session)


def _release(session: Session, checkpoint_id: str, token: UUID) -> int:
    return gallery.release(session, checkpoint_id, token)


class _Leases:
    """Renews what is held from a thread of its own, so that no encoder call is too long for its lease."""

    def __init__(self, database: Database, seconds: float) -> None:
        self.database, self.seconds = database, seconds
        self._renewals: dict[UUID, int] = {}
        self._checkpoints: dict[UUID, str] = {}  # what each is a claim for
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

    def hold(self, token: UUID, checkpoint_id: str) -> None:
        with self._lock:
            self._renewals[token], self._checkpoints[token] = 0, checkpoint_id

    def drop(self, token: UUID) -> None:
        with self._lock:
            self._renewals.pop(token, None)
            self._checkpoints.pop(token, None)

    def held(self) -> dict[UUID, str]:
        """Token -> checkpoint."""
        with self._lock:
            return dict(self._checkpoints)

    def _renew(self) -> None:
        while not self._end.wait(self.seconds / 3):
            for token, checkpoint_id in self._due():
                try:
                    with transaction(self.database.engine) as session:
                        gallery.renew_lease(session, checkpoint_id, token, self.seconds)
                except DatabaseUnavailable:
                    log.warning("lease_not_renewed")

    def _due(self) -> list[tuple[UUID, str]]:
        with self._lock:
            due = [token for token, renewals in self._renewals.items() if renewals < RENEWALS]
            for token in due:
                self._renewals[token] += 1
            return [(token, self._checkpoints[token]) for token in due]
