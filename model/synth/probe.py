"""Pairs for the attribute probe: somebody, the same person with one attribute changed, and a sentence true of one.

The sentence speaks of the changed attribute alone, in the words of the first phrase book, and a perfect reader always
tells the two images apart. Rendering the pairs is generate.py's business.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from model.synth import phrases as p
from model.synth.attributes import Attributes
from model.synth.oracle import contradictions, readable
from model.synth.phrases import Facts, Lexicon, Speaker, article, value_of
from model.synth.sampling import change, describable, sample_attributes
from model.synth.visibility import visible_attributes

PROBED = (
    "upper_color", "lower_color", "outer_color", "dress_color", "shoe_color", "bag_color", "hair_color", "gender",
    "upper", "sleeve", "pattern", "lower", "dress", "outer", "shoe", "hair", "bag", "hat", "eyewear", "prop",
)  # fmt: skip
"""Attributes in the order in which pairs take turns; each is a facet of sampling.FACETS, and a field."""

# From where a change does not show: glasses and what hands hold from behind; that there is no bag, from the side.
_HIDDEN_FROM = {"eyewear": "back", "prop": "back", "bag": ("left", "right")}
_ABSENT = ("none", "plain")  # the sentence always names the thing that is there
_TRIES = 20  # wordings of one pair; some words fit both people

_HAIR = Lexicon({
    "short": "short hair*3|short cut hair|short cropped hair",
    "buzz": "short hair*2|very short hair|closely cropped hair",
    "bald": "a bald head|no hair|a shaved head",
    "long": "long hair*3|long straight hair|long flowing hair",
    "bob": "chin length hair|hair in a bob|medium length hair",
    "ponytail": "a ponytail|hair in a ponytail|hair tied back",
    "bun": "hair in a bun|a bun|hair tied back",
})  # fmt: skip
_LENGTH = Lexicon({length: "|".join(words) for length, words in p.DRESS_LENGTH.items()})
# The garment or thing that a colour, a sleeve or a pattern is said of, and the words for it.
_THINGS = {
    "upper": p.UPPER, "lower": p.LOWER, "outer": p.OUTER, "shoe": p.SHOE, "bag": p.BAG, "hat": p.HAT,
    "eyewear": p.EYEWEAR, "prop": p.PROP,
}  # fmt: skip
_BORNE = {"bag": ("carrying", "with"), "prop": ("holding", "with")}


@dataclass(frozen=True)
class Pair:
    """Two people who differ in ``attribute``, and a text that is true of ``shown`` and false of ``changed``."""

    attribute: str
    shown: Attributes
    changed: Attributes
    text: str
    facts: Facts


def can_be_seen(number: int, view: str) -> bool:
    """Whether that view may show what the pair of this number differs in."""
    hidden = _HIDDEN_FROM.get(PROBED[number % len(PROBED)], ())
    return not view.startswith(hidden) if isinstance(hidden, str) else view not in hidden


def draw_pairs(seed: int, views: Sequence[str], exclude: Collection[tuple[object, ...]] = ()) -> list[Pair]:
    """One pair for each view, the attributes of PROBED in turn; what changes can be seen from that view.

    Args:
        views: of one that `can_be_seen`, for each pair.
        seed: decides everything; a longer list starts with the shorter one.
        exclude: ``describable`` tuples that neither of a pair may have, for instance of the training set.
    """
    rng = np.random.default_rng(seed)
    seen = set(exclude)
    pairs: list[Pair] = []
    for n, view in enumerate(views):
        pair = None
        while pair is None or describable(pair.shown) in seen or describable(pair.changed) in seen:
            pair = _pair(rng, PROBED[n % len(PROBED)], view)
        seen |= {describable(pair.shown), describable(pair.changed)}
        pairs.append(pair)
    return pairs


def _pair(rng: np.random.Generator, attribute: str, view: str) -> Pair | None:
    """A pair of a random person, or None where that person lacks the attribute or does not show it."""
    shown = sample_attributes(rng, "test")
    visible = visible_attributes(shown, view)
    if value_of(shown, attribute) in _ABSENT or not _can_be_named(attribute, visible):
        return None
    changed = change(shown, attribute, rng)
    if changed is None:
        return None
    seen, seen_changed = readable(shown, visible), readable(changed, visible_attributes(changed, view))
    for _ in range(_TRIES):
        text, facts = sentence(rng, shown, attribute, visible)
        if (
            attribute in facts
            and set(facts) <= set(seen)
            and contradictions({attribute: facts[attribute]}, seen_changed)
        ):
            return Pair(attribute, shown, changed, text, facts)
    return None


def _can_be_named(attribute: str, visible: Collection[str]) -> bool:
    thing = attribute.removesuffix("_color")
    return {attribute, thing} <= set(visible) if thing in _THINGS else attribute in visible


def sentence(rng: np.random.Generator, a: Attributes, attribute: str, visible: Collection[str]) -> tuple[str, Facts]:
    """A short text that states one visible attribute of PROBED and what it states: "a woman in a red shirt"."""
    s = Speaker(rng, a, frozenset(visible))
    who = article(s.name(p.PERSON, "gender"))
    text = who if attribute == "gender" else f"{who} {_told(s, attribute)}"
    return f"{text[0].upper()}{text[1:]}.", s.facts


def _told(s: Speaker, attribute: str) -> str:
    a = s.a
    thing = attribute.removesuffix("_color")
    if attribute == "hair":
        return f"with {s.name(_HAIR, 'hair')}"
    if attribute == "hair_color":
        return f"with {s.name(p.HAIR_COLOR, 'hair_color')} hair"
    if attribute in ("sleeve", "pattern"):
        thing = "upper" if a.dress is None else "dress"
    before = s.name(p.COLOR, attribute) if attribute.endswith("_color") else ""
    after = ""
    if attribute == "sleeve":
        before = s.name(p.SLEEVE, "sleeve")
    elif attribute == "dress":
        before = s.name(_LENGTH, "dress")
    elif attribute == "pattern" and a.pattern in p.PATTERN.words:
        before = s.name(p.PATTERN, "pattern")
    elif attribute == "pattern":
        after = f" with {article(s.name(p.PATTERN_NOUN, 'pattern'))}"
    if thing == "dress":
        s.note("dress", frozenset(p.DRESS_LENGTH))
        noun = "dress"
    else:
        noun = s.name(_THINGS[thing], thing)
    phrase = f"{before} {noun}".strip()
    plural = thing in ("shoe", "eyewear") or (thing == "lower" and a.lower != "skirt")
    phrase = phrase if plural else article(phrase)
    return f"{s.pick(*_BORNE.get(thing, ('in', 'wearing')))} {phrase}{after}"
