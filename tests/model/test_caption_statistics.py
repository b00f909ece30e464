"""Ten thousand captions look like human ones: every published figure is met within 15 % of its value."""

from __future__ import annotations

import pytest

from model.synth.caption_statistics import mention_rates, sample_captions, statistics

# Human descriptions of street photos; shares are of captions.
HUMAN = {
    "words mean": 23.5, "words median": 21, "words p5": 16, "words p95": 39, "colour words": 3.0,
    "1 sentences": 0.57, "2 sentences": 0.30, "3 sentences": 0.10,
    "black": 0.64, "white": 0.50, "blue": 0.27, "gray": 0.24, "brown": 0.15, "red": 0.13, "pink": 0.08, "green": 0.07,
    "yellow": 0.05, "tan": 0.04, "purple": 0.03,
    "shirt": 0.66, "pants": 0.38, "shorts": 0.22, "jeans": 0.15, "jacket": 0.12, "dress": 0.08, "skirt": 0.05,
}  # fmt: skip
HUMAN_MENTIONS = {
    "gender": 0.95, "upper": 0.94, "lower": 0.90, "shoes": 0.64, "bag": 0.39, "hair": 0.33, "eyewear": 0.09,
    "headwear": 0.04,
}  # fmt: skip


@pytest.fixture(scope="module")
def figures() -> dict[str, float]:
    said = sample_captions(seed=0, n=10_000)
    return {**statistics([text for text, _ in said]), **mention_rates([facts for _, facts in said])}


@pytest.mark.parametrize("name", [*HUMAN, *HUMAN_MENTIONS])
def test_figure_is_within_15_percent_of_human_captions(name: str, figures: dict[str, float]) -> None:
    assert figures[name] == pytest.approx({**HUMAN, **HUMAN_MENTIONS}[name], rel=0.15)


def test_vocabulary_has_600_to_1000_words(figures: dict[str, float]) -> None:
    assert 600 <= figures["vocabulary"] <= 1000
