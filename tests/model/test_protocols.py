"""The further protocols on a hand-made set: who is asked for, in which words, and how well a perfect reader does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.datasets import Sample
from model.evaluate import evaluate, further_protocols
from model.synth import protocols
from model.synth.attributes import Attributes
from model.synth.protocols import PROTOCOLS, compositions, occluded, phrasing, short, wording
from model.synth.sampling import has_held_out
from model.synth.visibility import visible_attributes

LOOK = Attributes(
    gender="female", age="adult", build="thin", hair="long", hair_color="black", upper="shirt", upper_color="white",
    sleeve="long", pattern="plain", pattern_color=None, dress=None, dress_color=None, lower="jeans",
    lower_color="denim", skirt=None, outer=None, outer_color=None, outer_open=False, shoe="boots",
    shoe_color="black", bag=None, bag_color=None, bag_side=None, hat=None, hat_color=None, eyewear=None, prop=None,
    prop_color=None,
)  # fmt: skip
# Two ordinary outfits and two with a pair that training never shows: a red shirt, beige jeans.
LOOKS = [LOOK, replace(LOOK, upper_color="black"), replace(LOOK, upper_color="red"), replace(LOOK, lower_color="beige")]


def person(pid: int, hidden: str | None = None) -> Sample:
    look = LOOKS[pid]
    return Sample(
        Path(f"{pid}_{hidden}.png"),
        pid,
        (f"first of {pid} {hidden}", f"second of {pid} {hidden}"),
        camera="c1",
        view="front",
        attributes=asdict(look),
        visible=visible_attributes(look, "front", hidden),
        facts=({"upper_color": [look.upper_color]}, {"lower_color": [look.lower_color]}),
        occluded=hidden,
        seed=2**63 + 10 * pid + (hidden is not None),
    )


SAMPLES = [person(0), person(1), person(1, "lower"), person(2), person(3), person(3, "lower")]


class Reader:
    """Stands for a checkpoint that understands nothing: every text is embedded as (1, 0)."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        self.read += texts
        return np.tile([1.0, 0.0], (len(texts), 1))


@pytest.mark.parametrize("protocol", [phrasing, short])
def test_an_images_seed_alone_decides_its_query(protocol: Any) -> None:
    found = protocol(SAMPLES)
    assert found is not None and found.facts is not None
    assert found == protocol(SAMPLES)
    assert found.pids == (0, 1, 1, 2, 3, 3)
    alone = protocol(SAMPLES[3:4])
    assert alone is not None
    assert (alone.texts[0], alone.facts[0]) == (found.texts[3], found.facts[3])
    seeds = [replace(SAMPLES[0], seed=seed) for seed in range(20)]
    assert len(set(protocol(seeds).texts)) > 5  # another seed, another query


def test_queries_are_true_of_their_image_and_short_ones_are_short() -> None:
    for protocol in (phrasing, short):
        queries = protocol([replace(sample, seed=seed) for seed in range(30) for sample in SAMPLES])
        assert queries is not None and queries.facts is not None
        for sample, facts in zip(SAMPLES * 30, queries.facts, strict=True):
            assert sample.visible is not None and sample.attributes is not None
            assert set(facts) <= sample.visible
            assert all(str(sample.attributes[name] or "none") in values for name, values in facts.items())
    assert all(3 <= len(text.split()) <= 8 for text in queries.texts)


@pytest.fixture
def written_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    lines = [
        {"pid": 2, "image": 1, "text": "lady, red top", "facts": {"upper_color": ["red", "maroon"]}},
        {"pid": 7, "image": 0, "text": "nobody here", "facts": {}},
        {"pid": 2, "image": 9, "text": "an image that is not here", "facts": {}},
    ]
    path = tmp_path / "queries.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    monkeypatch.setattr(protocols, "QUERIES", path)
    protocols._by_hand.cache_clear()
    yield
    protocols._by_hand.cache_clear()


@pytest.mark.usefixtures("written_by_hand")
def test_queries_by_hand_ask_for_the_images_they_were_written_for() -> None:
    samples = [replace(sample, path=Path(f"{sample.pid:05d}_{n % 2}.jpg")) for n, sample in enumerate(SAMPLES)]
    found = wording(samples)
    assert found is not None
    assert (found.texts, found.pids, found.facts) == (("lady, red top",), (2,), ({"upper_color": ["red", "maroon"]},))
    assert wording([replace(sample, attributes=None) for sample in samples]) is None  # somebody else of that number
    assert wording(samples[:2]) is None


def test_only_wearers_of_unseen_outfits_are_asked_for() -> None:
    assert [has_held_out(look) for look in LOOKS] == [False, False, True, True]
    found = compositions(SAMPLES)
    assert found is not None
    assert found.pids == (2, 2, 3, 3, 3, 3)
    assert found.texts[:2] == SAMPLES[3].captions
    assert found.facts is not None and found.facts[0] == {"upper_color": ["red"]}
    assert compositions(SAMPLES[:3]) is None


