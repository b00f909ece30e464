"""English descriptions of one image, saying only what that image shows, in the manner of human captions.

``caption_with_facts`` also returns what was stated, so that a perfect reader can be scored (oracle.py). The look of
the text - length, sentences, colour words, what is mentioned how often - follows docs/dataset-card.md, and
``python -m model.synth.caption_statistics`` prints it. A second, independent phrase book is in wording.py.
"""

from __future__ import annotations

import string

import numpy as np

from model.synth import phrases as p
from model.synth.attributes import Attributes
from model.synth.phrases import Facts, Speaker, article, bearing, listing
from model.synth.visibility import visible_attributes

__all__ = [
    "caption", "caption_with_facts", "misspell", "short_query", "short_query_with_facts", "tokens",
    "visible_attributes",
]  # fmt: skip


def tokens(text: str) -> list[str]:
    """The words of a caption as in ``processed_tokens``: lower case, punctuation deleted, split on white space."""
    return text.lower().translate(str.maketrans("", "", string.punctuation)).split()


def caption(
    rng: np.random.Generator,
    a: Attributes,
    view: str,
    occluded: str | None = None,
    activity: str = "walking",
    *,
    short: float = 0.0,
    typos: float = 0.0,
) -> str:
    """One description of one image; see ``caption_with_facts``."""
    return caption_with_facts(rng, a, view, occluded, activity, short=short, typos=typos)[0]


def caption_with_facts(
    rng: np.random.Generator,
    a: Attributes,
    view: str,
    occluded: str | None = None,
    activity: str = "walking",
    *,
    short: float = 0.0,
    typos: float = 0.0,
) -> tuple[str, Facts]:
    """One description and what it states: for each field it speaks of, the values its words allow.

    Args:
        activity: "walking", "standing", or any phrase that may follow "is".
        short: share of short operator queries ("woman red coat black bag") among the captions, for training.
        typos: share of captions with one or two misspelt words, for training.
    """
    if short and rng.random() < short:
        text, facts = short_query_with_facts(rng, a, view, occluded)
    else:
        visible = visible_attributes(a, view, occluded)
        detail = float(rng.beta(0.45, 1.35))
        for _ in range(3):
            speaker = Speaker(rng, a, visible, detail)
            text, facts = _describe(speaker, view, activity), speaker.facts
            if len(text.split()) >= _SHORTEST or rng.random() < 0.15:
                break
            detail = 0.2 + 0.8 * detail  # few people stop this early: say it again, with more to it
    if typos and rng.random() < typos:
        text = misspell(rng, text)
    return text, facts


_SHORTEST = 16  # words

# --- noun phrases -----------------------------------------------------------------------------------------------


# Share of cases in which a word gives way to another name of the same thing, so that captions use the common words
# as often as human ones do.
_PASSED_OVER = {
    "green": 0.34, "tan": 0.26, "gold": 0.9, "golden": 0.9, "mustard": 0.9, "blue": 0.08, "brown": 0.12, "red": 0.1,
    "gray": 0.2, "grey": 0.2, "coat": 0.6, "dress": 0.25,
}  # fmt: skip


def _word(s: Speaker, lexicon: p.Lexicon, name: str) -> str:
    """A word for the value of a field, noting what it means."""
    known = lexicon.words[str(getattr(s.a, name))]
    word = s.pick(*known)
    for frequent in word.split():
        others = [other for other in known if frequent not in other.split()]
        if others and s.chance(_PASSED_OVER.get(frequent, 0.0)):
            word = s.pick(*others)
            break
    s.note(name, lexicon.meaning[word])
    return word


def _color(s: Speaker, name: str) -> str:
    word = _word(s, p.COLOR, name)
    return f"{word} colored" if s.chance(0.03) and not word.endswith("colored") else word


