"""Manners of speaking for the training phrase book: each puts a person and a list of Items into words.

A manner may reorder what it is given but says all of it, because what is given is already noted as a fact. The last
step, ``typed``, writes the text as different people type.
"""

from __future__ import annotations

from collections.abc import Callable

from model.synth import voices_words as w
from model.synth.phrases import Speaker, article, listing
from model.synth.voices_look import UNQUALIFIED, Item, Who, lack

Manner = Callable[[Speaker, Who, list[Item]], str]


# --- an item in words -----------------------------------------------------------------------------------------------


def _bare(s: Speaker, i: Item) -> str:
    """ "red striped shirt", without article or tail."""
    pair = (i.before, i.color) if s.chance(0.4) else (i.color, i.before)
    return " ".join(word for word in (*pair, i.noun) if word)


def _full(s: Speaker, i: Item) -> str:
    """ "a red shirt with white stripes", or one of the slower ways: "a shirt in red", "a shirt that is red"."""
    if i.noun == "bald":
        return "a bald head"
    if i.color and s.chance(0.12) and not i.color.endswith("ed"):
        core = f"{i.before} {i.noun}".strip()
        be = "are" if _many(i) else "is"
        color = s.pick("in {}", f"that {be} {{}}", f"which {be} {{}}", "of {} colour", "in a {} color", "({})",
                       "coloured {}")  # fmt: skip
        core = f"{core} {color.format(i.color)}"
    else:
        core = _bare(s, i)
    if not i.plural:
        core = article(core) if s.chance(0.93) else f"{s.pick('some kind of', 'this', 'one of those', 'some')} {core}"
    elif i.slot in ("lower", "shoe") and s.chance(0.12):
        core = f"{s.pick('a pair of', 'some')} {core}"
    return f"{core} {i.tail}".strip()


def _many(i: Item) -> bool:
    """Whether "are" follows the noun."""
    return i.plural and i.noun.split()[-1].endswith("s") and i.slot not in ("hair", "hat")


def _terse(s: Speaker, i: Item) -> str:
    """As a keyword: "red shirt", "shirt red", "shirt: red", "shirt (red)", with the tail cut to its words."""
    if i.color and s.chance(0.18):
        core = f"{i.before} {i.noun}".strip()
        core = s.pick(f"{core} {i.color}", f"{core}: {i.color}", f"{core} ({i.color})", f"{core} - {i.color}",
                      f"{core}, {i.color}", f"{core} in {i.color}")  # fmt: skip
    else:
        core = _bare(s, i)
    tail = i.tail.replace("with ", s.pick("with ", "w/ ", "", "+ ")) if i.tail else ""
    return f"{core} {tail}".strip()


def _stated(s: Speaker, i: Item, owner: str, past: bool) -> str:
    """A clause of its own: "his shirt is red with stripes", "he carries a bag" where there is no colour."""
    be = ("were" if past else "are") if _many(i) else ("was" if past else "is")
    tail = f" {i.tail}" if i.tail else ""
    return f"{owner} {f'{i.before} {i.noun}'.strip()} {be} {i.color}{tail}"


def _verb(s: Speaker, i: Item, form: str) -> str:
    """The verb for an item: ``form`` is "ing", "s" (he wears), "" (they wear) or "ed"."""
    if i.slot == "hair" or (i.slot == "bag" and "straps" in i.noun):
        base = "have"
    elif i.slot == "bag":
        base = s.pick("carry", "carry", "have", "wear" if "backpack" in i.noun or "sack" in i.noun else "carry", "tote")
    elif i.slot == "prop":
        base = s.pick("hold", "carry", "hold", "use" if i.noun != "book" and not i.tail else "hold")
    else:
        base = s.pick("wear", "wear", "wear", "have on", "sport", "be dressed in")
    return _FORMS[base][form]


_FORMS = {
    "have": {"ing": "having", "s": "has", "": "have", "ed": "had"},
    "carry": {"ing": "carrying", "s": "carries", "": "carry", "ed": "carried"},
    "wear": {"ing": "wearing", "s": "wears", "": "wear", "ed": "wore"},
    "tote": {"ing": "lugging", "s": "totes", "": "tote", "ed": "was carrying"},
    "hold": {"ing": "holding", "s": "holds", "": "hold", "ed": "held"},
    "use": {"ing": "using", "s": "uses", "": "use", "ed": "was using"},
    "have on": {"ing": "having on", "s": "has on", "": "have on", "ed": "had on"},
    "sport": {"ing": "sporting", "s": "sports", "": "sport", "ed": "sported"},
    "be dressed in": {"ing": "dressed in", "s": "is dressed in", "": "are dressed in", "ed": "was dressed in"},
}  # fmt: skip


