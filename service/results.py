"""A page of a frozen ranking as it is answered. What exists, and what whoever reads it may see, is asked anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from uuid import UUID

import numpy as np
from sqlalchemy.orm import Session

from indexer import gallery, searches
from indexer.filters import Scope
from indexer.gallery import ImageRecord
from indexer.searches import Place, SearchRecord, band
from service import cursors
from service.search_schemas import Hit, Result, ResultGroup, ResultImage, SearchPage


def page(session: Session, search: SearchRecord, scope: Scope, first: int, limit: int) -> SearchPage:
    """`limit` places of the ranking from `first` on, without images that are gone or out of the scope by now."""
    asked: Mapping[str, Any] = search.request["asked"]
    group_by, members = asked.get("group_by"), asked.get("group_members", 3)
    places = searches.places(session, search, first, limit)
    rows = np.concatenate([np.empty(0, np.int64), *(place.rows for place in places)])
    seen = frozenset(rows[searches.visible(session, rows, scope)].tolist())
    left = [_only(place, seen) for place in places]
    wanted = [row for place in left for row in place.rows[: 1 + members].tolist()]
    records = gallery.images_by_row(session, wanted)
    bands: Mapping[str, float] | None = search.request.get("bands")
    results = []
    for rank, place in enumerate(left, start=first + 1):
        hits = [
            _hit(records[row], similarity, bands)
            for row, similarity in zip(place.rows.tolist(), place.similarities.tolist(), strict=True)
            if row in records
        ]
        if hits:
            group = None
            if group_by is not None:
                key = getattr(hits[0].image, group_by)
                group = ResultGroup(key=key, size=len(place.rows), members=hits[1 : 1 + members])
            results.append(Result(**dict(hits[0]), rank=rank, group=group))
    end = first + limit
    key = searches.signing_key(session, "cursors")
    return SearchPage(results=results, next_cursor=cursors.issue(key, search.id, end) if end < search.places else None)


def _only(place: Place, seen: frozenset[int]) -> Place:
    left = [row in seen for row in place.rows.tolist()]
    return Place(place.rows[left], place.similarities[left])


def _hit(record: ImageRecord, similarity: float, bands: Mapping[str, float] | None) -> Hit:
    return Hit(
        image_id=record.id,
        similarity=similarity,
        band=band(similarity, bands),
        image=result_image(record),
    )


def result_image(record: ImageRecord) -> ResultImage:
    return ResultImage(
        camera_id=record.camera_id,
        captured_at=record.captured_at,
        tags=list(record.tags),
        identity=record.identity,
        track_id=record.track_id,
        external_id=record.external_id,
        width=record.width,
        height=record.height,
        content=content_path(record.id),
        thumbnail=content_path(record.id, "thumb"),
    )


def content_path(image_id: UUID, variant: Literal["full", "thumb"] = "full") -> str:
    return f"/api/v1/images/{image_id}/content?variant={variant}"
