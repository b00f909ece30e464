"""The ceiling of a synthetic set: a perfect reader of what a text states and of what an image shows.

It ranks by contradictions (see `reading`) and cannot tell ties apart, so no honest method should pass it. The facts
come from the phrase book that wrote the text; this file reads no sentences and no pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.baselines import METRICS, expected_ranking
from model.synth.attributes import LENGTHS, Attributes
from model.synth.phrases import bearing, value_of

Array = NDArray[Any]
MOMENT = ("view", "activity")  # what a text may say of the image rather than of the person


def readable(
    a: Attributes, visible: Collection[str], view: str | None = None, activity: str | None = None
) -> dict[str, frozenset[str]]:
    """What one image lets a perfect reader conclude: for each readable field, the values still possible.

    Beside the person that is the side they show ("view": front, side or back) and what they do, where these are given.

    A visible field has one value. Straps alone prove a backpack; a garment seen from behind without a pattern may bear
    a logo in front; below an occluder a dress may have any length.
    """
    seen = {name: frozenset({value_of(a, name)}) for name in visible if name != "straps"}
    if "straps" in visible:
        seen["bag"] = frozenset({"backpack"})
    if "pattern" not in seen and "upper" in seen and a.upper is not None:
        seen["pattern"] = frozenset({"plain", "logo"})
    if a.dress is not None and "dress" in seen and "shoe" not in seen:
        seen["dress"] = frozenset(LENGTHS)
    if view is not None:
        seen["view"] = frozenset({bearing(view)})
    if activity is not None:
        seen["activity"] = frozenset({activity})
    return seen


def json_facts(facts: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    """Facts as a manifest stores them: sorted lists under sorted names."""
    return {name: sorted(facts[name]) for name in sorted(facts)}


def contradictions(facts: Mapping[str, Collection[str]], seen: Mapping[str, Collection[str]]) -> int:
    """In how many fields the text and the image cannot both be true; fields that either leaves open do not count."""
    return sum(1 for name, values in facts.items() if name in seen and set(values).isdisjoint(seen[name]))


def contradiction_matrix(
    facts: Sequence[Mapping[str, Collection[str]]], seen: Sequence[Mapping[str, Collection[str]]]
) -> Array:
    """``contradictions`` of every text with every image: (Q, G) int64, through one 0/1 matrix product a field."""
    counts = np.zeros((len(facts), len(seen)), dtype=np.int64)
    for name in sorted({name for stated in facts for name in stated}):
        values = sorted({value for sets in (facts, seen) for one in sets for value in one.get(name, ())})
        column = {value: i for i, value in enumerate(values)}
        asked = np.zeros((len(facts), len(values)), dtype=np.float32)
        shown = np.zeros((len(seen), len(values)), dtype=np.float32)
        for row, sets in ((asked, facts), (shown, seen)):
            for i, stated in enumerate(sets):
                # Saying nothing agrees with everything.
                row[i, [column[v] for v in stated[name]] if name in stated else slice(None)] = 1
        counts += (asked @ shown.T) == 0  # (Q, G)
    return counts


def reading(facts: Sequence[Mapping[str, Collection[str]]], seen: Sequence[Mapping[str, Collection[str]]]) -> Array:
    """How badly every text fits every image, (Q, G) int64, the lower the better, as a perfect reader ranks.

    What contradicts the person counts first. The side they show and what they do only decide between equals: another
    image of the right person may well contradict those.
    """
    persons = [{name: values for name, values in stated.items() if name not in MOMENT} for stated in facts]
    moments = [{name: values for name, values in stated.items() if name in MOMENT} for stated in facts]
    return contradiction_matrix(persons, seen) * (len(MOMENT) + 1) + contradiction_matrix(moments, seen)


def oracle_ceiling(
    facts: Sequence[Mapping[str, Collection[str]]],
    query_pids: Sequence[int] | Array,
    gallery_attributes: Sequence[Attributes],
    gallery_visible: Sequence[Collection[str]],
    gallery_pids: Sequence[int] | Array,
    block: int = 512,
    gallery_moments: Sequence[tuple[str | None, str | None]] | None = None,
) -> dict[str, float]:
    """Expected rank1, rank5, rank10, mean_ap and mean_inp in percent of the perfect reader, exact over random ties.

    Args:
        facts: per query text, what it states (from ``caption_with_facts`` or the manifest).
        gallery_attributes, gallery_visible: per image, whom it shows and which fields can be read off it.
        gallery_moments: per image its view and activity, where captions speak of them.
        block: queries compared at a time; memory is block * gallery * 8 bytes.

    Raises:
        ValueError: lengths differ, or no query has a positive in the gallery.
    """
    if len(facts) != len(query_pids) or not len(gallery_attributes) == len(gallery_visible) == len(gallery_pids):
        raise ValueError("Give one person id per text, and attributes, visible fields and a person id per image.")
    moments = gallery_moments if gallery_moments is not None else [(None, None)] * len(gallery_pids)
    images = zip(gallery_attributes, gallery_visible, moments, strict=True)
    seen = [readable(a, visible, *moment) for a, visible, moment in images]
    pids, gallery = np.asarray(query_pids), np.asarray(gallery_pids)
    rows = []
    for start in range(0, len(facts), block):
        fits = reading(facts[start : start + block], seen)
        for levels, pid in zip(fits, pids[start : start + block], strict=True):
            if (positive := gallery == pid).any():
                rows.append(expected_ranking(levels, positive))
    if not rows:
        raise ValueError("No text has its person in the gallery; check that both come from the same split.")
    return {name: 100 * float(np.mean([row[name] for row in rows])) for name in METRICS}
