"""Random galleries, permissions, filters and queries: what a search answers is what plain Python finds, page by page.

With a real PostgreSQL and a real index; the service's own code from the parsed request to the response, without HTTP.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sqlalchemy import text

from indexer import gallery
from indexer import index as index_module
from indexer.database import Database, transaction
from indexer.filters import Scope
from indexer.images import ImageStore
from indexer.replica import Replica
from indexer.tables import Camera
from service import search
from service.context import Context
from service.errors import Refusal
from service.metrics import ServiceMetrics
from service.principals import Principal
from service.rankings import forbidden_hits
from service.search_schemas import SearchRequest, SearchResponse
from service.settings import ServiceSettings
from tests.brute_force import grouped, passes, ranked
from tests.bulk import add_embedded, unit_vectors
from tests.fake_encoder import GridEncoder
from tests.postgres_fixtures import fresh_database

INDEX_SPECS = ["flat", "compressed"]


@pytest.fixture(autouse=True)
def codes_of_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a compressed index of a small gallery searches by its codes."""
    monkeypatch.setattr(index_module, "COMPRESSED_FROM", 4)
    monkeypatch.setattr(index_module, "EXACT_ROWS", 2)


EXAMPLES, ALL_EXAMPLES = 25, 1_000
SEARCHES_EACH = 8
MOST_IMAGES = 60

Json = dict[str, Any]
CAMERAS = {"north": "Station", "south": "Station", "yard": None, "o'hare": "Airport"}
TAGS = ["platform", "staff", "night"]
TRACKS = ["t1", "t2", "t3"]
IDENTITIES = ["anna", "ben"]
VALUES = [3, 3.5, True, "3", "it's"]
START = datetime(2026, 10, 24, 12, tzinfo=UTC)  # clocks in Berlin go back the night after
ENCODER = GridEncoder(24)


@dataclass
class World:
    """A gallery and what it was made of."""

    context: Context
    images: dict[str, Json]
    vectors: dict[str, NDArray[np.float32]]


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with fresh_database() as made:
        with transaction(made.engine) as session:
            gallery.ensure_checkpoint(session, ENCODER.checkpoint_id, "grid", ENCODER.dim, ENCODER.info, "")
        yield made


def random_world(database: Database, folder: Path, draw: random.Random, spec: str, count: int | None = None) -> World:
    with transaction(database.engine) as session:
        session.execute(text("TRUNCATE image, embedding, camera, search, removed_image CASCADE"))
        session.add_all(Camera(id=id, site=site) for id, site in CAMERAS.items())
    known = [
        random_image(draw) for _ in range(draw.choice([0, 5, MOST_IMAGES, MOST_IMAGES]) if count is None else count)
    ]
    vectors = unit_vectors(np.random.default_rng(draw.randrange(2**32)), len(known), ENCODER.dim)
    ids = [str(id) for id in add_embedded(database, ENCODER.checkpoint_id, known, vectors)]
    images = {
        id: {
            **one,
            "image_id": id,
            "site": CAMERAS.get(one["camera_id"]),
            "width_px": one["width"],
            "height_px": one["height"],
        }
        for id, one in zip(ids, known, strict=True)
    }
    replica = Replica(database, ENCODER, spec)
    replica.load()
    nothing = cast(Any, None)  # a search needs no more of the service than this
    options = ServiceSettings(data_dir=folder, ranking_max=1_000)
    parts = (nothing, nothing, nothing, nothing, nothing)
    context = Context(
        options, database, ImageStore(folder), replica, *parts, metrics=ServiceMetrics(), admission=nothing
    )
    return World(context, images, dict(zip(ids, vectors, strict=True)))


def random_image(draw: random.Random) -> Json:
    return {
        "camera_id": draw.choice([None, *CAMERAS]),
        "captured_at": draw.choice([None, START + timedelta(minutes=draw.randrange(36 * 60))]),
        "track_id": draw.choice([None, *TRACKS]),
        "identity": draw.choice([None, *IDENTITIES]),
        "tags": draw.sample(TAGS, draw.randrange(3)),
        "width": draw.randrange(20, 23),
        "height": draw.randrange(40, 43),
        "attributes": draw.choice([{}, {"x": None}, {"x": draw.choice(VALUES)}, {"y": [1, 2]}]),
    }


