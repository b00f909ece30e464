"""Noisy correspondence: how much is drawn, what moves, and what must not."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.datasets import Sample
from model.noise import permute_captions


def samples_of(counts: list[int], facts: bool = False) -> list[Sample]:
    """One sample for each number of captions; caption texts are unique, and facts repeat them."""
    texts = [tuple(f"image {n} caption {k}" for k in range(count)) for n, count in enumerate(counts)]
    return [
        Sample(Path(f"{n}.png"), n // 2, captions, facts=captions if facts else None)
        for n, captions in enumerate(texts)
    ]


def flat(samples: list[Sample]) -> list[str]:
    return [caption for sample in samples for caption in sample.captions]


@given(st.lists(st.integers(1, 4), min_size=1), st.integers(0, 100), st.integers(0, 5), st.booleans())
def test_captions_move_only_among_the_drawn_positions(counts: list[int], percent: int, seed: int, facts: bool) -> None:
    clean = samples_of(counts, facts)
    noisy, drawn = permute_captions(clean, percent / 100, seed)
    before, after = flat(clean), flat(noisy)
    assert len(drawn) == len(set(drawn.tolist())) == percent * sum(counts) // 100
    assert Counter(after) == Counter(before)
    moved = {n for n, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}
    assert moved <= set(drawn.tolist())
    assert [replace(s, captions=(), facts=None) for s in noisy] == [replace(s, captions=(), facts=None) for s in clean]
    assert [len(s.captions) for s in noisy] == counts
    assert all(s.facts == (s.captions if facts else None) for s in noisy)
    again, drawn_again = permute_captions(clean, percent / 100, seed)
    assert again == noisy
    assert np.array_equal(drawn, drawn_again)


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.8])
def test_nearly_all_drawn_pairs_are_wrong(rate: float) -> None:
    clean = samples_of([2] * 500)
    noisy, drawn = permute_captions(clean, rate, 0)
    wrong = sum(a != b for a, b in zip(flat(clean), flat(noisy), strict=True))
    assert len(drawn) == int(rate * 1000)
    assert wrong >= len(drawn) - 10  # a random permutation leaves one in its place on average


def test_seeds_differ_and_rate_zero_changes_nothing() -> None:
    clean = samples_of([2] * 50)
    assert permute_captions(clean, 0.5, 0)[0] != permute_captions(clean, 0.5, 1)[0]
    noisy, drawn = permute_captions(clean, 0.0, 0)
    assert noisy == clean
    assert len(drawn) == 0


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_that_is_no_share_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        permute_captions(samples_of([1, 1]), rate, 0)
