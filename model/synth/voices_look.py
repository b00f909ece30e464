"""What one text of the training phrase book mentions: the person, and some of what they wear and carry, as Items.

Everything built here is noted in the Speaker's facts, so a manner (voices_manners.py) must put all of it into words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from model.synth import voices_words as w
from model.synth.phrases import Speaker, article


@dataclass(frozen=True)
class Item:
    """One thing about the person: "[before] [color] [noun] [tail]", for instance "striped | red | shirt | with ..."."""

    slot: str  # "outer", "upper", "dress", "lower", "shoe", "hat", "eyewear", "hair", "bag" or "prop"
    noun: str
    color: str = ""
    before: str = ""
    tail: str = ""
    plural: bool = False  # takes no article


@dataclass(frozen=True)
class Who:
    """The person as this text names them: "young man", pronouns, and marks that follow ("slim build")."""

    noun: str  # "" where the text names nobody
    he: str
    his: str
    marks: tuple[str, ...] = ()

    @property
    def is_(self) -> str:
        return "are" if self.he == "they" else "is"

    @property
    def has(self) -> str:
        return "have" if self.he == "they" else "has"


# --- who ----------------------------------------------------------------------------------------------------------


def draw_who(s: Speaker, named: bool) -> Who:
    """The person; a text that names nobody, or nobody's gender, says "they"."""
    if not named:
        return Who("", "they", "their")
    he, his = ("he", "his") if s.a.gender == "male" else ("she", "her")
    before, marks = [], []
    by_age = s.sees("age") and s.chance(0.2 if s.a.age == "adult" else 0.55)
    neutral = s.chance(0.16)
    if neutral:
        noun, he, his = s.pick(*w.NEUTRAL), "they", "their"
    elif by_age and s.a.age != "adult" and s.chance(0.4):
        s.note_exact("age")
        noun, by_age = s.name(w.YOUNG_PERSON if s.a.age == "young" else w.OLD_PERSON, "gender"), False
        s.note_exact("gender")  # "student" and "pensioner" are said with "he" or "she"
    else:
        noun = s.name(w.PERSON, "gender")
    if by_age:
        if s.chance(0.6) and noun not in UNQUALIFIED:
            before.append(s.name(w.AGE, "age"))
        else:
            marks.append(s.name(w.AGE_AFTER, "age").replace("{his}", his))
    if s.sees("build") and s.chance(0.04 if s.a.build == "average" else 0.2):
        if s.chance(0.6) and noun not in UNQUALIFIED:
            before.insert(0, s.name(w.BUILD, "build"))
        else:
            marks.append(s.name(w.BUILD_AFTER, "build"))
    return Who(" ".join([*before, noun]), he, his, tuple(marks))


UNQUALIFIED = frozenset({"someone", "somebody"})


# --- what they wear and carry ---------------------------------------------------------------------------------------

_WEIGHTS = {
    "outer": 4.0, "upper": 4.0, "dress": 6.0, "lower": 2.6, "shoe": 1.0, "bag": 2.0, "hat": 2.0, "eyewear": 0.9,
    "hair": 1.0, "prop": 0.9,
}  # fmt: skip
_COUNT_EDGES = np.cumsum([0.16, 0.26, 0.25, 0.15, 0.09, 0.05])  # 1 to 6 items; the rest is 7


def draw_items(s: Speaker, who: Who, count: int) -> list[Item]:
    """Up to ``count`` visible things, what strikes the eye before what does not, in random order."""
    there = [slot for slot in _WEIGHTS if s.sees(slot) and slot != "hair"]
    if "straps" in s.visible:
        there.append("bag")
    if s.sees("hair") or s.sees("hair_color"):
        there.append("hair")
    if s.a.outer == "vest" and s.sees("upper_color") and "upper" not in there:
        there.append("sleeves")
    keys = s.rng.random(len(there)) ** (1 / np.array([_WEIGHTS.get(slot, 1.0) for slot in there]))
    chosen = [there[i] for i in np.argsort(-keys)[:count]]
    return [_BUILDERS[slot](s, who) for slot in chosen]


