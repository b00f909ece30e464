"""The protocols against naive loops, and `evaluate` from a file to its table."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from model.checkpoint import CheckpointError
from model.datasets import DatasetError, Sample, read_cuhk_pedes
from model.encoder import Encoder
from model.evaluate import cross_view, evaluate, image_to_image, oracle, report, text_to_image
from model.interface import Tokens
from model.retrieval import among_captions, cross_view_fused, cross_view_image, fused, pair_to_image
from model.splits import CrossViewSplit, read_split, write_split


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
    assert_agrees(
        cross_view_image(images, samples),
        naive(
            own, images, pids, lambda q, g: samples[q].camera == samples[g].camera or samples[q].view == samples[g].view
        ),
    )

    both = [(texts[q] / 2 + images[n] / 2, pids[n]) for q, n in enumerate(origin)]
    assert_agrees(fused(texts, images, samples), naive(both, images, pids, lambda q, g: same_camera(origin[q], g)))
    assert_agrees(cross_view_fused(texts, images, samples), naive(both, images, pids, other_side))

    read = [(texts[q], pids[n]) for q, n in enumerate(origin)]
    assert_agrees(
        pair_to_image(texts, images, samples), naive(read, images, pids, lambda q, g: same_camera(origin[q], g))
    )
    shown = [pids[n] for n in origin]
    assert_agrees(
        among_captions(texts, samples), naive(read, texts, shown, lambda q, g: same_camera(origin[q], origin[g]))
    )


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
    assert result["fused"]["queries"] + result["fused"]["skipped"] == 36
    assert {name: row["count"] for name, row in result["attributes"].items()} == {"upper_color": 18, "lower_color": 18}
    assert result["attribute_probe"] is None
    assert result["cross_view"]["skipped"] == 36  # one view only, so nothing is left to find
    assert result["oracle"] is None
    out = io.StringIO()
    report(result, Console(file=out, width=160))
    printed = out.getvalue()
    assert f"{text['rank1']:.1f}" in printed and "colour histogram" in printed and "oracle" not in printed


def test_low_resolution_is_the_standard_protocol_on_shrunken_images(
    toy_dataset: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    shutil.copytree(toy_dataset, tmp_path / "large")
    for path in (tmp_path / "large").rglob("*.png"):
        image = Image.open(path)
        assert image.height == 64
        image.resize((3 * image.width, 192), Image.Resampling.NEAREST).save(path)  # shrinking gives the pixels back
    small, large = (
        evaluate(tiny_checkpoint, "synth", root, device="cpu") for root in (toy_dataset, tmp_path / "large")
    )
    assert large["low_resolution"] == small["text_to_image"] == small["low_resolution"]


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


def write_list(root: Path) -> tuple[Path, CrossViewSplit]:
    """Three people, seen in view 0 (queries) and view 1 (gallery); a shirt and trousers of one colour each."""
    (root / "imgs/CUHK01").mkdir(parents=True)
    samples = []
    for pid, color in enumerate(["red", "green", "blue"]):
        for number in (1, 3):
            path = root / f"imgs/CUHK01/{pid:04d}{number:03d}.png"
            Image.new("RGB", (32, 64), color).save(path)
            samples.append(Sample(path, pid, (f"a {color} shirt", "a person"), view=f"CUHK01 {number // 2}"))
    split = CrossViewSplit("CrossRe-ID-style", tuple(samples[::2]), tuple(samples[1::2]), (), 0, 0)
    write_split(split, root / "list.json")
    return root / "list.json", split


def test_a_list_of_queries_searches_its_gallery(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path, split = write_list(tmp_path)
    assert read_split(path, tmp_path) == split
    result = evaluate(tiny_checkpoint, "cuhk-pedes", tmp_path, device="cpu", query_list=path)
    assert result["split"] == "CrossRe-ID-style"
    assert result["image_to_image"]["rank1"] == 100  # the same flat colour
    assert (result["image_to_image"]["queries"], result["text_to_image"]["queries"]) == (3, 6)
    assert result["fused"]["queries"] == 6
    assert result["chance"]["rank1"] == pytest.approx(100 / 3)
    assert result["cross_view"] is None and result["wording"] is None
    report(result, Console(file=io.StringIO(), width=80))


def test_a_damaged_list_is_refused(tmp_path: Path) -> None:
    path, _ = write_list(tmp_path)
    text = path.read_text()
    path.write_text(text.replace("a red shirt", "a pink shirt"))
    with pytest.raises(DatasetError, match="was changed after it was written"):
        read_split(path, tmp_path)
    path.write_text(text)
    with pytest.raises(DatasetError, match="6 listed images are not there"):
        read_split(path, tmp_path / "elsewhere")
    path.write_text("[]")
    with pytest.raises(DatasetError, match="not a list of queries"):
        read_split(path, tmp_path)
    with pytest.raises(DatasetError, match="cannot be read"):
        read_split(tmp_path / "none.json", tmp_path)


def test_shifted_readings_are_averaged(tiny_checkpoint: Path) -> None:
    encoder = Encoder(tiny_checkpoint, "cpu")
    texts = ["a man in a red shirt", "woman"]
    np.testing.assert_array_equal(encoder.embed_texts(texts, shifts=1), encoder.embed_texts(texts))
    tokens = encoder._text_input()(texts)
    length = tokens.ids.shape[1]
    readings = []
    with torch.inference_mode():
        for start in (0, length // 2):
            order = [(t - start) % length for t in range(length)]
            rows = encoder._net.encode_text(Tokens(tokens.ids[:, order], tokens.mask[:, order], None)).numpy()
            readings.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    mean = (readings[0] + readings[1]) / 2
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.embed_texts(texts, shifts=2), mean, atol=1e-6)
