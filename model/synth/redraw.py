"""New training captions for rendered images, every epoch anew and in many voices.

A net that reads one phrase book learns its manner; here the share of each book is chosen, and every draw differs.
Nothing here renders or trains. Test captions are never redrawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from model.datasets import Sample
from model.synth.attributes import Attributes
from model.synth.captions import caption_with_facts, misspell, short_query_with_facts
from model.synth.voices import voice_with_facts

_FIELDS = frozenset(field.name for field in fields(Attributes))
# Share of standing people, where a manifest does not say who stands: prose needs a verb.
_STANDING = 0.25


def redraw(
    samples: Sequence[Sample],
    seed: int,
    epoch: int,
    *,
    voices: float = 0.45,
    short: float = 0.15,
    typos: float = 0.08,
) -> list[str]:
    """One new caption for every sample, in their order.

    A sample's caption depends on (seed, epoch, sample.seed) alone, so that other samples do not change it.

    Args:
        voices: share told in the wide phrase book of voices.py.
        short: share of short queries, "woman red coat black bag"; what is left is the prose of captions.py.
        typos: share of all of them with one or two misspelt words.

    Raises:
        ValueError: the shares do not fit into 1, or a sample does not say what was rendered.
    """
    if min(voices, short, typos) < 0 or voices + short > 1 or typos > 1:
        raise ValueError(f"Shares of captions must lie in 0..1: voices {voices}, short {short}, typos {typos}.")
    return [_caption(sample, seed, epoch, voices, short, typos) for sample in samples]


def _caption(sample: Sample, seed: int, epoch: int, voices: float, short: float, typos: float) -> str:
    named = sample.attributes or {}
    if named.keys() != _FIELDS or sample.view is None or sample.seed is None:
        raise ValueError(
            f"Redrawing captions needs a rendered set, which lists attributes, view and seed of every image; "
            f"{sample.path} lacks them. Train on its own captions instead."
        )
    rng = np.random.default_rng([seed, epoch, sample.seed])
    look = Attributes(**named)
    book = rng.random()
    if book < voices:
        text, _ = voice_with_facts(rng, look, sample.view, sample.occluded)
    elif book < voices + short:
        text, _ = short_query_with_facts(rng, look, sample.view, sample.occluded)
    else:
        standing = rng.random() < _STANDING
        activity = sample.activity or ("standing" if standing else "walking")
        text, _ = caption_with_facts(rng, look, sample.view, sample.occluded, activity)
    return misspell(rng, text) if rng.random() < typos else text