def _color(s: Speaker, name: str, silent: float = 0.06) -> str:
    """A colour word; now and then none, a doubtful one, or two between which the witness wavers."""
    if not s.sees(name) or s.chance(silent):
        return ""
    word = w.COLOR.say(s.rng, str(getattr(s.a, name)))
    meaning = w.COLOR.meaning[word]
    if s.chance(0.035):
        other = w.COLOR.say(s.rng, s.pick(*sorted(meaning)))
        if other not in word and word not in other:
            meaning, word = meaning | w.COLOR.meaning[other], f"{word} or {other}"
    elif s.chance(0.03):
        word = f"{s.pick('sort of', 'kind of', 'maybe', 'mostly', 'possibly', 'probably')} {word}"
    elif s.chance(0.03) and not word.endswith(("ed", "ish")):
        word += s.pick("-coloured", "-colored", " coloured", " colored", "-ish")
        if word.endswith("ish"):
            word, meaning = word.replace(" ", "-"), frozenset(w.COLOR.words)
    s.note(name, meaning)
    return word


def _upper(s: Speaker, who: Who) -> Item:
    return _top(s, "upper", s.name(w.UPPER, "upper"), _color(s, "upper_color"), "")


def _dress(s: Speaker, who: Who) -> Item:
    s.note("dress", frozenset(w.DRESS_LENGTH.words))
    length = ""
    if s.sees("shoe") and s.chance(0.3):  # else an occluder may hide how far down it goes
        length = s.name(w.DRESS_LENGTH, "dress")
    return _top(s, "dress", s.pick(*w.DRESS), _color(s, "dress_color"), length)


def _top(s: Speaker, slot: str, noun: str, color: str, before: str) -> Item:
    """The garment with its pattern and sleeves, each said or not."""
    a, words, tails = s.a, [before] if before else [], []
    if s.sees("sleeve") and "sleeve" not in noun and not before and s.chance(0.25):
        if s.chance(0.6):
            words.append(s.name(w.SLEEVE, "sleeve"))
        else:
            tails.append(s.name(w.SLEEVE_AFTER, "sleeve"))
    if s.sees("pattern") and (s.chance(0.75) if a.pattern != "plain" else s.chance(0.06)):
        second = _color(s, "pattern_color", 0.3) if a.pattern != "plain" else ""
        sleeveless = a.pattern == "two-tone" and a.sleeve == "none"
        if a.pattern == "plain" or sleeveless or s.chance(0.45):
            words.append(s.name(w.PATTERN, "pattern"))
            if second and color and " or " not in color + second:
                color += s.pick(" and ", "-and-", " & ", "/") + second
            elif second:
                tails.append(f"with {second}")
        else:
            mark = f"{second} {s.name(w.PATTERN_NOUN, 'pattern')}".strip()
            if a.pattern == "logo":
                mark = f"{article(mark) if not mark.endswith(_UNCOUNTED) else mark} {s.pick(*w.WHERE_LOGO)}".strip()
            tails.append(f"with {mark}")
    return Item(slot, noun, color, " ".join(words), " ".join(tails))


_UNCOUNTED = ("writing", "lettering", "text", "letters", "words", "branding")


def _outer(s: Speaker, who: Who) -> Item:
    before = tail = ""
    if s.sees("outer_open") and s.chance(0.15):
        s.note_exact("outer_open")
        word = s.pick(*(w.OPEN if s.a.outer_open else w.CLOSED))
        before, tail = (word, "") if s.chance(0.5) and " " not in word else ("", word)
    return Item("outer", s.name(w.OUTER, "outer"), _color(s, "outer_color"), before, tail)


def _sleeves(s: Speaker, who: Who) -> Item:
    """Beside a closed vest only the sleeves of the garment below show."""
    noun = s.pick("sleeves", "sleeves showing", "shirt sleeves")
    return Item("upper", noun, _color(s, "upper_color", 0.0), plural=True)


