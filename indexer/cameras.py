"""Cameras with what they have: counted, renamed, removed. Adding one and listing their names is in gallery.py.

Everything takes the scope of whoever asks: a camera outside it is as if absent. Nothing here commits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Select, delete, func, select, update
from sqlalchemy.orm import Session

from indexer import gallery
from indexer.errors import CameraInUse, InvalidMetadata, NotFound
from indexer.filters import Scope
from indexer.governance_tables import LegalHold
from indexer.tables import Camera, Image


@dataclass(frozen=True)
class CountedCamera:
    """A camera as stored, and how many images are from it."""

    id: str
    name: str | None
    site: str | None
    created_at: datetime
    images: int


def cameras(session: Session, scope: Scope) -> list[CountedCamera]:
    """The cameras of the scope, by id."""
    return [CountedCamera(*row) for row in session.execute(_counted(scope).order_by(Camera.id))]


def camera(session: Session, id: str, scope: Scope) -> CountedCamera:
    """One camera of the scope. Raises `NotFound`."""
    found = None
    if gallery.is_storable(id):
        found = session.execute(_counted(scope).where(Camera.id == id)).one_or_none()
    if found is None:
        raise NotFound(f"There is no camera {id!r}. GET /api/v1/cameras lists them all.")
    return CountedCamera(*found)


def change_camera(session: Session, id: str, changes: Mapping[str, str | None], scope: Scope) -> CountedCamera:
    """Set name or site. Raises `NotFound`, `InvalidMetadata`."""
    camera(session, id, scope)
    if not gallery.is_storable(dict(changes)):
        raise InvalidMetadata("The name or the site holds a character that no text can hold.")
    if changes:
        session.execute(update(Camera).where(Camera.id == id).values(dict(changes)))
    return camera(session, id, scope)


def remove_camera(session: Session, id: str, scope: Scope) -> None:
    """Remove a camera that nothing names, and its retention policy. Raises `NotFound`, `CameraInUse`."""
    camera(session, id, scope)
    session.execute(select(Camera.id).where(Camera.id == id).with_for_update())  # who adds an image to it waits
    images = camera(session, id, scope).images
    if images:
        what = "1 image is" if images == 1 else f"{images} images are"
        raise CameraInUse(f"{what} from the camera {id!r}. Erase them first, or change their camera.")
    held = session.scalar(select(LegalHold.id).where(LegalHold.camera_id == id).limit(1))
    if held is not None:
        raise CameraInUse(f"The camera {id!r} is under legal hold {held}. Lift the hold first.")
    session.execute(delete(Camera).where(Camera.id == id))


def _counted(scope: Scope) -> Select[str, str | None, str | None, datetime, int]:
    images = select(func.count()).select_from(Image).where(Image.camera_id == Camera.id).scalar_subquery()
    seen: list[ColumnElement[bool]] = [] if scope is None else [Camera.id.in_(sorted(scope))]
    return select(Camera.id, Camera.name, Camera.site, Camera.created_at, images).where(*seen)