def add(text: str, more: str) -> str:
    """The text with one more phrase, joined as the text joins its own."""
    if text.endswith("."):
        return f"{text} {more[0].upper()}{more[1:]}."
    return f"{text}{',' if ',' in text else ''} {more}"


def _split(items: list[Item]) -> tuple[list[Item], list[Item], list[Item]]:
    """Worn, borne and grown: clothes, then bag and prop, then hair."""
    held = [i for i in items if i.slot in ("bag", "prop")]
    hair = [i for i in items if i.slot == "hair"]
    return [i for i in items if i not in held and i not in hair], held, hair


_HEIGHT = ("hair", "hat", "eyewear", "outer", "upper", "dress", "bag", "prop", "lower", "shoe")


def _sorted(s: Speaker, items: list[Item]) -> list[Item]:
    """From head to foot, from foot to head, or as they came."""
    if s.chance(0.4):
        return items
    return sorted(items, key=lambda i: _HEIGHT.index(i.slot), reverse=s.chance(0.45))


# --- manners --------------------------------------------------------------------------------------------------------


def _keywords(s: Speaker, who: Who, items: list[Item]) -> str:
    """ "grey hoodie black jeans backpack": what is typed in a hurry."""
    words = [_terse(s, i) for i in _sorted(s, items)]
    own = [who.noun, *who.marks] if who.noun else []
    at = s.chance(0.8)
    words = own + words if at else words + own
    return s.pick(" ", " ", ", ", ", ", " / ", " + ", "; ", " and ", ". ", " & ", " - ").join(words)


def _radio(s: Speaker, who: Who, items: list[Item]) -> str:
    """ "Be on the lookout for: male, slim build, dark jacket over white tee, blue jeans." """
    lead = s.pick("", "", "", "Suspect: ", "Subject: ", "Look out for ", "Be on the lookout for a ", "BOLO ", "Alert: ",
                  "All units, ", "Target is a ", "Description: ", "Suspect described as ", "Control, ", "Missing: ",
                  "Last seen: ", "Wanted: ")  # fmt: skip
    worn, held, hair = _split(_sorted(s, items))
    parts = [who.noun or s.pick("person", "unknown", "one", "adult"), *who.marks, *(_terse(s, i) for i in hair)]
    if who.noun == "" and parts[0] == "adult":
        parts[0] = "subject"
    layers = [i for i in worn if i.slot in ("outer", "upper", "dress")]
    if len(layers) == 2:
        top, under = sorted(layers, key=lambda i: _HEIGHT.index(i.slot))
        parts.append(f"{_terse(s, top)} {s.pick('over', 'on top of', 'with', 'and')} {_terse(s, under)}")
        worn = [i for i in worn if i not in layers]
    parts += [_terse(s, i) for i in worn]
    parts += [f"{s.pick('carrying', 'with', 'has', '', 'w/')} {_terse(s, i)}".strip() for i in held]
    return lead + s.pick(", ", ", ", ", ", "; ", " - ", ". ").join(parts) + s.pick("", ".", "", ", over", ". Over.")


_LABELS: dict[str, tuple[str, ...]] = {
    "outer": ("outerwear", "over", "outer layer", "outer", "outer clothing"),
    "upper": ("upper", "top", "upper body", "torso", "above the waist", "upper clothing"),
    "dress": ("dress", "clothing", "outfit", "attire", "clothes"),
    "lower": ("lower", "bottom", "legs", "lower body", "below the waist", "lower clothing", "lower half"),
    "shoe": ("shoes", "footwear", "feet", "on feet"),
    "hat": ("headwear", "head", "headgear", "on head"),
    "eyewear": ("eyewear", "face", "eyes"),
    "hair": ("hair", "hairstyle", "hair colour and style"),
    "bag": ("bag", "bags", "luggage", "carrying", "accessory", "baggage"),
    "prop": ("holding", "in hand", "hands", "object", "item"),
}


