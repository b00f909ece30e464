"""Whether the service can do its work: the checks behind /readyz, and the guard that keeps the disk from filling up."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from indexer import gallery
from indexer.database import schema_is_current, transaction
from indexer.errors import GalleryError, StorageFull
from service.schemas import Check, Readiness
from service.settings import ServiceSettings

if TYPE_CHECKING:
    from service.context import Context, QueryEncoder, Vectors

CANARY_TEXT = "a person in a red jacket and black trousers with a blue bag"
TOLERANCE = 1e-3  # between two embeddings of the same canary: kernels may sum in another order


class Unready(Exception):  # noqa: N818
    """A check failed; the message says why."""


def embed_canaries(encoder: QueryEncoder) -> dict[str, Vectors]:
    """One known text and one known image as vectors (D,); made at the start, and again by every readiness check."""
    levels = np.linspace(0, 255, 160 * 64, dtype=np.uint8).reshape(160, 64)
    image = Image.fromarray(np.stack([levels, levels[::-1], levels.T.reshape(160, 64)], axis=-1))  # (160, 64, 3)
    vectors = {"image": encoder.embed_images([image])[0]}
    if encoder.has_text:
        vectors["text"] = encoder.embed_texts([CANARY_TEXT])[0]
    return vectors


def readiness(context: Context) -> Readiness:
    """Every check by name; ready when all of them pass."""
    named: dict[str, Callable[[Context], str]] = {
        "schema": check_schema,
        "checkpoint": check_checkpoint,
        "index": check_index,
        "canary": check_canaries,
        "disk": check_disk,
    }
    checks = list(_run(context, named))
    return Readiness(ready=all(check.ok for check in checks), checks=checks)


def _run(context: Context, named: dict[str, Callable[[Context], str]]) -> Iterator[Check]:
    for name, check in named.items():
        try:
            yield Check(name=name, ok=True, detail=check(context))
        except (Unready, GalleryError) as error:
            yield Check(name=name, ok=False, detail=str(error))


def check_schema(context: Context) -> str:
    if not schema_is_current(context.database.engine):
        raise Unready("The database schema is not the one of this version. Start the service again to migrate it.")
    return "The database answers and its schema is current."


def check_checkpoint(context: Context) -> str:
    loaded = context.replica.state.checkpoint_id
    with transaction(context.database.engine) as session:
        active = gallery.active_checkpoint(session)
    if active is None or active.id != loaded:
        raise Unready(f"Checkpoint {loaded} is loaded, but {active and active.id} is the active one.")
    return f"The active checkpoint {loaded} is loaded."


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
    now = embed_canaries(context.replica.state.encoder)
    for kind, vector in now.items():
        if not np.isfinite(vector).all() or abs(float(np.linalg.norm(vector)) - 1) > TOLERANCE:
            raise Unready(f"The known {kind} does not become a finite unit vector.")
        if float(np.abs(vector - context.canaries[kind]).max()) > TOLERANCE:
            raise Unready(f"The known {kind} does not become the vector it was at the start.")
    return f"Known {' and '.join(now)} become the same unit vectors as at the start."


def check_disk(context: Context) -> str:
    free = shutil.disk_usage(context.settings.data_dir).free
    refuse_when_full(context.settings)
    return f"{free // 2**20:,} MiB are free."


def refuse_when_full(settings: ServiceSettings) -> None:
    """Raise StorageFull while less than the guarded space is free, so that the database keeps room to work."""
    free = shutil.disk_usage(settings.data_dir).free
    if free < settings.min_free_bytes:
        reserve = f"{settings.min_free_bytes // 2**20:,} are kept as a reserve"
        raise StorageFull(
            f"Only {free // 2**20:,} MiB of disk are free and {reserve}. Free some space, then try again."
        )
