"""Prompts that name one value of one attribute: asked of an image, the most similar tells what a net takes it for.

Plain words of the first phrase book, so that the net has read them all; nothing is embedded here.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.synth import attributes as known
from model.synth.sampling import one_name

_COLORS = {one_name(color): one_name(color) for color in known.COLORS}
_HAIR_COLORS = {one_name(color): one_name(color) for color in known.HAIR_COLORS}


@dataclass(frozen=True)
class Prompts:
    """Sentences with a gap, and for each value of the attribute what goes into it."""

    forms: tuple[str, ...]
    words: dict[str, str]

    def of(self, value: str) -> list[str]:
        """Every sentence for one value."""
        return [form.format(self.words[value]) for form in self.forms]


def _same(values: tuple[str, ...]) -> dict[str, str]:
    return {value: value for value in values}


PROMPTS: dict[str, Prompts] = {
    "gender": Prompts(("a {}", "the {} is walking", "this is a {}"), {"male": "man", "female": "woman"}),
    "upper": Prompts(("a person in a {}", "a person wearing a {}", "{}"), _same(known.UPPERS)),
    "upper_color": Prompts(("a person in a {} shirt", "{} shirt", "a person wearing a {} top"), _COLORS),
    "sleeve": Prompts(
        ("a person in a {} shirt", "{} shirt", "a person wearing a {} top"),
        {"none": "sleeveless", "short": "short sleeved", "long": "long sleeved"},
    ),
    "pattern": Prompts(
        ("a person in a {} shirt", "{} shirt", "a person wearing a {}"),
        {
            "plain": "plain", "striped": "striped", "plaid": "plaid", "polka dot": "polka dot", "floral": "floral",
            "logo": "printed logo", "two-tone": "two tone",
        },
    ),
    "dress": Prompts(
        ("a woman in a {} dress", "{} dress", "a woman wearing a {} dress"),
        {"short": "short", "knee-length": "knee length", "long": "long"},
    ),
    "dress_color": Prompts(("a woman in a {} dress", "{} dress", "a woman wearing a {} dress"), _COLORS),
    "lower": Prompts(
        ("a person in {}", "a person wearing {}", "{}"), {**_same(known.LOWERS), "skirt": "a skirt"}
    ),
    "lower_color": Prompts(("a person in {} pants", "{} pants", "a person wearing {} bottoms"), _COLORS),
    "outer": Prompts(("a person in a {}", "a person wearing a {}", "{}"), _same(known.OUTERS)),
    "outer_color": Prompts(("a person in a {} jacket", "{} jacket", "a person wearing a {} coat"), _COLORS),
    "shoe": Prompts(("a person in {}", "a person wearing {}", "{}"), {**_same(known.SHOES), "shoes": "dress shoes"}),
    "shoe_color": Prompts(("a person in {} shoes", "{} shoes", "a person wearing {} shoes"), _COLORS),
    "bag": Prompts(("a person carrying a {}", "a person with a {}", "{}"), _same(known.BAGS)),
    "bag_color": Prompts(("a person carrying a {} bag", "{} bag", "a person with a {} bag"), _COLORS),
    "hair": Prompts(
        ("a person with {}", "{}", "the person has {}"),
        {
            "short": "short hair", "buzz": "very short hair", "bald": "a bald head", "long": "long hair",
            "bob": "chin length hair", "ponytail": "hair in a ponytail", "bun": "hair in a bun",
        },
    ),
    "hair_color": Prompts(("a person with {} hair", "{} hair", "the person has {} hair"), _HAIR_COLORS),
    "hat": Prompts(("a person in a {}", "a person wearing a {}", "{}"), {"cap": "baseball cap", "hat": "brimmed hat"}),
    "eyewear": Prompts(("a person wearing {}", "a person in {}", "{}"), _same(known.EYEWEAR)),
    "prop": Prompts(
        ("a person holding {}", "a person with {}", "{}"),
        {"phone": "a cell phone", "umbrella": "an umbrella", "bottle": "a bottle", "book": "a book"},
    ),
}  # fmt: skip
"""What can be asked of an image that shows the attribute; a bag or a hat that is not there is not asked for."""
