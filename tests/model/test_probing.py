"""Pairs, twins and prompts against naive loops, on embeddings made up for the purpose."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from model.datasets import Sample
from model.evaluate import report
from model.probing import attribute_probe, has_twins, named_attributes, probe_pairs, twin_accuracy
from model.synth.attributes import Attributes
from model.synth.prompts import PROMPTS
from model.synth.sampling import one_name, sample_attributes
from model.synth.visibility import visible_attributes


def unit(rng: np.random.Generator, count: int) -> np.ndarray:
    rows = rng.normal(size=(count, 6))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def pair(pid: int, attribute: str) -> list[Sample]:
    return [
        Sample(Path(f"{pid}.jpg"), pid, ("said",), seed=pid, base=pid),
        Sample(Path(f"{pid + 1}.jpg"), pid + 1, (), seed=pid, base=pid, changed=attribute),
    ]


def family(base: int) -> list[Sample]:
    """Somebody and two twins, two images of each with a caption or two."""
    return [
        Sample(Path("a.jpg"), base + n, ("one", "two")[: 1 + k], seed=10 * (base + n) + k, base=base,
               changed=None if n == 0 else "bag")
        for n in range(3)
        for k in range(2)
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_the_probe_compares_each_caption_with_its_own_pair(seed: int) -> None:
    samples = [s for n in range(12) for s in pair(2 * n, ("bag", "hat", "upper_color")[n % 3])]
    rng = np.random.default_rng(seed)
    texts, images = unit(rng, 12), unit(rng, 24)
    found = attribute_probe(texts, images, samples)
    assert found is not None
    for name in ("bag", "hat", "upper_color"):
        mine = [n for n in range(12) if samples[2 * n + 1].changed == name]
        right = [texts[n] @ images[2 * n] > texts[n] @ images[2 * n + 1] for n in mine]
        assert found["attributes"][name] == {"accuracy": pytest.approx(100 * np.mean(right)), "count": 4}
    assert found["mean"] == pytest.approx(np.mean([row["accuracy"] for row in found["attributes"].values()]))
    assert found["count"] == 12
    same = attribute_probe(texts, np.repeat(images[::2], 2, axis=0), samples)
    assert same is not None and same["mean"] == 50  # equal images are a toss-up


def test_pairs_are_of_one_sighting_and_twins_of_several() -> None:
    pairs, twins = pair(0, "bag") + pair(2, "hat"), family(0) + family(3)
    assert probe_pairs(pairs) == [(0, 1), (2, 3)] and not has_twins(pairs)
    assert probe_pairs(twins) == [] and has_twins(twins)
    strangers = [replace(sample, base=None, changed=None) for sample in twins]
    assert probe_pairs(strangers) == [] and not has_twins(strangers)
    assert attribute_probe(np.ones((9, 2)), np.ones((6, 2)), family(0)) is None


@pytest.mark.parametrize("seed", range(3))
def test_twins_compete_within_their_family_only(seed: int) -> None:
    samples = [*family(0), *family(3), Sample(Path("b.jpg"), 9, ("alone",))]
    rng = np.random.default_rng(seed)
    origin = [n for n, sample in enumerate(samples) for _ in sample.captions]
    similarity = rng.normal(size=(len(origin), len(samples)))
    right = []
    for q, n in enumerate(origin[:-1]):  # who has no twins does not count
        mine = [similarity[q, g] for g, s in enumerate(samples) if s.pid == samples[n].pid]
        twins = [
            similarity[q, g] for g, s in enumerate(samples) if s.base == samples[n].base and s.pid != samples[n].pid
        ]
        right.append(max(mine) > max(twins))
    assert twin_accuracy(similarity, samples) == pytest.approx(100 * np.mean(right))
    # All alike: two of six images of the family are right.
    assert twin_accuracy(np.zeros_like(similarity), samples) == pytest.approx(100 / 3)


def test_an_image_is_called_by_the_nearest_prompts() -> None:
    rng = np.random.default_rng(0)
    looks = [sample_attributes(rng, "test") for _ in range(60)]
    samples = [
        Sample(Path("a.jpg"), n, ("said",), attributes=asdict(a), visible=visible_attributes(a, "front"))
        for n, a in enumerate(looks)
    ]
    axes = {value: n for n, value in enumerate(PROMPTS["upper_color"].words)}

    def embed(texts: Sequence[str]) -> np.ndarray:
        """One axis for each colour that a prompt of a shirt names; nothing else is understood."""
        rows = np.zeros((len(texts), len(axes) + 1))
        for row, text in zip(rows, texts, strict=True):
            named = [color for color in axes if text in PROMPTS["upper_color"].of(color)]
            row[axes[named[0]] if named else -1] = 1
        return rows

    truth = [one_name(a.upper_color) if a.upper_color else None for a in looks]
    images = np.zeros((60, len(axes) + 1))
    for n, color in enumerate(truth):  # every third shirt looks black
        images[n, axes["black" if n % 3 == 0 or color is None else color]] = 1
    found = named_attributes(embed, images, samples)
    assert found is not None
    shown = [n for n, s in enumerate(samples) if truth[n] is not None and "upper_color" in (s.visible or ())]
    right = [n % 3 != 0 or truth[n] == "black" for n in shown]
    commonest = max(sum(truth[n] == color for n in shown) for color in axes)
    assert found["upper_color"] == {
        "accuracy": pytest.approx(100 * np.mean(right)),
        "majority": pytest.approx(100 * commonest / len(shown)),
        "count": len(shown),
    }
    assert named_attributes(embed, images, [replace(s, attributes=None) for s in samples]) is None


def test_prompts_cover_what_people_wear() -> None:
    rng = np.random.default_rng(1)
    for a in (sample_attributes(rng, "test") for _ in range(500)):
        for name, prompts in PROMPTS.items():
            value = getattr(a, name)
            assert value is None or one_name(value) in prompts.words, (name, value)
    assert PROMPTS.keys() <= Attributes.__dataclass_fields__.keys()
    for prompts in PROMPTS.values():
        texts = [text for value in prompts.words for text in prompts.of(value)]
        assert len(set(texts)) == len(texts) and not any("{" in text for text in texts)


def test_the_report_shows_them() -> None:
    row = {"rank1": 10.0, "rank5": 20.0, "rank10": 30.0, "mean_ap": 5.0, "mean_inp": 4.0, "twin_accuracy": 43.21}
    probe = {"attributes": {"bag": {"accuracy": 81.25, "count": 40}}, "mean": 81.25, "count": 40}
    result = {
        "net": "axm_net", "checkpoint": "abc", "dataset": "synth", "split": "test", "twins": row,
        "data": {"identities": 3, "images": 6, "captions": 9}, "attribute_probe": probe,
        "attributes": {"hat": {"accuracy": 55.5, "majority": 66.6, "count": 7}},
    }  # fmt: skip
    out = io.StringIO()
    report(result, Console(file=out, width=80))
    printed = out.getvalue()
    assert all(word in printed for word in ("43.2 %", "81.2", "55.5", "66.6", "among twins", "mean of pairs"))
    assert max(map(len, printed.splitlines())) <= 80