def _upper(s: Speaker) -> str:
    """The upper garment, "a short sleeved white shirt with a blue logo"."""
    color = _color(s, "upper_color") if s.chance(0.97) else ""
    noun = _word(s, p.UPPER, "upper")
    sleeve = ""
    usual = s.a.upper in ("sweater", "hoodie", "tank top")
    if s.sees("sleeve") and s.chance((0.05 if usual else 0.25) + 0.4 * s.detail) and "sleeve" not in noun:
        sleeve = s.name(p.SLEEVE, "sleeve")
    return _with_pattern(s, color, sleeve, noun)


def _with_pattern(s: Speaker, color: str, before: str, noun: str) -> str:
    a = s.a
    plain = article(" ".join(w for w in ((before, color, noun) if s.chance(0.4) else (color, before, noun)) if w))
    if not s.sees("pattern") or a.pattern == "plain" or not color or s.chance(0.12):
        if s.sees("pattern") and a.pattern == "plain" and color and s.chance(0.04):
            s.note_exact("pattern")
            return article(f"{s.pick('plain', 'solid', 'plain', 'solid colored')} {color} {noun}")
        return plain
    if a.pattern == "logo":
        return f"{plain} {_logo(s)}"
    adjective = s.chance(0.5)
    second = _word(s, p.COLOR, "pattern_color") if s.chance(0.75) or not adjective else ""
    if not adjective and not (a.pattern == "two-tone" and a.sleeve == "none"):
        return f"{plain} with {_before(second, s.name(p.PATTERN_NOUN, 'pattern'))}"
    colors = f"{color} and {second}" if second else color
    pattern = s.name(p.PATTERN, "pattern")
    if a.pattern == "two-tone" and second and s.chance(0.7):
        pattern = ""
    return article(" ".join(w for w in (colors, pattern, before, noun) if w))


def _before(color: str, noun: str) -> str:
    """The colour inside a noun phrase that may bring its own article: "a dotted pattern" -> "a red dotted pattern"."""
    if noun.startswith("a "):
        return article(f"{color} {noun[2:]}")
    return f"{color} {noun}"


def _logo(s: Speaker) -> str:
    where = s.pick(*p.WHERE_LOGO)
    if s.chance(0.35):
        thing = s.pick(*p.LETTERING)
        s.note_exact("pattern")
        if not thing.startswith("a ") and s.chance(0.6):
            thing = f"{_word(s, p.COLOR, 'pattern_color')} {thing}"
    else:
        thing = s.name(p.PATTERN_NOUN, "pattern")
        thing = article(f"{_word(s, p.COLOR, 'pattern_color')} {thing}" if s.chance(0.7) else thing)
    return f"{s.pick('with', 'with', 'that has')} {thing} {where}".rstrip()


def _dress(s: Speaker) -> str:
    color = _color(s, "dress_color") if s.chance(0.97) else ""
    s.note("dress", frozenset(p.DRESS_LENGTH))
    length = ""
    if s.sees("shoe") and s.chance(0.2 + 0.4 * s.detail):  # else an occluder hides how far down it goes
        length = s.pick(*p.DRESS_LENGTH[str(s.a.dress)])
        s.note_exact("dress")
    elif s.sees("sleeve") and s.chance(0.2 + 0.2 * s.detail):
        length = s.name(p.SLEEVE, "sleeve")
    return _with_pattern(s, color, length, s.pick(*p.DRESS_NOUNS))


def _outer(s: Speaker) -> str:
    color = _color(s, "outer_color") if s.chance(0.96) else ""
    return article(f"{color} {_word(s, p.OUTER, 'outer')}".strip())


