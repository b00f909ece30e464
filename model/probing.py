"""What a net tells apart, one attribute at a time: altered images, twins, and images asked for the name of a value.

For rendered sets, whose samples say what each image shows. Pure functions of unit embeddings; all values in percent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.datasets import Sample
from model.retrieval import origin_of

Array = NDArray[Any]
Embed = Callable[[Sequence[str]], Array]  # N texts to (N, D) unit rows


def probe_pairs(samples: Sequence[Sample]) -> list[tuple[int, int]]:
    """(image, the same sighting with one attribute changed) for every pair of a probe set; other sets have none."""
    shown: dict[tuple[int | None, int | None], int] = {
        (s.base, s.seed): n for n, s in enumerate(samples) if s.base == s.pid and s.seed is not None
    }
    return [
        (shown[s.base, s.seed], n) for n, s in enumerate(samples) if s.changed is not None and (s.base, s.seed) in shown
    ]


def attribute_probe(texts: Array, images: Array, samples: Sequence[Sample]) -> dict[str, Any] | None:
    """How often a caption is closer to its image than to the same with the one attribute changed that it speaks of.

    Returns "attributes": {name: {"accuracy", "count"}}, the "mean" over attributes and the "count" of captions; half of
    a tie counts, so chance is 50. None without pairs. texts: (Q, D), all captions in order; images: (G, D).
    """
    changed_of = dict(probe_pairs(samples))
    right: dict[str, list[float]] = defaultdict(list)
    for text, own in zip(texts, origin_of(samples).tolist(), strict=True):
        if own in changed_of:
            other = changed_of[own]
            lead = float(text @ images[own] - text @ images[other])
            right[str(samples[other].changed)].append((np.sign(lead) + 1) / 2)
    if not right:
        return None
    accuracy = {name: 100 * float(np.mean(values)) for name, values in sorted(right.items())}
    return {
        "attributes": {name: {"accuracy": accuracy[name], "count": len(right[name])} for name in accuracy},
        "mean": float(np.mean(list(accuracy.values()))),
        "count": sum(map(len, right.values())),
    }


def has_twins(samples: Sequence[Sample]) -> bool:
    """Whether people of this set have twins of their own, in other sightings than theirs."""
    return any(sample.changed is not None for sample in samples) and not probe_pairs(samples)


def twin_accuracy(similarity: Array, samples: Sequence[Sample]) -> float:
    """Share of captions whose best image within the family shows the right person and not one of their twins.

    A family is somebody and all who differ from them in one attribute. similarity: (Q, G), all captions in order;
    equal similarities share their place. People without a family do not count.
    """
    pids = np.array([sample.pid for sample in samples])
    bases = np.array([-1 if sample.base is None else sample.base for sample in samples])
    right = []
    for row, own in zip(similarity, origin_of(samples).tolist(), strict=True):
        family = np.flatnonzero(bases == bases[own])
        if bases[own] < 0 or (pids[family] == pids[own]).all():
            continue
        best = family[row[family] == row[family].max()]
        right.append(float((pids[best] == pids[own]).mean()))
    return 100 * float(np.mean(right)) if right else 0.0


def named_attributes(embed: Embed, images: Array, samples: Sequence[Sample]) -> dict[str, dict[str, float]] | None:
    """Accuracy of asking each image for an attribute that it shows, without a trained head, by prompts alone.

    The answer is the value whose prompts are most similar in the mean, among all values that are not "absent". Colours
    that witnesses mix up (tan and beige) count as one. Beside it, "majority" is what always answering the commonest
    value would reach, and "count" the images asked. None where no
    sample says what it shows.
    """
    from model.synth.prompts import PROMPTS  # rendered sets only; loads no renderer
    from model.synth.sampling import one_name

    found = {}
    for name, prompts in PROMPTS.items():
        asked = [
            (n, one_name(str(s.attributes[name])))
            for n, s in enumerate(samples)
            if s.attributes is not None and name in (s.visible or ()) and s.attributes.get(name) is not None
        ]
        asked = [(n, value) for n, value in asked if value in prompts.words]
        if not asked:
            continue
        values = list(prompts.words)
        rows = embed([text for value in values for text in prompts.of(value)])
        means = rows.reshape(len(values), len(prompts.forms), -1).mean(1)  # (V, D)
        truth = np.array([values.index(value) for _, value in asked])
        answer = (images[[n for n, _ in asked]] @ means.T).argmax(1)
        found[name] = {
            "accuracy": 100 * float((answer == truth).mean()),
            "majority": 100 * float(np.bincount(truth).max() / len(truth)),
            "count": len(truth),
        }
    return found or None
