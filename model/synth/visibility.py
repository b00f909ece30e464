"""What of a person one image shows: which attributes can be read off it, given the side and what stands in the way.

Captions speak only of these, and the oracle judges only these. Nothing here looks at pixels.
"""

from __future__ import annotations

from model.synth.attributes import VIEWS, Attributes

_ABSENCE_SHOWS = ("upper", "dress", "lower", "outer", "bag", "hat", "eyewear", "prop")
_UNDER_A_HAT = ("short", "buzz", "bald", "bun")
_UPPER_BODY = frozenset({
    "upper", "upper_color", "sleeve", "outer", "outer_color", "outer_open", "bag", "bag_color", "bag_side", "straps",
    "prop", "prop_color",
})  # fmt: skip


def visible_attributes(a: Attributes, view: str, occluded: str | None = None) -> frozenset[str]:
    """Names of the Attributes fields that can be read off this image, absence of a bag or hat included.

    Of a backpack seen from the front only the pseudo-name "straps" is listed (and "bag_color", theirs). Hidden are
    glasses and age from behind, logos unless from the front, the garment under a closed outer one, the far-side bag.

    Args:
        view: one of VIEWS; in "left" the camera sees the person's left side.
        occluded: "lower" hides everything below the knee, "upper" the torso, arms and what they carry.

    Raises:
        ValueError: unknown ``view`` or ``occluded``.
    """
    if view not in VIEWS:
        raise ValueError(f"There is no view {view!r}; use one of {', '.join(VIEWS)}.")
    if occluded not in (None, "lower", "upper"):
        raise ValueError(f"Occlusion must be None, 'lower' or 'upper', not {occluded!r}.")
    front, back = view.startswith("front"), view.startswith("back")
    seen = {"gender", "build", "hat", "hat_color", "shoe", "shoe_color", "outer", "outer_color"}

    if a.hat is None or a.hair not in _UNDER_A_HAT:
        seen.add("hair")
    if a.hair != "bald" and not (a.hat is not None and a.hair == "buzz"):
        seen.add("hair_color")
    if view == "front" and a.hair in ("ponytail", "bun"):
        seen.discard("hair")
    if not back:
        seen |= {"age", "eyewear", "prop", "prop_color"}

    inner = a.outer is None or (a.outer_open and front)
    if front and a.outer is not None:
        seen.add("outer_open")
    if a.dress is not None:
        # A closed coat covers all but a long dress; a jacket leaves the skirt part in view.
        if inner or a.outer != "coat" or a.dress == "long":
            seen |= {"dress", "dress_color", "upper", "lower"}
            if a.pattern != "logo":
                seen |= {"pattern", "pattern_color"}
        if a.outer is None:
            seen.add("sleeve")
    else:
        seen |= {"dress", "lower", "lower_color", "skirt"}
        if inner:
            seen |= {"upper", "upper_color"}
            if front or a.pattern not in ("plain", "logo"):
                seen |= {"pattern", "pattern_color"}
        if a.outer is None or a.outer == "vest":
            seen.add("sleeve")
            if a.sleeve != "none":
                seen.add("upper_color")  # the sleeves show it beside a vest

    far_side = {"left": "right", "right": "left"}.get(view)
    if a.bag == "backpack":
        seen |= {"straps", "bag_color"} if front else {"bag", "bag_color"}
    elif a.bag is None:
        if far_side is None:
            seen.add("bag")
    elif a.bag_side != far_side:
        seen |= {"bag", "bag_color", "bag_side"}

    if occluded == "lower":
        seen -= {"shoe", "shoe_color", "skirt"}
    if occluded == "upper":
        seen -= _UPPER_BODY
        if a.dress is None:
            seen -= {"pattern", "pattern_color"}
    present = {name for name in seen if name == "straps" or getattr(a, name) is not None}
    return frozenset(present | (seen & set(_ABSENCE_SHOWS)))
