"""The training phrase book speaks the truth about what an image shows, in many ways, and is redrawn every epoch."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.datasets import Sample
from model.synth import voices_words
from model.synth.attributes import (
    AGES,
    BAGS,
    BUILDS,
    COLORS,
    EYEWEAR,
    GENDERS,
    HAIR_COLORS,
    HAIRS,
    HATS,
    LENGTHS,
    LOWERS,
    OUTERS,
    PATTERNS,
    PROPS,
    SHOES,
    SLEEVES,
    UPPERS,
    VIEWS,
    Attributes,
)
from model.synth.oracle import contradictions, readable
from model.synth.phrases import Facts, Lexicon, value_of
from model.synth.redraw import redraw
from model.synth.sampling import sample_attributes
from model.synth.visibility import visible_attributes
from model.synth.voices import voice_with_facts
from model.synth.voices_manners import MANNERS

Shown = tuple[Attributes, str, str | None]


def people(seed: int, n: int) -> list[Shown]:
    """Random people from random sides, two fifths of them partly hidden."""
    rng = np.random.default_rng(seed)
    occluders = (None, None, None, "lower", "upper")
    return [
        (sample_attributes(rng), VIEWS[int(rng.integers(len(VIEWS)))], occluders[int(rng.integers(len(occluders)))])
        for _ in range(n)
    ]


@pytest.fixture(scope="module")
def shown() -> list[Shown]:
    return people(5, 3000)


@pytest.fixture(scope="module")
def said(shown: list[Shown]) -> list[tuple[str, Facts]]:
    rng = np.random.default_rng(6)
    return [voice_with_facts(rng, a, view, occluded, "walking") for a, view, occluded in shown]


def test_every_stated_fact_is_true_and_visible(shown: list[Shown], said: list[tuple[str, Facts]]) -> None:
    for (a, view, occluded), (text, facts) in zip(shown, said, strict=True):
        visible = visible_attributes(a, view, occluded)
        assert contradictions(facts, readable(a, visible)) == 0, text
        for name, values in facts.items():
            assert value_of(a, name) in values, (text, name)
            assert name in visible or (name == "bag" and "straps" in visible), (text, name)


def test_words_of_hidden_things_are_not_said(shown: list[Shown]) -> None:
    """Words no other thing shares, looked for in the text itself rather than in its facts."""
    rng = np.random.default_rng(7)
    alone = {
        "shoe": r"trainers|sneakers|boots|sandals|loafers|footwear|flip",
        "eyewear": r"glasses|specs|spectacles|shades|sunnies",
        "prop": r"smartphone|umbrella|brolly|beverage|paperback",
        "bag": r"tote|satchel|handbag|messenger|crossbody|sling",
    }
    hidden = 0
    for a, view, occluded in shown:
        visible = visible_attributes(a, view, occluded)
        text, _ = voice_with_facts(rng, a, view, occluded)
        for name, words in alone.items():
            if name not in visible and "straps" not in visible:
                hidden += 1
                assert not re.search(rf"\b({words})", text.lower()), (name, text)
    assert hidden > 1000


def test_gender_words_are_true(shown: list[Shown], said: list[tuple[str, Facts]]) -> None:
    male, female = r"\b(man|male|guy|bloke|chap|gentleman|his|he)\b", r"\b(woman|female|lady|girl|her|she)\b"
    for (a, _, _), (text, _) in zip(shown, said, strict=True):
        plain = re.sub(r"man bag|ladies|ladies'", "", text.lower())
        assert not re.search(female if a.gender == "male" else male, plain), text


def test_each_lexicon_names_every_value_and_no_other() -> None:
    wanted = {
        "COLOR": COLORS, "HAIR_COLOR": HAIR_COLORS, "PERSON": GENDERS, "AGE": AGES, "AGE_AFTER": AGES, "BUILD": BUILDS,
        "BUILD_AFTER": BUILDS, "UPPER": UPPERS, "SLEEVE": SLEEVES, "PATTERN": PATTERNS, "DRESS_LENGTH": LENGTHS,
        "OUTER": OUTERS, "LOWER": set(LOWERS) - {"skirt"}, "SHOE": SHOES, "BAG": BAGS, "HAT": HATS,
        "EYEWEAR": EYEWEAR, "PROP": PROPS, "HAIR": HAIRS,
    }  # fmt: skip
    for name, values in wanted.items():
        lexicon: Lexicon = getattr(voices_words, name)
        assert set(lexicon.words) == set(values), name
        assert all(word.strip() == word and word for words in lexicon.words.values() for word in words), name


def test_ambiguous_words_allow_all_that_they_may_mean() -> None:
    color = voices_words.COLOR.meaning
    assert {"navy blue", "blue", "denim"} <= color["dark blue"]
    assert {"black", "navy blue", "dark green", "maroon", "brown"} <= color["dark"]
    assert color["burgundy"] == {"maroon"}
    assert {"tan", "khaki", "beige"} <= color["sand"] | color["fawn"]
    assert {"cap", "hat"} == voices_words.HAT.meaning["hat"]


_SHORTENED = {short for shorts in voices_words.ABBREVIATED.values() for short in shorts}


@pytest.mark.parametrize("name", MANNERS)
def test_every_manner_mentions_what_it_states(name: str) -> None:
    """A text that states something of the lower garment contains one of the words for it."""
    manner, _ = MANNERS[name]
    rng = np.random.default_rng(8)
    texts, checked = set(), 0
    for a, view, occluded in people(9, 300):
        text, facts = voice_with_facts(rng, a, view, occluded, "standing", manner=manner)
        texts.add(text)
        assert not re.search(r"[{}<>\[\]]|None|  ", text), text
        assert text == text.strip() and text
        assert contradictions(facts, readable(a, visible_attributes(a, view, occluded))) == 0
        squashed = re.sub(r"[^a-z]", "", text.lower())
        for field, lexicon in (("lower_color", voices_words.COLOR), ("lower", voices_words.LOWER)):
            if field in facts and value_of(a, field) in lexicon.words:
                words = {re.sub(r"[^a-z]", "", word) for value in facts[field] for word in lexicon.words.get(value, ())}
                assert _SHORTENED & set(text.lower().split()) or any(word in squashed for word in words if word), (
                    field,
                    text,
                )
                checked += 1
    assert len(texts) > 290
    assert checked > 60


def test_texts_are_distinct_and_of_all_lengths(said: list[tuple[str, Facts]]) -> None:
    texts = [text for text, _ in said[:2000]]
    assert len(set(texts)) > 0.95 * len(texts)
    lengths = np.array([len(text.split()) for text in texts])
    assert 9 <= np.median(lengths) <= 16
    assert np.mean(lengths <= 6) > 0.08
    assert np.mean(lengths >= 20) > 0.08
    assert lengths.max() <= 70
    assert np.mean([text == text.lower() for text in texts]) > 0.3
    assert np.mean([text.endswith(".") for text in texts]) > 0.1


def test_many_words_are_in_use(said: list[tuple[str, Facts]]) -> None:
    words = {word for text, _ in said for word in re.findall(r"[a-z]+", text.lower())}
    assert len(words) > 800
    assert {"trousers", "pants", "trainers", "sneakers", "rucksack", "backpack", "jumper", "sweater"} <= words


def test_a_generator_decides_everything() -> None:
    a, view, occluded = people(10, 1)[0]
    one = [voice_with_facts(np.random.default_rng(k), a, view, occluded) for k in range(20)]
    assert one == [voice_with_facts(np.random.default_rng(k), a, view, occluded) for k in range(20)]
    assert len({text for text, _ in one}) > 15


def test_an_unknown_view_is_refused() -> None:
    with pytest.raises(ValueError, match="no view 'above'"):
        voice_with_facts(np.random.default_rng(0), people(0, 1)[0][0], "above")


# --- redraw ---------------------------------------------------------------------------------------------------------


def rendered(n: int) -> list[Sample]:
    return [
        Sample(Path("x.png"), k, ("x",), view=view, attributes=asdict(a), occluded=occluded, seed=100 + k)
        for k, (a, view, occluded) in enumerate(people(11, n))
    ]


def test_redraw_depends_on_seed_epoch_and_sample_alone() -> None:
    samples = rendered(60)
    first = redraw(samples, 1, 0)
    assert len(first) == 60
    assert first == redraw(samples, 1, 0)
    assert first[7] == redraw([samples[7]], 1, 0)[0]
    assert first[::-1] == redraw(samples[::-1], 1, 0)
    for other in (redraw(samples, 1, 1), redraw(samples, 2, 0)):
        assert sum(x == y for x, y in zip(first, other, strict=True)) < 6


def test_shares_choose_the_phrase_book() -> None:
    samples = rendered(400)
    short = redraw(samples, 3, 0, voices=0, short=1, typos=0)
    assert all(2 <= len(text.split()) <= 9 for text in short)
    prose = redraw(samples, 3, 0, voices=0, short=0, typos=0)
    assert all(text.endswith(".") for text in prose)
    voiced = redraw(samples, 3, 0, voices=1, short=0, typos=0)
    assert np.mean([text.endswith(".") for text in voiced]) < 0.5
    mixed = redraw(samples, 3, 0, voices=0.5, short=0.2, typos=0)
    known = [set(one) for one in (short, prose, voiced)]
    # The book is drawn before the text from the same generator, so the text itself tells which book it came from.
    shares = [np.mean([text in texts for text in mixed]) for texts in known]
    assert shares == pytest.approx([0.2, 0.3, 0.5], abs=0.08)


def test_typos_change_some_captions_and_only_a_letter_or_two() -> None:
    samples = rendered(300)
    clean, slips = redraw(samples, 4, 0, typos=0), redraw(samples, 4, 0, typos=1)
    changed = [(x, y) for x, y in zip(clean, slips, strict=True) if x != y]
    assert len(changed) > 150  # a slip on a short word is no slip
    assert all(abs(len(x) - len(y)) <= 2 for x, y in changed)


@pytest.mark.parametrize(
    "lacking", [{"attributes": None}, {"attributes": {"gender": "male"}}, {"view": None}, {"seed": None}]
)
def test_only_rendered_samples_can_be_redrawn(lacking: dict[str, Any]) -> None:
    samples = rendered(3)
    samples[1] = replace(samples[1], **lacking)
    with pytest.raises(ValueError, match="needs a rendered set"):
        redraw(samples, 0, 0)


@pytest.mark.parametrize("shares", [{"voices": 0.9, "short": 0.2}, {"voices": -0.1}, {"typos": 1.5}])
def test_impossible_shares_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Shares of captions"):
        redraw(rendered(1), 0, 0, **shares)
