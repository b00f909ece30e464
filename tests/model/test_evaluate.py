"""The protocols against naive loops, and `evaluate` from a file to its table."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from model.checkpoint import CheckpointError
from model.datasets import DatasetError, Sample, read_cuhk_pedes
from model.encoder import Encoder
from model.evaluate import cross_view, evaluate, image_to_image, oracle, report, text_to_image


def unit(rng: np.random.Generator, count: int) -> np.ndarray:
    rows = rng.normal(size=(count, 5))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def people(seed: int, *, cameras: bool) -> list[Sample]:
    rng = np.random.default_rng(seed)
    return [
        Sample(
            Path(f"{n}.png"),
            pid=int(rng.integers(0, 5)),
            captions=tuple("ab"[: int(rng.integers(1, 3))]),
            camera=f"c{rng.integers(0, 3)}" if cameras else None,
            view=f"v{rng.integers(0, 3)}" if cameras else None,
        )
        for n in range(20)
    ]


def naive(queries: list[tuple[np.ndarray, int]], gallery: np.ndarray, pids: list[int], hidden: Any) -> dict[str, Any]:
    """Ranks one query at a time; hidden(q, g) says what query q does not see."""
    hits, aps, skipped = [], [], 0
    for q, (vector, pid) in enumerate(queries):
        seen = [g for g in range(len(pids)) if not hidden(q, g)]
        ranked = sorted(seen, key=lambda g: -float(vector @ gallery[g]))
        places = [place for place, g in enumerate(ranked, 1) if pids[g] == pid]
        if not places:
            skipped += 1
            continue
        hits.append(places[0] == 1)
        aps.append(np.mean([n / place for n, place in enumerate(places, 1)]))
    return {"rank1": 100 * np.mean(hits), "mean_ap": 100 * np.mean(aps), "queries": len(hits), "skipped": skipped}


def assert_agrees(found: dict[str, Any] | None, expected: dict[str, Any]) -> None:
    assert found is not None
    assert {name: found[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(4))
def test_protocols_equal_naive_loops(seed: int) -> None:
    samples = people(seed, cameras=True)
    pids = [sample.pid for sample in samples]
    origin = [n for n, sample in enumerate(samples) for _ in sample.captions]
    rng = np.random.default_rng(seed + 100)
    images, texts = unit(rng, len(samples)), unit(rng, len(origin))
    captions = [(texts[q], pids[n]) for q, n in enumerate(origin)]

    assert_agrees(text_to_image(texts, images, samples), naive(captions, images, pids, lambda q, g: False))

    def other_side(q: int, g: int) -> bool:
        own = samples[origin[q]]
        return own.camera == samples[g].camera or own.view == samples[g].view

    assert_agrees(cross_view(texts, images, samples), naive(captions, images, pids, other_side))

    def same_camera(q: int, g: int) -> bool:
        return q == g or (pids[q] == pids[g] and samples[q].camera == samples[g].camera)

    own = [(images[n], pids[n]) for n in range(len(samples))]
    assert_agrees(image_to_image(images, samples), naive(own, images, pids, same_camera))


def test_without_cameras_an_image_only_leaves_itself_out() -> None:
    samples = people(9, cameras=False)
    pids = [sample.pid for sample in samples]
    images = unit(np.random.default_rng(9), len(samples))
    own = [(images[n], pids[n]) for n in range(len(samples))]
    assert_agrees(image_to_image(images, samples), naive(own, images, pids, lambda q, g: q == g))
    assert cross_view(unit(np.random.default_rng(1), 40), images, samples) is None


def test_oracle_needs_facts_and_then_reads_them(toy_dataset: Path) -> None:
    from model.synth.attributes import Attributes

    assert oracle(read_cuhk_pedes(toy_dataset, "val")) is None
    look = Attributes(
        gender="female", age="adult", build="thin", hair="long", hair_color="black", upper="shirt", upper_color="red",
        sleeve="long", pattern="plain", pattern_color=None, dress=None, dress_color=None, lower="jeans",
        lower_color="blue", skirt=None, outer=None, outer_color=None, outer_open=False, shoe="boots",
        shoe_color="black", bag=None, bag_color=None, bag_side=None, hat=None, hat_color=None, eyewear=None, prop=None,
        prop_color=None,
    )  # fmt: skip
    visible = frozenset({"upper", "upper_color"})
    samples = [
        Sample(
            Path(f"{color}.png"), pid, ("a",), attributes=asdict(replace(look, upper_color=color)), visible=visible,
            facts=({"upper_color": [color]},),
        )
        for pid, color in enumerate(["red", "green", "green", "white"])
    ]  # fmt: skip
    found = oracle(samples)
    assert found is not None
    assert found["rank1"] == pytest.approx(75)  # red and white are sure, the two greens are guessed


def test_evaluate_measures_a_file_and_writes_json(toy_dataset: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    result = evaluate(tiny_checkpoint, "synth", toy_dataset, device="cpu", json_out=tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert result["data"] | {"sha256": ""} == {"identities": 6, "images": 18, "captions": 36, "sha256": ""}
    # 3 of 18 images are right: a random first place is so with 1/6.
    assert result["chance"]["rank1"] == pytest.approx(100 / 6)
    assert result["color_histogram"]["rank1"] == 100  # flat colours are all there is to see
    text = result["text_to_image"]
    assert text["queries"] == 36 and text["rank1_low"] <= text["rank1"] <= text["rank1_high"]
    assert result["cross_view"]["skipped"] == 36  # one view only, so nothing is left to find
    assert result["oracle"] is None
    out = io.StringIO()
    report(result, Console(file=out, width=160))
    printed = out.getvalue()
    assert f"{text['rank1']:.1f}" in printed and "colour histogram" in printed and "oracle" not in printed


def test_evaluate_explains_what_is_wrong(toy_dataset: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="choose one of cuhk-pedes, icfg-pedes, rstpreid, synth"):
        evaluate(tiny_checkpoint, "market", toy_dataset)
    with pytest.raises(DatasetError, match='no split "nothing"'):
        evaluate(tiny_checkpoint, "synth", toy_dataset, split="nothing")


def test_a_sheet_needs_a_net_that_reads(
    toy_dataset: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Encoder, "has_text", False)
    with pytest.raises(CheckpointError, match="reads no descriptions"):
        evaluate(tiny_checkpoint, "synth", toy_dataset, device="cpu", sheet=tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()