def _top(s: Speaker) -> str | None:
    """Everything worn above the waist, or the dress; None where nothing of it is in view."""
    inner = _dress if s.sees("dress") else _upper if s.sees("upper") else None
    if not s.sees("outer"):
        return inner(s) if inner else None
    outer = _outer(s)
    if inner is None:
        if s.a.outer == "vest" and s.sees("upper_color") and s.chance(0.7):
            return f"{outer} over {article(_word(s, p.COLOR, 'upper_color'))} {s.pick('top', 'shirt', 'garment')}"
        return outer
    if s.chance(0.1):
        return outer
    under = inner(s)
    if s.sees("outer_open") and s.a.outer_open and s.chance(0.2):
        s.note_exact("outer_open")
        return f"an {s.pick('open', 'unbuttoned', 'unzipped')} {outer.split(' ', 1)[1]} with {under} underneath"
    return s.pick(f"{outer} over {under}", f"{under} under {outer}", f"{outer}, {under}", f"{outer} on top of {under}")


def _lower(s: Speaker) -> str:
    a = s.a
    if a.lower == "skirt":
        s.note_exact("lower")
        length = ""
        if s.sees("skirt") and s.chance(0.25 + 0.4 * s.detail):
            length = s.pick(*p.DRESS_LENGTH[str(a.skirt)])
            s.note_exact("skirt")
        return article(" ".join(w for w in (length, _color(s, "lower_color"), s.pick(*p.SKIRT_NOUNS)) if w))
    noun = _word(s, p.LOWER, "lower")
    color = "" if s.chance(0.3 if a.lower == "jeans" else 0.04) else _color(s, "lower_color")
    phrase = f"{color} {noun}".strip()
    return f"{s.pick('a pair of', 'a pair of', 'some')} {phrase}" if s.chance(0.06 + 0.25 * s.detail) else phrase


def _shoes(s: Speaker) -> str:
    color = _color(s, "shoe_color") if s.chance(0.96) else ""
    phrase = f"{color} {_word(s, p.SHOE, 'shoe')}".strip()
    return f"a pair of {phrase}" if s.chance(0.06 + 0.25 * s.detail) else phrase


def _hair(s: Speaker, his: str) -> str:
    """What can follow "has" or "with": "short black hair", "her hair tied up in a bun"."""
    a = s.a
    if s.sees("hair") and a.hair == "bald":
        s.note_exact("hair")
        return s.pick("a bald head", "no hair", "a shaved head", "a clean shaven head")
    color = s.name(p.HAIR_COLOR, "hair_color")
    if not s.sees("hair") or (a.hair in ("short", "long", "bob") and s.chance(0.15)):
        return f"{color} hair"
    ways: dict[str, tuple[str, ...]] = {
        "short": (f"short {color} hair",) * 4
        + (f"{color} short hair", f"short cut {color} hair", f"{color} hair cut short", f"short cropped {color} hair"),
        "buzz": (f"very short {color} hair", "a buzz cut", f"closely cropped {color} hair", f"a {color} crew cut"),
        "long": (f"long {color} hair",) * 4
        + (
            f"{color} hair down {his} back", f"long straight {color} hair", f"{color} hair past {his} shoulders",
            f"long flowing {color} hair", f"{color} long hair", f"long, loose {color} hair",
        ),
        "bob": (
            f"chin length {color} hair", f"shoulder length {color} hair", f"medium length {color} hair",
            f"{article(color)} bob", f"neck length {color} hair", f"{color} hair in a bob",
        ),
        "ponytail": (
            f"{color} hair in a ponytail", f"{his} {color} hair pulled back", f"{article(color)} ponytail",
            f"{color} hair tied back", f"{color} hair up in a pony tail", f"{his} {color} hair in a ponytail",
            f"long {color} hair in a ponytail",
        ),
        "bun": (
            f"{color} hair in a bun", f"{his} {color} hair tied up", f"{article(color)} bun", f"{color} hair pinned up",
            f"{his} {color} hair up in a bun", f"{color} hair put up in a knot",
        ),
    }  # fmt: skip
    said = s.pick(*ways[a.hair])
    loose = {"pulled back", "tied back", "tied up", "pinned up"}
    # A short bob is hard to tell from short hair; tied hair may be a bun or a ponytail.
    if a.hair in ("ponytail", "bun"):
        s.note("hair", frozenset({"ponytail", "bun"}) if any(w in said for w in loose) else frozenset({a.hair}))
    elif a.hair in ("short", "buzz"):
        s.note("hair", frozenset({"short", "buzz"}))
    elif "shoulder" in said:
        s.note("hair", frozenset({"long", "bob"}))
    else:
        s.note_exact("hair")
    return said