def _form(s: Speaker, who: Who, items: list[Item]) -> str:
    """ "Gender: male. Upper: dark jacket. Lower: jeans." """
    joint = s.pick(": ", ": ", "=", " - ", " ")
    rows = []
    if who.noun:
        rows.append(f"{s.pick('person', 'subject', 'sex', 'gender', 'who', 'individual')}{joint}{who.noun}")
        rows += [f"{s.pick('also', 'notes', 'appearance')}{joint}{mark}" for mark in who.marks]
    for i in _sorted(s, items):
        rows.append(f"{s.pick(*_LABELS[i.slot])}{joint}{_terse(s, i)}")
    if s.chance(0.25) and (missing := lack(s, who)):
        rows.append(missing)
    if s.chance(0.5):
        rows = [row[0].upper() + row[1:] for row in rows]
    return s.pick(", ", "; ", ". ", " | ", ", ").join(rows)


def _phrase(s: Speaker, who: Who, items: list[Item]) -> str:
    """A noun phrase: "a man in a dark coat with a backpack": who, then worn, borne and grown in any order."""
    worn, held, hair = _split(_sorted(s, items))
    noun = who.noun or s.pick("someone", "anyone", "a person", "somebody", "whoever is")
    if who.noun and who.noun not in UNQUALIFIED:
        noun = s.pick(article(who.noun), article(who.noun), f"the {who.noun}", f"that {who.noun}", f"this {who.noun}",
                      who.noun)  # fmt: skip
    groups = []
    if worn:
        clothes = listing([_full(s, i) for i in worn], s.pick(" and ", " and ", ", ", " with ", " & "))
        lead = s.pick("in", "in", "wearing", "wearing", "dressed in", "with", "who is wearing", "clad in", "who wears",
                      "that has", "w/", "sporting", "having")  # fmt: skip
        groups.append((f"{lead} {clothes}").replace("whoever is who is", "whoever is"))
    if held:
        groups.append(f"{s.pick('with', 'carrying', 'who carries', 'and', 'holding', 'plus')} "
                      f"{listing([_full(s, i) for i in held])}")  # fmt: skip
    if hair:
        groups.append(f"with {listing([_full(s, i) for i in hair])}")
    s.rng.shuffle(groups)
    text = " ".join([f"{noun}{''.join(f', {mark},' for mark in who.marks)}", *groups])
    return text.rstrip(",").replace("whoever is with", "whoever has").replace("whoever is and", "whoever has")


_ASKS = (
    "find me {}", "find {}", "show me {}", "looking for {}", "I'm looking for {}", "search for {}", "where is {}",
    "have you seen {}?", "did anyone see {}?", "can you find {}?", "is there {}?", "please locate {}", "locate {}",
    "anyone who looks like {}", "all images of {}", "get me {}", "we need to find {}", "trying to trace {}",
    "spot {}", "seeking {}", "any sign of {}?", "pull up {}", "which camera saw {}?", "where did {} go?",
    "footage of {}", "track {}", "it was {}", "probably {}", "could be {}", "I think it's {}", "it's {}", "{} please",
    "somewhere there is {}", "picture of {}", "photo showing {}", "we lost {}", "who is {}?", "check for {}",
)  # fmt: skip


def _request(s: Speaker, who: Who, items: list[Item]) -> str:
    return s.pick(*_ASKS).format(_phrase(s, who, items))


_SAW = (
    "I saw {}", "There was {}", "I noticed {}", "We spotted {}", "The witness describes {}", "A neighbour reported {}",
    "I remember {}", "I passed {}", "As far as I recall it was {}", "My colleague saw {}", "I just saw {}",
    "There is {}", "The camera shows {}", "You can see {}", "The guard mentioned {}", "The caller describes {}",
    "I'm fairly sure it was {}", "Staff observed {}", "It looked like {}", "The thief was {}", "The lost person is {}",
    "My friend is {}",
)  # fmt: skip
_DOUBTS = ("I think ", "maybe ", "I believe ", "if I remember, ", "pretty sure ", "apparently ", "not certain but ")


