"""Searches over HTTP: the ranking equals brute force within the filter, and the answer tells what it has to tell."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.strategies import randoms, text
from numpy.typing import NDArray
from sqlalchemy import text as sql

from indexer.database import transaction
from indexer.gallery import delete_image
from service.context import Vectors
from tests.fake_encoder import GridEncoder
from tests.service.conftest import Json, Service, picture, pixels, problem, running_service

CAMERAS = ["c1", "c2", "c3"]
TAGS = ["platform", "staff", "evening"]
START = datetime(2026, 9, 1, 12, tzinfo=UTC)
COUNT = 40


def known_about(seed: int) -> Json:
    """What the gallery is told about the picture of this seed; some of it is unknown for some."""
    draw = random.Random(seed)
    known = {
        "external_id": f"x{seed}",
        "camera_id": draw.choice([*CAMERAS, None]),
        "captured_at": draw.choice([None, (START + timedelta(minutes=draw.randrange(600))).isoformat()]),
        "track_id": draw.choice(["t1", "t2", None]),
        "identity": draw.choice(["anna", None]),
        "tags": sorted(draw.sample(TAGS, draw.randrange(3))),
    }
    return {name: value for name, value in known.items() if value is not None}


@pytest.fixture(scope="module")
def gallery(service: Service) -> dict[str, Json]:
    """40 pictures, searchable: id -> what is known about each, and its vector."""
    service.camera(*CAMERAS)
    images = {}
    for seed in range(COUNT):
        known = known_about(seed)
        images[service.added(picture(seed), **known)] = {
            **known,
            "vector": service.encoder.embed_images([pixels(seed)])[0],
        }
    service.embed()
    return images


# ----------------------------------------------------------------------------------------------------- brute force


def holds(image: Json, field: str, operator: str, operand: Any) -> bool:
    """The naive reading of one comparison."""
    value: Any = image.get(field)
    match operator:
        case "exists":
            return bool((value is not None) == operand)
        case "eq":
            return bool(value == operand)
        case "ne":
            return bool(value != operand)
        case "in":
            return value in operand
        case "not_in":
            return value not in operand
        case "any":
            return bool(set(value) & set(operand))
        case "all":
            return set(value) >= set(operand)
        case "none":
            return not set(value) & set(operand)
    if value is None:
        return False
    time, bound = datetime.fromisoformat(value), datetime.fromisoformat(operand)
    return {"lt": time < bound, "lte": time <= bound, "gt": time > bound, "gte": time >= bound}[operator]


def passes(image: Json, wanted: Json) -> bool:
    clauses = [(f, o, v) for f, ops in wanted.items() if f != "any" for o, v in ops.items()]
    either = [(f, o, v) for clause in wanted.get("any", []) for f, ops in clause.items() for o, v in ops.items()]
    return all(holds(image, *c) for c in clauses) and (not either or any(holds(image, *c) for c in either))


def random_comparison(draw: random.Random) -> Json:
    bound = (START + timedelta(minutes=draw.randrange(600))).isoformat()
    return draw.choice(
        [
            {"camera_id": {draw.choice(["eq", "ne"]): draw.choice(CAMERAS)}},
            {"camera_id": {draw.choice(["in", "not_in"]): draw.sample(CAMERAS, draw.randrange(1, 3))}},
            {"camera_id": {draw.choice(["eq", "ne"]): None}},
            {"identity": {"eq": draw.choice(["anna", None])}},
            {"track_id": {"exists": draw.choice([True, False])}},
            {"captured_at": {draw.choice(["lt", "lte", "gt", "gte"]): bound}},
            {"tags": {draw.choice(["any", "all", "none"]): draw.sample(TAGS, draw.randrange(1, 3))}},
        ]
    )


def random_filter(draw: random.Random) -> Json:
    wanted: Json = {}
    for _ in range(draw.randrange(3)):
        wanted.update(random_comparison(draw))
    if draw.random() < 0.4:
        wanted["any"] = [random_comparison(draw) for _ in range(draw.randrange(1, 4))]
    return wanted


def ranked(images: dict[str, Json], vector: NDArray[np.float32], wanted: Json) -> list[tuple[str, float]]:
    similar = {id: float(image["vector"] @ vector) for id, image in images.items() if passes(image, wanted)}
    return sorted(similar.items(), key=lambda pair: -pair[1])


def assert_same_ranking(answer: Json, expected: Sequence[tuple[str, float]]) -> None:
    assert [result["image_id"] for result in answer["results"]] == [id for id, _ in expected]
    got = [result["similarity"] for result in answer["results"]]
    assert got == pytest.approx([similarity for _, similarity in expected], abs=1e-5)
    assert [result["rank"] for result in answer["results"]] == list(range(1, len(expected) + 1))


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(draw=randoms(use_true_random=False))
def test_a_search_under_a_filter_equals_brute_force(
    service: Service, gallery: dict[str, Json], draw: random.Random
) -> None:
    wanted, limit = random_filter(draw), draw.choice([1, 5, 200])
    words = f"a man in {draw.choice(['red', 'blue', 'green'])} number {draw.randrange(1000)}"
    answer = service.found({"query": {"text": words}, "filter": wanted, "limit": limit})
    everything = ranked(gallery, service.encoder.embed_texts([words])[0], wanted)
    assert_same_ranking(answer, everything[:limit])
    assert answer["exact"] is True and answer["candidates"] == len(everything)
    assert (answer["next_cursor"] is None) == (len(everything) <= limit)


# ---------------------------------------------------------------------------------------------------------- queries


def test_a_picture_finds_itself_by_upload_and_by_id(service: Service, gallery: dict[str, Json]) -> None:
    id, image = next(iter(gallery.items()))
    expected = ranked(gallery, image["vector"], {})[:10]
    uploaded = service.found({"query": {}, "limit": 10}, picture(0))
    stored = service.found({"query": {"image": {"image_id": id}}, "limit": 10})
    for answer in (uploaded, stored):
        assert_same_ranking(answer, expected)
        assert answer["results"][0]["image_id"] == id
    assert "sha256" in uploaded["request"]["query"]["image"]


@pytest.mark.parametrize(("words", "image"), [(0.6, 0.4), (1, 0), (0, 2), (5e-324, 5e-324), (1000, 0.001)])
def test_text_and_image_are_fused_as_unit_vectors(
    service: Service, gallery: dict[str, Json], words: float, image: float
) -> None:
    described = "a woman in a white coat"
    share = words / max(words, image), image / max(words, image)
    mixed = share[0] * service.encoder.embed_texts([described])[0] + share[1] * gallery_vector(gallery)
    mixed = mixed / np.linalg.norm(mixed)
    query = {"text": described, "weights": {"text": words, "image": image}}
    answer = service.found({"query": query, "limit": 20}, picture(0))
    assert_same_ranking(answer, ranked(gallery, mixed.astype(np.float32), {})[:20])


def gallery_vector(gallery: dict[str, Json]) -> Vectors:
    vector: Vectors = next(iter(gallery.values()))["vector"]
    return vector


def test_without_weights_both_count_equally(service: Service, gallery: dict[str, Json]) -> None:
    id = next(iter(gallery))
    query: Json = {"text": "a man", "image": {"image_id": id}}
    default = service.found({"query": query})
    equal = service.found({"query": {**query, "weights": {"text": 3, "image": 3}}})
    assert default["results"] == equal["results"]


def test_exact_opposites_cannot_be_mixed(tmp_path: Path) -> None:
    class Opposite(GridEncoder):
        def embed_texts(self, texts: Sequence[str]) -> Vectors:
            return -self.embed_images([pixels(0)] * len(texts))

    with running_service(tmp_path, encoder=Opposite()) as service:
        body = problem(service.search({"query": {"text": "a man"}}, picture(0)))
        assert body["status"] == 422 and "opposite" in body["detail"]


@pytest.mark.usefixtures("gallery")
def test_what_is_equal_after_normalising_finds_the_same(service: Service) -> None:
    plain = service.found({"query": {"text": "a man in a red coat"}})
    odd = service.found({"query": {"text": "  a\tman\r\nin\x00 a \uff52\uff45\uff44 coat\x07 "}})
    assert odd["request"]["query"]["text"] == "a man in a red coat"
    assert odd["results"] == plain["results"]


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(words=text(max_size=600))
def test_any_text_is_answered_or_refused(service: Service, words: str) -> None:
    response = service.search({"query": {"text": words}, "limit": 1})
    if response.status_code == 201:
        assert 1 <= len(response.json()["request"]["query"]["text"]) <= 512
    else:
        assert problem(response)["errors"][0]["pointer"] == "/query/text"


@pytest.mark.usefixtures("gallery")
def test_unknown_words_are_named(service: Service) -> None:
    answer = service.found({"query": {"text": "a man in red with a zweihander"}})
    assert answer["unknown_words"] == ["zweihander"]
    assert any("zweihander" in warning for warning in answer["warnings"])


@pytest.mark.usefixtures("gallery")
@pytest.mark.parametrize("words", ["zweihander qwertz", "🧥🎒", "👩‍🦰", "\u4eba"])
def test_unknown_words_alone_are_answered_with_a_warning(service: Service, words: str) -> None:
    answer = service.found({"query": {"text": words}})
    assert len(answer["results"]) == COUNT
    assert any("means little" in warning for warning in answer["warnings"])


@pytest.mark.usefixtures("gallery")
def test_a_description_that_is_cut_is_said_to_be(service: Service) -> None:
    cut = service.found({"query": {"text": "a red coat and " * 30}})
    assert any("end was ignored" in warning for warning in cut["warnings"])
    whole = service.found({"query": {"text": "a red coat"}})
    assert whole["warnings"] == []


@pytest.mark.usefixtures("gallery")
@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999-14:00"])
def test_the_ends_of_the_calendar_are_times_too(service: Service, time: str) -> None:
    before = service.found({"query": {"text": "a man"}, "filter": {"captured_at": {"lt": time}}})["candidates"]
    after = service.found({"query": {"text": "a man"}, "filter": {"captured_at": {"gt": time}}})["candidates"]
    timed = service.found({"query": {"text": "a man"}, "filter": {"captured_at": {"exists": True}}})["candidates"]
    assert (before, after) == ((0, timed) if time < "1" else (timed, 0))


@pytest.mark.usefixtures("gallery")
def test_an_empty_ranking_says_why(service: Service) -> None:
    answer = service.found({"query": {"text": "a man"}, "filter": {"external_id": {"eq": "nobody"}}})
    assert answer["results"] == [] and answer["candidates"] == 0
    assert any("filter" in warning for warning in answer["warnings"])


def test_a_result_links_to_its_pixels(service: Service, gallery: dict[str, Json]) -> None:
    result = service.found({"query": {"text": "a man"}, "limit": 1})["results"][0]
    known = gallery[result["image_id"]]
    assert result["image"]["camera_id"] == known.get("camera_id")
    assert result["image"]["tags"] == known["tags"]
    assert result["band"] is None
    for link in ("content", "thumbnail"):
        assert service.http.get(result["image"][link]).headers["Content-Type"].startswith("image/")


# -------------------------------------------------------------------------------------------------- stored searches


def test_a_search_can_be_read_again_until_it_expires(service: Service, gallery: dict[str, Json]) -> None:
    body = {"query": {"text": "a man"}, "filter": {"camera_id": {"in": ["c1"]}}, "limit": 7}
    response = service.search(body)
    path = response.headers["Location"]
    assert service.http.get(path).json() == response.json()
    assert response.json()["request"] == body
    assert problem(service.http.get(f"/api/v1/searches/{uuid.uuid4()}"))["code"] == "not_found"
    with transaction(service.database.engine) as session:
        statement = sql("UPDATE search SET expires_at = now() - interval '1 second' WHERE id = :id")
        session.execute(statement, {"id": response.json()["id"]})
    assert problem(service.http.get(path))["code"] == "expired"
    assert service.http.get(path).status_code == 410


def test_a_deleted_image_vanishes_at_once(service: Service, gallery: dict[str, Json]) -> None:
    body = {"query": {"text": "a man"}, "limit": 6}
    before = service.search(body)
    ids = [result["image_id"] for result in before.json()["results"]]
    try:
        for gone in (ids[0], ids[2]):
            assert service.http.delete(f"/api/v1/images/{gone}").status_code == 204
            gallery.pop(gone)
        after = [result["image_id"] for result in service.found(body)["results"]]
        assert after[:4] == [ids[1], ids[3], ids[4], ids[5]] and len(after) == 6, "the page is filled up again"
        stored = service.http.get(before.headers["Location"]).json()["results"]
        assert [(r["rank"], r["image_id"]) for r in stored] == [(2, ids[1]), (4, ids[3]), (5, ids[4]), (6, ids[5])]
        asked = problem(service.search({"query": {"image": {"image_id": ids[0]}}}))
        assert asked["code"] == "unknown_image"
    finally:
        for seed in range(COUNT):
            known = known_about(seed)
            id = service.added(picture(seed), **known)
            gallery.setdefault(id, {**known, "vector": service.encoder.embed_images([pixels(seed)])[0]})
        service.embed()


def test_an_index_that_lags_behind_does_not_shorten_the_page(
    service: Service, gallery: dict[str, Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that were deleted but are still in the index are replaced by the next ones, however many there are."""
    service.context.replica.refresh()
    monkeypatch.setattr(type(service.context.replica), "_follow", lambda *_: None)
    body = {"query": {"text": "a man in blue"}, "limit": 4}
    ids = [result["image_id"] for result in service.found({**body, "limit": 30})["results"]]
    for gone in ids[:20]:  # as another process does it: here, an erasure waits for the index
        with transaction(service.database.engine) as session:
            delete_image(session, uuid.UUID(gone))
        gallery.pop(gone)
    assert len(service.context.replica.state.index) > len(gallery)
    assert [result["image_id"] for result in service.found(body)["results"]] == ids[20:24]