def _bag(s: Speaker, his: str) -> tuple[str, str]:
    """(how it is borne, the bag): "carrying", "a black handbag in her left hand"."""
    a = s.a
    color = _color(s, "bag_color") if s.chance(0.85) else ""
    if "straps" in s.visible:
        s.note_exact("bag")
        thing = s.pick("{} backpack", "{} backpack", "{} back pack", "backpack with {} straps").format(color)
        return s.pick("wearing", "carrying", "wearing"), article(" ".join(thing.split()))
    noun = s.name(p.BAG, "bag")
    thing = article(f"{color} {noun}".strip())
    where = s.chance(0.25 + 0.6 * s.detail)
    side = ""
    if where and a.bag != "backpack" and s.sees("bag_side") and s.chance(0.6):
        side = f"{a.bag_side} "
        s.note_exact("bag_side")
    if a.bag == "backpack":
        if where and "back" not in noun:
            s.note_exact("bag")
        where = where or noun in ("bag", "pack")
        tail = s.pick(f" on {his} back", f" over {his} shoulders", f" strapped to {his} back") if where else ""
        return s.pick("wearing", "carrying", "carrying"), thing + tail
    if a.bag == "handbag":
        tail = s.pick(f" in {his} {side}hand", f" with {his} {side}hand", f" by {his} {side}side") if where else ""
        return s.pick("carrying", "holding", "carrying"), thing + tail
    if a.bag == "crossbody bag" and where and not side and s.chance(0.5):
        s.note_exact("bag")
        tail = s.pick(" with a strap across the chest", f" across {his} body", f" slung across {his} chest")
        return s.pick("wearing", "carrying"), thing + tail
    over = "" if "shoulder" in noun else s.pick(f" over {his} {side}shoulder", f" on {his} {side}shoulder")
    at_side = f" on {his} {side}side"
    tail = (s.pick(over, at_side, f" at {his} {side}hip", over) or at_side) if where else ""
    return s.pick("carrying", "carrying", "wearing", "toting"), thing + tail


def _prop(s: Speaker, his: str) -> str:
    if s.a.prop == "umbrella":
        color = _color(s, "prop_color") if s.chance(0.85) else ""
        return f"{s.pick('holding', 'carrying', 'using')} {article((color + ' ' + s.name(p.PROP, 'prop')).strip())}"
    thing = article(s.name(p.PROP, "prop"))
    where = s.pick("", "", f" in {his} hand", " in one hand")
    verb = s.pick("holding", "using", "looking at") if s.a.prop == "phone" else s.pick("holding", "carrying")
    return f"{verb} {thing}{where if verb in ('holding', 'carrying') else ''}"


# --- sentences --------------------------------------------------------------------------------------------------


def _subject(s: Speaker) -> tuple[str, dict[str, str]]:
    """("young man", pronouns)."""
    adjectives = []
    if s.sees("age") and s.chance({"young": 0.4, "adult": 0.02, "old": 0.6}[s.a.age]):
        adjectives.append(s.name(p.AGE, "age"))
    if s.sees("build") and s.chance(0.015 if s.a.build == "average" else 0.12):
        adjectives.append(s.name(p.BUILD, "build"))
    if s.chance(0.05):
        noun = s.pick(*p.NEUTRAL_PERSON)
        pronouns = {"He": "They", "his": "their", "him": "them", "is": "are", "has": "have", "wears": "wear"}
    else:
        noun = "boy" if s.a.gender == "male" and "age" in s.facts and s.a.age == "young" and s.chance(0.15) else ""
        if noun:
            s.note_exact("gender")
        else:
            noun = s.name(p.PERSON, "gender")
        male = s.a.gender == "male"
        pronouns = {"He": "He" if male else "She", "his": "his" if male else "her", "him": "him" if male else "her"}
        pronouns |= {"is": "is", "has": "has", "wears": "wears"}
    return " ".join([*adjectives, noun]), pronouns


