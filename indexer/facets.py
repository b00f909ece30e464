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
    days: list[tuple[str, int]]
    hours: list[tuple[int, int]]
    known: int
    unknown: int


def facets(session: Session, filter: ImageFilter, scope: Scope, tz: str, limit: int) -> Facets:
    """Count, with days and hours as clocks of the zone `tz` show them, and at most `limit` cameras, sites and tags."""
    where = [*in_scope(scope), *conditions(filter)]
    timed = [*where, Image.captured_at.is_not(None)]
    shown = func.timezone(tz, Image.captured_at)
    days = _counted(session, cast(shown, Date), timed)
    images, known = session.execute(select(func.count(), func.count(Image.identity)).where(*where)).one()
    return Facets(
        images=images,
        cameras=_most_frequent(_counted(session, Image.camera_id, where), limit),
        sites=_most_frequent(_counted(session, Camera.site, where), limit),
        tags=_most_frequent(_counted(session, func.unnest(Image.tags), where), limit),
        days=[(str(day), count) for day, count in days[-DAYS:]],
        hours=_counted(session, cast(extract("hour", shown), Integer), timed),
        known=known,
        unknown=images - known,
    )


def _counted(session: Session, value: Any, where: Sequence[ColumnElement[bool]]) -> list[tuple[Any, int]]:
    """Values of the images and how many have each, by value; None comes last."""
    of_camera = Camera.id == Image.camera_id  # left out by the database where nothing of the camera is asked for
    values = select(value.label("value")).select_from(Image).outerjoin(Camera, of_camera).where(*where).subquery()
    found = session.execute(
        select(values.c.value, func.count()).group_by(values.c.value).order_by(values.c.value.nulls_last())
    )
    return [(one, count) for one, count in found]


def _most_frequent(counted: list[tuple[Any, int]], limit: int) -> list[tuple[Any, int]]:
    return sorted(counted, key=lambda pair: -pair[1])[:limit]  # of equals, the order stays that of the values