def random_comparison(draw: random.Random, ids: list[str], cameras: list[str]) -> Json:
    def names(among: list[str]) -> Json:
        one, some = draw.choice([*among, None]), draw.sample(among, draw.randrange(1, len(among) + 1))
        return draw.choice(
            [{"eq": one}, {"ne": one}, {"in": some}, {"not_in": some}, {"exists": draw.choice([True, False])}]
        )

    def clock() -> str:
        return f"{draw.randrange(24):02}:{draw.choice(['00', '30'])}"

    moment = (START + timedelta(minutes=draw.randrange(36 * 60))).isoformat()
    gte, lt = clock(), clock()
    value, some_values = draw.choice(VALUES), draw.sample(VALUES, draw.randrange(1, 4))
    choices = [
        {"camera_id": names(cameras) if cameras else {"exists": False}},
        {"site": names(["Station", "Airport"])},
        {"track_id": names(TRACKS)},
        {"identity": names(IDENTITIES)},
        {"captured_at": {draw.choice(["lt", "lte", "gt", "gte"]): moment}},
        {"captured_at": {"exists": draw.choice([True, False])}},
        {"tags": {draw.choice(["any", "all", "none"]): draw.sample(TAGS, draw.randrange(1, 3))}},
        {"width_px": {draw.choice(["eq", "ne", "lt", "lte", "gt", "gte"]): draw.randrange(20, 23)}},
        {"height_px": {draw.choice(["in", "not_in"]): [draw.randrange(40, 43)]}},
        {"attributes": {draw.choice("xy"): {draw.choice(["eq", "ne"]): draw.choice([value, None])}}},
        {"attributes": {"x": {draw.choice(["in", "not_in"]): some_values}}},
        {"attributes": {draw.choice("xy"): {"exists": draw.choice([True, False])}}},
    ]
    if gte != lt:
        choices += [{"time_of_day": {"gte": gte, "lt": lt, "tz": tz}} for tz in ("UTC", "Europe/Berlin")]
    if ids:
        choices.append({"image_id": {draw.choice(["in", "not_in"]): draw.sample(ids, draw.randrange(1, len(ids) + 1))}})
    return draw.choice(choices)


def random_filter(draw: random.Random, ids: list[str], cameras: list[str]) -> Json:
    wanted: Json = {}
    for _ in range(draw.choice([0, 1, 1, 2])):
        wanted.update(random_comparison(draw, ids, cameras))
    if draw.random() < 0.3:
        wanted["any"] = [random_comparison(draw, ids, cameras) for _ in range(draw.randrange(1, 4))]
    return wanted


def cameras_named(wanted: Json) -> set[str]:
    """The cameras that a filter names in words."""
    named: set[str] = set()
    for clause in (wanted, *wanted.get("any", [])):
        for op, value in clause.get("camera_id", {}).items():
            if op in ("eq", "ne") and value is not None:
                named.add(value)
            elif op in ("in", "not_in"):
                named.update(value)
    return named


def agrees_with_brute_force(database: Database, folder: Path, seed: int, spec: str) -> None:
    """One gallery, and several people asking it several things."""
    draw = random.Random(seed)
    world = random_world(database, folder, draw, spec)
    for n in range(SEARCHES_EACH):
        a_search_agrees(world, draw, f"a man number {seed} {n}", spec)


def a_search_agrees(world: World, draw: random.Random, words: str, spec: str) -> None:
    scope: Scope = draw.choice([None, frozenset(draw.sample(list(CAMERAS), draw.randrange(4)))])
    principal = Principal(uuid4(), "somebody", "user", frozenset({"operator"}), scope)
    allowed = {id for id, image in world.images.items() if scope is None or image["camera_id"] in scope}

    named = list(CAMERAS) if scope is None or draw.random() < 0.1 else sorted(scope)
    wanted, by_image = random_filter(draw, list(world.images), named), draw.random() < 0.3 and bool(world.images)
    group_by = draw.choice([None, None, "track_id", "camera_id", "identity"])
    asked: Json = {"query": {"text": words}, "filter": wanted, "limit": draw.choice([1, 3, 200])}
    vector = ENCODER.embed_texts([words])[0]
    example = draw.choice(sorted(allowed) or list(world.images)) if by_image else None
    if example is not None and draw.random() < 0.2:
        example = draw.choice(list(world.images))
    if example is not None:
        asked["query"] = {"image": {"image_id": example}}
        vector = world.vectors[example]
    if group_by is not None:
        asked |= {"group_by": group_by, "group_members": 10}

    hidden_camera = scope is not None and not cameras_named(wanted) <= scope
    request, before = SearchRequest.model_validate_json(json.dumps(asked)), forbidden_hits.value
    if hidden_camera or (example is not None and example not in allowed):
        with pytest.raises(Refusal) as refused:
            search.run(world.context, principal, request, None)
        assert refused.value.code == ("unknown_camera" if hidden_camera else "unknown_image")
        return
    answer = search.run(world.context, principal, request, None)
    assert forbidden_hits.value == before

    left = {id: image for id, image in world.images.items() if id in allowed and passes(image, wanted)}
    expected = ranked(left, world.vectors, vector)
    assert answer.candidates == len(left)
    assert answer.exact or spec == "compressed"
    results = all_pages(world.context, principal, answer, asked["limit"])
    similarity = dict(expected)
    if group_by is None:
        places = [[id] for id, _ in expected]
    else:
        places = grouped(expected, {id: image[group_by] for id, image in left.items()})
    assert answer.ranked == len(places)
    assert [str(result.image_id) for result in results] == [place[0] for place in places]
    assert [result.rank for result in results] == list(range(1, len(places) + 1))
    for result, place in zip(results, places, strict=True):
        assert result.similarity == pytest.approx(similarity[place[0]], abs=1e-5)
        if group_by is None:
            assert result.group is None
        else:
            assert result.group is not None and result.group.size == len(place)
            assert result.group.key == left[place[0]][group_by]
            assert [str(member.image_id) for member in result.group.members] == place[1:11]