def _witness(s: Speaker, who: Who, items: list[Item]) -> str:
    """ "I saw a man in a dark coat. He had a backpack. I think his shoes were white." """
    first = 1 + int(s.rng.integers(max(1, len(items))))
    items = _sorted(s, items)
    text = [s.pick(*_SAW).format(_phrase(s, who, items[:first]))]
    past = s.chance(0.6)
    for i in items[first:]:
        text.append(_sentence(s, who, i, past))
    if s.chance(0.12) and (missing := lack(s, who)):
        had = "had" if past else who.has
        text.append(f"{who.he} {had} {missing}" if missing.startswith("no ") else missing)
    joint = s.pick(". ", ". ", ", ", " and ")
    if joint == ". ":
        return ". ".join(part[0].upper() + part[1:] for part in text) + "."
    return joint.join(text)


def _sentence(s: Speaker, who: Who, i: Item, past: bool) -> str:
    """One thing in a clause, with or without doubt."""
    doubt = s.pick(*_DOUBTS) if s.chance(0.15) else ""
    if i.color and i.slot != "hair" and s.chance(0.4):
        return doubt + _stated(s, i, s.pick(who.his, who.his, "the"), past)
    form = "ed" if past else "" if who.he == "they" else "s"
    verb = _verb(s, i, form)
    if who.he == "they":
        verb = verb.replace("was ", "were ")
    return f"{doubt}{who.he} {verb} {_full(s, i)}"


def _account(s: Speaker, who: Who, items: list[Item]) -> str:
    """A sentence in the present: "the woman wears ..., carries ... and has ..." """
    subject = who.noun or s.pick("person", "individual", "one")
    he = s.pick("the {}", "a {}", "this {}", "{}").format(subject)
    he = article(subject) if he.startswith("a ") else he
    if subject in UNQUALIFIED:
        he = subject
    colored = [i for i in items if i.color and i.slot != "hair"]
    if colored and len(items) > 1 and s.chance(0.3):
        whose = [_stated(s, i, "and whose" if k else "whose", False) for k, i in enumerate(colored)]
        others = [i for i in items if not i.color or i.slot == "hair"]
        tail = f", {s.pick('with', 'also with', 'plus')} {listing([_full(s, i) for i in others])}" if others else ""
        return f"{he}{''.join(f', {m}' for m in who.marks)} {' '.join(whose)}{tail}"
    clauses = [f"{_verb(s, i, 's')} {_full(s, i)}" for i in _sorted(s, items)]
    for mark in who.marks:
        noun = mark.endswith(("build", "figure", "frame")) and not mark.startswith("of")
        clauses.append(f"has {article(mark)}" if noun else f"{s.pick('is', 'looks', 'appears')} {mark}")
    return f"{he} {listing(clauses, s.pick(' and ', ' and ', ', '))}{s.pick('.', '', '.')}" if clauses else he


def worn_by(s: Speaker, who: Who, items: list[Item]) -> str:
    """Clothes first, no person or only at the end: "red coat, worn by ..."; "the one in the red coat"."""
    parts = [_full(s, i) for i in _sorted(s, items)]
    if not parts:
        return s.pick("somebody", "a person", "someone")
    lead = s.pick("the one in {}", "the one with {}", "whoever has {}", "anyone with {}", "the {} one", "wearing {}",
                  "dressed in {}", "{}", "{}", "{} on", "has {}", "in {}", "with {}", "must have {}", "clothes: {}",
                  "I only remember {}", "noticed {}", "all I know: {}", "seen with {}", "had {}",
                  "it's about {}")  # fmt: skip
    if lead == "the {} one":
        return f"the {_bare(s, items[0])} one" + "".join(f", {_terse(s, i)}" for i in items[1:])
    return lead.format(listing(parts, s.pick(" and ", " and ", ", ", " with ", " & ")))


_UPWARDS = ("", "", "from the feet up: ", "bottom to top: ", "starting from the shoes, ", "from bottom to top, ")
_DOWNWARDS = ("", "", "top to bottom: ", "from head to toe: ", "head to foot: ")


def _from_below(s: Speaker, who: Who, items: list[Item]) -> str:
    """Strictly upwards or downwards, and saying so now and then."""
    up = s.chance(0.6)
    items = sorted(items, key=lambda i: _HEIGHT.index(i.slot), reverse=up)
    lead = s.pick(*(_UPWARDS if up else _DOWNWARDS))
    words = [_terse(s, i) for i in items]
    own = [who.noun, *who.marks] if who.noun else []
    return lead + s.pick(", ", ", ", ", then ", "; ", " ", ", and ").join(words + own if s.chance(0.5) else own + words)


