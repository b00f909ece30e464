"""One image at a time: what is known about it changed, under the conditions of HTTP, and what its camera saw around it.

Everything takes the scope of whoever asks: an image outside it is as if absent. Nothing here commits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from indexer import gallery, holds
from indexer.errors import Changed, DuplicateContent, InvalidMetadata, NotFound, UnknownCamera
from indexer.filters import Scope, in_scope
from indexer.gallery import ImageRecord
from indexer.tables import Image

KNOWN = ("external_id", "camera_id", "captured_at", "track_id", "identity", "tags", "attributes")  # all that can change


@dataclass(frozen=True)
class Around:
    """The images of one camera around a moment, in the order of their times; `complete` unless there were too many."""

    images: list[ImageRecord]
    seconds: list[float]  # of each, after that moment
    complete: bool


def version(image: ImageRecord) -> str:
    """Names what is known about an image and its file: another after every change, the same after none.

    Whether it is embedded does not belong to it: nobody's change is to fail because the worker was here.
    """
    known = {name: getattr(image, name) for name in (*KNOWN, "sha256")}
    written = json.dumps({"id": image.id, **known}, sort_keys=True, default=str)
    return hashlib.sha256(written.encode()).hexdigest()[:32]


def by_external_id(session: Session, external_id: str, scope: Scope) -> ImageRecord | None:
    """The image of the scope that is called so."""
    if not gallery.is_storable(external_id):
        return None
    found = gallery.images_where(session, [Image.external_id == external_id, *in_scope(scope)])
    return found[0] if found else None


def refuse_outside(scope: Scope, camera_id: str | None) -> None:
    """Raise `UnknownCamera` for a camera outside the scope, `InvalidMetadata` for none: nobody can put an image where
    they may not see it.
    """
    if scope is None or camera_id in scope:
        return
    if camera_id is None:
        raise InvalidMetadata("Name the camera: without one, the image would be outside what you may see.")
    raise UnknownCamera(f"There is no camera {camera_id!r}; add it first, or leave the camera out.")


def refuse_double(session: Session, sha256: str, camera_id: str | None, captured_at: datetime | None, id: UUID) -> None:
    """Raise `UnknownCamera`, or `DuplicateContent` if another image than this one has the file, the camera and time."""
    if camera_id is not None:
        gallery.hold_camera(session, camera_id)
    same = (
        Image.sha256 == sha256,
        Image.camera_id.is_not_distinct_from(camera_id),
        Image.captured_at.is_not_distinct_from(captured_at),
    )
    other = session.scalar(select(Image.id).where(*same, Image.id != id))
    if other is not None:
        raise double(other)


def double(other: UUID) -> DuplicateContent:
    return DuplicateContent(
        f"Another image, {other}, has this file from this camera at this time. Delete it, or change it."
    )


def change_image(
    session: Session, id: UUID, changes: Mapping[str, Any], scope: Scope, seen: frozenset[str] | None = None
) -> tuple[ImageRecord, bool]:
    """Set what is known about an image: columns of `KNOWN` and their values. Returns it as it is now, and whether
    anything changed.

    With `seen` only if its version is one of those. Raises `NotFound`, `Changed`, `UnderLegalHold`, `UnknownCamera`,
    `InvalidMetadata`, `ExternalIdConflict`, `DuplicateContent`; nothing was changed then.
    """
    if not gallery.is_storable(dict(changes)):
        raise InvalidMetadata("The metadata holds a character that no text can hold.")
    holds.lock_governance(session)  # before the row, as everybody who decides about images
    if changes.get("camera_id") is not None:
        gallery.hold_camera(session, changes["camera_id"])
    image = session.scalar(select(Image).where(Image.id == id, *in_scope(scope)).with_for_update())
    before = gallery.image_by_id(session, id, scope)
    if image is None or before is None:
        raise NotFound(f"There is no image {id}.")
    if seen is not None and version(before) not in seen:
        raise Changed(
            "The image is not as you saw it any more, and nothing was changed. Fetch it again, and decide anew."
        )
    if "camera_id" in changes:
        refuse_outside(scope, changes["camera_id"])
    holds.refuse_change(session, Image.id == id, changes)
    if not gallery.apply_changes(session, image, changes):
        return before, False
    session.expire(image)
    after = gallery.image_by_id(session, id)
    assert after is not None
    return after, True


def around(session: Session, id: UUID, seconds: float, limit: int, scope: Scope) -> Around:
    """What the camera of an image took up to so many seconds before and after it, the image itself left out.

    None if its camera or its time is not known; of more than `limit`, the nearest in time. Raises `NotFound`.
    """
    image = gallery.image_by_id(session, id, scope)
    if image is None:
        raise NotFound(f"There is no image {id}.")
    if image.camera_id is None or image.captured_at is None:
        return Around([], [], complete=True)
    apart = func.abs(func.extract("epoch", Image.captured_at - image.captured_at))
    within = timedelta(seconds=seconds)
    nearest = (
        select(Image.id)
        .where(
            Image.camera_id == image.camera_id,
            Image.captured_at.between(image.captured_at - within, image.captured_at + within),
            Image.id != id,
            *in_scope(scope),
        )
        .order_by(apart, Image.id)
        .limit(limit + 1)
    )
    ids = list(session.scalars(nearest))
    found = gallery.images_where(session, [Image.id.in_(ids[:limit])])
    moment = image.captured_at
    after = {one.id: (one.captured_at - moment).total_seconds() for one in found if one.captured_at is not None}
    found.sort(key=lambda one: (after[one.id], one.id))
    return Around(found, [after[one.id] for one in found], complete=len(ids) <= limit)
