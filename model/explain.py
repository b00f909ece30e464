"""Why an image fits a description: how much each body strip of the image carries of each phrase of the text.

Phrases are left out of the text and strips are hidden in the image, and the same encoder that searches says what that
costs; nothing here is trained, and no network needs to know of it beyond its number of strips. Phrases are found by
word lists, not by grammar.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from model.encoder import Encoder
from model.errors import ModelError
from model.sheets import INK, MARGIN, PAPER, wrap

ALL_ORDERS = 6  # players up to which every order is taken: 720 orders, 64 coalitions
SOME_ORDERS = 32  # beyond: so many seeded orders and their reverses
STRIDE = 16  # image rows of one row of the feature map that the net cuts into strips


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


COLORS = _set("""
    black white gray grey blue red brown pink green yellow purple orange tan beige khaki maroon denim teal navy
    scarlet crimson gold golden mustard violet plum lavender lilac tangerine coral camel cream ivory olive
    burgundy turquoise aqua charcoal silver blonde blond dark light
""")
# Nouns that end a phrase, unless another follows ("sweater jacket"): "red jacket black pants" is two phrases.
THINGS = _set("""
    shirt t-shirt tshirt tee top polo jersey blouse tunic sweater pullover sweatshirt jumper hoodie hoody
    singlet undershirt jacket blazer coat windbreaker overcoat topcoat parka raincoat cardigan vest waistcoat
    gilet pants trousers bottoms chinos jeans denims slacks shorts leggings tights stockings skirt dress
    sundress gown frock suit shoes footwear loafers oxfords flats sneakers trainers sandals flip-flops flops
    slippers slides boots booties socks hair ponytail bun cap hat visor fedora sunhat scarf glasses eyeglasses
    spectacles eyewear sunglasses shades backpack pack bookbag bag rucksack knapsack schoolbag satchel tote
    purse handbag pocketbook clutch suitcase phone cellphone smartphone umbrella parasol bottle drink book
    notebook magazine folder stripes dots logo
""")
# Whoever the phrase is about is everywhere: "young man" or "average build" has no strip of its own.
PERSONS = _set("""
    man men male guy gentleman fellow woman women female lady girl boy person individual pedestrian passerby
    subject figure human people kid child teenager adult build size frame
""")
NEGATIONS = _set("no not without never neither nor none isn't doesn't")
FUNCTION_WORDS = _set("""
    a an the this that these those and or but with of in on at to from by for over under up down out off as into
    onto around along through behind beside between underneath beneath across near about past is are was were be
    been being am has have had does do did can could may will would he she they it we you i his hers her their
    its him them who whose which what there here one some any both each all also very quite slightly somewhat
    appears appear seems seem seen see shown viewed view photo photograph picture image taken turned facing
    faces looking looks wearing wears wear worn dressed clad outfitted sports dons clothed carrying carries
    carry carried holding holds hold toting totes using uses while pair set strapped slung walks stands upright
    still mid ahead rear away toward towards camera viewer photographer kind type sort visible angle place
    pulled cut tied so then
