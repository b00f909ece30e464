"""Kept searches: packed rankings come back as they were, whole and in parts; what is to be forgotten is."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from indexer import checkpoints, gallery, searches
from indexer.database import Database, migrate, migrate_to, transaction
from indexer.filters import Condition, ImageFilter
from indexer.gallery import NewImage
from indexer.searches import Ranking
from tests.postgres_fixtures import fresh_database

CHECKPOINT = "c1"


def register(session: Session) -> None:
    checkpoints.add(session, CHECKPOINT, "net", 2, {}, "")


def ranked(rows: list[int], starts: list[int] | None = None) -> Ranking:
    similarities = np.linspace(0.9, 0.1, len(rows)).astype(np.float32)
    return Ranking(np.array(rows, np.int64), similarities, None if starts is None else np.array(starts, np.int32))


def kept(session: Session, ranking: Ranking, request: dict[str, Any] | None = None, **more: Any) -> UUID:
    return searches.save(session, uuid4(), request or {"asked": {}}, CHECKPOINT, ranking, **more).id


def test_search_is_kept_for_a_day(session: Session) -> None:
    register(session)
    id, owner, vector = uuid4(), uuid4(), np.array([0.6, 0.8], np.float32)
    parent = kept(session, ranked([]))
    request = {"query": {"text": "red jacket"}}
    saved = searches.save(
        session, id, request, CHECKPOINT, ranked([7, 2**40]), owner=owner, parent_id=parent, upload_vector=vector
    )
    assert searches.by_id(session, id) == saved
    assert (saved.owner, saved.parent_id, saved.request, saved.checkpoint_id) == (owner, parent, request, CHECKPOINT)
    assert (saved.places, saved.grouped) == (2, False)
    assert saved.expires_at - saved.created_at == timedelta(days=1)
    assert searches.by_id(session, uuid4()) is None
    found = searches.upload_vector(session, id)
    assert found is not None and found.tolist() == vector.tolist()
    assert searches.upload_vector(session, parent) is None


@pytest.mark.parametrize("starts", [None, [0, 1, 4, 5, 9], list(range(10))])
def test_parts_of_a_ranking_are_parts_of_the_whole(session: Session, starts: list[int] | None) -> None:
    register(session)
    rows = list(range(31, 41))
    ranking = ranked(rows, starts)
    id = kept(session, ranking)
    search = searches.by_id(session, id)
    assert search is not None and search.places == len(ranking) and search.grouped == (starts is not None)
    edges = [*(starts or range(10)), 10]
    expected = [(rows[a:b], ranking.similarities[a:b].tolist()) for a, b in pairwise(edges)]
    for first in range(len(expected) + 2):
        for count in range(len(expected) + 2):
            found = searches.places(session, search, first, count)
            parts = [(place.rows.tolist(), place.similarities.tolist()) for place in found]
            assert parts == expected[first : first + count], (first, count)
    whole = searches.ranking(session, id)
    assert whole.rows.tolist() == rows and whole.similarities.tolist() == ranking.similarities.tolist()
    assert (None if whole.starts is None else whole.starts.tolist()) == starts


def test_erased_rows_leave_their_places(session: Session) -> None:
    register(session)
    ids = [kept(session, ranked([5, 6, 7])), kept(session, ranked([8])), kept(session, ranked([7, 9], [0, 1]))]
    assert searches.rankings_with(session, [7, 100]) == 2
    assert searches.forget_rows(session, [7, 100]) == 2
    assert searches.forget_rows(session, [7, 100]) == searches.forget_rows(session, []) == 0
    left = [searches.ranking(session, id) for id in ids]
    assert [one.rows.tolist() for one in left] == [[5, 6, 0], [8], [0, 9]]
    assert np.isnan(left[0].similarities).tolist() == [False, False, True]
    assert left[2].starts is not None and left[2].starts.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("asked", "forgotten"),
    [
        ({"query": {"text": "Carol Q in red"}}, True),
        ({"query": {"text": "somebody", "negative_text": "not carol q"}}, True),
        ({"query": {"text": "somebody"}, "purpose": {"reason": "Looking for Carol Q."}}, True),
        ({"query": {"positive_image_ids": ["an-id"]}}, True),
        ({"filter": {"identity": {"eq": "cq"}}}, True),
        ({"query": {"text": "cq"}, "filter": {"identity": {"eq": "other"}}}, True),
        ({"query": {"text": "acquired"}}, False),
        ({"filter": {"identity": {"eq": "carol"}}}, False),
    ],
)
def test_searches_that_ask_for_somebody_are_forgotten(session: Session, asked: dict[str, Any], forgotten: bool) -> None:
    register(session)
    id = kept(session, ranked([1]), {"asked": asked}, upload_vector=np.ones(2, np.float32))
    saved = searches.keep(session, None, "a name", asked)
    counts = searches.forget_names(session, ["cq", "an-id"], ["carol q"])
    assert counts == (int(forgotten), int(forgotten))
    search = searches.by_id(session, id)
    assert search is not None and (search.request == {}) == (search.places == 0) == forgotten
    assert (searches.upload_vector(session, id) is None) == forgotten
    assert (searches.saved_search(session, saved.id) is None) == forgotten


def test_expired_searches_are_emptied(session: Session) -> None:
    register(session)
    old, new = kept(session, ranked([1], [0])), kept(session, ranked([1]))
    session.execute(text("UPDATE search SET expires_at = now() - interval '2 hours' WHERE id = :id"), {"id": old})
    assert searches.forget_expired(session) == 1
    assert searches.forget_expired(session) == 0
    emptied, left = searches.by_id(session, old), searches.by_id(session, new)
    assert emptied is not None and (emptied.request, emptied.places, emptied.grouped) == ({}, 0, False)
    assert left is not None and left.places == 1


def test_saved_searches_belong_to_somebody(session: Session) -> None:
    owner = uuid4()
    mine = [searches.keep(session, owner, name, {"query": {"text": name}}) for name in ("one", "two")]
    common = searches.keep(session, None, "common", {})
    assert searches.saved_searches(session, owner) == mine[::-1]
    assert searches.saved_searches(session, None) == [common]
    searches.change_saved(session, mine[0].id, {"name": "first"})
    changed = searches.saved_search(session, mine[0].id)
    assert changed is not None and (changed.name, changed.request) == ("first", {"query": {"text": "one"}})
    searches.remove_saved(session, mine[0].id)
    assert searches.saved_search(session, mine[0].id) is None


def test_what_may_be_shown_exists_is_in_the_scope_and_passes(session: Session) -> None:
    for camera in ("a", "b"):
        gallery.add_camera(session, camera)
    rows = []
    for n, camera in enumerate(["a", "a", "b", None]):
        image = NewImage(f"{n:064}", 1, 1, "png", 1, camera_id=camera, track_id=f"t{n}" if n else None)
        added = gallery.image_by_id(session, gallery.add_image(session, image).image_id)
        assert added is not None
        rows.append(added.row)
    asked = np.array([rows[3], 10**12, *rows[:3]], np.int64)
    scope = frozenset({"a"})
    with_track = ImageFilter((Condition("track_id", "exists", True),))
    inside, outside = searches.passing(session, asked, with_track, scope)
    assert inside.tolist() == [False, False, False, True, False]
    assert outside.tolist() == [True, False, False, False, True]
    assert searches.visible(session, asked, scope).tolist() == [False, False, True, True, False]
    assert searches.visible(session, asked, None).tolist() == [True, False, True, True, True]
    assert searches.visible(session, asked, frozenset()).tolist() == [False] * 5
    tracks = dict(zip(rows, [None, "t1", "t2", "t3"], strict=True))
    assert searches.values_of(session, asked, "track_id") == tracks


def test_a_key_is_drawn_once_and_shared(database: Database) -> None:
    with transaction(database.engine) as session:
        key = searches.signing_key(session, "cursors")
        assert len(key) == 32 and searches.signing_key(session, "other") != key
    with transaction(database.engine) as session:
        assert searches.signing_key(session, "cursors") == key


def test_rankings_of_before_are_packed() -> None:
    with fresh_database("template0") as database:
        with database.engine.begin() as connection:
            migrate_to(connection, "0005")
            connection.execute(
                text(
                    "INSERT INTO checkpoint (id, net, dim, info, path, state) VALUES ('c1', 'n', 2, '{}', '', 'active')"
                )
            )
            results = '[{"row": 513, "similarity": 0.25, "band": null}, {"row": 0, "similarity": null, "band": null}]'
            for id, frozen in ((UUID(int=1), results), (UUID(int=2), "[]")):
                connection.execute(
                    text(
                        "INSERT INTO search (id, request, checkpoint_id, results, expires_at)"
                        " VALUES (:id, '{}', 'c1', CAST(:results AS jsonb), now())"
                    ),
                    {"id": id, "results": frozen},
                )
        migrate(database.engine)
        with transaction(database.engine) as session:
            packed = searches.ranking(session, UUID(int=1))
            assert packed.rows.tolist() == [513, 0]
            assert packed.similarities[0] == 0.25 and np.isnan(packed.similarities[1])
            assert len(searches.ranking(session, UUID(int=2))) == 0
