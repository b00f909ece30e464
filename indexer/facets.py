"""How many images there are of each camera, site, tag, day and hour within a filter: what a filter could be made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Date, Integer, cast, extract, func, select
from sqlalchemy.orm import Session

from indexer.filters import ImageFilter, Scope, conditions, in_scope
from indexer.tables import Camera, Image

DAYS = 366  # the latest ones


@dataclass(frozen=True)
class Facets:
    """Counts of the images in a scope that pass a filter: of each value how many, the most frequent first.

    `None` counts images where it is unknown. `days` (ISO dates) and `hours` (0 to 23) are ascending.
    """

    images: int
    cameras: list[tuple[str | None, int]]
    sites: list[tuple[str | None, int]]
    tags: list[tuple[str, int]]
    days: list[tuple[str | None, int]]
    hours: list[tuple[int, int]]
    known: int
    unknown: int


def facets(session: Session, filter: ImageFilter, scope: Scope, tz: str, limit: int) -> Facets:
    """Count, with days and hours as clocks of the zone `tz` show them, and at most `limit` cameras, sites and tags."""
    where = [*in_scope(scope), *conditions(filter)]
    site = select(Camera.site).where(Camera.id == Image.camera_id).scalar_subquery()
    tag = select(func.unnest(Image.tags).label("value")).where(*where).subquery().c.value
    tags = select(tag, func.count()).group_by(tag).order_by(func.count().desc(), tag).limit(limit)
    shown = func.timezone(tz, Image.captured_at)
    day, hour = cast(shown, Date), cast(extract("hour", shown), Integer)
    timed = [*where, Image.captured_at.is_not(None)]
    days = select(day, func.count()).where(*timed).group_by(day).order_by(day.desc()).limit(DAYS)
    hours = select(hour, func.count()).where(*timed).group_by(hour).order_by(hour)
    images, known = session.execute(select(func.count(), func.count(Image.identity)).where(*where)).one()
    return Facets(
        images=images,
        cameras=_most_frequent(session, Image.camera_id, where, limit),
        sites=_most_frequent(session, site, where, limit),
        tags=[(value, count) for value, count in session.execute(tags)],
        days=[(str(value), count) for value, count in reversed(session.execute(days).all())],
        hours=[(value, count) for value, count in session.execute(hours)],
        known=known,
        unknown=images - known,
    )


def _most_frequent(
    session: Session, value: Any, where: Sequence[ColumnElement[bool]], limit: int
) -> list[tuple[str | None, int]]:
    counted = select(value.label("value"), func.count().label("count")).where(*where).group_by("value")
    found = session.execute(counted.order_by(func.count().desc(), "value").limit(limit))
    return [(one, count) for one, count in found]