def _lower(s: Speaker, who: Who) -> Item:
    if s.a.lower == "skirt":
        s.note_exact("lower")
        length = ""
        if s.sees("skirt") and s.chance(0.35):
            length = s.name(w.DRESS_LENGTH, "skirt")
        return Item("lower", s.pick(*w.SKIRT), _color(s, "lower_color"), length)
    noun = s.name(w.LOWER, "lower")
    return Item("lower", noun, _color(s, "lower_color", 0.15 if s.a.lower == "jeans" else 0.05), plural=True)


def _shoe(s: Speaker, who: Who) -> Item:
    return Item("shoe", s.name(w.SHOE, "shoe"), _color(s, "shoe_color"), plural=True)


def _hat(s: Speaker, who: Who) -> Item:
    noun = s.name(w.HAT, "hat").replace("{his}", who.his)
    plural = noun in ("headgear", "headwear") or noun.startswith("something")
    return Item("hat", noun, _color(s, "hat_color", 0.15), plural=plural)


def _eyewear(s: Speaker, who: Who) -> Item:
    return Item("eyewear", s.name(w.EYEWEAR, "eyewear"), plural=True)


def _hair(s: Speaker, who: Who) -> Item:
    """Hair is one phrase, "dark hair in a bun": its colour stands inside."""
    if not s.sees("hair") or (s.a.hair != "bald" and s.chance(0.3)):
        return Item("hair", f"{s.name(w.HAIR_COLOR, 'hair_color')} hair", plural=True)
    phrase = s.name(w.HAIR, "hair").replace("{his}", who.his)
    if "{c}" in phrase:
        phrase = phrase.replace("{c}", s.name(w.HAIR_COLOR, "hair_color"))
    return Item("hair", phrase, plural="hair" in phrase or "locks" in phrase or phrase == "bald")


def _bag(s: Speaker, who: Who) -> Item:
    a = s.a
    color = _color(s, "bag_color", 0.12)
    if "straps" in s.visible:
        s.note_exact("bag")
        if color and s.chance(0.5):
            straps = s.pick("backpack straps", "rucksack straps", "straps of a rucksack", "straps on both shoulders")
            return Item("bag", straps, color, plural=True)
        return Item("bag", s.pick("backpack", "rucksack", "backpack", "knapsack"), color)
    noun = s.name(w.BAG, "bag")
    tail = ""
    if "{his}" not in noun and s.chance(0.3):
        side = ""
        if s.sees("bag_side") and s.chance(0.5):
            s.note_exact("bag_side")
            side = f"{a.bag_side} "
        tail = {
            "backpack": s.pick("on {his} back", "on the back", "worn behind"),
            "handbag": s.pick(f"in {{his}} {side}hand", f"in the {side}hand", f"by {{his}} {side}side"),
            "shoulder bag": s.pick(f"over {{his}} {side}shoulder", f"on the {side}shoulder", f"on {{his}} {side}side"),
            "crossbody bag": s.pick(f"at {{his}} {side}hip", f"on {{his}} {side}side", f"at {{his}} {side}side"),
        }[str(a.bag)]
    return Item("bag", noun.replace("{his}", who.his), color, tail=tail.replace("{his}", who.his))


def _prop(s: Speaker, who: Who) -> Item:
    color = _color(s, "prop_color", 0.15) if s.a.prop == "umbrella" else ""
    tail = s.pick("", "", "", f"in {who.his} hand", "in hand")
    return Item("prop", s.name(w.PROP, "prop"), color, tail=tail)


_BUILDERS: dict[str, Callable[[Speaker, Who], Item]] = {
    "outer": _outer, "upper": _upper, "dress": _dress, "sleeves": _sleeves, "lower": _lower, "shoe": _shoe,
    "bag": _bag, "hat": _hat, "eyewear": _eyewear, "hair": _hair, "prop": _prop,
}  # fmt: skip


def lack(s: Speaker, who: Who) -> str:
    """Something plainly missing, "no bag"; empty where nothing of the kind is unsaid and visible."""
    unsaid = [n for n in w.MISSING if n in s.visible and n not in s.facts and getattr(s.a, n) is None]
    if not unsaid:
        return ""
    name = s.pick(*unsaid)
    s.note_exact(name)
    return s.pick(*w.MISSING[name]).replace("{his}", who.his)