# --------------------------------------------------------------------------------------------- other kinds of gallery


def test_a_gallery_that_is_empty_or_pending_says_so(tmp_path: Path) -> None:
    with running_service(tmp_path) as service:
        empty = service.found({"query": {"text": "a man"}})
        assert empty["results"] == [] and any("no searchable image" in warning for warning in empty["warnings"])
        id = service.added(picture(1))
        waiting = service.found({"query": {"text": "a man"}})
        assert waiting["results"] == [] and waiting["pending"] == 1
        assert problem(service.search({"query": {"image": {"image_id": id}}}))["code"] == "not_indexed"
        service.embed()
        assert service.found({"query": {"text": "a man"}})["pending"] == 0


class Banded(GridEncoder):
    """A checkpoint whose validation measured bands for text, and for nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.info = {**self.info, "validation": {"bands": {"text": {"strong": 0.9, "possible": 0.5}}}}

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """ "at 0.7" lies at that cosine from the first picture."""
        picture_vector = self.embed_images([pixels(1)])[0]
        other = np.roll(picture_vector, 1) - (np.roll(picture_vector, 1) @ picture_vector) * picture_vector
        other = other / np.linalg.norm(other)
        cosines = [float(text.removeprefix("at ")) if text.startswith("at ") else 0.0 for text in texts]
        rows = [cosine * picture_vector + np.sqrt(1 - cosine**2) * other for cosine in cosines]
        return np.stack(rows).astype(np.float32)


@pytest.fixture(scope="module")
def banded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("banded"), encoder=Banded()) as running:
        running.added(picture(1))
        running.embed()
        yield running


@pytest.mark.parametrize(("cosine", "band"), [(0.95, "strong"), (0.7, "possible"), (0.3, "weak")])
def test_bands_come_from_the_validation_of_the_checkpoint(banded: Service, cosine: float, band: str) -> None:
    answer = banded.found({"query": {"text": f"at {cosine}"}})
    assert answer["results"][0]["band"] == band
    assert any("Nothing convincing" in warning for warning in answer["warnings"]) == (band == "weak")


def test_there_is_no_band_for_a_kind_of_query_that_was_not_measured(banded: Service) -> None:
    assert banded.found({"query": {}}, picture(1))["results"][0]["band"] is None


def test_text_for_a_checkpoint_without_text_is_a_conflict(tmp_path: Path) -> None:
    class ImagesOnly(GridEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.has_text = False

    with running_service(tmp_path, encoder=ImagesOnly()) as service:
        assert problem(service.search({"query": {"text": "a man"}}))["code"] == "no_text_branch"
        assert service.search({"query": {}}, picture(1)).status_code == 201
        assert service.http.get("/version").json()["has_text"] is False


def test_the_limit_can_be_lowered(tmp_path: Path) -> None:
    with running_service(tmp_path, search_limit_max=20) as service:
        body = problem(service.search({"query": {"text": "a man"}, "limit": 21}))
        assert body["errors"][0]["pointer"] == "/limit" and "20" in body["detail"]
