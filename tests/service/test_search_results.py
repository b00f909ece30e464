"""How results come: in groups, in the order of time, page by page while the gallery changes; and whose they are."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text as sql

from indexer import audit, gallery
from indexer.audit import Purpose
from indexer.database import transaction
from tests.brute_force import grouped
from tests.bulk import add_embedded, unit_vectors
from tests.fake_encoder import GridEncoder
from tests.service.conftest import Json, Service, picture, pixels, problem, running_service
from tests.service.principals import acting_as, somebody

COUNT = 24
START = datetime(2026, 9, 1, 12, tzinfo=UTC)
ASK: Json = {"query": {"text": "a man in a red coat"}}


@pytest.fixture(scope="module")
def images(service: Service) -> dict[str, Json]:
    """By id what is known about pictures 0 to 23: three tracks, two cameras, and times, some of them unknown."""
    service.camera("north", "south")
    added = {}
    for n in range(COUNT):
        known: Json = {"camera_id": "north" if n % 2 else "south", "external_id": f"x{n}"}
        if n % 4:
            known["track_id"] = f"t{n % 3}"
        if n % 5:
            known["captured_at"] = (START + timedelta(minutes=n * 7 % 10)).isoformat()
        added[service.added(picture(n), **known)] = {"n": n, **known}
    service.embed()
    return added


def best_first(images: dict[str, Json]) -> list[tuple[str, float]]:
    vector = GridEncoder().embed_texts([ASK["query"]["text"]])[0]
    similar = {id: float(GridEncoder().embed_images([pixels(one["n"])])[0] @ vector) for id, one in images.items()}
    return sorted(similar.items(), key=lambda pair: -pair[1])


def shown(answer: Json) -> list[str]:
    return [result["image_id"] for result in answer["results"]]


def pages(service: Service, answer: Json, limit: int | None = None) -> list[Json]:
    """All further results of a search."""
    results, cursor = [], answer["next_cursor"]
    while cursor is not None:
        parameters: Json = {"cursor": cursor} | ({} if limit is None else {"limit": limit})
        response = service.http.get(f"/api/v1/searches/{answer['id']}/results", params=parameters)
        assert response.status_code == 200, response.text
        results += response.json()["results"]
        cursor = response.json()["next_cursor"]
    return results


# ---------------------------------------------------------------------------------------------------------- groups


@pytest.mark.parametrize("field", ["track_id", "camera_id", "identity"])
def test_groups_are_made_of_the_whole_ranking(service: Service, images: dict[str, Json], field: str) -> None:
    answer = service.found({**ASK, "group_by": field, "group_members": 2, "limit": 2})
    expected = grouped(best_first(images), {id: one.get(field) for id, one in images.items()})
    assert answer["ranked"] == len(expected)
    results = answer["results"] + pages(service, answer)
    assert [one["image_id"] for one in results] == [place[0] for place in expected]
    assert [one["rank"] for one in results] == list(range(1, len(expected) + 1))
    for one, place in zip(results, expected, strict=True):
        assert one["group"]["size"] == len(place)
        assert one["group"]["key"] == images[place[0]].get(field)
        assert [member["image_id"] for member in one["group"]["members"]] == place[1:3]


def test_a_group_whose_best_image_goes_shows_the_next_one(service: Service, images: dict[str, Json]) -> None:
    answer = service.found({**ASK, "group_by": "camera_id", "group_members": 1})
    expected = grouped(best_first(images), {id: one["camera_id"] for id, one in images.items()})
    assert [place[:2] for place in expected] == [
        [one["image_id"], one["group"]["members"][0]["image_id"]] for one in answer["results"]
    ]
    gone = expected[0][0]
    known = {name: value for name, value in images.pop(gone).items() if name != "n"}
    try:
        assert service.http.delete(f"/api/v1/images/{gone}").status_code == 204
        after = service.http.get(f"/api/v1/searches/{answer['id']}").json()
        assert [one["image_id"] for one in after["results"]] == [expected[0][1], expected[1][0]]
        assert [one["group"]["size"] for one in after["results"]] == [len(expected[0]) - 1, len(expected[1])]
        assert [one["rank"] for one in after["results"]] == [1, 2]
    finally:
        n = int(known["external_id"].removeprefix("x"))
        images[service.added(picture(n), **known)] = {"n": n, **known}
        service.embed()


def test_groups_of_a_part_of_the_gallery_are_said_to_be(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running_service(tmp_path_factory.mktemp("cut"), ranking_max=3) as service:
        for n in range(5):
            service.added(picture(n))
        service.embed()
        answer = service.found({**ASK, "group_by": "track_id"})
        assert any("3 most similar of 5" in warning for warning in answer["warnings"])
        assert answer["ranked"] == 3 and answer["candidates"] == 5
        assert service.found({**ASK, "limit": 2})["ranked"] == 3
        assert service.found(ASK)["warnings"] == []


# ------------------------------------------------------------------------------------------------------------ time


@pytest.mark.parametrize("depth", [1, 7, 10_000])
@pytest.mark.parametrize("order_by", ["captured_at", "-captured_at"])
def test_the_most_similar_ones_in_the_order_of_time(
    service: Service, images: dict[str, Json], order_by: str, depth: int
) -> None:
    answer = service.found({**ASK, "order_by": order_by, "depth": depth, "limit": 200})
    nearest = [id for id, _ in best_first(images)][:depth]
    timed = [id for id in nearest if "captured_at" in images[id]]
    timed.sort(key=lambda id: images[id]["captured_at"], reverse=order_by.startswith("-"))
    assert shown(answer) == timed + [id for id in nearest if "captured_at" not in images[id]]
    assert answer["ranked"] == len(nearest)
    assert [one["rank"] for one in answer["results"]] == list(range(1, len(nearest) + 1))


def test_groups_in_the_order_of_time_stand_where_their_best_image_does(
    service: Service, images: dict[str, Json]
) -> None:
    answer = service.found({**ASK, "order_by": "captured_at", "depth": 15, "group_by": "track_id"})
    tracks = {id: one.get("track_id") for id, one in images.items()}
    firsts = [place[0] for place in grouped(best_first(images)[:15], tracks)]
    timed = sorted((id for id in firsts if "captured_at" in images[id]), key=lambda id: images[id]["captured_at"])
    assert shown(answer) == timed + [id for id in firsts if "captured_at" not in images[id]]


# ----------------------------------------------------------------------------------------------------------- pages


def test_pages_of_any_size_are_the_same_ranking(service: Service, images: dict[str, Json]) -> None:
    everything = [id for id, _ in best_first(images)]
    answer = service.found({**ASK, "limit": 5})
    for limit in (None, 1, 7, 200):
        results = answer["results"] + pages(service, answer, limit)
        assert [one["image_id"] for one in results] == everything
        assert [one["rank"] for one in results] == list(range(1, COUNT + 1))
    first = service.http.get(f"/api/v1/searches/{answer['id']}/results").json()
    assert first["results"] == answer["results"] and first["next_cursor"] == answer["next_cursor"]


@pytest.mark.usefixtures("images")
def test_a_cursor_that_was_made_up_is_refused(service: Service) -> None:
    one, other = (service.found({**ASK, "limit": 5}) for _ in range(2))
    real = one["next_cursor"]
    changed = [real[:n] + ("B" if real[n] != "B" else "C") + real[n + 1 :] for n in range(len(real))]
    made_up = [
        "",
        "x",
        "é",
        "a" * 200,
        real + "=",
        real + "A",
        real[:-1],
        f" {real}",
        real + "\n",
        other["next_cursor"],
    ]
    for cursor in [*changed, *made_up]:
        response = service.http.get(f"/api/v1/searches/{one['id']}/results", params={"cursor": cursor})
        assert problem(response)["code"] == "invalid_cursor", cursor
    assert service.http.get(f"/api/v1/searches/{one['id']}/results", params={"cursor": real}).status_code == 200


@pytest.mark.usefixtures("images")
def test_a_page_of_an_expired_search_is_gone(service: Service) -> None:
    answer = service.found({**ASK, "limit": 5})
    with transaction(service.database.engine) as session:
        statement = sql("UPDATE search SET expires_at = now() - interval '1 second' WHERE id = :id")
        session.execute(statement, {"id": answer["id"]})
    path = f"/api/v1/searches/{answer['id']}"
    for response in (
        service.http.get(f"{path}/results", params={"cursor": answer["next_cursor"]}),
        service.http.post(f"{path}/refinements", json={"text": "a hat"}),
        service.http.get(f"{path}/results/{shown(answer)[0]}/explanation"),
    ):
        assert (response.status_code, problem(response)["code"]) == (410, "expired")


PAGED = 5_000


def test_paging_through_thousands_while_images_come_and_go(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing twice, and nothing missing of what was there throughout."""
    rng = np.random.default_rng(3)
    with running_service(tmp_path_factory.mktemp("paged")) as service:
        checkpoint_id, dim = service.encoder.checkpoint_id, service.encoder.dim

        def add(n: int) -> list[uuid.UUID]:
            return add_embedded(service.database, checkpoint_id, [{}] * n, unit_vectors(rng, n, dim))

        ids = [id for _ in range(PAGED // 500) for id in add(500)]
        doomed, stop = set(rng.choice(PAGED, PAGED // 10, replace=False).tolist()), threading.Event()
        changed = threading.Semaphore(0)  # released for each change

        def come_and_go() -> None:
            for n in doomed:
                if stop.is_set():
                    return
                add(3)
                with transaction(service.database.engine) as session:
                    gallery.delete_image(session, ids[n])
                changed.release()

        answer = service.found({**ASK, "limit": 200})
        assert answer["ranked"] == PAGED
        thread = threading.Thread(target=come_and_go)
        thread.start()
        results, cursor = list(answer["results"]), answer["next_cursor"]
        try:
            while cursor is not None:
                assert changed.acquire(timeout=30), "something changes before each page"
                page = service.http.get(f"/api/v1/searches/{answer['id']}/results", params={"cursor": cursor}).json()
                results += page["results"]
                cursor = page["next_cursor"]
        finally:
            stop.set()
            thread.join(30)
        seen = [one["image_id"] for one in results]
        assert len(set(seen)) == len(seen), "nothing twice"
        assert {str(id) for n, id in enumerate(ids) if n not in doomed} <= set(seen) <= set(map(str, ids))
        ranks, similarities = [one["rank"] for one in results], [one["similarity"] for one in results]
        assert ranks == sorted(set(ranks)) and ranks[-1] <= PAGED
        assert similarities == sorted(similarities, reverse=True)
        # Read again, the ranking is what it was, less what is gone by now.
        again = service.http.get(f"/api/v1/searches/{answer['id']}").json()
        later = [(one["rank"], one["image_id"]) for one in again["results"] + pages(service, again)]
        assert set(later) <= set(zip(ranks, seen, strict=True))


# ------------------------------------------------------------------------------------------------------------ owners


def test_a_search_is_its_owners_alone(service: Service, images: dict[str, Json]) -> None:
    owner, other = somebody(), somebody()
    with acting_as(owner):
        answer = service.found({**ASK, "limit": 5})
        path = f"/api/v1/searches/{answer['id']}"
        assert service.http.get(path).json() == answer
    for stranger in (other, somebody(cameras=frozenset())):
        with acting_as(stranger):
            for response in (
                service.http.get(path),
                service.http.get(f"{path}/results", params={"cursor": answer["next_cursor"]}),
                service.http.post(f"{path}/refinements", json={"positive": [shown(answer)[0]]}),
                service.http.get(f"{path}/results/{shown(answer)[0]}/explanation"),
            ):
                assert (response.status_code, problem(response)["code"]) == (404, "not_found")
    assert problem(service.http.get(path))["code"] == "not_found", "nor is it everybody's where nobody signs in"
    common = service.found(ASK)
    with acting_as(other):
        assert problem(service.http.get(f"/api/v1/searches/{common['id']}"))["code"] == "not_found"


def test_a_scope_that_shrank_since_holds_for_old_searches(service: Service, images: dict[str, Json]) -> None:
    wide = somebody()
    with acting_as(wide):
        answer = service.found({**ASK, "limit": COUNT})
        groups = service.found({**ASK, "group_by": "camera_id"})
    with acting_as(somebody(cameras=frozenset({"north"}), id=wide.id)):
        left = service.http.get(f"/api/v1/searches/{answer['id']}").json()["results"]
        assert [(one["rank"], one["image_id"]) for one in left] == [
            (one["rank"], one["image_id"])
            for one in answer["results"]
            if images[one["image_id"]]["camera_id"] == "north"
        ]
        again = service.http.get(f"/api/v1/searches/{groups['id']}").json()["results"]
        assert [one["group"]["key"] for one in again] == ["north"]


# ------------------------------------------------------------------------------------------------------------- audit


class Recorded:
    """What was written into the audit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.acts: list[tuple[str, Any, Any, Json]] = []
        monkeypatch.setattr(audit, "record", self.record)

    def record(self, session: Any, actor: Any, action: str, object: Any = None, **more: Any) -> None:
        self.acts.append((action, object, actor, more))


@pytest.mark.usefixtures("images")
def test_a_search_is_recorded_with_its_purpose_and_without_its_words(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = somebody("investigator")
    with acting_as(caller):
        case = uuid.UUID(service.http.post("/api/v1/cases", json={"title": "missing person"}).json()["id"])
        recorded = Recorded(monkeypatch)
        asked = {**ASK, "purpose": {"case_id": str(case), "reason": "missing person"}, "limit": 3}
        answer = service.found(asked)
        service.http.post(f"/api/v1/searches/{answer['id']}/refinements", json={"positive": [shown(answer)[0]]})
    (action, object, actor, more), (_, _, _, refined) = recorded.acts
    assert (action, object, actor) == ("search.run", ("search", answer["id"]), caller.actor)
    assert more["purpose"] == Purpose(case, "missing person") and more["checkpoint_id"] == answer["checkpoint_id"]
    expected = {"kinds": ["text"], "limit": 3, "parent": None, "candidates": COUNT, "exact": True}
    assert more["detail"] == expected
    assert "red coat" not in str(more)
    assert refined["detail"]["kinds"] == ["text", "positives"] and refined["detail"]["parent"] == answer["id"]
    assert refined["purpose"] == Purpose(case, "missing person"), "a refinement is for what its search was for"


@pytest.mark.usefixtures("images")
def test_a_search_that_cannot_be_recorded_is_not_kept(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError("no audit")

    count = sql("SELECT count(*) FROM search")
    with transaction(service.database.engine) as session:
        before = session.scalar(count)
    monkeypatch.setattr(audit, "record", broken)
    assert problem(service.search(ASK))["code"] == "internal"
    with transaction(service.database.engine) as session:
        assert session.scalar(count) == before


# ---------------------------------------------------------------------------------------------------- saved searches

SAVED = "/api/v1/saved-searches"


@pytest.mark.usefixtures("images")
def test_a_saved_search_is_run_again(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    request = {
        **ASK,
        "filter": {
            "captured_at": {"gte": "2026-09-01T12:00:00+02:00"},
            "time_of_day": {"gte": "10:00", "lt": "09:00", "tz": "UTC"},
            "any": [{"identity": {"eq": None}}, {"attributes": {"x": {"in": [1, True]}}}],
        },
        "group_by": "track_id",
        "limit": 3,
    }
    response = service.http.post(SAVED, json={"name": "Red coats", "request": request})
    assert response.status_code == 201, response.text
    path, saved = response.headers["Location"], response.json()
    assert service.http.get(path).json() == saved and saved["name"] == "Red coats"
    recorded = Recorded(monkeypatch)
    run = service.http.post(f"{path}/run", json={"purpose": {"reason": "every day"}})
    assert run.status_code == 201 and run.headers["Location"] == f"/api/v1/searches/{run.json()['id']}"
    assert run.json()["results"] == service.found(request)["results"]
    assert recorded.acts[0][3]["purpose"] == Purpose(None, "every day")
    # Changed, listed, and gone.
    changed = service.http.patch(path, json={"request": {"query": {"text": "a hat"}}}).json()
    assert (changed["name"], changed["request"]) == ("Red coats", {"query": {"text": "a hat"}})
    assert service.http.patch(path, json={"name": "Hats"}).json()["request"] == {"query": {"text": "a hat"}}
    listed = service.http.get(SAVED).json()["saved_searches"]
    assert [(one["id"], one["name"]) for one in listed] == [(saved["id"], "Hats")]
    assert service.http.delete(path).status_code == 204
    assert problem(service.http.get(path))["code"] == "not_found"
    assert [act[0] for act in recorded.acts if act[0] != "search.run"] == [
        "saved_search.change",
        "saved_search.change",
        "saved_search.delete",
    ]


def test_saved_searches_are_their_owners_alone(service: Service) -> None:
    body = {"name": "mine", "request": ASK}
    with acting_as(somebody()):
        path = service.http.post(SAVED, json=body).headers["Location"]
        assert len(service.http.get(SAVED).json()["saved_searches"]) == 1
    with acting_as(somebody()):
        assert service.http.get(SAVED).json() == {"saved_searches": []}
        for response in (
            service.http.get(path),
            service.http.patch(path, json={"name": "yours"}),
            service.http.delete(path),
            service.http.post(f"{path}/run", json={}),
        ):
            assert (response.status_code, problem(response)["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({"name": "", "request": ASK}, "string_too_short", "/name"),
        ({"name": "x"}, "missing", "/request"),
        ({"name": "x", "request": {"query": {"text": "a"}, "limti": 3}}, "unknown_field", "/request/limti"),
        (
            {"name": "x", "request": {"query": {"image": {"crop": {"left": 0, "top": 0, "width": 9, "height": 9}}}}},
            "invalid_request",
            "/request/query/image",
        ),
    ],
)
def test_what_cannot_be_saved_is_refused(service: Service, body: Json, code: str, pointer: str) -> None:
    refused = problem(service.http.post(SAVED, json=body))
    assert [(error["code"], error["pointer"]) for error in refused["errors"]] == [(code, pointer)]


# ------------------------------------------------------------------------------------------------------------ facets


def test_facets_count_what_a_filter_leaves(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running_service(tmp_path_factory.mktemp("facets")) as service:
        for id, site in (("a", "Station"), ("b", "Station"), ("c", None)):
            assert service.http.post("/api/v1/cameras", json={"id": id, "site": site}).status_code == 201
        known: list[Json] = [
            # 23:30 in Berlin on 24 October, and half past two twice in the night after.
            {"camera_id": "a", "captured_at": "2026-10-24T21:30:00Z", "tags": ["x", "y"], "identity": "anna"},
            {"camera_id": "a", "captured_at": "2026-10-25T00:30:00Z", "tags": ["x"]},
            {"camera_id": "b", "captured_at": "2026-10-25T01:30:00Z"},
            {"camera_id": "c", "captured_at": "2026-10-25T12:00:00Z", "tags": ["y"]},
            {"identity": "ben"},
        ]
        for n, one in enumerate(known):
            service.added(picture(n), **one)

        def counted(**body: Any) -> Json:
            response = service.http.post("/api/v1/images/facets", json=body)
            assert response.status_code == 200, response.text
            answer: Json = response.json()
            return answer

        def pairs(found: list[Json]) -> list[tuple[Any, int]]:
            return [(one.get("value", one.get("hour")), one["count"]) for one in found]

        berlin = counted(tz="Europe/Berlin")
        assert berlin["images"] == 5
        assert pairs(berlin["cameras"]) == [("a", 2), ("b", 1), ("c", 1), (None, 1)]
        assert pairs(berlin["sites"]) == [("Station", 3), (None, 2)]
        assert pairs(berlin["tags"]) == [("x", 2), ("y", 2)]
        assert pairs(berlin["days"]) == [("2026-10-24", 1), ("2026-10-25", 3)]
        assert pairs(berlin["hours"]) == [(2, 2), (13, 1), (23, 1)]
        assert berlin["identity"] == {"known": 2, "unknown": 3}
        assert pairs(counted()["hours"]) == [(0, 1), (1, 1), (12, 1), (21, 1)]
        assert pairs(counted(limit=1)["cameras"]) == [("a", 2)]
        narrow = counted(filter={"tags": {"any": ["x"]}, "site": {"eq": "Station"}})
        assert (narrow["images"], pairs(narrow["cameras"]), pairs(narrow["tags"])) == (
            2,
            [("a", 2)],
            [("x", 2), ("y", 1)],
        )
        empty = counted(filter={"identity": {"eq": "nobody"}})
        assert (empty["images"], empty["cameras"], empty["days"], empty["identity"]) == (
            0, [], [], {"known": 0, "unknown": 0},
        )  # fmt: skip
        with acting_as(somebody(cameras=frozenset({"b", "c"}))):
            scoped = counted()
            assert (scoped["images"], pairs(scoped["cameras"])) == (2, [("b", 1), ("c", 1)])
            hidden = service.http.post("/api/v1/images/facets", json={"filter": {"camera_id": {"eq": "a"}}})
            assert problem(hidden)["code"] == "unknown_camera"
        wrong = problem(service.http.post("/api/v1/images/facets", json={"tz": "Mars/Olympus"}))
        assert (wrong["code"], wrong["errors"][0]["pointer"]) == ("invalid_filter", "/tz")
