"""Noisy correspondence: captions that stand beside the wrong image, injected at a known rate into a training split.

The protocol of the literature: rates 0.2, 0.5 and 0.8, validation and test stay clean, and both the checkpoint chosen
on validation and the last one are reported. Training against such noise is the business of recipes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.datasets import Sample


def permute_captions(samples: Sequence[Sample], rate: float, seed: int) -> tuple[list[Sample], NDArray[np.int64]]:
    """Shuffle the captions of a random part of all pairs among themselves; identities, images and order stay.

    The pairs (image, caption) are numbered in file order, captions of one image one after the other. floor(rate * N) of
    the N positions are drawn, and a random permutation of their captions is written back. As in the protocol, a caption
    may by chance come back to its place or to its person, so slightly fewer pairs than drawn are wrong. Facts of
    rendered sets describe a caption and move with it.

    Returns:
        The samples, and the drawn positions (floor(rate * N),), sorted.

    Raises:
        ValueError: rate outside 0..1.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"The noise rate is a share of the pairs, from 0 to 1, not {rate}.")
    pairs = [pair for sample in samples for pair in _captions_with_facts(sample)]
    drawn = math.floor(Fraction(str(rate)) * len(pairs))  # exact: 0.29 * 100 in binary floats would give 28
    rng = np.random.default_rng(seed)
    positions = np.sort(rng.choice(len(pairs), drawn, replace=False)) if drawn else np.empty(0, np.int64)
    noisy = list(pairs)
    for position, source in zip(positions, rng.permutation(positions), strict=True):
        noisy[position] = pairs[source]
    rest = iter(noisy)
    return [_with(sample, [next(rest) for _ in sample.captions]) for sample in samples], positions


def _captions_with_facts(sample: Sample) -> list[tuple[str, Any]]:
    return list(zip(sample.captions, sample.facts or (None,) * len(sample.captions), strict=True))


def _with(sample: Sample, pairs: Sequence[tuple[str, Any]]) -> Sample:
    captions, facts = zip(*pairs, strict=True)
    return replace(sample, captions=captions, facts=None if sample.facts is None else facts)