def _colors(s: Speaker, who: Who, items: list[Item]) -> str:
    """Colours more than garments, and keywords for the rest: "black on top, white below", "all in black"."""
    by_slot = {i.slot: i for i in items}
    top = by_slot.get("outer") or by_slot.get("upper")
    low = by_slot.get("lower")
    noun = who.noun or s.pick("", "", "someone", "person")
    lead = ", ".join(part for part in (noun, *who.marks) if part)
    if top is None or low is None or not top.color or not low.color or low.before:
        return _keywords(s, who, items)
    for slot in (top.slot, low.slot):  # the kinds of garment go unsaid
        s.facts.pop(slot, None)
    name = "outer_color" if top.slot == "outer" else "upper_color"
    both = w.COLOR.meaning.get(top.color, frozenset())
    if not top.before and not top.tail and s.a.lower_color in both:
        s.note(name, both)
        s.note("lower_color", both)
        said = s.pick("all in {}", "dressed in {}", "in {} clothes", "{} top and bottom", "{} from head to foot",
                      "in {} from top to bottom", "wearing {}", "{} clothing", "{} outfit", "all {}")  # fmt: skip
        text = said.format(top.color)
    else:
        text = s.pick(
            "{} on top, {} below", "{} top half, {} bottom half", "{} above, {} below", "{} up top and {} down below",
            "{} top {} bottom", "{} upper, {} lower", "upper {} lower {}", "top {}, legs {}", "{} over {}",
            "{} torso, {} legs",
        ).format(top.color, low.color)  # fmt: skip
        if top.tail or top.before:
            text += f", {top.before} {top.tail}"
    rest = [_terse(s, i) for i in items if i is not top and i is not low]
    return ", ".join(part for part in (lead, text, *rest) if part)


def _loose_phrase(s: Speaker, who: Who, items: list[Item]) -> str:
    """ "red coat lady", "guy with backpack": the person named by what strikes the eye."""
    if not items:
        return _phrase(s, who, items)
    if not who.noun:
        return worn_by(s, who, items)
    first, rest = items[0], items[1:]
    marks = "".join(f", {m}" for m in who.marks)
    thing, noun = _bare(s, first), who.noun
    head = s.pick(
        f"{thing} {noun}", f"{noun} with {thing}", f"{noun} in {thing}", f"{noun} {thing}", f"{noun} w/ {thing}"
    )
    tail = f" {first.tail}" if first.tail else ""
    return f"{head}{tail}{marks}" + "".join(s.pick(", ", " ", " and ", " with ") + _terse(s, i) for i in rest)


MANNERS: dict[str, tuple[Manner, float]] = {
    "keywords": (_keywords, 20),
    "radio": (_radio, 10),
    "form": (_form, 8),
    "phrase": (_phrase, 13),
    "request": (_request, 13),
    "witness": (_witness, 13),
    "account": (_account, 9),
    "worn by": (worn_by, 6),
    "from below": (_from_below, 5),
    "colours": (_colors, 5),
    "loose phrase": (_loose_phrase, 8),
}

# --- the hand that types it -----------------------------------------------------------------------------------------


def typed(s: Speaker, text: str) -> str:
    """Capitals, full stops, hyphens and abbreviations as different people type them."""
    if s.chance(0.03):
        text = " ".join(s.pick(*w.ABBREVIATED.get(word, (word,))) for word in text.split())
    if "-" in text and s.chance(0.3):
        text = text.replace("-", s.pick(" ", " ", ""))
    r = s.rng.random()
    if r < 0.45:
        text = text.lower()
        if s.chance(0.4):
            text = text.translate(_NO_MARKS)
    elif r < 0.75:
        text = text[0].upper() + text[1:]
        if s.chance(0.5) and text[-1] not in ".?":
            text += "."
    elif r < 0.765:
        text = text.upper()
    return " ".join(text.split())


_NO_MARKS = str.maketrans(dict.fromkeys(",.;:?!()/|+&=", " ") | {"'": None})
