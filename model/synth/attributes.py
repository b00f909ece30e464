"""What a rendered pedestrian looks like, in words a witness could use.

One frozen record describes an identity; the renderer reads it to draw, the phrase books read it to speak, and
the oracle reads it to judge. Body shape and skin tone are drawn but **never described**.
"""

from __future__ import annotations

from dataclasses import dataclass

# Linear-light albedo of every named colour. Neighbouring names (tan, beige, khaki) are close on purpose.
COLORS: dict[str, tuple[float, float, float]] = {
    "black": (0.045, 0.045, 0.05),
    "white": (0.86, 0.86, 0.84),
    "gray": (0.38, 0.39, 0.40),
    "blue": (0.12, 0.25, 0.62),
    "navy blue": (0.06, 0.09, 0.22),
    "light blue": (0.48, 0.66, 0.84),
    "red": (0.66, 0.08, 0.09),
    "brown": (0.30, 0.18, 0.10),
    "pink": (0.88, 0.50, 0.60),
    "green": (0.13, 0.42, 0.18),
    "dark green": (0.07, 0.20, 0.11),
    "yellow": (0.88, 0.74, 0.12),
    "purple": (0.36, 0.16, 0.48),
    "orange": (0.88, 0.42, 0.08),
    "tan": (0.68, 0.55, 0.38),
    "beige": (0.80, 0.72, 0.58),
    "khaki": (0.56, 0.50, 0.33),
    "maroon": (0.33, 0.05, 0.09),
    "denim": (0.20, 0.29, 0.43),
    "teal": (0.08, 0.42, 0.44),
}
HAIR_COLORS: dict[str, tuple[float, float, float]] = {
    "black": (0.035, 0.03, 0.03),
    "dark brown": (0.08, 0.05, 0.035),
    "brown": (0.16, 0.09, 0.05),
    "blonde": (0.58, 0.43, 0.22),
    "gray": (0.45, 0.45, 0.45),
    "red": (0.38, 0.14, 0.06),
}
GENDERS = ("male", "female")
AGES = ("young", "adult", "old")
BUILDS = ("thin", "average", "heavy")
HAIRS = ("short", "buzz", "bald", "long", "bob", "ponytail", "bun")
UPPERS = ("t-shirt", "shirt", "polo shirt", "blouse", "sweater", "hoodie", "tank top")
SLEEVES = ("none", "short", "long")
PATTERNS = ("plain", "striped", "plaid", "polka dot", "floral", "logo", "two-tone")
OUTERS = ("jacket", "coat", "cardigan", "vest")
LOWERS = ("pants", "jeans", "slacks", "shorts", "leggings", "skirt")
LENGTHS = ("short", "knee-length", "long")
SHOES = ("shoes", "sneakers", "sandals", "boots")
BAGS = ("backpack", "shoulder bag", "crossbody bag", "handbag")
HATS = ("cap", "hat")
EYEWEAR = ("glasses", "sunglasses")
PROPS = ("phone", "umbrella", "bottle", "book")
VIEWS = ("front", "front-left", "front-right", "left", "right", "back-left", "back-right", "back")


@dataclass(frozen=True)
class Attributes:
    """One identity's describable look. ``None`` means absent; a colour is a key of COLORS or HAIR_COLORS.

    With ``dress`` set the person wears no separate upper or lower garment and both are None; an outer garment
    may still cover it. Sides are the person's own left and right.
    """

    gender: str
    age: str
    build: str
    hair: str
    hair_color: str
    upper: str | None
    upper_color: str | None
    sleeve: str | None
    pattern: str  # of the upper garment, or of the dress
    pattern_color: str | None  # second colour; None when plain
    dress: str | None  # None or a length from LENGTHS
    dress_color: str | None
    lower: str | None
    lower_color: str | None
    skirt: str | None  # length, only when lower == "skirt"
    outer: str | None
    outer_color: str | None
    outer_open: bool
    shoe: str
    shoe_color: str
    bag: str | None
    bag_color: str | None
    bag_side: str | None  # "left" or "right"; None for a backpack
    hat: str | None
    hat_color: str | None
    eyewear: str | None
    prop: str | None
    prop_color: str | None  # only for an umbrella
