"""Draws what pedestrians look like: random identities, distinct sets of them, and near-twins.

Frequencies follow the word counts of human descriptions of street photos, so that colours and garments are as
skewed as they are outside. Everything depends on the generator or seed passed in and on nothing else.
Bodies, poses and cameras are drawn by the renderer, not here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import astuple, fields, replace
from functools import cache

import numpy as np

from model.synth.attributes import Attributes

SPLITS = ("train", "val", "test", "tiny", "demo")
_WITHOUT_HELD_OUT = ("train", "val")  # the splits a checkpoint is fitted to or chosen on
HELD_OUT_PERCENT = 15

# Relative frequencies; each table is normalised where it is used.
UPPER_COLORS = {
    "black": 18, "white": 32, "blue": 7, "gray": 10, "red": 8, "pink": 5.5, "green": 3, "purple": 2.5, "yellow": 4,
    "brown": 3, "navy blue": 2, "light blue": 2.5, "orange": 2, "beige": 2, "tan": 1.5, "khaki": 0.5,
    "dark green": 1, "maroon": 2, "teal": 1,
}  # fmt: skip
OUTER_COLORS = {
    "black": 30, "gray": 12, "white": 6, "blue": 8, "navy blue": 8, "brown": 6, "red": 6, "denim": 4, "khaki": 2.5,
    "beige": 3, "tan": 3, "green": 3, "dark green": 3, "pink": 3, "purple": 1.5, "orange": 1.5, "yellow": 1.5,
    "maroon": 2, "teal": 1, "light blue": 1.5,
}  # fmt: skip
DRESS_COLORS = {**UPPER_COLORS, "black": 22, "white": 14, "blue": 10, "red": 10, "pink": 9}
LOWER_COLORS = {
    "black": 28, "blue": 4, "gray": 11, "white": 9, "khaki": 6, "brown": 4, "navy blue": 4, "beige": 3, "tan": 3,
    "green": 1.2, "red": 1.5, "pink": 1, "dark green": 1.5, "purple": 0.5, "maroon": 0.7,
}  # fmt: skip
JEANS_COLORS = {"denim": 62, "blue": 5, "navy blue": 4, "black": 16, "gray": 7, "white": 3, "light blue": 2}
SHOE_COLORS = {
    "black": 31, "white": 39, "brown": 7, "gray": 8, "red": 4, "blue": 2.5, "tan": 2.5, "pink": 2, "yellow": 1,
    "green": 1, "beige": 1, "orange": 0.5,
}  # fmt: skip
BAG_COLORS = {
    "black": 30, "brown": 9, "red": 8, "white": 10, "blue": 5, "gray": 7, "pink": 4, "green": 3, "tan": 4,
    "yellow": 2, "orange": 2, "purple": 2, "navy blue": 2, "beige": 2,
}  # fmt: skip
PATTERNS_OF_UPPER = {
    "plain": 66, "striped": 11, "logo": 10, "plaid": 6, "two-tone": 4, "polka dot": 2, "floral": 1,
}  # fmt: skip
PATTERNS_OF_DRESS = {"plain": 64, "floral": 18, "polka dot": 9, "striped": 9}

# Kinds by gender.
Table = Mapping[str, float]
HAIRS_OF: dict[str, Table] = {
    "male": {"short": 80, "buzz": 12, "bald": 4, "long": 4},
    "female": {"long": 43, "ponytail": 25, "bob": 19, "bun": 10, "short": 3},
}
UPPERS_OF: dict[str, Table] = {
    "male": {"t-shirt": 45, "shirt": 18, "polo shirt": 10, "sweater": 10, "hoodie": 6, "tank top": 4},
    "female": {
        "t-shirt": 38, "shirt": 13, "polo shirt": 5, "blouse": 16, "sweater": 12, "hoodie": 5, "tank top": 8,
    },
}  # fmt: skip
OUTERS_OF: dict[str, Table] = {
    "male": {"none": 77, "jacket": 12, "coat": 4.5, "cardigan": 1, "vest": 2.5},
    "female": {"none": 77, "jacket": 12, "coat": 5.5, "cardigan": 4, "vest": 2.5},
    "in a dress": {"none": 80, "jacket": 8, "coat": 5, "cardigan": 7},
}
LOWERS_OF: dict[str, Table] = {
    "male": {"pants": 41, "jeans": 23, "shorts": 30, "slacks": 7},
    "female": {"pants": 29, "jeans": 23, "shorts": 22, "skirt": 16, "leggings": 9, "slacks": 2},
}
SHOES_OF: dict[str, Table] = {
    "male": {"shoes": 50, "sneakers": 34, "sandals": 5, "boots": 5},
    "female": {"shoes": 48, "sneakers": 28, "sandals": 14, "boots": 8},
}
BAGS_OF: dict[str, Table] = {
    "male": {"none": 47, "backpack": 23, "shoulder bag": 15, "crossbody bag": 9, "handbag": 4},
    "female": {"none": 42, "backpack": 18, "shoulder bag": 17, "crossbody bag": 8, "handbag": 15},
}

# Names a witness may use for one another count as one colour when two identities are compared.
_SAME_COLOR = {"beige": "tan", "khaki": "tan", "dark brown": "brown", "denim": "blue", "teal": "green"}


def weighted(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    """One key of ``weights``, drawn in proportion to its value."""
    keys = tuple(weights)
    edges = np.cumsum([weights[key] for key in keys])
    return keys[int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))]


@cache
def held_out(pair: tuple[str, str]) -> bool:
    """Whether this (colour, garment) pair is kept out of training; 15 % of all pairs are, by a hash.

    Garments are kinds of UPPERS or LOWERS. The hash is salted with a constant under which no everyday pair
    (black pants, white t-shirt, blue jeans) is lost, so that train and test still look alike.
    """
    color, kind = pair
    digest = hashlib.sha256(f"compositions-125 {color} {kind}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % 100 < HELD_OUT_PERCENT


def composition_pairs(a: Attributes) -> list[tuple[str, str]]:
    """The (colour, garment) pairs of an identity that the compositions protocol looks at."""
    pairs = [(a.upper_color, a.upper), (a.lower_color, a.lower)]
    return [(color, kind) for color, kind in pairs if color is not None and kind is not None]


def has_held_out(a: Attributes) -> bool:
    """Whether the identity wears a colour and garment pair that training never shows."""
    return any(held_out(pair) for pair in composition_pairs(a))


def _color_for(rng: np.random.Generator, weights: Mapping[str, float], kind: str, split: str) -> str:
    if split in _WITHOUT_HELD_OUT:
        weights = {color: w for color, w in weights.items() if not held_out((color, kind))}
    return weighted(rng, weights)


def _without(weights: Mapping[str, float], kinds: Collection[str]) -> dict[str, float]:
    return {kind: w for kind, w in weights.items() if kind not in kinds}


def _sleeve_for(rng: np.random.Generator, upper: str) -> str:
    if upper in ("t-shirt", "polo shirt"):
        return "short"
    if upper in ("sweater", "hoodie"):
        return "long"
    if upper == "tank top":
        return "none"
    return weighted(rng, {"short": 50, "long": 50})


def _lower_colors(lower: str) -> Mapping[str, float]:
    return JEANS_COLORS if lower == "jeans" else LOWER_COLORS


def sample_attributes(rng: np.random.Generator, split: str = "train") -> Attributes:
    """One random identity. In ``train`` and ``val`` it never wears a held-out colour and garment pair.

    Raises:
        ValueError: the split is not one of SPLITS.
    """
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r}; use one of {', '.join(SPLITS)}.")
    gender = "male" if rng.random() < 0.55 else "female"
    age = weighted(rng, {"young": 25, "adult": 67, "old": 8})
    hair = weighted(rng, HAIRS_OF[gender])
    if age == "old" and rng.random() < 0.8:
        hair_color = "gray"
    else:
        hair_color = weighted(rng, {"black": 64, "dark brown": 15, "brown": 10, "blonde": 8, "red": 3})

    in_dress = gender == "female" and rng.random() < 0.15
    outer = weighted(rng, OUTERS_OF["in a dress" if in_dress else gender])
    # A coat over shorts or a short hem would leave bare legs below and nothing to describe.
    never_under_a_coat = {"short", "shorts"} if outer == "coat" else set()
    upper = upper_color = lower = lower_color = skirt = dress = dress_color = None
    if in_dress:
        dress = weighted(rng, _without({"short": 30, "knee-length": 50, "long": 20}, never_under_a_coat))
        dress_color = weighted(rng, DRESS_COLORS)
        sleeve = weighted(rng, {"none": 45, "short": 40, "long": 15})
        pattern = weighted(rng, PATTERNS_OF_DRESS)
    else:
        # Hoods are seldom worn under another layer.
        upper = weighted(rng, _without(UPPERS_OF[gender], {"hoodie"} if outer != "none" else set()))
        upper_color = _color_for(rng, UPPER_COLORS, upper, split)
        sleeve = _sleeve_for(rng, upper)
        pattern = weighted(rng, PATTERNS_OF_UPPER)
        if pattern == "two-tone" and sleeve == "none":
            pattern = "plain"  # the second tone sits on the sleeves
        lower = weighted(rng, _without(LOWERS_OF[gender], never_under_a_coat))
        lower_color = _color_for(rng, _lower_colors(lower), lower, split)
        if lower == "skirt":
            skirt = weighted(rng, _without({"short": 45, "knee-length": 43, "long": 12}, never_under_a_coat))

    pattern_color = None
    if pattern != "plain":
        base = dress_color if in_dress else upper_color
        others = {c: w for c, w in UPPER_COLORS.items() if base is not None and not similar_colors(c, base)}
        pattern_color = weighted(rng, others)
    bag = weighted(rng, BAGS_OF[gender])
    hat = weighted(rng, {"none": 93.5, "cap": 4.5, "hat": 2})
    eyewear = weighted(rng, {"none": 79, "glasses": 17, "sunglasses": 4})
    prop = weighted(rng, {"none": 85, "phone": 5.5, "umbrella": 2.5, "bottle": 3.5, "book": 3.5})
    has_bag, has_hat, has_outer = bag != "none", hat != "none", outer != "none"
    return Attributes(
        gender=gender,
        age=age,
        build=weighted(rng, {"thin": 25, "average": 60, "heavy": 15}),
        hair=hair,
        hair_color=hair_color,
        upper=upper,
        upper_color=upper_color,
        sleeve=sleeve,
        pattern=pattern,
        pattern_color=pattern_color,
        dress=dress,
        dress_color=dress_color,
        lower=lower,
        lower_color=lower_color,
        skirt=skirt,
        outer=outer if has_outer else None,
        outer_color=weighted(rng, OUTER_COLORS) if has_outer else None,
        outer_open=bool(has_outer and rng.random() < 0.62),
        shoe=weighted(rng, SHOES_OF[gender]),
        shoe_color=weighted(rng, SHOE_COLORS),
        bag=bag if has_bag else None,
        bag_color=weighted(rng, BAG_COLORS) if has_bag else None,
        bag_side=weighted(rng, {"left": 50, "right": 50}) if has_bag and bag != "backpack" else None,
        hat=hat if has_hat else None,
        hat_color=weighted(rng, BAG_COLORS) if has_hat else None,
        eyewear=eyewear if eyewear != "none" else None,
        prop=prop if prop != "none" else None,
        prop_color=weighted(rng, BAG_COLORS) if prop == "umbrella" else None,
    )


def similar_colors(one: str, other: str) -> bool:
    """Whether a witness could well use one name for both: tan and beige, navy and blue, maroon and red."""
    families = (
        {"tan", "beige", "khaki", "brown"},
        {"tan", "beige", "khaki", "white"},
        {"blue", "navy blue", "denim", "light blue", "teal"},
        {"black", "navy blue", "dark green", "maroon", "brown"},
        {"green", "dark green", "teal", "khaki"},
        {"red", "maroon", "pink"},
        {"maroon", "purple", "brown"},
        {"orange", "yellow", "tan"},
        {"orange", "red"},
        {"black", "gray"},
    )
    return one == other or any(one in family and other in family for family in families)


def one_name(color: str) -> str:
    """The name that stands for all which witnesses use for one another: beige and khaki are tan."""
    return _SAME_COLOR.get(color, color)


def describable(a: Attributes) -> tuple[object, ...]:
    """What a description can tell about an identity; two people with equal tuples cannot be told apart."""
    if a.hair == "bald":
        a = replace(a, hair_color="")
    return tuple(one_name(value) if isinstance(value, str) else value for value in astuple(a))


def distinct_attributes(
    seed: int, n: int, split: str, exclude: Collection[tuple[object, ...]] = ()
) -> list[Attributes]:
    """``n`` identities no two of which, nor any in ``exclude``, look the same in words.

    Args:
        seed: decides everything; a longer list starts with the shorter one.
        exclude: ``describable`` tuples of identities used elsewhere, for instance in another split.
    """
    rng = np.random.default_rng(seed)
    seen = set(exclude)
    drawn: list[Attributes] = []
    while len(drawn) < n:
        a = sample_attributes(rng, split)
        key = describable(a)
        if key not in seen:
            seen.add(key)
            drawn.append(a)
    return drawn


# What a twin may change. A facet is one attribute to a witness, with the fields that must follow it.
FACETS: dict[str, tuple[str, ...]] = {
    "gender": ("gender",),
    "hair": ("hair",),
    "hair_color": ("hair_color",),
    "upper": ("upper", "sleeve"),
    "upper_color": ("upper_color",),
    "pattern": ("pattern", "pattern_color"),
    "sleeve": ("sleeve",),
    "dress": ("dress",),
    "dress_color": ("dress_color",),
    "lower": ("lower", "lower_color", "skirt"),
    "lower_color": ("lower_color",),
    "outer": ("outer", "outer_color", "outer_open"),
    "outer_color": ("outer_color",),
    "shoe": ("shoe",),
    "shoe_color": ("shoe_color",),
    "bag": ("bag", "bag_color", "bag_side"),
    "bag_color": ("bag_color",),
    "hat": ("hat", "hat_color"),
    "eyewear": ("eyewear",),
    "prop": ("prop", "prop_color"),
}
_TWIN_FACETS = {
    "upper_color": 20, "dress_color": 20, "lower_color": 16, "shoe_color": 10, "bag": 10, "bag_color": 5, "upper": 5,
    "pattern": 6, "lower": 8, "outer": 4, "outer_color": 6, "shoe": 2, "hair": 3, "hair_color": 2, "hat": 3,
    "eyewear": 2, "dress": 2,
}  # fmt: skip
# Kinds that look clearly different, so that a twin moves between them.
_UPPER_TWINS = {
    "t-shirt": ("sweater", "hoodie"), "shirt": ("hoodie", "tank top"), "polo shirt": ("sweater", "hoodie"),
    "blouse": ("hoodie",), "sweater": ("t-shirt", "tank top"), "hoodie": ("t-shirt", "shirt"),
    "tank top": ("sweater", "hoodie"),
}  # fmt: skip
_LOWER_TWINS = {
    "pants": ("shorts", "skirt"), "jeans": ("shorts", "skirt"), "slacks": ("shorts", "skirt"),
    "leggings": ("shorts", "skirt"), "shorts": ("pants", "skirt"), "skirt": ("pants", "shorts"),
}  # fmt: skip


def _one_of(rng: np.random.Generator, options: Collection[str]) -> str:
    options = tuple(options)
    return options[int(rng.integers(len(options)))]


def _other_color(rng: np.random.Generator, weights: Mapping[str, float], color: str | None) -> str:
    assert color is not None
    return weighted(rng, {c: w for c, w in weights.items() if not similar_colors(c, color)})


def change(a: Attributes, facet: str, rng: np.random.Generator) -> Attributes | None:
    """The same identity with one facet clearly changed, or None where this identity lacks that facet."""
    if facet == "hair":
        longer, shorter = ("long", "ponytail"), ("short", "bald")
        return replace(a, hair=_one_of(rng, longer if a.hair in ("short", "buzz", "bald") else shorter))
    if facet == "hair_color":
        dark = a.hair_color in ("black", "dark brown", "brown")
        return None if a.hair == "bald" else replace(a, hair_color="blonde" if dark else "black")
    if facet == "gender":
        return replace(a, gender="female" if a.gender == "male" else "male")
    if facet == "upper" and a.upper is not None:
        upper = _one_of(rng, _UPPER_TWINS[a.upper])
        return replace(a, upper=upper, sleeve=_sleeve_for(rng, upper))
    if facet == "sleeve" and a.outer is None and (a.dress is not None or a.upper in ("shirt", "blouse")):
        return replace(a, sleeve="short" if a.sleeve == "long" else "long")
    if facet == "upper_color" and a.upper_color is not None:
        # Away from the pattern's colour too, or the pattern would vanish and be a second change.
        allowed = {
            c: w for c, w in UPPER_COLORS.items() if a.pattern_color is None or not similar_colors(c, a.pattern_color)
        }
        return replace(a, upper_color=_other_color(rng, allowed, a.upper_color))
    if facet == "dress_color" and a.dress_color is not None:
        allowed = {
            c: w for c, w in DRESS_COLORS.items() if a.pattern_color is None or not similar_colors(c, a.pattern_color)
        }
        return replace(a, dress_color=_other_color(rng, allowed, a.dress_color))
    if facet == "dress" and a.dress is not None and a.outer != "coat":
        return replace(a, dress="long" if a.dress == "short" else "short")
    if facet == "pattern":
        if a.pattern != "plain":
            return replace(a, pattern="plain", pattern_color=None)
        base = a.dress_color or a.upper_color
        return replace(
            a, pattern=_one_of(rng, ("striped", "plaid")), pattern_color=_other_color(rng, UPPER_COLORS, base)
        )
    if facet == "lower" and a.lower is not None:
        options = [k for k in _LOWER_TWINS[a.lower] if k != "skirt" or a.gender == "female"]
        if a.outer == "coat":
            options = [k for k in options if k != "shorts"]
        if not options:
            return None
        lower = _one_of(rng, options)
        color = "blue" if a.lower_color == "denim" else a.lower_color
        return replace(a, lower=lower, lower_color=color, skirt="knee-length" if lower == "skirt" else None)
    if facet == "lower_color" and a.lower_color is not None and a.lower is not None:
        return replace(a, lower_color=_other_color(rng, _lower_colors(a.lower), a.lower_color))
    if facet == "outer":
        if a.outer is not None:
            return replace(a, outer=None, outer_color=None, outer_open=False)
        return replace(a, outer="jacket", outer_color=weighted(rng, OUTER_COLORS), outer_open=True)
    if facet == "outer_color" and a.outer_color is not None:
        return replace(a, outer_color=_other_color(rng, OUTER_COLORS, a.outer_color))
    if facet == "shoe":
        return replace(a, shoe=_one_of(rng, ("sneakers", "boots") if a.shoe == "sandals" else ("sandals",)))
    if facet == "shoe_color":
        return replace(a, shoe_color=_other_color(rng, SHOE_COLORS, a.shoe_color))
    if facet == "bag":
        if a.bag is not None:
            return replace(a, bag=None, bag_color=None, bag_side=None)
        bag = _one_of(rng, ("backpack", "shoulder bag"))
        side = None if bag == "backpack" else _one_of(rng, ("left", "right"))
        return replace(a, bag=bag, bag_color=weighted(rng, BAG_COLORS), bag_side=side)
    if facet == "bag_color" and a.bag_color is not None:
        return replace(a, bag_color=_other_color(rng, BAG_COLORS, a.bag_color))
    if facet == "hat":
        if a.hat is not None:
            return replace(a, hat=None, hat_color=None)
        return replace(a, hat="cap", hat_color=weighted(rng, BAG_COLORS))
    if facet == "eyewear":
        return replace(a, eyewear=None if a.eyewear else "glasses")
    if facet == "prop":
        return replace(a, prop=None if a.prop else "phone", prop_color=None)
    return None


def changed_facet(one: Attributes, other: Attributes) -> str | None:
    """The facet in which two identities differ, None if they are alike; the narrowest one that covers the fields.

    Raises:
        ValueError: they differ in more than one facet.
    """
    differing = {field.name for field in fields(one) if getattr(one, field.name) != getattr(other, field.name)}
    if not differing:
        return None
    covering = [facet for facet, names in FACETS.items() if differing <= set(names)]
    if not covering:
        raise ValueError(f"They differ in more than one facet: {', '.join(sorted(differing))}.")
    return min(covering, key=lambda facet: len(FACETS[facet]))


def twins(a: Attributes, rng: np.random.Generator, n: int = 4, split: str = "test") -> list[Attributes]:
    """``n`` identities that each differ from ``a`` in one facet of FACETS, every time another one.

    Raises:
        ValueError: ``n`` is larger than the number of facets this identity can change.
    """
    weights = dict(_TWIN_FACETS)
    found: list[Attributes] = []
    while len(found) < n:
        if not weights:
            raise ValueError(f"Only {len(found)} twins of this identity exist; ask for fewer than {n}.")
        facet = weighted(rng, weights)
        del weights[facet]
        twin = change(a, facet, rng)
        if twin is not None and not (split in _WITHOUT_HELD_OUT and has_held_out(twin)):
            found.append(twin)
    return found


def twin_families(
    seed: int, n: int, others: int = 4, exclude: Collection[tuple[object, ...]] = ()
) -> list[list[Attributes]]:
    """``n`` families: somebody, then ``others`` who each differ from them in one facet. No two people look the same.

    Args:
        seed: decides everything; a longer list starts with the shorter one.
        exclude: as for ``distinct_attributes``.
    """
    rng = np.random.default_rng(seed)
    seen = set(exclude)
    families: list[list[Attributes]] = []
    while len(families) < n:
        base = sample_attributes(rng, "test")
        family = [base, *twins(base, rng, others)]
        keys = {describable(a) for a in family}
        if len(keys) == len(family) and not keys & seen:
            seen |= keys
            families.append(family)
    return families