def all_pages(context: Context, principal: Principal, answer: SearchResponse, limit: int) -> list[Any]:
    results, cursor = list(answer.results), answer.next_cursor
    with transaction(context.database.engine) as session:
        while cursor is not None:
            page = search.read_page(session, answer.id, principal, cursor, 7)
            assert len(page.results) == 7 or page.next_cursor is None
            results += page.results
            cursor = page.next_cursor
    assert answer.next_cursor is not None or len(answer.results) <= limit
    return results


OPTIONS: Json = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "phases": [Phase.generate],  # a seed cannot be made simpler
    "suppress_health_check": list(HealthCheck),
}
seeds = st.integers(0, 2**32)


@pytest.mark.parametrize("spec", INDEX_SPECS)
@settings(max_examples=EXAMPLES, **OPTIONS)
@given(seed=seeds)
def test_a_search_is_what_brute_force_finds(database: Database, tmp_path: Path, spec: str, seed: int) -> None:
    agrees_with_brute_force(database, tmp_path, seed, spec)


@pytest.mark.slow
@pytest.mark.parametrize("spec", INDEX_SPECS)
@settings(max_examples=ALL_EXAMPLES, **OPTIONS)
@given(seed=seeds)
def test_a_thousand_searches_are_what_brute_force_finds(
    database: Database, tmp_path: Path, spec: str, seed: int
) -> None:
    agrees_with_brute_force(database, tmp_path, seed, spec)


# ------------------------------------------------------------------------------------- what must never be shown is not


def test_what_the_index_finds_outside_the_filter_is_dropped_and_counted(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index that ignores what is allowed, as one on another device may."""
    world = random_world(database, tmp_path, random.Random(1), "flat", MOST_IMAGES)
    images = {id: one for id, one in world.images.items() if one["camera_id"] == "north"}
    assert 0 < len(images) < len(world.images)
    index = world.context.replica.state.index
    obedient = index.search
    monkeypatch.setattr(index, "search", lambda queries, k, allowed=None: obedient(queries, k))
    before = forbidden_hits.value
    scoped = Principal(None, "somebody", "user", frozenset({"operator"}), frozenset({"north"}))
    answer = search.run(world.context, scoped, SearchRequest.model_validate({"query": {"text": "a man"}}), None)
    assert {str(result.image_id) for result in answer.results} == set(images)
    assert forbidden_hits.value - before == len(world.images) - len(images)


def test_a_scope_that_was_forgotten_is_noticed(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is asked again about what is shown, whatever was allowed before."""
    world = random_world(database, tmp_path, random.Random(1), "flat", MOST_IMAGES)
    inside = {id for id, one in world.images.items() if one["camera_id"] == "north"}
    honest = gallery.allowed_rows
    monkeypatch.setattr(gallery, "allowed_rows", lambda session, wanted, id, scope: honest(session, wanted, id))
    before = forbidden_hits.value
    scoped = Principal(None, "somebody", "user", frozenset({"operator"}), frozenset({"north"}))
    answer = search.run(world.context, scoped, SearchRequest.model_validate({"query": {"text": "a man"}}), None)
    assert {str(result.image_id) for result in answer.results} <= inside
    assert forbidden_hits.value > before
