"""Explanations over HTTP: what `model.explain` says of the same image and text, and clear refusals of the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from model.encoder import Encoder
from model.explain import explain
from tests.helpers import make_tiny_checkpoint
from tests.service.conftest import Json, Service, picture, pixels, problem, running_service
from tests.service.principals import acting_as, somebody

TEXT = "a man in a red shirt and black pants"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("explained")
    path = folder / "tiny.safetensors"
    make_tiny_checkpoint(path)
    with running_service(folder, checkpoint=Path(path), device="cpu") as service:
        service.camera("north")
        for seed in range(3):
            service.added(picture(seed), camera_id="north", external_id=f"x{seed}")
        service.embed()
        yield service


def asked(service: Service, answer: Json, image_id: str) -> Any:
    return service.http.get(f"/api/v1/searches/{answer['id']}/results/{image_id}/explanation")


def test_an_explanation_is_what_the_network_says(real: Service) -> None:
    answer = real.found({"query": {"text": TEXT}, "limit": 1})
    everything = [
        *answer["results"],
        *real.http.get(f"/api/v1/searches/{answer['id']}/results?limit=9").json()["results"],
    ]
    for result in {one["image_id"]: one for one in everything}.values():
        response = asked(real, answer, result["image_id"])
        assert response.status_code == 200, response.text
        found = response.json()
        seed = int(result["image"]["external_id"].removeprefix("x"))
        expected = explain(cast(Encoder, real.encoder), pixels(seed), TEXT)
        assert [one["phrase"] for one in found["phrases"]] == list(expected.phrases) == ["red shirt", "black pants"]
        for one, row in zip(found["phrases"], expected.strips, strict=True):
            assert one["strips"] == pytest.approx(row.tolist(), abs=1e-5)
            assert one["best_strip"] == expected.best_strip(one["phrase"])
        assert found["strip_bounds"] == [list(bounds) for bounds in expected.strip_bounds]
        assert found["similarity"] == pytest.approx(result["similarity"], abs=1e-5)
        assert (found["text"], found["checkpoint_id"]) == (TEXT, answer["checkpoint_id"])
        assert "not evidence" in found["note"]


def test_what_there_is_no_explanation_for(real: Service) -> None:
    by_image = real.found({"query": {}}, picture(1))
    image_id = by_image["results"][0]["image_id"]
    for answer, sentence in (
        (by_image, "no text"),
        (real.found({"query": {"text": "a man"}}), "names nothing to look for"),
    ):
        response = asked(real, answer, image_id)
        body = problem(response)
        assert (response.status_code, body["code"]) == (501, "no_explanation") and sentence in body["detail"]


def test_only_results_of_the_search_that_one_may_see(real: Service) -> None:
    nobody = real.found({"query": {"text": TEXT}, "filter": {"external_id": {"eq": "x0"}}})
    shown = nobody["results"][0]["image_id"]
    others = [one["image_id"] for one in real.found({"query": {"text": TEXT}})["results"] if one["image_id"] != shown]
    for image_id in (*others, nobody["id"]):
        assert problem(asked(real, nobody, image_id))["code"] == "not_found"
    caller = somebody()
    with acting_as(caller):
        answer = real.found({"query": {"text": TEXT}})
        assert asked(real, answer, shown).status_code == 200
    with acting_as(somebody(cameras=frozenset({"south"}), id=caller.id)):
        assert problem(asked(real, answer, shown))["code"] == "not_found"


def test_a_network_without_strips_has_none(service: Service) -> None:
    service.added(picture(1))
    service.embed()
    answer = service.found({"query": {"text": TEXT}})
    response = asked(service, answer, answer["results"][0]["image_id"])
    assert (response.status_code, problem(response)["code"]) == (501, "no_explanation")
