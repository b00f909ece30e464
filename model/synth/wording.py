"""A second phrase book: how an operator or a caller asks for a person, never used for training.

Its sentence forms, names and habits are independent of captions.py, so a net that only learnt those templates falls
on this set. About half are short queries of three to eight words. Forms are plain strings: "{top}" is a noun phrase,
"{a top}" the same with its article; a form is used only where all its slots can be seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import numpy as np

from model.synth.attributes import LENGTHS, Attributes
from model.synth.phrases import Facts, Lexicon, Speaker, article
from model.synth.visibility import visible_attributes

# fmt: off
_COLOR = Lexicon({
    "black": "black*9|dark|blackish|pitch black",
    "white": "white*9|whitish|snow white",
    "gray": "grey*5|gray*4|slate gray|stone gray|greyish",
    "blue": "blue*8|mid blue|cobalt|azure|strong blue",
    "navy blue": "navy*4|dark blue*3|deep blue|indigo|very dark blue",
    "light blue": "light blue*4|pale blue*2|bluish|soft blue|ice blue",
    "red": "red*8|ruby red|vivid red|post box red",
    "brown": "brown*7|chestnut|nut brown|mud brown",
    "pink": "pink*7|rose pink|pinkish|pastel pink",
    "green": "green*7|leaf green|mid green|greenish",
    "dark green": "dark green*4|deep green|racing green|bottle green",
    "yellow": "yellow*7|canary yellow|yellowish|sunny yellow",
    "purple": "purple*7|mauve|deep purple|aubergine",
    "orange": "orange*7|amber|strong orange|pumpkin colored",
    "tan": "tan*4|light brown*2|sandy|biscuit colored|beige",
    "beige": "beige*4|cream*2|oatmeal|sandy|light tan",
    "khaki": "khaki*5|olive|military green|sandy|tan",
    "maroon": "maroon*4|burgundy*2|dark red*3|wine red",
    "denim": "blue*6|denim blue|dark blue*2|mid blue|washed out blue",
    "teal": "teal*4|turquoise*2|blue-green|sea green|greenish",
})
_HAIR_COLOR = Lexicon({
    "black": "black*3|dark*2|raven", "dark brown": "dark brown*2|dark|brown", "brown": "brown*3|light brown|chestnut",
    "blonde": "blonde*3|fair*2|yellow", "gray": "grey*2|gray*2|white|silver", "red": "red*2|ginger*2|copper colored",
})
_WHO = Lexicon({
    "male": "man*8|male*4|guy*3|bloke|gent|fellow|dude|chap",
    "female": "woman*8|female*4|lady*4|gal|girl*2",
})
_AGE = Lexicon({
    "young": "young*5|youthful|teenage|early twenties",
    "adult": "middle-aged|adult|grown-up",
    "old": "old*3|elderly*3|senior|aged",
})
_BUILD = Lexicon({
    "thin": "slim build*2|skinny build|slight build|thin build",
    "average": "medium build|average build|regular build",
    "heavy": "large build|heavy build*2|stocky build|big build|solid build",
})
_UPPER = Lexicon({
    "t-shirt": "t-shirt*5|tee*2|top*3|shirt*2", "shirt": "shirt*6|dress shirt|button-up|top",
    "polo shirt": "polo*3|polo shirt*3|shirt|top", "blouse": "blouse*4|top*3|shirt",
    "sweater": "sweater*4|jumper*3|pullover*2|top|sweatshirt", "hoodie": "hoodie*5|hoody*2|sweatshirt*2|hooded top*2",
    "tank top": "tank top*3|vest top|sleeveless top*2|tank|top",
})
_OUTER = Lexicon({
    "jacket": "jacket*7|coat|zip jacket|anorak|bomber", "coat": "coat*6|overcoat*2|long coat|mac|jacket",
    "cardigan": "cardigan*4|cardie|knitted jacket", "vest": "vest*4|gilet|body warmer|sleeveless jacket",
})
_LOWER = Lexicon({
    "pants": "pants*5|trousers*4|bottoms*2", "jeans": "jeans*8|denims|pants|trousers",
    "shorts": "shorts*8|short trousers",
    "slacks": "slacks*3|smart trousers*2|dress pants*2|trousers*2|pants", "skirt": "skirt",
    "leggings": "leggings*4|tights*2|tight pants*2|tight trousers|pants",
})
_SHOE = Lexicon({
    "shoes": "shoes*7|footwear|lace-ups", "sneakers": "sneakers*4|trainers*3|runners|running shoes|shoes*2",
    "sandals": "sandals*5|flip-flops|open shoes*2|shoes", "boots": "boots*7|ankle boots|shoes",
})
_BAG = Lexicon({
    "backpack": "backpack*5|rucksack*3|pack|bag on the back|bag", "shoulder bag": "shoulder bag*3|bag*4|tote*2|satchel",
    "crossbody bag": "sling bag*2|bag*4|crossbody*2|messenger bag|satchel", "handbag": "handbag*4|purse*3|bag*3|tote",
})
_HAT = Lexicon({"cap": "cap*4|baseball cap*3|hat", "hat": "hat*5|sun hat|brimmed hat"})
_EYEWEAR = Lexicon({"glasses": "glasses*4|specs|spectacles", "sunglasses": "sunglasses*3|shades|dark glasses"})
_PROP = Lexicon({
    "phone": "phone*3|mobile*2|cell phone|handset", "umbrella": "umbrella*4|brolly|parasol",
    "bottle": "bottle*3|water bottle|drink", "book": "book*3|notebook|folder",
})
_PATTERN = Lexicon({
    "striped": "striped*3|stripy*2|lined", "plaid": "checked*2|plaid*2|chequered|tartan",
    "polka dot": "spotted*2|dotted*2|polka dot", "floral": "flowery*2|floral*2|flower print",
    "logo": "printed*3|logo", "two-tone": "two-coloured|two-tone|half and half",
})

# Short forms, as typed into a search box. Three to eight words once filled.
_SHORT = (
    "{who} {top} {bottom}", "{who} {top}", "{who} in {top}", "{who} in {a top}", "{who}, {top}, {bottom}",
    "{who} {top} {bag}", "{who} with {bag}", "{who} with {a bag}", "{who} w/ {bag}, {top}", "{top} {bottom}",
    "{top} and {bottom}", "{top}, {bottom}, {bag}", "{top} with {bag}", "{who} {bottom}", "{who} in {bottom}",
    "{who} {bottom} {shoes}", "{bottom} {shoes} {who}", "{who} {shoes}", "{who} wearing {top}",
    "{who} wearing {bottom}",
    "find {who} in {top}", "find {who} with {bag}", "find {top} {bottom}", "{who} {hat}", "{who} in {a hat}",
    "{who} with {a hat}", "{hat} {top}", "{hat} and {top}", "{who} {hat} {bag}", "{who} {glasses} {top}",
    "{who} with {glasses}", "{who} {hair} {top}", "{who} with {hair}, {bottom}", "{hair}, {top}",
    "{aged} {top}", "{aged} in {top}", "{aged} {bottom} {bag}", "{aged} with {a bag}", "{aged}, {hair}",
    "{who} holding {a prop}", "{who} {prop} {top}", "{who} carrying {a prop}", "{who} carrying {a bag}",
    "{bag} {bottom}",
    "{bag} {top} {who}", "{who} {build} {top}", "{bottom} {who}", "{top} {who}", "{top} {bottom} {who}",
    "any {who} in {top}", "show {who} {top} {bag}", "show me {top} and {bottom}", "{who} - {top} - {bottom}",
    "{who} / {top} / {bottom}", "{who}; {bag}; {top}", "{who} + {bag}", "{who}, {shoes}, {bottom}", "{top}, {shoes}",
    "{who} {top} {nobag}", "{bottom} with {shoes}", "{who} {dress}", "{who} in {a dress}", "{dress} {shoes}",
    "{dress} and {bag}", "{who} {outer} over {inner}", "{outer} open, {inner} under", "{who} {outer}",
    "{who} in {a outer}",
)

# Long forms: an opening and what follows it.
_OPENINGS = (
    "{body}.", "Looking for {body}.", "We are looking for {body}.", "Please find {body}.", "Search for {body}.",
    "Did anyone see {body}?", "Where did {body} go?", "Show me every image of {body}.", "I saw {body}.",
    "The caller describes {body}.", "The witness remembers {body}.", "It was {body}.", "Can you locate {body}?",
    "Reported missing: {body}.", "Last noticed here: {body}.", "Alert for {body}.", "Need footage of {body}.",
    "Trying to trace {body}, please check the cameras.", "Any sightings of {body}?", "Requesting a check on {body}.",
)
_BODIES = (
    "{a who} in {a top} and {a bottom}",
    "{a who} wearing {a bottom} with {a top}",
    "{a who} in {a bottom}, {a top} and {shoes}",
    "{a who} with {hair}, {a top} and {a bottom}",
    "{a who} who carries {a bag} and wears {a top} and {a bottom}",
    "{a who} with {a bag}, dressed in {a bottom} and {a top}",
    "{a aged} in {a top}, {shoes} on the feet",
    "{a who} of {build} in {a top} and {a bottom}",
    "{a who} in {a hat} and {a top}",
    "{a who} wearing {glasses} plus {a top} and {a bottom}",
    "{a who} in {a dress} and {shoes}",
    "{a who} in {a dress}, with {hair}",
    "{a who} in {a dress} who has {a bag}",
    "{a who}, {a outer} over {a inner}, {a bottom} below",
    "{a who} with {a prop} in hand, {a top} and {a bottom}",
)
_REPORTS = (
    "{who}, {build}, {hair}. Top: {top}. Legs: {bottom}. Feet: {shoes}.",
    "Description: {who}. Upper body {top}, lower body {bottom}, footwear {shoes}.",
    "{who}. Wore {a top}. Had {a bottom}. Also {a bag}.",
    "Subject is {a aged} with {hair}, last seen in {a top} and {a bottom}, {shoes}.",
    "The top was {a top}; the bottom half was {a bottom}; I think the shoes were {shoes}.",
    "I only noticed {a bag} and {shoes}, the rest was {a top} and {a bottom}.",
    "{shoes}, {a bottom}, {a top}, in that order from the ground up, worn by {a who}.",
    "From head to toe: {hair}, {a top}, {a bottom} and {shoes}.",
    "{who} passing through, {a bag} on the body, {a top} above {a bottom}.",
    "The person I mean has {hair} and {a top}. Not sure about anything else, but below the waist I recall {a bottom}.",
    "{a dress}, {shoes} and {hair}: that is the {who} I mean.",
    "She had {a dress} on. There was also {a bag}. Her shoes: {shoes}.",
    "{a outer} on top, {a inner} visible underneath, then {a bottom} and {shoes}. It was {a who}.",
    "One {who} in {a hat} and {a top}, plus {a bottom}; could be carrying things.",
    "{who} with {glasses}. Clothes: {top}, {bottom}. Build: {build}.",
    "Someone with {a prop}, clearly {a who}, in {a top} and {a bottom}.",
    "My friend is wearing {a top} together with {a bottom} and {shoes}, and has {hair}.",
    "Lost contact with {a aged}. Clothing was {a top} and {a bottom}. Hair: {hair}.",
)
# fmt: on
_SLOT = re.compile(r"\{(a )?(\w+)\}")


@cache
def query_forms() -> tuple[str, ...]:
    """Every sentence form of the book, short ones first; more than 200."""
    asked = (opening.replace("{body}", body) for opening in _OPENINGS for body in _BODIES)
    return tuple(dict.fromkeys((*_SHORT, *_REPORTS, *asked)))


def _worn(s: Speaker, kind: str, kinds: Lexicon, color: str, plain: float = 0.08) -> str:
    """Colour and garment, for instance "navy jumper"; the colour is left out now and then."""
    noun = s.name(kinds, kind)
    if not s.sees(color) or s.chance(plain):
        return noun
    return f"{s.name(_COLOR, color)} {noun}"


def _upper(s: Speaker) -> str:
    phrase = _worn(s, "upper", _UPPER, "upper_color")
    if s.sees("pattern") and s.a.pattern != "plain" and s.chance(0.6):
        phrase = f"{s.name(_PATTERN, 'pattern')} {phrase}"
    return phrase


def _dress(s: Speaker) -> str:
    s.note("dress", frozenset(LENGTHS))
    color = "" if s.chance(0.05) else s.name(_COLOR, "dress_color")
    if s.sees("pattern") and s.a.pattern != "plain" and s.chance(0.6):
        color = f"{color} {s.name(_PATTERN, 'pattern')}"
    return f"{color} dress".strip()


def _hair(s: Speaker) -> str:
    if s.sees("hair"):
        styles = {"bald": "a bald head", "ponytail": "a ponytail", "bun": "hair in a bun", "long": "long hair"}
        style = styles.get(s.a.hair)
        if s.a.hair == "bald" or (style and s.chance(0.3)):
            s.note_exact("hair")
            return str(style)
    color = s.name(_HAIR_COLOR, "hair_color")
    if s.sees("hair") and s.a.hair in ("short", "buzz", "long") and s.chance(0.5):
        s.note("hair", frozenset({"long"} if s.a.hair == "long" else {"short", "buzz"}))
        return f"{'long' if s.a.hair == 'long' else s.pick('short', 'cropped')} {color} hair"
    return f"{color} hair"


def _bag(s: Speaker) -> str:
    if "straps" in s.visible:
        noun = s.pick("backpack", "rucksack")
        s.note_exact("bag")
    else:
        noun = s.name(_BAG, "bag")
    return noun if s.chance(0.15) else f"{s.name(_COLOR, 'bag_color')} {noun}"


def _prop(s: Speaker) -> str:
    return _worn(s, "prop", _PROP, "prop_color") if s.a.prop == "umbrella" else s.name(_PROP, "prop")


def _no_bag(s: Speaker) -> str:
    s.note_exact("bag")
    return "no bag"


def _outer(s: Speaker) -> str:
    return _worn(s, "outer", _OUTER, "outer_color")


def _top(s: Speaker) -> str:
    return _outer(s) if s.sees("outer") else _dress(s) if s.sees("dress") else _upper(s)


_Slot = tuple[Callable[[Speaker], bool], Callable[[Speaker], str]]  # can it be said here, and how
_SLOTS: dict[str, _Slot] = {
    "who": (lambda s: True, lambda s: s.name(_WHO, "gender")),
    "aged": (
        lambda s: s.sees("age") and s.a.age != "adult",
        lambda s: f"{s.name(_AGE, 'age')} {s.name(_WHO, 'gender')}",
    ),
    "build": (lambda s: s.sees("build"), lambda s: s.name(_BUILD, "build")),
    "hair": (lambda s: s.sees("hair_color") or (s.sees("hair") and s.a.hair == "bald"), _hair),
    "top": (lambda s: s.sees("outer") or s.sees("dress") or s.sees("upper"), _top),
    "outer": (lambda s: s.sees("outer"), _outer),
    "inner": (lambda s: s.sees("outer") and s.sees("upper"), _upper),
    "dress": (lambda s: s.sees("dress"), _dress),
    "bottom": (lambda s: s.sees("lower"), lambda s: _worn(s, "lower", _LOWER, "lower_color")),
    "shoes": (lambda s: s.sees("shoe"), lambda s: _worn(s, "shoe", _SHOE, "shoe_color")),
    "bag": (lambda s: s.sees("bag") or "straps" in s.visible, _bag),
    "nobag": (lambda s: "bag" in s.visible and s.a.bag is None, _no_bag),
    "hat": (lambda s: s.sees("hat"), lambda s: _worn(s, "hat", _HAT, "hat_color")),
    "glasses": (lambda s: s.sees("eyewear"), lambda s: s.name(_EYEWEAR, "eyewear")),
    "prop": (lambda s: s.sees("prop"), _prop),
}


def slots_of(form: str) -> frozenset[str]:
    """The slots a form needs."""
    return frozenset(match[2] for match in _SLOT.finditer(form))


def fill(s: Speaker, form: str) -> str:
    """The form with its slots said by ``s``."""

    def say(match: re.Match[str]) -> str:
        phrase = _SLOTS[match[2]][1](s)
        takes_article = match[1] and not phrase.startswith("a ") and not phrase.split(" on the ")[0].endswith("s")
        return article(phrase) if takes_article or (match[1] and phrase.endswith("dress")) else phrase

    return _SLOT.sub(say, form)


def wording_query(
    rng: np.random.Generator, a: Attributes, view: str, occluded: str | None = None, short: float = 0.5
) -> tuple[str, Facts]:
    """A query in the second phrase book's words, and the facts it states as in ``caption_with_facts``.

    Args:
        short: share of queries of three to eight words.
    """
    visible = visible_attributes(a, view, occluded)
    able = {name for name, (can, _) in _SLOTS.items() if can(Speaker(rng, a, visible))}
    brief = bool(rng.random() < short)
    forms = [form for form in (_SHORT if brief else query_forms()[len(_SHORT) :]) if slots_of(form) <= able]
    if not forms:  # only the head and legs show: ask for what there is
        forms = [form for form in _SHORT if slots_of(form) <= able]
    while True:
        speaker = Speaker(rng, a, visible)
        text = fill(speaker, forms[int(rng.integers(len(forms)))])
        # A bare noun can leave a short form under its length and a long colour name push it over; say it again then.
        if 3 <= len(re.findall(r"[\w'-]+", text)) <= (8 if brief else 60):
            return text[0].upper() + text[1:] if text.endswith((".", "?")) else text, speaker.facts
