"""With MCJA active an infrared image finds the same person's visible images, and a text query is a 409."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from model.checkpoint import infrared_checkpoint
from model.datasets import Sample
from model.datasets_infrared import read_synth_infrared
from model.recipes import RECIPES, tiny
from model.synth.generate import SETS, generate
from model.train import train
from tests.model.infrared_toys import make_rendered
from tests.service.conftest import problem, running_service


def share_found(folder: Path, checkpoint: Path, samples: Sequence[Sample]) -> float:
    """The share of infrared images whose first result, among all visible ones, shows the same person."""
    with running_service(folder, checkpoint=checkpoint) as service:
        person_of = {
            service.added(sample.path.read_bytes()): sample.pid for sample in samples if sample.modality == "visible"
        }
        service.embed()
        right = []
        for sample in samples:
            if sample.modality == "infrared":
                results = service.found({"query": {}}, sample.path.read_bytes())["results"]
                right.append(person_of[results[0]["image_id"]] == sample.pid)
        assert problem(service.search({"query": {"text": "a man in a red coat"}}))["code"] == "no_text_branch"
        assert service.http.get("/version").json()["has_text"] is False
    return sum(right) / len(right)


@pytest.mark.slow
def test_a_trained_preset_finds_by_day_whom_a_camera_saw_by_night(tmp_path: Path) -> None:
    root = make_rendered(tmp_path / "data")
    best = train(tiny(RECIPES["mcja_synth"]()), root, tmp_path / "run", progress=False, threads=1)
    found = share_found(tmp_path / "service", best, read_synth_infrared(root, "test"))
    assert found > 0.8  # by chance a sixth of them


def test_the_shipped_checkpoint_finds_by_day_whom_a_camera_saw_by_night(tmp_path: Path) -> None:
    """Rendered people under cameras that training never saw."""
    people = replace(SETS["infrared_test"], ids=20, images_per_id=4, height=160, width=54)
    generate(people, tmp_path / "people", workers=1)
    samples = read_synth_infrared(tmp_path / "people", "test")
    found = share_found(tmp_path / "service", infrared_checkpoint(), samples)
    assert found > 0.25  # by chance one in twenty
