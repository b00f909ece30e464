"""The ranking a search freezes: neighbours within the filter, checked once more, then grouped and put in order.

That no image is shown to whom it is not allowed does not rest on the index alone: what it returns is compared with what
was allowed, and the database is asked again about what is shown. A violation is dropped, logged and counted.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from indexer import searches
from indexer.filters import ImageFilter, Scope
from indexer.index import Index
from indexer.searches import Ranking, Rows

log = structlog.get_logger(__name__)

CHECKED_AT_LEAST = 64  # rows the database is asked about at once


class Counter:
    """Counts, from any thread."""

    def __init__(self) -> None:
        self._value = 0
        self._lock = threading.Lock()

    @property
    def value(self) -> int:
        return self._value

    def add(self, n: int) -> None:
        with self._lock:
            self._value += n


forbidden_hits = Counter()  # images that were found and must not have been: anything but 0 is a defect


@dataclass(frozen=True, eq=False)
class Allowed:
    """What may be found: the filter, the scope of whoever asks, and the rows (N,), ascending, that they leave.

    Rows are None where everything may be found.
    """

    filter: ImageFilter
    scope: Scope
    rows: Rows | None


def rank(
    session: Session,
    index: Index,
    vector: NDArray[np.float32],
    allowed: Allowed,
    most: int,
    page: int,
    *,
    check_all: bool = False,
) -> Ranking:
    """The `most` nearest allowed images, best first. The first `page` of them exist and are allowed, as the database
    says at this moment; with `check_all` all of them.

    The index may still hold images that were deleted a moment ago, so it is asked for more until the page is full.
    """
    k = most
    while True:
        similarities, rows = (found[0] for found in index.search(vector[None], k, allowed.rows))
        there = rows >= 0  # where there are fewer than k
        found = Ranking(rows[there], similarities[there])
        kept = _checked(session, found, allowed, len(found) if check_all else page)
        if len(kept) >= page or len(found) < k:
            return Ranking(kept.rows[:most], kept.similarities[:most])
        k *= 2


def _checked(session: Session, found: Ranking, allowed: Allowed, first: int) -> Ranking:
    """Without what is not allowed, and without what is not there among the `first` of the rest."""
    inside = np.ones(len(found), bool)
    if allowed.rows is not None:
        inside = _among(found.rows, allowed.rows)
        _report(found.rows[~inside], "not_in_filter")
    rows, similarities = found.rows[inside], found.similarities[inside]
    keep, start, good = np.ones(len(rows), bool), 0, 0
    while start < len(rows) and good < first:
        part = slice(start, start + max(first - good, CHECKED_AT_LEAST))
        # Of what the filter let pass a moment ago, some may have been deleted or changed since: nobody's fault.
        passes, out_of_scope = searches.passing(session, rows[part], allowed.filter, allowed.scope)
        _report(rows[part][out_of_scope], "not_in_scope")
        keep[part] = passes
        start, good = part.stop, good + int(passes.sum())
    return Ranking(rows[keep], similarities[keep])


def _among(rows: Rows, allowed: Rows) -> NDArray[np.bool_]:
    """Which of the rows (N,) are among the allowed ones (M,), ascending."""
    if not len(allowed):
        return np.zeros(len(rows), bool)
    nearest = allowed[np.minimum(np.searchsorted(allowed, rows), len(allowed) - 1)]
    return np.asarray(nearest == rows)


def _report(rows: Rows, reason: str) -> None:
    if len(rows):
        forbidden_hits.add(len(rows))
        log.error("search_forbidden_hit", reason=reason, images=len(rows), first_row=int(rows[0]))


def arranged(session: Session, ranking: Ranking, group_by: str | None, order_by: str) -> Ranking:
    """The ranking in groups, the most similar image first in each, and in the order asked for."""
    places = [[n] for n in range(len(ranking))]
    if group_by is not None:
        places = grouped(ranking.rows, searches.values_of(session, ranking.rows, group_by))
    if order_by != "similarity":
        times = searches.values_of(session, ranking.rows, "captured_at")
        shown = [times.get(int(ranking.rows[place[0]])) for place in places]
        places = [places[n] for n in in_time(shown, latest_first=order_by.startswith("-"))]
    order = [n for place in places for n in place]
    starts = np.cumsum([0, *(len(place) for place in places[:-1])])[: len(places)].astype(np.int32)
    return Ranking(ranking.rows[order], ranking.similarities[order], None if group_by is None else starts)


def grouped(rows: Rows, keys: dict[int, Any]) -> list[list[int]]:
    """Positions by group, groups and positions in their order; a row whose key is None is a group of its own."""
    groups: dict[Any, list[int]] = {}
    for n, row in enumerate(rows.tolist()):
        if row in keys:  # else the image was deleted a moment ago
            key = keys[row]
            groups.setdefault((None, row) if key is None else (key,), []).append(n)
    return list(groups.values())


def in_time(times: list[Any], *, latest_first: bool) -> list[int]:
    """Positions by time, equal times as they were, those without a time last."""
    known = [n for n, time in enumerate(times) if time is not None]
    unknown = [n for n, time in enumerate(times) if time is None]
    return sorted(known, key=lambda n: times[n], reverse=latest_first) + unknown
