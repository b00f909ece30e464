"""What can be searched for: mixtures against naive sums, crops, examples, refinements, and what a scope hides."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import text as sql

from indexer import checkpoints
from indexer.database import transaction
from service.query_vector import NEGATIVE_TEXT, NEGATIVES, POSITIVES, Asked
from service.search import bands_of
from tests.fake_encoder import GridEncoder
from tests.service.conftest import Json, Service, encoded, picture, pixels, problem, running_service
from tests.service.principals import acting_as, somebody

COUNT = 20
Vector = NDArray[np.float64]


@pytest.fixture(scope="module")
def ids(service: Service) -> list[str]:
    """Pictures 0 to 19: half of camera north, half of south."""
    service.camera("north", "south")
    added = [service.added(picture(n), camera_id="north" if n % 2 else "south") for n in range(COUNT)]
    service.embed()
    return added


def image(n: int) -> Vector:
    vector: Vector = GridEncoder().embed_images([pixels(n)])[0].astype(np.float64)
    return vector


def words(text: str) -> Vector:
    vector: Vector = GridEncoder().embed_texts([text])[0].astype(np.float64)
    return vector


def unit(vector: Vector) -> Vector:
    return vector / sum(number**2 for number in vector) ** 0.5


def assert_ranked_by(answer: Json, ids: Sequence[str], query: Vector) -> None:
    similarities = {id: float(image(n) @ query) for n, id in enumerate(ids)}
    expected = sorted(ids, key=lambda id: -similarities[id])
    assert [result["image_id"] for result in answer["results"]] == expected
    got = [result["similarity"] for result in answer["results"]]
    assert got == pytest.approx([similarities[id] for id in expected], abs=1e-5)


# ---------------------------------------------------------------------------------------------------------- mixing


def test_the_weights_are_those_of_the_documentation() -> None:
    assert (POSITIVES, NEGATIVES, NEGATIVE_TEXT) == (0.75, 0.15, 0.5)


def test_a_negative_text_moves_away(service: Service, ids: list[str]) -> None:
    answer = service.found({"query": {"text": "a red coat", "negative_text": "a hat"}})
    assert_ranked_by(answer, ids, unit(words("a red coat") - 0.5 * words("a hat")))
    assert answer["request"]["query"]["negative_text"] == "a hat"


def test_examples_move_towards_and_away(service: Service, ids: list[str]) -> None:
    query = {"text": "a red coat", "positive_image_ids": [ids[3], ids[5]], "negative_image_ids": [ids[4]]}
    moved = words("a red coat") + 0.75 * (image(3) + image(5)) / 2 - 0.15 * image(4)
    assert_ranked_by(service.found({"query": query}), ids, unit(moved))


def test_positive_examples_are_enough(service: Service, ids: list[str]) -> None:
    assert_ranked_by(service.found({"query": {"positive_image_ids": [ids[7]]}}), ids, image(7))
    query = {"positive_image_ids": [ids[1], ids[2]], "negative_image_ids": [ids[9], ids[10]], "negative_text": "a hat"}
    moved = unit(0.75 * (image(1) + image(2)) / 2 - 0.15 * (image(9) + image(10)) / 2)
    assert_ranked_by(service.found({"query": query}), ids, unit(moved - 0.5 * words("a hat")))


def test_everything_at_once_is_mixed_in_the_documented_order(service: Service, ids: list[str]) -> None:
    query = {
        "text": "a red coat",
        "image": {"image_id": ids[0]},
        "weights": {"text": 1, "image": 3},
        "negative_text": "a hat",
        "positive_image_ids": [ids[1]],
        "negative_image_ids": [ids[2]],
    }
    described = unit(0.25 * words("a red coat") + 0.75 * image(0))
    moved = unit(described + 0.75 * image(1) - 0.15 * image(2))
    assert_ranked_by(service.found({"query": query}), ids, unit(moved - 0.5 * words("a hat")))


def test_bands_are_for_kinds_of_query_that_were_measured() -> None:
    class Banded(GridEncoder):
        def __init__(self) -> None:
            super().__init__()
            thresholds = {"strong": 0.9, "possible": -1.0}
            self.info = {**self.info, "validation": {"bands": {"text": thresholds, "text+image": thresholds}}}

    encoder = Banded()
    vector = encoder.embed_texts(["a man"])[0]
    assert bands_of(encoder, Asked(text=vector)) == {"strong": 0.9, "possible": -1.0}
    assert bands_of(encoder, Asked(text=vector, image=vector)) is not None
    assert bands_of(encoder, Asked(image=vector)) is None
    assert bands_of(encoder, Asked(text=vector, positives=[vector])) is None
    assert bands_of(encoder, Asked(text=vector, negative_text=vector)) is None


class Reader(GridEncoder):
    """It reads a picture and a text together."""

    def __init__(self) -> None:
        super().__init__()
        self.has_pairs = True
        self.info = {**self.info, "validation": {"bands": {"text+image": {"strong": 0.9, "possible": -1.0}}}}


def test_text_and_image_are_read_together_by_a_network_that_can(tmp_path: Path) -> None:
    with running_service(tmp_path, encoder=Reader()) as service:
        ids = [service.added(picture(n)) for n in range(COUNT)]
        service.embed()
        text = {"text": "a red coat"}
        together = unit(image(3) * words("a red coat"))
        sent = service.found({"query": text, "limit": COUNT}, picture(3))
        assert_ranked_by(sent, ids, together)
        assert {result["band"] for result in sent["results"]} == {None}, "bands are measured on mixed vectors"
        stored = service.found({"query": {**text, "image": {"image_id": ids[3]}}, "limit": COUNT})
        assert_ranked_by(stored, ids, together)
        weighted = {**text, "weights": {"text": 1, "image": 1}}
        assert_ranked_by(
            service.found({"query": weighted, "limit": COUNT}, picture(3)), ids, unit(words("a red coat") + image(3))
        )
        examples = {**text, "positive_image_ids": [ids[5]]}
        answer = service.found({"query": examples, "limit": COUNT}, picture(3))
        assert_ranked_by(answer, ids, unit(together + 0.75 * image(5)))
        alone = service.found({"query": {}, "limit": COUNT}, picture(3))
        assert_ranked_by(alone, ids, image(3))


@pytest.mark.usefixtures("ids")
def test_unknown_words_of_a_negative_text_are_named(service: Service) -> None:
    answer = service.found({"query": {"text": "a red coat", "negative_text": "a zweihander"}})
    assert answer["unknown_words"] == ["zweihander"]
    assert service.found({"query": {"text": "a red coat"}})["unknown_words"] == []


# ----------------------------------------------------------------------------------------------------------- crops

BOX = {"left": 5, "top": 10, "width": 30, "height": 70}


def scene() -> Image.Image:
    """Larger than a person."""
    return pixels(77, height=120, width=60)


def cropped(box: Json) -> Vector:
    corners = (box["left"], box["top"], box["left"] + box["width"], box["top"] + box["height"])
    vector: Vector = GridEncoder().embed_images([scene().crop(corners)])[0].astype(np.float64)
    return vector


def test_a_part_of_a_picture_is_searched_with(service: Service, ids: list[str]) -> None:
    sent = service.found({"query": {"image": {"crop": BOX}}, "limit": COUNT}, encoded(scene()))
    assert_ranked_by(sent, ids, cropped(BOX))
    assert sent["request"]["query"]["image"]["crop"] == BOX
    assert sent["warnings"] == []
    id = service.added(encoded(scene()))
    try:  # not embedded yet: a crop is taken from the store
        stored = service.found({"query": {"image": {"image_id": id, "crop": BOX}}, "limit": COUNT})
        assert_ranked_by(stored, ids, cropped(BOX))
    finally:
        assert service.http.delete(f"/api/v1/images/{id}").status_code == 204


def test_a_crop_is_of_the_upright_image_at_its_full_size(service: Service, ids: list[str]) -> None:
    large = scene().resize((1800, 3600), Image.Resampling.NEAREST)  # above what is kept in memory of an image
    lying = large.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it a quarter clockwise to be upright
    box = {name: 30 * value for name, value in BOX.items()}
    sent = service.found({"query": {"image": {"crop": box}}, "limit": COUNT}, encoded(lying, exif=exif))
    corners = (box["left"], box["top"], box["left"] + box["width"], box["top"] + box["height"])
    expected = GridEncoder().embed_images([large.crop(corners)])[0].astype(np.float64)
    similarities = {id: float(image(n) @ expected) for n, id in enumerate(ids)}
    for result in sent["results"]:
        assert result["similarity"] == pytest.approx(similarities[result["image_id"]], abs=2e-3)


@pytest.mark.usefixtures("ids")
def test_a_small_crop_is_warned_of(service: Service) -> None:
    box = {**BOX, "width": 10, "height": 12}
    answer = service.found({"query": {"image": {"crop": box}}}, encoded(scene()))
    assert any("10 x 12" in warning for warning in answer["warnings"])


@pytest.mark.parametrize(
    ("box", "code"),
    [
        ({**BOX, "left": 40}, "invalid_crop"),
        ({**BOX, "top": 119}, "invalid_crop"),
        ({**BOX, "width": 100_000}, "invalid_crop"),
        ({**BOX, "width": 3}, "image_too_small"),
    ],
)
def test_a_crop_outside_the_image_is_refused(service: Service, ids: list[str], box: Json, code: str) -> None:
    body = problem(service.search({"query": {"image": {"crop": box}}}, encoded(scene())))
    assert (body["status"], body["code"], body["errors"][0]["pointer"]) == (422, code, "/query/image/crop")


# ---------------------------------------------------------------------------------------------------- what is refused

SOME = str(uuid.UUID(int=1))
REFUSED: dict[str, tuple[Json, str, str]] = {
    "a crop of nothing": ({"query": {"text": "a man", "image": {"crop": BOX}}}, "invalid_request", "/query/image"),
    "an image that says nothing": ({"query": {"image": {}}}, "value_error", "/query/image"),
    "negative examples alone": ({"query": {"negative_image_ids": [SOME]}}, "invalid_request", "/query"),
    "a negative text alone": ({"query": {"negative_text": "a hat"}}, "invalid_request", "/query"),
    "an empty negative text": ({"query": {"text": "a", "negative_text": " "}}, "value_error", "/query/negative_text"),
    "an example that is not there": (
        {"query": {"positive_image_ids": [SOME]}}, "unknown_image", "/query/positive_image_ids",
    ),
    "a negative example that is not there": (
        {"query": {"text": "a man", "negative_image_ids": [SOME]}}, "unknown_image", "/query/negative_image_ids",
    ),
    "both positive and negative": (
        {"query": {"positive_image_ids": [SOME], "negative_image_ids": [SOME]}}, "value_error", "/query",
    ),
    "a depth without time": ({"query": {"text": "a"}, "depth": 10}, "invalid_request", "/depth"),
    "members without groups": ({"query": {"text": "a"}, "group_members": 2}, "invalid_request", "/group_members"),
    "an unknown grouping": ({"query": {"text": "a"}, "group_by": "tags"}, "literal_error", "/group_by"),
    "a purpose that says nothing": ({"query": {"text": "a"}, "purpose": {}}, "value_error", "/purpose"),
    "a zone nobody knows": (
        {"query": {"text": "a"}, "filter": {"time_of_day": {"gte": "20:00", "lt": "06:00", "tz": "Mars/Olympus"}}},
        "invalid_filter",
        "/filter/time_of_day/tz",
    ),
    "a zone nobody knows in any": (
        {"query": {"text": "a"}, "filter": {"any": [{"time_of_day": {"gte": "20:00", "lt": "06:00", "tz": "X"}}]}},
        "invalid_filter",
        "/filter/any/0/time_of_day/tz",
    ),
    "no time of day": (
        {"query": {"text": "a"}, "filter": {"time_of_day": {"gte": "20:00", "lt": "20:00:00", "tz": "UTC"}}},
        "value_error",
        "/filter/time_of_day",
    ),
    "an hour too late": (
        {"query": {"text": "a"}, "filter": {"time_of_day": {"gte": "24:00", "lt": "20:00", "tz": "UTC"}}},
        "string_pattern_mismatch",
        "/filter/time_of_day/gte",
    ),
    "a size as text": (
        {"query": {"text": "a"}, "filter": {"width_px": {"eq": "3"}}}, "int_type", "/filter/width_px/eq",
    ),
    "attributes of two in any": (
        {"query": {"text": "a"}, "filter": {"any": [{"attributes": {"a": {"eq": 1}, "b": {"eq": 1}}}]}},
        "value_error",
        "/filter/any",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused_with_its_field(service: Service, name: str) -> None:
    request, code, pointer = REFUSED[name]
    body = problem(service.search(request))
    assert body["status"] == 422
    assert [(error["code"], error["pointer"]) for error in body["errors"]] == [(code, pointer)]


@pytest.mark.usefixtures("ids")
def test_attributes_and_sites_and_sizes_narrow_a_search(service: Service) -> None:
    """What a filter means is held to plain Python in test_search_exactness.py; here it comes over HTTP."""
    service.http.post("/api/v1/cameras", json={"id": "gate", "site": "Airport"})
    known = {"camera_id": "gate", "attributes": {"gate": 7, "side": "air"}, "captured_at": "2026-07-01T20:30:00+02:00"}
    id = service.added(encoded(pixels(60, height=100, width=40)), **known)
    service.embed()
    try:
        for wanted in (
            {"site": {"eq": "Airport"}},
            {"attributes": {"gate": {"in": [7, 8]}, "side": {"eq": "air"}}},
            {"height_px": {"gte": 100}},
            {"image_id": {"in": [id]}},
            {"time_of_day": {"gte": "20:00", "lt": "21:00", "tz": "Europe/Berlin"}},
        ):
            answer = service.found({"query": {"text": "a man"}, "filter": wanted})
            assert [result["image_id"] for result in answer["results"]] == [id], wanted
            assert answer["request"]["filter"] == wanted
    finally:
        assert service.http.delete(f"/api/v1/images/{id}").status_code == 204


# ---------------------------------------------------------------------------------------------------- refinements


def refined(service: Service, search_id: str, **body: Any) -> Json:
    response = service.http.post(f"/api/v1/searches/{search_id}/refinements", json=body)
    assert response.status_code == 201, response.text
    assert response.headers["Location"] == f"/api/v1/searches/{response.json()['id']}"
    answer: Json = response.json()
    return answer


def test_a_refinement_is_a_new_search_with_a_parent(service: Service, ids: list[str]) -> None:
    first = service.found({"query": {"text": "a red coat"}, "filter": {"camera_id": {"eq": "north"}}, "limit": COUNT})
    second = refined(service, first["id"], positive=[ids[3]], negative=[ids[4]])
    assert second["parent_id"] == first["id"] and first["parent_id"] is None
    assert service.http.get(f"/api/v1/searches/{second['id']}").json()["parent_id"] == first["id"]
    assert second["request"]["filter"] == first["request"]["filter"]
    north = [id for n, id in enumerate(ids) if n % 2]
    moved = unit(words("a red coat") + 0.75 * image(3) - 0.15 * image(4))
    similarities = {id: float(image(ids.index(id)) @ moved) for id in north}
    assert [one["image_id"] for one in second["results"]] == sorted(north, key=lambda id: -similarities[id])
    # What is said last holds: 4 was negative and is positive now, 3 stays, the text is another.
    third = refined(service, second["id"], positive=[ids[4], ids[4]], text="a hat")
    query = third["request"]["query"]
    assert query == {"text": "a hat", "positive_image_ids": [ids[3], ids[4]]}
    assert third["parent_id"] == second["id"]


def test_a_search_by_a_picture_of_ones_own_can_be_refined(service: Service, ids: list[str]) -> None:
    first = service.found({"query": {"image": {"crop": BOX}}, "limit": COUNT}, encoded(scene()))
    second = refined(service, first["id"], positive=[ids[3]])
    assert_ranked_by(second, ids, unit(cropped(BOX) + 0.75 * image(3)))
    assert second["request"]["query"]["image"] == first["request"]["query"]["image"], "its checksum, still"
    third = refined(service, second["id"], text="a red coat")
    described = unit(words("a red coat") + cropped(BOX))
    assert_ranked_by(third, ids, unit(described + 0.75 * image(3)))


def test_a_picture_another_checkpoint_looked_at_is_asked_for_again(service: Service, ids: list[str]) -> None:
    by_text, by_picture = service.found({"query": {"text": "a red coat"}}), service.found({"query": {}}, picture(1))
    with transaction(service.database.engine) as session:
        checkpoints.add(session, "earlier", "grid", 48, {}, "")
        session.execute(sql("UPDATE search SET checkpoint_id = 'earlier'"))
    path = f"/api/v1/searches/{by_picture['id']}/refinements"
    refused = service.http.post(path, json={"positive": [ids[3]]})
    assert (refused.status_code, problem(refused)["code"]) == (409, "checkpoint_conflict")
    assert refined(service, by_text["id"], positive=[ids[3]])["checkpoint_id"] == service.encoder.checkpoint_id
    explained = service.http.get(f"/api/v1/searches/{by_text['id']}/results/{ids[3]}/explanation")
    assert (explained.status_code, problem(explained)["code"]) == (409, "checkpoint_conflict")


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({}, "value_error", "/"),
        ({"positive": [SOME], "negative": [SOME]}, "value_error", "/"),
        ({"positive": [SOME]}, "unknown_image", "/query/positive_image_ids"),
        ({"text": ""}, "string_too_short", "/text"),
        ({"positives": [SOME]}, "unknown_field", "/positives"),
    ],
)
def test_a_refinement_that_makes_no_sense_is_refused(service: Service, body: Json, code: str, pointer: str) -> None:
    first = service.found({"query": {"text": "a red coat"}})
    refused = problem(service.http.post(f"/api/v1/searches/{first['id']}/refinements", json=body))
    assert [(error["code"], error["pointer"]) for error in refused["errors"]] == [(code, pointer)]
    absent = problem(service.http.post(f"/api/v1/searches/{SOME}/refinements", json={"text": "a hat"}))
    assert absent["code"] == "not_found"


# --------------------------------------------------------------------------------------------------------- scopes


def test_what_is_out_of_scope_is_as_if_absent(service: Service, ids: list[str]) -> None:
    north, south = ids[1], ids[0]
    with acting_as(somebody(cameras=frozenset({"north"}))):
        seen = service.found({"query": {"text": "a man"}, "limit": 200})
        assert {result["image_id"] for result in seen["results"]} == set(ids[1::2])
        assert seen["candidates"] == COUNT // 2
        for query, pointer in [
            ({"image": {"image_id": south}}, "/query/image/image_id"),
            ({"image": {"image_id": south, "crop": {**BOX, "left": 0, "width": 8}}}, "/query/image/image_id"),
            ({"positive_image_ids": [north, south]}, "/query/positive_image_ids"),
            ({"text": "a man", "negative_image_ids": [south]}, "/query/negative_image_ids"),
        ]:
            body = problem(service.search({"query": query}))
            assert (body["code"], body["errors"][0]["pointer"]) == ("unknown_image", pointer)
        assert service.found({"query": {"image": {"image_id": north}}})["results"][0]["image_id"] == north
        hidden = problem(service.search({"query": {"text": "a"}, "filter": {"camera_id": {"ne": "south"}}}))
        assert hidden["code"] == "unknown_camera"
    with acting_as(somebody(cameras=frozenset())):
        nothing = service.found({"query": {"text": "a man"}})
        assert nothing["results"] == [] and nothing["candidates"] == 0


def test_pending_images_out_of_scope_are_not_counted(service: Service, ids: list[str]) -> None:
    id = service.added(picture(500), camera_id="south")
    try:
        with acting_as(somebody(cameras=frozenset({"north"}))):
            assert service.found({"query": {"text": "a man"}})["pending"] == 0
        answer = service.found({"query": {"text": "a man"}})
        assert answer["pending"] == 1
        assert any("1 image is not embedded yet" in warning for warning in answer["warnings"])
    finally:
        assert service.http.delete(f"/api/v1/images/{id}").status_code == 204


def test_whoever_may_not_search_is_refused(service: Service) -> None:
    with acting_as(somebody("ingest", "auditor", "admin")):
        for method, path, body in [
            ("POST", "/searches", {"query": {"text": "a man"}}),
            ("GET", f"/searches/{SOME}", None),
            ("GET", f"/searches/{SOME}/results", None),
            ("POST", f"/searches/{SOME}/refinements", {"text": "a man"}),
            ("GET", f"/searches/{SOME}/results/{SOME}/explanation", None),
            ("POST", "/images/facets", {}),
            ("POST", "/saved-searches", {"name": "x", "request": {"query": {"text": "a"}}}),
            ("GET", "/saved-searches", None),
            ("GET", f"/saved-searches/{SOME}", None),
            ("PATCH", f"/saved-searches/{SOME}", {"name": "x"}),
            ("DELETE", f"/saved-searches/{SOME}", None),
            ("POST", f"/saved-searches/{SOME}/run", {}),
        ]:
            content = None if body is None else json.dumps(body)
            headers = {"Content-Type": "application/json"}
            response = service.http.request(method, f"/api/v1{path}", content=content, headers=headers)
            assert problem(response)["code"] == "forbidden", (method, path)


def test_a_checkpoint_without_text_refuses_a_negative_text(tmp_path_factory: pytest.TempPathFactory) -> None:
    class ImagesOnly(GridEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.has_text = False

    with running_service(tmp_path_factory.mktemp("images"), encoder=ImagesOnly()) as service:
        body = problem(service.search({"query": {"negative_text": "a hat"}}, picture(1)))
        assert (body["code"], body["errors"][0]["pointer"]) == ("no_text_branch", "/query/negative_text")
