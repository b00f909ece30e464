"""Legal holds in SQL: what must not be erased, whoever asks and however old it is, nor moved out of its hold.

None of these functions commits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Integer,
    Row,
    Select,
    and_,
    any_,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
)
from sqlalchemy.orm import Session

from indexer import gallery
from indexer.errors import InvalidMetadata, NotFound, UnderLegalHold, UnknownCamera
from indexer.governance_tables import LegalHold
from indexer.tables import Image, new_id

HELD = ("identity", "camera_id", "captured_at")  # what holds find their images by
GOVERNANCE_LOCK = 7_305_820  # key of an advisory lock: what is to be erased and what is held is decided one at a time


@dataclass(frozen=True)
class NewHold:
    """A hold to place: exactly one of `image_ids`, `identity` and `camera_id`; a time only with a camera."""

    reason: str
    image_ids: tuple[UUID, ...] = ()
    identity: str | None = None
    camera_id: str | None = None
    captured_from: datetime | None = None
    captured_until: datetime | None = None


@dataclass(frozen=True)
class HoldRecord:
    """A hold as stored, and how many images it protects now; images that arrive later may be among them."""

    id: UUID
    reason: str
    image_ids: list[UUID] | None
    identity: str | None
    camera_id: str | None
    captured_from: datetime | None
    captured_until: datetime | None
    created_at: datetime
    images: int


def lock_governance(session: Session) -> None:
    """From here to the commit nobody else decides what is erased or held."""
    session.execute(select(func.pg_advisory_xact_lock(GOVERNANCE_LOCK)))


def taken_at() -> ColumnElement[datetime]:
    """When an image was taken; when that is not known, when it was added."""
    return func.coalesce(Image.captured_at, Image.created_at)


def _holds() -> ColumnElement[bool]:
    """Whether a row of `legal_hold` holds a row of `image`."""
    seen = and_(
        taken_at() >= func.coalesce(LegalHold.captured_from, literal_column("'-infinity'::timestamptz")),
        taken_at() < func.coalesce(LegalHold.captured_until, literal_column("'infinity'::timestamptz")),
    )
    return or_(
        Image.id == any_(LegalHold.image_ids),
        Image.identity == LegalHold.identity,
        and_(Image.camera_id == LegalHold.camera_id, seen),
    )


def is_held() -> ColumnElement[bool]:
    """The condition on `Image` that some hold is on it."""
    return select(LegalHold.id).where(_holds()).correlate(Image).exists()


def refuse_held(session: Session, images: list[ColumnElement[bool]]) -> None:
    """Raise `UnderLegalHold` if one of the images that meet these conditions is held."""
    total, held = session.execute(
        select(func.count(), func.count().filter(is_held())).select_from(Image).where(*images)
    ).one()
    if held:
        first = session.scalar(
            select(LegalHold.id).join(Image, _holds()).where(*images).order_by(LegalHold.created_at).limit(1)
        )
        what = "The image is" if total == 1 else f"{held} of the {total} images are"
        raise UnderLegalHold(
            f"{what} under legal hold {first}, so nothing was erased. Lift the hold first, or leave the images out."
        )


def refuse_change(session: Session, image: ColumnElement[bool], changes: Mapping[str, Any]) -> None:
    """Raise `UnderLegalHold` if the image that meets this condition is held and the changes, which PostgreSQL can
    store, would alter who, where or when it shows: by that holds find their images, and what is held has to stay.
    """
    altered = [getattr(Image, name).is_distinct_from(changes[name]) for name in HELD if name in changes]
    if not altered:
        return
    mine = and_(image, or_(*altered))
    hold = session.scalar(
        select(LegalHold.id).join(Image, _holds()).where(mine).order_by(LegalHold.created_at).limit(1)
    )
    if hold is not None:
        raise UnderLegalHold(
            f"The image is under legal hold {hold}, so its identity, camera and time stay as they are, and nothing was "
            "changed. Lift the hold first, or leave these fields out."
        )


def place_hold(session: Session, hold: NewHold) -> HoldRecord:
    """Place a hold. Raises `UnknownCamera`, `NotFound` for an image that is not there, `InvalidMetadata`."""
    lock_governance(session)
    if hold.camera_id is not None and gallery.unknown_cameras(session, [hold.camera_id]):
        raise UnknownCamera(f"There is no camera {hold.camera_id!r}. Correct its name.")
    if hold.captured_from and hold.captured_until and hold.captured_from >= hold.captured_until:
        raise InvalidMetadata("captured_from must be before captured_until.")
    known = set(session.scalars(select(Image.id).where(Image.id.in_(hold.image_ids))))
    missing = [str(id) for id in hold.image_ids if id not in known]
    if missing:
        raise NotFound(f"There is no image {', '.join(missing[:5])}; nothing was put under hold. Correct the ids.")
    values = {name: getattr(hold, name) for name in NewHold.__dataclass_fields__}
    id = new_id()
    session.execute(insert(LegalHold).values(id=id, **{**values, "image_ids": list(hold.image_ids) or None}))
    return _record(session.execute(_records().where(LegalHold.id == id)).one())


def legal_holds(session: Session) -> list[HoldRecord]:
    """All holds, the oldest first."""
    return [_record(row) for row in session.execute(_records().order_by(LegalHold.id))]


def lift_hold(session: Session, id: UUID) -> None:
    """End a hold; the next sweep erases what is too old by then. Raises `NotFound`."""
    lock_governance(session)
    if session.scalar(delete(LegalHold).where(LegalHold.id == id).returning(LegalHold.id)) is None:
        raise NotFound(f"There is no legal hold {id}.")


def _records() -> Select[LegalHold, int]:
    images = select(func.count(Image.id).cast(Integer)).where(_holds()).correlate(LegalHold).scalar_subquery()
    return select(LegalHold, images.label("images"))


def _record(row: Row[LegalHold, int]) -> HoldRecord:
    hold, images = row
    columns = {name: getattr(hold, name) for name in HoldRecord.__dataclass_fields__ if name != "images"}
    return HoldRecord(**columns, images=images)
