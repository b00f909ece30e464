"""Chance against hand-worked values and simulation; the colour baseline on flat images."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from PIL import Image

from model.baselines import BANDS, PALETTE, chance, color_histogram, color_similarity, expected_ranking


def simulate(levels: np.ndarray, positive: np.ndarray, trials: int, seed: int) -> dict[str, float]:
    """The same numbers by drawing random orders of the ties."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(trials):
        order = np.lexsort((rng.random(len(levels)), levels))
        ranks = np.flatnonzero(positive[order]) + 1
        ap = np.mean(np.arange(1, len(ranks) + 1) / ranks)
        rows.append([ranks[0] <= 1, ranks[0] <= 5, ranks[0] <= 10, ap, len(ranks) / ranks[-1]])
    return dict(zip(("rank1", "rank5", "rank10", "mean_ap", "mean_inp"), np.mean(rows, axis=0).tolist(), strict=True))


@pytest.mark.parametrize("seed", range(6))
def test_expected_ranking_equals_simulation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 30))
    levels = rng.integers(0, int(rng.integers(1, 6)), n)
    positive = np.zeros(n, dtype=bool)
    positive[rng.permutation(n)[: int(rng.integers(1, min(n, 5)))]] = True
    got = expected_ranking(levels, positive)
    assert got == pytest.approx(simulate(levels, positive, 6000, seed), abs=0.03)


def test_expected_ranking_without_ties_is_the_plain_metric() -> None:
    # Similarities of the golden case of the evaluation protocol: query 1, AP .722222, INP .5.
    similarity = np.array([0.9, 0.8, 0.7, 0.1, 0.2, 0.3, 0.4, 0.5])
    positive = np.array([1, 2, 1, 3, 2, 1, 4, 3]) == 1
    got = expected_ranking(-similarity, positive)
    assert got == pytest.approx({"rank1": 1, "rank5": 1, "rank10": 1, "mean_ap": 0.7222222, "mean_inp": 0.5})


def test_chance_by_hand() -> None:
    """Two images of 1, one of 2. Query 1: orders ++-, +-+, -++ give AP 1, 5/6, 7/12 and INP 1, 2/3, 2/3."""
    got = chance([1, 1, 2], [1])
    assert got["rank1"] == pytest.approx(100 * 2 / 3)
    assert got["rank5"] == got["rank10"] == 100
    assert got["mean_ap"] == pytest.approx(100 * (1 + 5 / 6 + 7 / 12) / 3)
    assert got["mean_inp"] == pytest.approx(100 * (1 + 2 / 3 + 2 / 3) / 3)


def test_chance_is_hypergeometric_and_skips_queries_without_a_positive() -> None:
    gallery = np.repeat(np.arange(50), 4)
    got = chance(gallery, [0, 3, 7, 999])
    for k in (1, 5, 10):
        assert got[f"rank{k}"] == pytest.approx(100 * (1 - comb(196, k) / comb(200, k)))
    assert got["mean_ap"] == pytest.approx(100 * simulate(np.zeros(200), gallery == 0, 4000, 1)["mean_ap"], abs=0.3)


def test_chance_weighs_queries_by_their_number_of_positives() -> None:
    one, two = chance([1, 2, 2, 3], [1]), chance([1, 2, 2, 3], [2])
    both = chance([1, 2, 2, 3], [1, 2, 2])
    assert both["mean_ap"] == pytest.approx((one["mean_ap"] + 2 * two["mean_ap"]) / 3)


def test_chance_on_a_large_gallery_stays_finite() -> None:
    got = chance(np.repeat(np.arange(1000), 20), np.arange(1000))
    assert got["rank1"] == pytest.approx(0.1)
    assert 0.1 < got["mean_ap"] < 0.2
    assert 0 < got["mean_inp"] < got["rank10"]


def test_chance_without_any_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="same split"):
        chance([1, 2], [3])


def person(upper: str, lower: str, feet: str, background: tuple[int, int, int] = (120, 140, 120)) -> Image.Image:
    """A flat figure: coloured bands in the middle, a background left and right."""
    pixels = np.empty((192, 64, 3), dtype=np.uint8)
    pixels[:] = background
    for (top, bottom), color in zip(BANDS.values(), (upper, lower, feet), strict=True):
        pixels[round(top * 192) : round(bottom * 192), 14:50] = PALETTE[color]
    return Image.fromarray(pixels)


def test_histogram_names_flat_colours_and_sums_to_one() -> None:
    for name, rgb in PALETTE.items():
        histogram = color_histogram(Image.new("RGB", (40, 100), rgb))
        assert histogram.shape == (3, len(PALETTE))
        np.testing.assert_allclose(histogram[:, list(PALETTE).index(name)], 1)
    np.testing.assert_allclose(color_histogram(person("red", "black", "white")).sum(axis=1), 1)


def test_histogram_reads_any_image_mode() -> None:
    gray = color_histogram(Image.new("L", (31, 77), 128))
    assert list(PALETTE)[int(gray[0].argmax())] == "gray"


OUTFITS = [
    ("red", "black", "white"), ("black", "red", "white"), ("white", "blue", "black"), ("green", "tan", "brown"),
    ("yellow", "gray", "white"), ("black", "tan", "black"), ("light blue", "navy", "white"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("A man wearing a red shirt, black pants and white shoes.", 0),
        ("Woman in black t-shirt and a bright red skirt with white sneakers", 1),
        ("The person has blue jeans and a white top.", 2),
        ("The green blouse goes with khaki trousers. Her hair is black.", 3),
        ("yellow hoodie grey shorts", 4),
        ("She wears a black jacket and beige pants; her shoes are black.", 5),
        ("a light blue polo shirt, dark blue slacks", 6),
    ],
)
def test_the_right_flat_person_ranks_first(text: str, wanted: int) -> None:
    histograms = np.stack([color_histogram(person(*outfit)) for outfit in OUTFITS])
    similarity = color_similarity([text], histograms)
    assert similarity.shape == (1, len(OUTFITS))
    assert int(similarity[0].argmax()) == wanted


def test_text_without_colours_or_garments_prefers_nobody() -> None:
    histograms = np.stack([color_histogram(person(*outfit)) for outfit in OUTFITS])
    assert not color_similarity(["someone walking past", "red", ""], histograms).any()
    assert color_similarity([], histograms).shape == (0, len(OUTFITS))