""")
# Function words, but part of a thing before one: "seen from the back", "a back pack".
BEFORE_THINGS = _set("back front side sides left right hand hands arm arms shoulder shoulders body foot")

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
Coalition = frozenset[int]
Color = tuple[int, int, int]


@dataclass(frozen=True)
class Explanation:
    """What each of K body strips, counted from the top, carries of each of P phrases.

    strips: (P, K), in units of cosine similarity. It adds up to what the phrases and the strips together earn:
        <V - V(nothing shown), T - T(phrases left out)>; an entry is the part of one phrase and one strip in that.
    strip_bounds: top and bottom of each strip as fractions of the image height.
    similarity: cosine of the whole image and the whole text, as a search gives it.
    """

    phrases: tuple[str, ...]
    strips: NDArray[np.float64]
    strip_bounds: tuple[tuple[float, float], ...]
    similarity: float

    @property
    def marks(self) -> NDArray[np.float64]:
        """(P, K) ``strips`` above the mean of all phrases: some strips speak for any phrase, which tells nothing
        of one of them. A single phrase has nothing to be compared with and keeps its row."""
        return self.strips - self.strips.mean(axis=0) if len(self.phrases) > 1 else self.strips

    def best_strip(self, phrase: str) -> int:
        """Index from 0 (the top) of the strip that carries most of this phrase. ValueError if it is not one."""
        if phrase not in self.phrases:
            raise ValueError(f"There is no phrase {phrase!r}; the phrases are {', '.join(self.phrases)}.")
        return int(self.marks[self.phrases.index(phrase)].argmax())


def explain(encoder: Encoder, image: Image.Image, text: str) -> Explanation:
    """Which phrases of ``text`` meet which body strips of the upright ``image``.

    A strip is hidden behind the mean colour of the image, a phrase is left out of the text. What a strip adds to V and
    a phrase to T is averaged over all orders in which they can be added (their Shapley values: beyond six, over 64
    orders); the inner products of both are the table. Takes up to 64 images and some dozen texts.

    Raises ModelError when the net cannot explain, and when the text is empty, cut, or names nothing to look for.
    """
    if not encoder.has_text:
        raise ModelError("This checkpoint has no text branch, so there is nothing to explain. Use another checkpoint.")
    count = int((encoder.info.get("net_config") or {}).get("parts", 0))
    if count < 1:
        raise ModelError("This net does not see a body in strips, so it cannot explain. Use an AXM-Net checkpoint.")
    if not text.strip():
        raise ModelError("There is no text to explain. Describe the person, as in: a woman in a red jacket.")
    spans = phrase_spans(text)
    if not spans:
        raise ModelError("The text names nothing to look for. Name clothes, colours or things, as in: a red jacket.")
    if encoder.is_truncated(text):
        raise ModelError("The text is longer than the net reads, so its end would have no part. Shorten it.")
    p = encoder.preprocessing
    pixels = np.asarray(image.convert("RGB").resize((p.width, p.height), Image.Resampling.BILINEAR))  # (H, W, 3)
    bounds = strip_bounds(p.height, count)

    def seen(coalitions: Sequence[Coalition]) -> NDArray[np.float32]:
        return encoder.embed_images([_showing(pixels, bounds, kept) for kept in coalitions])

    def said(coalitions: Sequence[Coalition]) -> NDArray[np.float32]:
        return encoder.embed_texts([_saying(text, spans, kept) for kept in coalitions])

    strips = shapley(count, seen) @ shapley(len(spans), said).T  # (K, P)
    similarity = float(encoder.embed_images([image])[0] @ encoder.embed_texts([text])[0])
    return Explanation(tuple(text[a:b] for a, b in spans), strips.T, bounds, similarity)


def shapley(players: int, value: Callable[[Sequence[Coalition]], NDArray[np.floating]]) -> NDArray[np.float64]:
    """What each player adds to a vector-valued game, (players, D), averaged over orders of joining.

    value: N coalitions (sets of players) -> (N, D). The rows add up to value(all) - value(nobody), exactly.
    """
    orders = _orders(players)
    prefixes = [[frozenset(order[:n]) for n in range(players + 1)] for order in orders]
    coalitions = list(dict.fromkeys(kept for chain in prefixes for kept in chain))
    place = {kept: n for n, kept in enumerate(coalitions)}
    values = value(coalitions).astype(np.float64)
    gains = np.zeros((players, values.shape[1]))
    for order, chain in zip(orders, prefixes, strict=True):
        for player, (before, after) in zip(order, pairwise(chain), strict=True):
            gains[player] += values[place[after]] - values[place[before]]
    return gains / len(orders)


def strip_bounds(height: int, count: int) -> tuple[tuple[float, float], ...]:
    """Where the net cuts an image of ``height`` pixels into ``count`` strips: (top, bottom) fractions."""
    rows = -(-height // STRIDE)
    edges = np.cumsum([0] + [len(part) for part in np.array_split(np.arange(rows), count)]) / rows
    return tuple(pairwise(edges.tolist()))


def phrase_spans(text: str) -> list[tuple[int, int]]:
    """(start, end) of the phrases in ``text``: runs of content words, ended by a function word, punctuation or a thing.

    "a man in a red jacket and blue jeans, no hat" has "red jacket" and "blue jeans". Left out is what is denied, and
    who it is about. "black and white shirt" stays one phrase.
    """
    found = [(match[0].lower().replace("\u2019", "'"), match.span()) for match in _WORD.finditer(text)]
    spans: list[tuple[int, int]] = []
    run: list[int] = []  # positions in ``found``
    denied = False

    def close() -> None:
        nonlocal denied
        if run and not denied and PERSONS.isdisjoint(found[n][0] for n in run):
            spans.append((found[run[0]][1][0], found[run[-1]][1][1]))
        if run:
            denied = False
        run.clear()

    for n, (word, (start, _)) in enumerate(found):
        between = text[found[n - 1][1][1] : start] if n else ""
        after = found[n + 1][0] if n + 1 < len(found) else ""
        if between.strip():
            close()
            denied = denied and "." not in between
        if word == "and" and run and found[n - 1][0] in COLORS and after in COLORS:
            run.append(n)
        elif word in NEGATIONS:
            close()
            denied = True
        elif word in FUNCTION_WORDS or (_needs_a_thing(word) and after not in THINGS):
            close()
        else:
            last = found[run[-1]][0] if run else ""
            if last in PERSONS or (last in THINGS and word not in THINGS):
                close()
            run.append(n)
    close()
    return spans


def _needs_a_thing(word: str) -> bool:
    """Also verbs: "walking" says nothing of a strip, "running shoes" does."""
    return word in BEFORE_THINGS or word.endswith("ing")


def _orders(players: int) -> list[tuple[int, ...]]:
    if players <= ALL_ORDERS:
        return list(permutations(range(players)))
    rng = random.Random(0)
    some = [tuple(rng.sample(range(players), players)) for _ in range(SOME_ORDERS)]
    return some + [order[::-1] for order in some]


def _showing(pixels: NDArray[np.uint8], bounds: Sequence[tuple[float, float]], kept: Coalition) -> Image.Image:
    """The image with only these strips left."""
    out = np.empty_like(pixels)
    out[:] = pixels.mean(axis=(0, 1)).round()
    for n in kept:
        top, bottom = (round(edge * len(pixels)) for edge in bounds[n])
        out[top:bottom] = pixels[top:bottom]
    return Image.fromarray(out)


def _saying(text: str, spans: Sequence[tuple[int, int]], kept: Coalition) -> str:
    """The text with only these phrases left, between the words that are no phrase."""
    for n, (start, end) in reversed(list(enumerate(spans))):
        if n not in kept:
            text = text[:start] + text[end:]
    return text


# -- the picture -----------------------------------------------------------------------------------------------------

WIDTH, PERSON = 600, (180, 540)  # pixels: of the picture, of the person in it
STRIP_COLORS = ((111, 76, 150), (32, 98, 164), (0, 122, 122), (70, 120, 40), (176, 98, 0), (178, 52, 70))
FAINT, LINE = (222, 222, 222), (150, 150, 150)
WEAK = 0.05  # of the tallest bar: a phrase that stays below is carried by no strip
_FONT, _ROW, _BARS, _BAR = 15, 46, 15, 13  # sizes: letters, one phrase, half its tallest bar, width of a bar


def draw(image: Image.Image, explanation: Explanation) -> Image.Image:
    """The image, its strips tinted, and each phrase joined to its strip, with a small bar for every strip: how far the
    strip carries this phrase above the others, on one scale for all. A phrase whose bars all stay below a twentieth of
    the tallest is gray and joined to none. RGB, 600 pixels wide; the same input gives the same pixels."""
    e, font = explanation, ImageFont.load_default(_FONT)
    best = e.marks.argmax(axis=1)
    order = np.argsort(best, kind="stable")
    tallest = max(float(e.marks.max()), 1e-12)
    carried = e.marks.max(axis=1) >= WEAK * tallest
    height = max(PERSON[1], _ROW * len(order))
    sheet = Image.new("RGB", (WIDTH, height + 2 * MARGIN + 28), PAPER)
    pen = ImageDraw.Draw(sheet)
    left, top = MARGIN, MARGIN + (height - PERSON[1]) // 2
    edge, column = left + PERSON[0], left + PERSON[0] + 4 * MARGIN
    bars = WIDTH - MARGIN - len(e.strip_bounds) * (_BAR + 3)  # where they begin
    used = {int(k) for k in best[carried]}
    sheet.paste(_tinted(image, e.strip_bounds, used), (left, top))
    for k, (a, b) in enumerate(e.strip_bounds):
        color = STRIP_COLORS[k % len(STRIP_COLORS)] if k in used else FAINT
        pen.rectangle((edge + 1, top + round(a * PERSON[1]) + 1, edge + 4, top + round(b * PERSON[1]) - 2), color)
    centres = [(a + b) / 2 * PERSON[1] + top for a, b in e.strip_bounds]
    for n, y in zip(order, _apart([centres[best[n]] for n in order], MARGIN, MARGIN + height), strict=True):
        start, color = centres[best[n]], STRIP_COLORS[best[n] % len(STRIP_COLORS)]
        if carried[n]:
            pen.line([(edge + 5, start), (edge + 18, start), (column - 14, y), (column - 6, y)], color, 2, "curve")
        lines = wrap(e.phrases[n], font, bars - column - 2 * MARGIN)
        label = lines[0] + ("..." if len(lines) > 1 else "")
        pen.text((column, y), label, INK if carried[n] else LINE, font, anchor="lm")
        _bars(pen, (bars, round(y) + _BARS), e.marks[n] / tallest, color)
    foot = sheet.height - MARGIN
    pen.text((left, foot), f"similarity {e.similarity:.2f}", INK, font, anchor="ls")
    pen.text((WIDTH - MARGIN, foot), "bars: strips from head to feet", LINE, ImageFont.load_default(12), anchor="rs")
    return sheet


def _tinted(image: Image.Image, bounds: Sequence[tuple[float, float]], used: set[int]) -> Image.Image:
    """The image in full at its place, strips that carry a phrase under a breath of their colour, thin lines between."""
    person = image.convert("RGB").resize(PERSON, Image.Resampling.LANCZOS)
    for k, (a, b) in enumerate(bounds):
        box = (0, round(a * PERSON[1]), PERSON[0], round(b * PERSON[1]))
        if k in used:
            band = person.crop(box)
            tint = Image.new("RGB", band.size, STRIP_COLORS[k % len(STRIP_COLORS)])
            person.paste(Image.blend(band, tint, 0.16), box)
        if k:
            ImageDraw.Draw(person).line((0, box[1], PERSON[0], box[1]), PAPER, 1)
    return person


def _bars(pen: ImageDraw.ImageDraw, corner: tuple[int, int], row: NDArray[np.float64], color: Color) -> None:
    """One bar for each strip on a common foot, full at 1; the tallest in color, nothing below zero."""
    x, y = corner
    for k, value in enumerate(row):
        left = x + k * (_BAR + 3)
        pen.line((left, y + 1, left + _BAR - 1, y + 1), FAINT, 1)
        if value > 0:
            rise = max(1, round(2 * _BARS * float(value)))
            pen.rectangle((left, y - rise + 1, left + _BAR - 1, y), color if k == row.argmax() else FAINT)


def _apart(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Heights for rows of ``_ROW`` pixels in the given order, near the wanted ones, inside top..bottom."""
    half = _ROW / 2
    places: list[float] = []
    for n, y in enumerate(wanted):
        # Rows that want the same place stand around it, so the first of them moves up.
        same = sum(1 for other in wanted[n:] if other == y)
        start = y - (same - 1) * half
        places.append(max(start if n == 0 or wanted[n - 1] != y else y, places[-1] + _ROW if places else top + half))
    for n in reversed(range(len(places))):
        places[n] = min(places[n], bottom - half - (len(places) - 1 - n) * _ROW)
    return places
