"""How captions look in numbers, to compare with human ones: ``python -m model.synth.caption_statistics`` prints them.

The figures aimed at stand in docs/dataset-card.md; tests/model/test_caption_statistics.py asserts them.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from model.synth.attributes import VIEWS
from model.synth.captions import caption_with_facts, tokens
from model.synth.phrases import Facts
from model.synth.sampling import sample_attributes

COLOR_WORDS = frozenset({
    "black", "white", "blue", "red", "grey", "gray", "brown", "pink", "green", "yellow", "purple", "orange", "tan",
    "beige", "navy", "khaki", "maroon", "teal", "gold", "silver",
})  # fmt: skip
_COUNTED = (
    "black", "white", "blue", "gray", "brown", "red", "pink", "green", "yellow", "tan", "purple", "shirt", "pants",
    "shorts", "jeans", "jacket", "dress", "skirt",
)  # fmt: skip


def statistics(captions: list[str]) -> dict[str, float]:
    """How captions look: word counts, share with 1, 2, 3 sentences, colour words, share that uses a word."""
    words = [tokens(text) for text in captions]
    lengths = np.array([len(w) for w in words])
    sentences = np.array([max(1, text.count(".")) for text in captions])
    known = Counter(word for w in words for word in w)
    report = {
        "words mean": float(lengths.mean()),
        "words median": float(np.median(lengths)),
        "words p5": float(np.percentile(lengths, 5)),
        "words p95": float(np.percentile(lengths, 95)),
        "colour words": float(np.mean([sum(word in COLOR_WORDS for word in w) for w in words])),
        "vocabulary": float(len(known)),
    }
    report |= {f"{n} sentences": float((sentences == n).mean()) for n in (1, 2, 3)}
    groups = {"gray": {"gray", "grey"}, "shirt": {"shirt", "tshirt"}}
    for word in _COUNTED:
        group = groups.get(word, {word})
        report[word] = float(np.mean([not group.isdisjoint(w) for w in words]))
    return report


def mention_rates(facts: list[Facts]) -> dict[str, float]:
    """Share of captions that name each part; saying that it is missing does not count."""
    parts = {
        "gender": {"gender"}, "upper": {"upper", "upper_color", "outer", "dress"}, "lower": {"lower"},
        "shoes": {"shoe"}, "bag": {"bag"}, "hair": {"hair", "hair_color"}, "eyewear": {"eyewear"}, "headwear": {"hat"},
    }  # fmt: skip
    return {
        part: float(np.mean([any("none" not in f.get(name, {"none"}) for name in names) for f in facts]))
        for part, names in parts.items()
    }


def sample_captions(seed: int, n: int) -> list[tuple[str, Facts]]:
    """Captions of random people from random sides, a tenth of them partly hidden: the usual mix of a set."""
    rng = np.random.default_rng(seed)
    said = []
    for _ in range(n):
        a = sample_attributes(rng)
        view = VIEWS[int(rng.integers(len(VIEWS)))]
        occluded = (None, "lower", "upper")[int(np.searchsorted([0.9, 0.98], rng.random()))]
        activity = "walking" if rng.random() < 0.7 else "standing"
        said.append(caption_with_facts(rng, a, view, occluded, activity))
    return said


def main() -> None:
    drawn = sample_captions(0, 10_000)
    for name, number in {**statistics([text for text, _ in drawn]), **mention_rates([f for _, f in drawn])}.items():
        print(f"{name:14s} {number:8.3f}")
    for text, _ in drawn[:20]:
        print("-", text)


if __name__ == "__main__":
    main()
