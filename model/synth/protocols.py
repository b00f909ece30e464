"""Further questions to a set that is already rendered: other words, unseen outfits, hidden people, hurried queries.

Every protocol is a list of queries against the whole gallery of the set; what it needs stands in the samples, and
nothing is rendered again. Embedding and ranking the queries is model.evaluate's business, not this file's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from model.datasets import Sample
from model.synth.attributes import Attributes
from model.synth.captions import short_query_with_facts
from model.synth.phrases import Facts
from model.synth.sampling import has_held_out
from model.synth.wording import wording_query

QUERIES = Path(__file__).with_name("queries.jsonl")  # by hand: pid, image, text, facts
_PHRASING, _SHORT = 1, 2  # beside an image's seed, so that each protocol draws its own numbers
Write = Callable[[np.random.Generator, Attributes, str, str | None], tuple[str, Facts]]


@dataclass(frozen=True)
class Queries:
    """Q texts, whom each seeks, and what each states; ``facts`` is None where the set does not list them."""

    texts: tuple[str, ...]
    pids: tuple[int, ...]
    facts: tuple[Mapping[str, Collection[str]], ...] | None


def wording(samples: Sequence[Sample]) -> Queries | None:
    """The queries of QUERIES, written by hand while looking at images of the test set, as far as these are here.

    None where none is: an image is known by its file name, <person>_<number>.jpg, and must be a rendered one.
    """
    known = {sample.path.stem for sample in samples if _look(sample) is not None}
    fitting = [query for query in _by_hand() if f"{query['pid']:05d}_{query['image']}" in known]
    if not fitting:
        return None
    return Queries(
        texts=tuple(query["text"] for query in fitting),
        pids=tuple(query["pid"] for query in fitting),
        facts=tuple(query["facts"] for query in fitting),
    )


def phrasing(samples: Sequence[Sample]) -> Queries | None:
    """One query of the second phrase book for each image, half of them short; None unless the set is a rendered one."""
    return _written(samples, _PHRASING, wording_query)


def short(samples: Sequence[Sample]) -> Queries | None:
    """One query of three to eight words for each image, in the captions' own words; None as for `phrasing`."""
    return _written(samples, _SHORT, short_query_with_facts)


def compositions(samples: Sequence[Sample]) -> Queries | None:
    """The captions of people in a colour and garment pair that training never shows; None if nobody wears one."""
    looks = [_look(sample) for sample in samples]
    return _captions([s for s, look in zip(samples, looks, strict=True) if look is not None and has_held_out(look)])


def occluded(samples: Sequence[Sample]) -> Queries | None:
    """The captions of images in which something hides part of the person; None if there are none."""
    return _captions([sample for sample in samples if sample.occluded is not None])


PROTOCOLS: dict[str, Callable[[Sequence[Sample]], Queries | None]] = {
    "wording": wording,
    "phrasing": phrasing,
    "compositions": compositions,
    "occluded": occluded,
    "short": short,
}


@cache
def _by_hand() -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(line) for line in QUERIES.read_text("utf-8").splitlines() if line.strip())


def _look(sample: Sample) -> Attributes | None:
    """Of rendered people every field is known; labels of other origin that name only some are not enough."""
    named = sample.attributes or {}
    return Attributes(**named) if named.keys() == {field.name for field in fields(Attributes)} else None


def _written(samples: Sequence[Sample], protocol: int, write: Write) -> Queries | None:
    """Queries written anew. An image's own seed decides its query, so that other images do not change it."""
    texts, facts = [], []
    for sample in samples:
        look = _look(sample)
        if look is None or sample.view is None or sample.seed is None:
            return None
        rng = np.random.default_rng([sample.seed, protocol])
        text, stated = write(rng, look, sample.view, sample.occluded)
        texts.append(text)
        facts.append(stated)
    return Queries(tuple(texts), tuple(sample.pid for sample in samples), tuple(facts)) if texts else None


def _captions(chosen: Sequence[Sample]) -> Queries | None:
    """The captions that the set has for these images."""
    if not chosen:
        return None
    listed = all(sample.facts is not None for sample in chosen)
    return Queries(
        texts=tuple(caption for sample in chosen for caption in sample.captions),
        pids=tuple(sample.pid for sample in chosen for _ in sample.captions),
        facts=tuple(stated for sample in chosen for stated in sample.facts or ()) if listed else None,
    )
