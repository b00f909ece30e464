"""The service on a real, untrained checkpoint: loaded by path, asked what a user may type, ready by its own checks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import make_tiny_checkpoint
from tests.service.conftest import Service, picture, running_service


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("real")
    path = folder / "tiny.safetensors"
    make_tiny_checkpoint(path)
    with running_service(folder, checkpoint=Path(path), device="cpu") as service:
        for seed in range(6):
            service.added(picture(seed))
        service.embed()
        yield service


def test_it_is_ready_and_names_its_checkpoint(real: Service) -> None:
    assert real.http.get("/readyz").status_code == 200
    version = real.http.get("/version").json()
    assert version["net"] == "axm_net" and version["checkpoint_id"] == real.encoder.checkpoint_id


@pytest.mark.parametrize(
    "words",
    [
        "a man in a red shirt",
        "zweihander",
        "🧥",
        "👩‍🦰 🎒",
        "\u4eba",
        "!!!",
        "a" * 512,
        "red " * 128,
        "[PAD]",
        "\u200bred",
    ],
)
def test_every_text_gets_a_ranking(real: Service, words: str) -> None:
    answer = real.found({"query": {"text": words}})
    assert len(answer["results"]) == 6
    assert all(-1.001 <= result["similarity"] <= 1.001 for result in answer["results"])


def test_what_it_does_not_know_is_said(real: Service) -> None:
    answer = real.found({"query": {"text": "a man with a zweihander"}})
    assert "zweihander" in answer["unknown_words"]
    only = real.found({"query": {"text": "zweihander"}})
    assert any("means little" in warning for warning in only["warnings"])
    cut = real.found({"query": {"text": "red shirt and blue pants " * 20}})
    assert any("end was ignored" in warning for warning in cut["warnings"])


def test_a_picture_finds_itself(real: Service) -> None:
    answer = real.found({"query": {}, "limit": 1}, picture(3))
    assert answer["results"][0]["similarity"] == pytest.approx(1, abs=1e-3)