def test_only_images_with_an_obstacle_are_asked_for() -> None:
    found = occluded(SAMPLES)
    assert found is not None
    assert found.texts == SAMPLES[2].captions + SAMPLES[5].captions
    assert found.pids == (1, 1, 3, 3)
    assert occluded([person(0), person(1)]) is None


def test_captions_without_facts_have_no_oracle() -> None:
    found = occluded([replace(sample, facts=None) for sample in SAMPLES])
    assert found is not None and found.facts is None
    bare = [replace(sample, facts=None) for sample in SAMPLES]
    result = further_protocols(Reader().embed_texts, bare, np.eye(6, 2), {})
    assert result["occluded"] is not None and result["occluded_oracle"] is None
    assert result["phrasing_oracle"] is not None  # its facts come from the phrase book, not from the set


def test_the_whole_gallery_is_searched_and_each_protocol_has_its_ceiling() -> None:
    reader = Reader()
    known = {caption: np.array([0.0, 1.0]) for sample in SAMPLES for caption in sample.captions}
    angles = np.radians([10, 80, 20, 60, 30, 40])  # (1, 0) likes the first image best, (0, 1) the second
    images = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    result = further_protocols(reader.embed_texts, SAMPLES, images, known)
    # Captions like 1, 3, 5, 4, 2, 0 in this order: the two of person 1 win, the two of person 3 come third.
    assert result["occluded"]["rank1"] == 50 and result["occluded"]["rank5"] == 100
    assert result["occluded"]["mean_ap"] == pytest.approx(100 * ((1 + 2 / 5) / 2 + (1 / 3 + 2 / 4) / 2) / 2)
    assert (result["compositions"]["rank1"], result["compositions"]["queries"]) == (0, 6)
    # Queries written anew like 0, 2, 4, 5, 3, 1: one of six is about the first image.
    assert result["phrasing"]["rank1"] == result["short"]["rank1"] == pytest.approx(100 / 6)
    assert known.keys().isdisjoint(reader.read)
    # A perfect reader: red is worn in one image, denim jeans in four (one of them right); a white shirt in three (two
    # of them right) and beige jeans in two, both right; person 3 is asked for from two images.
    assert result["compositions_oracle"]["rank1"] == pytest.approx(100 * (1 + 1 / 4 + 2 * (2 / 3 + 1)) / 6)
    assert result["wording"] is None and result["wording_oracle"] is None  # no query was written for these people
    assert all(0 < result[f"{name}_oracle"]["rank1"] <= 100 for name in PROTOCOLS if name != "wording")


def test_a_set_without_looks_has_none_of_them(toy_dataset: Path, tiny_checkpoint: Path) -> None:
    result = evaluate(tiny_checkpoint, "synth", toy_dataset, device="cpu")
    assert {result[f"{name}{end}"] for name in PROTOCOLS for end in ("", "_oracle")} == {None}


def test_evaluate_asks_a_rendered_set(tiny_checkpoint: Path, tmp_path: Path) -> None:
    rows = []
    (tmp_path / "imgs").mkdir()
    for sample in SAMPLES:
        Image.new("RGB", (32, 64), (40 * sample.pid, 90, 120)).save(tmp_path / "imgs" / sample.path.name)
        rows.append({
            "split": "test", "captions": sample.captions, "facts": sample.facts, "id": sample.pid, "camera": 1,
            "view": sample.view, "attributes": sample.attributes, "visible": sorted(sample.visible or ()),
            "occluded": sample.occluded, "seed": sample.seed, "file_path": sample.path.name,
        })  # fmt: skip
    (tmp_path / "reid_raw.json").write_text(json.dumps(rows))
    result = evaluate(tiny_checkpoint, "synth", tmp_path, device="cpu")
    asked = {name: result[name]["queries"] for name in PROTOCOLS if result[name] is not None}
    assert asked == {"phrasing": 6, "compositions": 6, "occluded": 4, "short": 6}
    assert all(result[f"{name}_oracle"]["rank1"] > 0 for name in asked)
    assert result["attributes"]["upper_color"]["count"] == 6
    # Five of six wear jeans of a colour that is called blue: always saying so is right that often.
    assert result["attributes"]["lower_color"]["majority"] == pytest.approx(100 * 4 / 6)
    assert result["attribute_probe"] is None and result["twins"] is None


def test_no_renderer_is_needed() -> None:
    code = "import sys; sys.modules['moderngl'] = sys.modules['scipy'] = None; import model.synth.protocols"
    subprocess.run([sys.executable, "-c", code], check=True)
