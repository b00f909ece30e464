"""`person-search search` and the client's calls for searches, against a real service."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service import cli
from service.client import Client, ServiceError
from tests.service.conftest import Json, Service, encoded, picture, pixels, running_service

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("search_cli")) as service:
        for camera, site in (("north", "Station"), ("south", "Harbour")):
            assert service.http.post("/api/v1/cameras", json={"id": camera, "site": site}).status_code == 201
        for n in range(8):
            service.added(
                picture(n),
                camera_id="north" if n % 2 else "south",
                captured_at=f"2026-09-01T{12 + n:02}:00:00+02:00",
                track_id=f"t{n % 3}",
                tags=["platform"] if n < 6 else [],
                external_id=f"x{n}",
            )
        service.embed()
        yield service


@pytest.fixture
def run(filled: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `person-search search ARGUMENTS` against the service; gives exit status, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        address = ["--url", str(filled.http.base_url)]
        monkeypatch.setattr(sys, "argv", ["person-search", "search", *map(str, arguments), *address])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call


def answered(run: Run, *arguments: object) -> Json:
    status, out, err = run(*arguments, "--json")
    assert status == 0, err
    answer: Json = json.loads(out)
    return answer


def test_every_option_reaches_the_service(filled: Service, run: Run) -> None:
    ids = {one["image"]["external_id"]: one["image_id"] for one in filled.found({"query": {"text": "a"}})["results"]}
    answer = answered(
        run, "a man", "--not", "a hat", "--like", ids["x1"], "--like", ids["x2"], "--unlike", ids["x3"],
        "--camera", "north", "--site", "Station", "--tag", "platform", "--since", "2026-09-01T00:00:00Z",
        "--until", "2026-09-02T00:00:00Z", "--between", "10:00-20:00", "--zone", "Europe/Berlin",
        "--filter", '{"identity": {"exists": false}}', "--group-by", "track", "--order-by", "latest", "--depth", "5",
        "--limit", "3", "--reason", "missing person",
    )  # fmt: skip
    assert answer["request"] == {
        "query": {
            "text": "a man",
            "negative_text": "a hat",
            "positive_image_ids": [ids["x1"], ids["x2"]],
            "negative_image_ids": [ids["x3"]],
        },
        "filter": {
            "identity": {"exists": False},
            "camera_id": {"in": ["north"]},
            "site": {"in": ["Station"]},
            "tags": {"all": ["platform"]},
            "captured_at": {"gte": "2026-09-01T00:00:00Z", "lt": "2026-09-02T00:00:00Z"},
            "time_of_day": {"gte": "10:00", "lt": "20:00", "tz": "Europe/Berlin"},
        },
        "limit": 3,
        "group_by": "track_id",
        "order_by": "-captured_at",
        "depth": 5,
        "purpose": {"reason": "missing person"},
    }
    assert {one["image"]["external_id"] for one in answer["results"]} <= {"x1", "x3", "x5"}


def test_a_part_of_a_picture(filled: Service, run: Run, tmp_path: Path) -> None:
    scene = pixels(77, height=120, width=60)
    (tmp_path / "scene.png").write_bytes(encoded(scene))
    box = {"left": 5, "top": 10, "width": 30, "height": 70}
    expected = filled.found({"query": {"image": {"crop": box}}, "limit": 3}, encoded(scene))["results"]
    answer = answered(run, "--image", tmp_path / "scene.png", "--crop", "5,10,30,70", "--limit", "3")
    assert answer["results"] == expected
    id = expected[0]["image_id"]
    stored = answered(run, "a man", "--image-id", id, "--text-weight", "0.25")
    assert stored["request"]["query"]["image"] == {"image_id": id}
    assert stored["request"]["query"]["weights"] == {"text": 0.25, "image": 0.75}


def test_groups_are_printed_with_their_size(run: Run) -> None:
    status, out, _ = run("a man", "--group-by", "camera")
    assert status == 0 and "images" in out
    rows = [line for line in out.splitlines() if "north" in line or "south" in line]
    assert len(rows) == 2 and all(" 4 " in row for row in rows)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--crop", "1,2,3"], "LEFT,TOP,WIDTH,HEIGHT"),
        (["--between", "20:00"], "two times of day"),
        (["--between", "20:00-06:00", "--zone", "Mars/Olympus"], "no time zone 'Mars/Olympus'"),
        (["--filter", "identity=anna"], "--filter is not JSON"),
        (["--filter", "[]"], "wants a JSON object"),
        (["--filter", '{"identiti": {}}'], "no field 'identiti'"),
        (["--camera", "nroth"], "no camera 'nroth'"),
    ],
)
def test_a_mistake_is_one_sentence(run: Run, arguments: list[str], sentence: str) -> None:
    status, _, err = run("a man", *arguments)
    assert status == 1 and sentence in " ".join(err.split())


def test_the_client_does_every_job(filled: Service) -> None:
    with Client(str(filled.http.base_url)) as client:
        found = client.search({"query": {"text": "a man"}, "limit": 3})
        assert [one.rank for one in client.results(found)] == list(range(1, 9))
        refined = client.refine(found.id, {"positive": [found.results[0].image_id]})
        assert refined.parent_id == found.id
        counted = client.facets({"filter": {"tags": {"any": ["platform"]}}})
        assert counted.images == 6
        saved = client.save_search("everybody", {"query": {"text": "a man"}, "limit": 3})
        assert [one.name for one in client.saved_searches()] == ["everybody"]
        again = client.run_saved_search(saved.id, {"reason": "once more"})
        assert again.results == found.results
        with pytest.raises(ServiceError, match="strips"):
            client.explain(found.id, found.results[0].image_id)
