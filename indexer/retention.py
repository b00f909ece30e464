"""Nothing is kept for ever silently: retention policies, and the sweep that erases what is older than they allow.

The sweep also empties expired searches, forgets expired keys of requests, and removes files that no image shows, which
a killed intake left behind. Who calls it, and how often, is the service's business; that only one process sweeps at a
time is seen to here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

from sqlalchemy import Text, any_, delete, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session, aliased

from indexer import gallery, idempotency, searches
from indexer.database import transaction
from indexer.erasure import Eraser, only_one
from indexer.errors import NotFound, UnderLegalHold, UnknownCamera
from indexer.governance_tables import RetentionPolicy
from indexer.holds import is_held, taken_at
from indexer.tables import Image

SWEEP_LOCK = 7_305_822  # key of an advisory lock
ERASED_AT_ONCE = 500  # images of one receipt
FILES_AT_ONCE = 500
REASON = "Older than the retention policy of its camera allows."


@dataclass(frozen=True)
class PolicyRecord:
    """How many days images of a camera are kept; `camera_id` None: of every camera without a policy of its own."""

    camera_id: str | None
    days: int
    updated_at: datetime


@dataclass
class Swept:
    """What one sweep did."""

    erased: int = 0
    searches: int = 0
    orphans: int = 0


# --------------------------------------------------------------------------------------------------------------------
# Policies


def policies(session: Session) -> list[PolicyRecord]:
    """All policies, the default first, then by camera."""
    found = session.scalars(select(RetentionPolicy).order_by(RetentionPolicy.camera_id.nulls_first()))
    return [PolicyRecord(policy.camera_id, policy.days, policy.updated_at) for policy in found]


def set_policy(session: Session, camera_id: str | None, days: int) -> PolicyRecord:
    """Keep images of a camera, or of all others, for so many days since they were taken. Raises `UnknownCamera`."""
    if camera_id is not None and gallery.unknown_cameras(session, [camera_id]):
        raise UnknownCamera(f"There is no camera {camera_id!r}. Create it first or correct its name.")
    statement = upsert(RetentionPolicy).values(camera_id=camera_id, days=days)
    changed = {"days": days, "updated_at": func.now()}
    statement = statement.on_conflict_do_update(index_elements=["camera_id"], set_=changed)
    return PolicyRecord(camera_id, days, session.scalars(statement.returning(RetentionPolicy.updated_at)).one())


def remove_policy(session: Session, camera_id: str | None) -> None:
    """From now on the default holds for the camera; without a default, nothing is too old. Raises `NotFound`."""
    of_camera = RetentionPolicy.camera_id.is_not_distinct_from(camera_id)
    if session.scalar(delete(RetentionPolicy).where(of_camera).returning(RetentionPolicy.id)) is None:
        whose = "default" if camera_id is None else f"camera {camera_id!r}"
        raise NotFound(
            f"There is no retention policy for the {whose}." if camera_id else f"There is no {whose} policy."
        )


# --------------------------------------------------------------------------------------------------------------------
# The sweep


def sweep(eraser: Eraser, grace_seconds: float, stopping: Callable[[], bool] = lambda: False) -> Swept | None:
    """Complete broken-off erasures, erase what is too old and not held, empty expired searches, remove orphans.

    Files younger than `grace_seconds` are left alone. None if another process is sweeping. Breaks off between two
    batches once `stopping` says so.
    """
    with only_one(eraser.database.engine, SWEEP_LOCK) as alone:
        if not alone:
            return None
        swept = Swept()
        eraser.resume()
        while not stopping():
            erased = erase_overdue(eraser)
            if not erased:
                break
            swept.erased += erased
        with transaction(eraser.database.engine) as session:
            swept.searches = searches.forget_expired(session)
            idempotency.forget_expired(session)
        swept.orphans = remove_orphans(eraser, grace_seconds, stopping)
        eraser.store.remove_leftovers()
        return swept


def erase_overdue(eraser: Eraser) -> int:
    """Erase some of the images that are too old; returns how many, 0 when none is left."""
    own, default = aliased(RetentionPolicy), aliased(RetentionPolicy)
    days = func.coalesce(own.days, default.days)
    overdue = (
        select(Image.id)
        .outerjoin(own, own.camera_id == Image.camera_id)
        .outerjoin(default, default.camera_id.is_(None))
        .where(taken_at() < func.now() - func.make_interval(0, 0, 0, days), ~is_held())
        .limit(ERASED_AT_ONCE)
    )
    with transaction(eraser.database.engine) as session:
        ids = list(session.scalars(overdue))
    if not ids:
        return 0
    try:
        receipt = eraser.erase_images([Image.id.in_(ids)], REASON, {"by": "retention"})
    except UnderLegalHold:  # placed since; the next sweep leaves those images out
        return 0
    return receipt.counts.get("images", 0)


def remove_orphans(eraser: Eraser, grace_seconds: float, stopping: Callable[[], bool] = lambda: False) -> int:
    """Remove files that no image shows, older than the grace; returns how many.

    An intake stores a file first and adds its row afterwards. Should its file be taken in between, it notices: it looks
    again under the lock that removing needs, and stores the file once more.
    """
    oldest, removed = time.time() - grace_seconds, 0
    files = eraser.store.files()
    while (some := list(islice(files, FILES_AT_ONCE))) and not stopping():
        by_name: dict[str, list[Path]] = {}
        for file in some:
            by_name.setdefault(file.name[:64], []).append(file)
        with transaction(eraser.database.engine) as session:
            wanted = literal(list(by_name), ARRAY(Text))
            known = set(session.scalars(select(Image.sha256).where(Image.sha256 == any_(wanted))))
        for sha256 in by_name.keys() - known:
            if all(_older(file, oldest) for file in by_name[sha256]):
                with transaction(eraser.database.engine) as session:
                    if gallery.unused_file(session, sha256):
                        removed += len(eraser.store.files_of(sha256))
                        eraser.store.remove(sha256)
    return removed


def _older(file: Path, moment: float) -> bool:
    with suppress(FileNotFoundError):  # removed with its image just now
        return file.stat().st_mtime <= moment
    return False
