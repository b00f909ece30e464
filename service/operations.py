"""Whether the service can do its work: the checks behind /readyz, and the guard that keeps the disk from filling up."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from indexer import checkpoints, gallery
from indexer.canaries import embed_canaries, faults
from indexer.database import schema_is_current, transaction
from indexer.errors import DatabaseUnavailable, GalleryError, StorageFull
from indexer.presence import WORKER_LOCK, present
from service.schemas import Check, Readiness
from service.settings import ServiceSettings

if TYPE_CHECKING:
    from service.context import Context


class Unready(Exception):  # noqa: N818
    """A check failed; the message says why."""


class ReadinessProbe:
    """Answers how the service stands, without working anew for each who asks within `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._asking = threading.Lock()
        self._last: tuple[float, Readiness] | None = None

    def answer(self, context: Context | None, stopping: bool) -> Readiness:
        """`context` is None while the service is starting."""
        if stopping:
            return _not_now("stop", "The service is stopping. Ask another replica, or wait for its next start.")
        if context is None:
            return _not_now("start", "The service is starting: it opens its database, checkpoint and index.")
        last = self._last
        if last is not None and time.monotonic() < last[0] + self._seconds:
            return last[1]
        if not self._asking.acquire(blocking=last is None):
            assert last is not None
            return last[1]  # somebody is finding out, which may take long: do not line up behind them
        try:
            found = readiness(context)
            self._last = time.monotonic(), found
            return found
        finally:
            self._asking.release()


def _not_now(name: str, why: str) -> Readiness:
    return Readiness(ready=False, checks=[Check(name=name, ok=False, detail=why)])


def readiness(context: Context) -> Readiness:
    """Every check by name; ready when all of those pass that are required."""
    checks = list(_run(context))
    return Readiness(ready=all(check.ok for check in checks if check.required), checks=checks)


def _run(context: Context) -> Iterator[Check]:
    named: dict[str, Callable[[Context], str]] = {
        "schema": check_schema,
        "checkpoint": check_checkpoint,
        "index": check_index,
        "canary": check_canaries,
        "disk": check_disk,
        "worker": check_worker,
    }
    away: DatabaseUnavailable | None = None
    for name, check in named.items():
        required = name not in INFORMATION
        try:
            if away is not None and name != "disk":
                raise away  # each further check would wait for it as long as the first
            yield Check(name=name, ok=True, required=required, detail=check(context))
        except (Unready, GalleryError) as error:
            away = error if isinstance(error, DatabaseUnavailable) else away
            yield Check(name=name, ok=False, required=required, detail=str(error))


INFORMATION = frozenset({"worker"})  # without one searches are answered, only new images do not become searchable


def check_schema(context: Context) -> str:
    if not schema_is_current(context.database.engine):
        raise Unready("The database schema is not the one of this version. Start the service again to migrate it.")
    return "The database answers and its schema is current."


def check_checkpoint(context: Context) -> str:
    """Ready while a newly activated checkpoint is loading, too: the old one answers, and all replicas load at once."""
    loaded = context.replica.state.checkpoint_id
    with transaction(context.database.engine) as session:
        active = checkpoints.active_id(session)
        retired = checkpoints.is_retired(session, loaded)
    if active == loaded:
        return f"The active checkpoint {loaded} is loaded."
    if context.succession.problem is not None:
        raise Unready(f"Checkpoint {loaded} still answers instead of {active}: {context.succession.problem}")
    if active is None or retired:
        raise Unready(f"Checkpoint {loaded} is loaded, but {active} is the active one.")
    return f"Checkpoint {active} is active and being loaded; until then {loaded} answers."


def check_index(context: Context) -> str:
    """The index has as many vectors as the database; a worker may add some in between, so it is compared again.

    Where they differ for longer, the replica puts it right by itself.
    """
    for _ in range(3):
        context.replica.refresh()
        live = context.replica.state
        with transaction(context.database.engine) as session:
            expected = gallery.counts(session, live.checkpoint_id).indexed
        if len(live.index) == expected:
            mended = context.replica.mended
            return f"The index has all {expected} vectors." + (f" {mended} had to be put right." if mended else "")
    raise Unready(f"The index has {len(live.index)} vectors, the database {expected}.")


def check_canaries(context: Context) -> str:
    encoder = context.replica.state.encoder
    with transaction(context.database.engine) as session:
        stored = checkpoints.record(session, encoder.checkpoint_id).canaries
    now = embed_canaries(encoder)
    if found := faults(now, stored):
        raise Unready(" ".join(found))
    return f"Known {' and '.join(now)} become the unit vectors they were when the checkpoint was registered."


def check_disk(context: Context) -> str:
    free = shutil.disk_usage(context.settings.data_dir).free
    refuse_when_full(context.settings)
    return f"{free // 2**20:,} MiB are free."


def check_worker(context: Context) -> str:
    with transaction(context.database.engine) as session:
        workers = present(session, WORKER_LOCK)
        pending = gallery.pending_count(session, context.replica.state.checkpoint_id)
    if not workers:
        raise Unready(f"No worker is connected. {pending} images wait; start one with `person-search worker`.")
    return f"{workers} {'worker is' if workers == 1 else 'workers are'} connected, {pending} images wait."


def refuse_when_full(settings: ServiceSettings) -> None:
    """Raise StorageFull while less than the guarded space is free, so that the database keeps room to work."""
    free = shutil.disk_usage(settings.data_dir).free
    if free < settings.min_free_bytes:
        reserve = f"{settings.min_free_bytes // 2**20:,} are kept as a reserve"
        raise StorageFull(
            f"Only {free // 2**20:,} MiB of disk are free and {reserve}. Free some space, then try again."
        )