def _describe(s: Speaker, view: str, activity: str) -> str:
    """Choose what to mention, say each thing once, and cut it into one to three sentences."""
    side = bearing(view)
    who, word = _subject(s)
    his = word["his"]
    items = []
    if (top := _top(s) if s.chance(0.98) else None) is not None:
        items.append(top)
    if s.sees("lower") and s.chance(0.80 if s.a.lower == "skirt" else 0.965):
        items.append(_lower(s))
    if s.sees("shoe") and (s.chance(0.64 + 0.14 * s.detail) or not items):
        items.append(_shoes(s))
    extras = []  # participles: "carrying a bag"
    if ("straps" in s.visible and s.chance(0.5)) or (s.sees("bag") and s.chance(0.76 + 0.2 * s.detail)):
        extras.append(" ".join(_bag(s, his)))
    if s.sees("prop") and s.chance(0.8):
        extras.append(_prop(s, his))
    worn = []
    if s.sees("eyewear") and s.chance(0.68):
        worn.append(s.name(p.EYEWEAR, "eyewear"))
    if s.sees("hat") and s.chance(0.58):
        worn.append(article(f"{_color(s, 'hat_color') if s.chance(0.85) else ''} {s.name(p.HAT, 'hat')}".strip()))
    hair = None
    if (s.sees("hair") or s.sees("hair_color")) and s.chance(0.16 + 0.55 * s.detail):
        hair = _hair(s, his)

    doing = ""
    thin = len(items) + len(extras) + len(worn) + (hair is not None)
    if s.chance(0.15 + 0.35 * s.detail + (0.3 if thin < 4 else 0.0)):
        where = s.pick(*p.TOWARD[side]) if s.chance(0.35 + 0.4 * s.detail) else ""
        doing = f"{s.pick(*p.ACTIVITY.get(activity, (activity,)))} {where}".strip()
        s.note_moment("activity", activity)
        if where:
            s.note_moment("view", side)
    elif s.chance(0.10 + 0.1 * s.detail):
        doing = s.pick(*p.SEEN_FROM[side])
        s.note_moment("view", side)
    text = _sentences(s, who, word, items, extras, worn, hair, doing.replace("{his}", his))
    while s.chance(1.4 * (s.detail - 0.35)) and len(text.split()) < 40:
        text += " " + _afterthought(s, word, side)
    if s.chance(0.04) and not text.startswith("That"):
        text = f"{s.pick(*p.TALKING_OF)} {text[0].lower()}{text[1:]}"
    if s.chance(0.12):
        text = text.lower()
    return text


