"""With MCJA active an infrared image finds the same person's visible images, and a text query is a 409."""

from __future__ import annotations

from pathlib import Path

from model.datasets_infrared import read_synth_infrared
from model.recipes import RECIPES, tiny
from model.train import train
from tests.model.infrared_toys import make_rendered
from tests.service.conftest import problem, running_service


def test_an_infrared_image_finds_the_same_person_by_day(tmp_path: Path) -> None:
    root = make_rendered(tmp_path / "data")
    best = train(tiny(RECIPES["mcja_synth"]()), root, tmp_path / "run", progress=False, threads=1)
    samples = read_synth_infrared(root, "test")
    with running_service(tmp_path / "service", checkpoint=best) as service:
        person_of = {
            service.added(sample.path.read_bytes()): sample.pid for sample in samples if sample.modality == "visible"
        }
        service.embed()
        right = []
        for sample in samples:
            if sample.modality == "infrared":
                results = service.found({"query": {}}, sample.path.read_bytes())["results"]
                right.append(person_of[results[0]["image_id"]] == sample.pid)
        assert sum(right) > 0.8 * len(right)  # by chance a sixth of them
        assert problem(service.search({"query": {"text": "a man in a red coat"}}))["code"] == "no_text_branch"
        assert service.http.get("/version").json()["has_text"] is False