def _sentences(
    s: Speaker,
    who: str,
    word: dict[str, str],
    items: list[str],
    extras: list[str],
    worn: list[str],
    hair: str | None,
    doing: str,
) -> str:
    """Sentences from parts: clothes, participles ("carrying a bag"), worn things, hair and what the person does."""
    He = word["He"]
    content = len(items) + len(extras) + len(worn) + bool(hair)
    count = 1
    if content >= 3 and s.chance(0.3 + 0.4 * s.detail + 0.06 * (content - 3)):
        count = 3 if content >= 4 and s.chance(0.2 + 0.4 * s.detail) else 2

    subject = f"{s.pick('the', 'a', 'the', 'a', 'the', 'a', 'this', 'that')} {who}"
    if subject.startswith("a "):
        subject = article(who)
    if hair and (count == 1 or s.chance(0.3)):
        subject, hair = f"{subject} with {hair}", None
    if count == 1:
        items, worn = items + worn, []

    # What the first sentence leaves for a later one.
    rest = bool(extras or worn or hair)
    later: list[str] = []
    if len(items) > 1 and (count == 3 or (count == 2 and not rest)):
        cut = 1 if count == 3 and s.chance(0.5) else len(items) - 1
        items, later = items[:cut], items[cut:]
    text = [_opening(s, subject, items, doing)]
    if count == 1:
        if extras:
            text[0] += s.pick(", ", " while ", " and is ", ", and is ") + listing(extras, s.pick(" and ", ", "))
        return capital(text[0]) + "."
    if later:
        verb = s.pick(word["wears"], f"{word['is']} wearing", f"{word['has']} on", f"{word['is']} also wearing")
        text.append(f"{He} {verb} {listing(later)}")
    verbs = [f"{word['is']} {extra}" for extra in extras]
    if hair:
        verbs.append(f"{word['has']} {hair}")
    if worn:
        verbs.append(f"{s.pick(word['wears'], word['is'] + ' wearing')} {listing(worn)}")
    s.rng.shuffle(verbs)
    if count == 3 and not later and len(verbs) > 1:
        text.append(f"{He} {verbs.pop()}")
    if verbs:
        text.append(f"{He} {listing(verbs, s.pick(' and ', ' and ', ', and '))}")
    return " ".join(capital(sentence) + "." for sentence in text)


def _afterthought(s: Speaker, word: dict[str, str], side: str) -> str:
    """One more sentence of a talkative witness: the build, what is missing, or where the camera stood."""
    He, his, is_ = word["He"], word["his"], word["is"]
    ways = [
        f"{s.pick('The picture', 'The photo', 'This picture', 'The image')} "
        f"{s.pick('was taken', 'is taken', 'has been taken')} {s.pick(*p.TAKEN_FROM[side])}",
        f"{s.pick('Only', 'Just')} {his} {side} can be seen",
        f"{He} {is_} {s.pick(*p.FACING[side])}",
    ]
    if "build" not in s.facts and s.chance(0.5):
        s.note_exact("build")
        return f"{He} {s.pick(*p.OF_BUILD[s.a.build]).replace('{is}', is_).replace('{has}', word['has'])}."
    unsaid = s.visible - set(s.facts)
    missing = [name for name in ("bag", "hat", "eyewear") if name in unsaid and getattr(s.a, name) is None]
    if missing and s.chance(0.4):
        name = s.pick(*missing)
        s.note_exact(name)
        return f"{He} {s.pick(*p.WITHOUT[name]).replace('{is}', is_).replace('{has}', word['has'])}."
    s.note_moment("view", side)
    return f"{s.pick(*ways)}."


def _opening(s: Speaker, subject: str, items: list[str], doing: str) -> str:
    """The first sentence without its full stop: who, what they do, what they wear."""
    clothes = listing(items, s.pick(" and ", " and ", ", and ", " with ") if len(items) > 2 else " and ")
    wearing = s.pick(*_WEARING)
    if not clothes:
        return f"{subject} is {doing or s.pick('shown', 'seen', 'pictured', 'partly hidden')}"
    if doing and doing.split()[0] in _PASSIVE:
        return s.pick(f"{subject}, {doing}, {wearing} {clothes}", f"{doing}, {subject} {wearing} {clothes}")
    if doing:
        return s.pick(
            f"{subject} is {doing} wearing {clothes}",
            f"{subject} is {doing} and {wearing} {clothes}",
            f"{subject} {doing} in {clothes}",
            f"{subject} {doing} and wearing {clothes}",
            f"{subject} who is {doing} {wearing} {clothes}",
            f"{subject} is {doing} in {clothes}",
            f"wearing {clothes}, {subject} is {doing}",
            f"dressed in {clothes}, {subject} is {doing}",
        )
    if len(items) > 1 and s.chance(0.12):
        return f"{subject} in {items[0]} {wearing} {listing(items[1:])}"
    if s.chance(0.06):
        return f"{subject} in {clothes}"
    return f"{subject} {wearing} {clothes}"


_WEARING = (
    ("is wearing",) * 12 + ("wears",) * 8 + ("is dressed in",) * 3 + ("has on", "has", "is seen wearing", "is clad in")
    + ("can be seen wearing", "appears to be wearing", "is outfitted in", "is in", "is shown wearing", "sports")
)  # fmt: skip
_PASSIVE = frozenset(phrase.split()[0] for ways in p.SEEN_FROM.values() for phrase in ways)


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


# --- short queries and slips of the pen -------------------------------------------------------------------------


def short_query(rng: np.random.Generator, a: Attributes, view: str, occluded: str | None = None) -> str:
    """What an operator types in a hurry: 3 to 8 words, "woman red coat black bag"."""
    return short_query_with_facts(rng, a, view, occluded)[0]


def short_query_with_facts(
    rng: np.random.Generator, a: Attributes, view: str, occluded: str | None = None
) -> tuple[str, Facts]:
    """A short query and the facts it states, as for ``caption_with_facts``."""
    s = Speaker(rng, a, visible_attributes(a, view, occluded))
    visible_items = [
        (name, color, lexicon)
        for name, color, lexicon, weight in _SHORT_ITEMS
        if (s.sees(name) or (name == "bag" and "straps" in s.visible)) and s.chance(weight)
    ]
    visible_items = [visible_items[i] for i in rng.permutation(len(visible_items))]
    words = [s.name(p.PERSON, "gender")]
    if s.sees("age") and a.age != "adult" and s.chance(0.3):
        words.insert(0, s.name(p.AGE, "age"))
    for name, color, lexicon in visible_items:
        length = sum(len(word.split()) for word in words)
        if length >= 6:
            break
        if name == "dress":
            s.note("dress", frozenset(p.DRESS_LENGTH))
            noun = "dress"
        else:
            noun = s.pick(*(w for w in lexicon.words[getattr(a, name)] if len(w.split()) == 1))
            if name == "bag" and "straps" in s.visible:
                noun = "backpack"
            s.note(name, lexicon.meaning[noun])
        if color and s.sees(color):
            short = [w for w in p.COLOR.words[getattr(a, color)] if len(w.split()) <= 7 - length]
            word = s.pick(*short)
            s.note(color, p.COLOR.meaning[word])
            noun = f"{word} {noun}"
        words.append(noun)
    if len(" ".join(words).split()) < 3 and s.sees("hair_color"):
        words.append(f"{s.name(p.HAIR_COLOR, 'hair_color')} hair")
    if len(" ".join(words).split()) < 3:
        words.append("any clothes")
    joint = s.pick(" ", " ", ", ", " ")
    return joint.join(words), s.facts


_SHORT_ITEMS = (
    ("outer", "outer_color", p.OUTER, 0.95),
    ("upper", "upper_color", p.UPPER, 0.85),
    ("dress", "dress_color", p.UPPER, 0.98),
    ("lower", "lower_color", p.LOWER, 0.75),
    ("bag", "bag_color", p.BAG, 0.7),
    ("shoe", "shoe_color", p.SHOE, 0.25),
    ("hat", "hat_color", p.HAT, 0.7),
    ("eyewear", None, p.EYEWEAR, 0.3),
)


def misspell(rng: np.random.Generator, text: str) -> str:
    """One or two words with a letter dropped, doubled or swapped with its neighbour; short words are spared."""
    words = text.split(" ")
    for _ in range(1 + int(rng.random() < 0.3)):
        at = int(rng.integers(len(words)))
        word = words[at]
        if len(word) < 5:
            continue
        i = 1 + int(rng.integers(len(word) - 3))
        kind = int(rng.integers(3))
        if kind == 0:
            word = word[:i] + word[i + 1 :]
        elif kind == 1:
            word = word[:i] + word[i] + word[i:]
        else:
            word = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
        words[at] = word
    return " ".join(words)
