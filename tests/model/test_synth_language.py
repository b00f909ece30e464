"""What the phrase books say must be visible, true, deterministic and look like human captions."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import astuple, fields, replace

import numpy as np
import pytest

from model.synth import captions, phrases, sampling, wording
from model.synth.attributes import VIEWS, Attributes
from model.synth.caption_statistics import mention_rates, sample_captions, statistics
from model.synth.oracle import (
    MOMENT,
    contradiction_matrix,
    contradictions,
    json_facts,
    oracle_ceiling,
    readable,
    reading,
)
from model.synth.phrases import Facts, bearing, value_of

PLAIN = Attributes(
    gender="male", age="adult", build="average", hair="short", hair_color="black", upper="t-shirt",
    upper_color="white", sleeve="short", pattern="plain", pattern_color=None, dress=None, dress_color=None,
    lower="shorts", lower_color="khaki", skirt=None, outer=None, outer_color=None, outer_open=False, shoe="sneakers",
    shoe_color="white", bag=None, bag_color=None, bag_side=None, hat=None, hat_color=None, eyewear=None, prop=None,
    prop_color=None,
)  # fmt: skip


def scenes(seed: int, n: int) -> list[tuple[Attributes, str, str | None]]:
    rng = np.random.default_rng(seed)
    people = [sampling.sample_attributes(rng, "test") for _ in range(n)]
    hidden = (None, None, "lower", "upper")
    return [(a, VIEWS[i % len(VIEWS)], hidden[int(rng.integers(4))]) for i, a in enumerate(people)]


# --- sampling -----------------------------------------------------------------------------------------------------


def test_sampled_people_are_consistent() -> None:
    rng = np.random.default_rng(1)
    for split in ("train", "test"):
        for _ in range(600):
            a = sampling.sample_attributes(rng, split)
            assert (a.dress is None) == (a.upper is not None) == (a.lower is not None)
            assert (a.skirt is None) == (a.lower != "skirt")
            assert (a.pattern == "plain") == (a.pattern_color is None)
            for kind in ("upper", "dress", "lower", "outer", "bag", "hat"):
                assert (getattr(a, kind) is None) == (getattr(a, f"{kind}_color") is None)
            assert a.outer is not None or not a.outer_open
            assert (a.bag_side is None) == (a.bag in (None, "backpack"))
            assert a.sleeve is not None


def test_training_never_wears_a_held_out_pair_and_test_does() -> None:
    train = sampling.distinct_attributes(3, 2000, "train")
    assert not any(sampling.has_held_out(a) for a in train)
    test = sampling.distinct_attributes(3, 500, "test")
    assert 0.08 < np.mean([sampling.has_held_out(a) for a in test]) < 0.4
    uppers = itertools.product(sampling.UPPER_COLORS, sampling.UPPERS_OF["female"])
    lowers = itertools.product(sampling.LOWER_COLORS, sampling.LOWERS_OF["female"])
    assert 0.12 < np.mean([sampling.held_out(pair) for pair in (*uppers, *lowers)]) < 0.18
    # Colours and garments themselves are all known to training; only combinations are new.
    assert {a.upper_color for a in train} >= {a.upper_color for a in test}
    assert {a.lower for a in train} >= {a.lower for a in test}


def test_distinct_people_cannot_be_confused_and_follow_from_the_seed() -> None:
    people = sampling.distinct_attributes(7, 1500, "test")
    keys = [sampling.describable(a) for a in people]
    assert len(set(keys)) == len(people)
    assert people[:200] == sampling.distinct_attributes(7, 200, "test")
    assert people[:50] != sampling.distinct_attributes(8, 50, "test")
    without_the_first = sampling.distinct_attributes(7, 100, "test", exclude=keys[:10])
    assert without_the_first == people[10:110]


def test_neighbouring_colours_do_not_make_two_people() -> None:
    assert sampling.describable(replace(PLAIN, lower_color="tan")) == sampling.describable(PLAIN)
    assert sampling.describable(replace(PLAIN, lower_color="red")) != sampling.describable(PLAIN)


def test_twins_differ_in_exactly_one_facet_which_words_can_tell() -> None:
    rng = np.random.default_rng(5)
    for a in sampling.distinct_attributes(11, 300, "test"):
        changed = []
        for twin in sampling.twins(a, rng):
            differing = {f.name for f in fields(Attributes) if getattr(a, f.name) != getattr(twin, f.name)}
            facet = [name for name, group in sampling.FACETS.items() if differing <= set(group)]
            assert differing
            assert facet, differing
            assert sampling.describable(twin) != sampling.describable(a)
            changed.append(frozenset(differing))
        assert len(changed) == 4


def test_twins_refuse_more_than_exist() -> None:
    with pytest.raises(ValueError, match="ask for fewer"):
        sampling.twins(PLAIN, np.random.default_rng(0), n=50)


def test_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="There is no split 'tset'"):
        sampling.sample_attributes(np.random.default_rng(0), "tset")


# --- visibility ---------------------------------------------------------------------------------------------------


def test_what_each_side_shows() -> None:
    see = captions.visible_attributes
    backpack = replace(PLAIN, bag="backpack", bag_color="red", eyewear="glasses", pattern="logo", pattern_color="blue")
    assert {"bag", "bag_color"} <= see(backpack, "back")
    assert "straps" not in see(backpack, "left")
    assert "bag" not in see(backpack, "front")
    assert {"straps", "bag_color"} <= see(backpack, "front-left")
    assert "eyewear" in see(backpack, "right")
    assert not {"eyewear", "age", "prop", "pattern"} & see(backpack, "back-right")
    assert "pattern" in see(backpack, "front")
    assert not {"shoe", "shoe_color"} & see(backpack, "front", "lower")
    assert "lower" in see(backpack, "front", "lower")
    assert not {"upper", "upper_color", "straps", "bag_color"} & see(backpack, "front", "upper")

    shoulder = replace(PLAIN, bag="shoulder bag", bag_color="red", bag_side="left")
    assert "bag" in see(shoulder, "left")
    assert "bag" not in see(shoulder, "right")

    jacket = replace(PLAIN, outer="jacket", outer_color="navy blue")
    assert not {"upper", "upper_color", "sleeve", "pattern"} & see(jacket, "front")
    opened = replace(jacket, outer_open=True)
    assert {"upper", "upper_color"} <= see(opened, "front-right")
    assert "upper" not in see(opened, "back")

    capped = replace(PLAIN, hat="cap", hat_color="black")
    assert "hair" not in see(capped, "front")
    assert "hair" in see(replace(capped, hair="long"), "front")
    # That something is missing can be seen too, but absent things have no colour.
    assert {"hat", "bag", "eyewear"} <= see(PLAIN, "front")
    assert not {"hat_color", "bag_color"} & see(PLAIN, "front")


def test_unknown_view_and_occlusion_are_refused() -> None:
    with pytest.raises(ValueError, match="There is no view"):
        captions.visible_attributes(PLAIN, "above")
    with pytest.raises(ValueError, match="Occlusion must be"):
        captions.visible_attributes(PLAIN, "front", "middle")


def assert_true_and_visible(a: Attributes, view: str, occluded: str | None, text: str, facts: Facts) -> None:
    visible = captions.visible_attributes(a, view, occluded)
    allowed = visible | ({"bag"} if "straps" in visible else set())
    assert set(facts) <= allowed | set(MOMENT), (text, set(facts) - allowed)
    moment = {"view": bearing(view), "activity": "walking"}  # what the books take as given where nothing else is said
    for name, values in facts.items():
        assert (moment[name] if name in MOMENT else value_of(a, name)) in values, (text, name)


@pytest.mark.parametrize("book", [captions.caption_with_facts, captions.short_query_with_facts, wording.wording_query])
def test_texts_state_only_what_is_visible_and_true(book: object) -> None:
    rng = np.random.default_rng(2)
    for a, view, occluded in scenes(13, 1500):
        text, facts = book(rng, a, view, occluded)  # type: ignore[operator]
        assert_true_and_visible(a, view, occluded, text, facts)
        assert facts
        assert "{" not in text
        assert "  " not in text
        assert "None" not in text


def test_facts_are_what_the_words_say() -> None:
    """Read a few unmistakable words straight from the text: what they mean must be among the facts."""
    said = 0
    rng = np.random.default_rng(4)
    telltales = {
        "backpack": ("bag", "backpack"), "skirt": ("lower", "skirt"), "umbrella": ("prop", "umbrella"),
        "leggings": ("lower", "leggings"), "hoodie": ("upper", "hoodie"), "blouse": ("upper", "blouse"),
        "sandals": ("shoe", "sandals"), "plaid": ("pattern", "plaid"), "sunglasses": ("eyewear", "sunglasses"),
        "ponytail": ("hair", "ponytail"), "man": ("gender", "male"), "woman": ("gender", "female"),
        "sleeveless": ("sleeve", "none"), "unzipped": ("outer_open", "open"),
    }  # fmt: skip
    for a, view, occluded in scenes(17, 2500):
        text, facts = captions.caption_with_facts(rng, a, view, occluded)
        words = set(captions.tokens(text))
        for word in words & set(telltales):
            if word == "sleeveless" and facts.get("sleeve") is None:
                continue  # part of a noun: "sleeveless jacket", "sleeveless shirt"
            name, value = telltales[word]
            assert value in facts[name], text
            said += 1
    assert said > 2000


def test_a_hidden_part_changes_nothing_of_the_text() -> None:
    """Two people who differ only where the image cannot show it get the same caption from the same seed."""
    covered = replace(PLAIN, outer="jacket", outer_color="black", lower="pants", lower_color="gray")
    other = replace(covered, upper="sweater", upper_color="red", pattern="striped", pattern_color="white")
    for seed in range(60):
        view = VIEWS[seed % len(VIEWS)]
        one, two = (captions.caption(np.random.default_rng(seed), a, view) for a in (covered, other))
        assert one == two


def test_captions_follow_from_the_seed() -> None:
    for book in (captions.caption_with_facts, wording.wording_query):
        once, again, other = ([book(np.random.default_rng(s + 9 * d), *sc) for s, sc in enumerate(scenes(3, 60))]
                              for d in (0, 0, 1))  # fmt: skip
        assert once == again
        assert once != other


def test_an_activity_not_in_the_book_is_said_as_given() -> None:
    rng = np.random.default_rng(0)
    assert any("riding a scooter" in captions.caption(rng, PLAIN, "front", None, "riding a scooter") for _ in range(40))


# --- how captions look --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def said() -> list[tuple[str, Facts]]:
    return sample_captions(seed=23, n=3000)


def test_captions_look_like_human_ones(said: list[tuple[str, Facts]]) -> None:
    got = statistics([text for text, _ in said])
    wanted = {  # value, tolerance
        "words mean": (23.5, 1.5), "words median": (21, 2), "words p5": (16, 1.5), "words p95": (39, 4),
        "colour words": (3.0, 0.25), "1 sentences": (0.57, 0.05), "2 sentences": (0.30, 0.05),
        "3 sentences": (0.10, 0.04), "black": (0.64, 0.06), "white": (0.50, 0.06), "blue": (0.27, 0.05),
        "gray": (0.24, 0.05), "brown": (0.15, 0.04), "red": (0.13, 0.04), "pink": (0.08, 0.03), "green": (0.07, 0.04),
        "yellow": (0.05, 0.03), "tan": (0.04, 0.025), "purple": (0.03, 0.02), "shirt": (0.66, 0.08),
        "pants": (0.38, 0.05), "shorts": (0.22, 0.04), "jeans": (0.15, 0.04), "jacket": (0.12, 0.03),
        "dress": (0.08, 0.03), "skirt": (0.05, 0.02),
    }  # fmt: skip
    off = {name: got[name] for name, (value, tolerance) in wanted.items() if abs(got[name] - value) > tolerance}
    assert not off
    assert len({text for text, _ in said}) > 0.99 * len(said)
    words = {word for text, _ in sample_captions(seed=24, n=6000) for word in captions.tokens(text)}
    assert 600 <= len(words) <= 1000


def test_captions_mention_what_people_mention(said: list[tuple[str, Facts]]) -> None:
    got = mention_rates([facts for _, facts in said])
    wanted = {"gender": 0.95, "upper": 0.94, "lower": 0.90, "shoes": 0.64, "bag": 0.39, "hair": 0.33, "eyewear": 0.09}
    off = {name: got[name] for name, value in wanted.items() if abs(got[name] - value) > 0.04}
    assert not off
    assert abs(got["headwear"] - 0.04) < 0.02


def test_captions_are_sentences(said: list[tuple[str, Facts]]) -> None:
    for text, _ in said:
        assert text.endswith(".")
        assert not re.search(r"\b(\w+) \1\b", text), text  # nothing said twice in a row
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|\ba an? |,,|\. ?\.| ,", text.lower()), text


def test_tokens_follow_the_processed_tokens_rule() -> None:
    assert captions.tokens("A man, in a T-shirt; he's OLD.") == ["a", "man", "in", "a", "tshirt", "hes", "old"]


def test_short_queries_have_three_to_eight_words() -> None:
    rng = np.random.default_rng(6)
    for a, view, occluded in scenes(19, 1200):
        assert 3 <= len(captions.tokens(captions.short_query(rng, a, view, occluded))) <= 8


def test_short_queries_are_mixed_in_at_the_rate_asked_for() -> None:
    rng = np.random.default_rng(6)
    lengths = [len(captions.caption(rng, *scene, short=0.3).split()) for scene in scenes(21, 1500)]
    assert 0.25 < np.mean([length <= 8 for length in lengths]) < 0.36


def test_typos_change_a_word_or_two_and_no_fact() -> None:
    changed = 0
    for seed, scene in enumerate(scenes(29, 200)):
        clean, facts = captions.caption_with_facts(np.random.default_rng(seed), *scene)
        noisy, noisy_facts = captions.caption_with_facts(np.random.default_rng(seed), *scene, typos=0.999999)
        assert noisy_facts == facts
        pairs = list(zip(clean.split(" "), noisy.split(" "), strict=True))
        differing = [(one, two) for one, two in pairs if one != two]
        assert len(differing) <= 2
        assert all(abs(len(one) - len(two)) <= 2 for one, two in differing)
        changed += bool(differing)
    assert changed > 80


def test_every_name_of_a_colour_accepts_that_colour() -> None:
    for value, words in phrases.COLOR.words.items():
        assert all(value in phrases.COLOR.meaning[word] for word in words)
    assert phrases.COLOR.meaning["light brown"] == {"tan"}
    assert {"tan", "beige", "khaki"} <= phrases.COLOR.meaning["tan"]
    assert {"navy blue", "blue", "denim"} <= phrases.COLOR.meaning["dark blue"]


# --- the second phrase book ---------------------------------------------------------------------------------------


def test_wording_has_many_forms_all_of_which_can_be_said() -> None:
    forms = wording.query_forms()
    assert len(forms) == len(set(forms)) >= 200
    rich = replace(
        PLAIN, age="young", outer="jacket", outer_color="red", outer_open=True, bag="backpack", bag_color="black",
        hat="cap", hat_color="blue", eyewear="glasses", prop="book", hair="long", pattern="logo", pattern_color="red",
    )  # fmt: skip
    gown = replace(rich, upper=None, upper_color=None, lower=None, lower_color=None, dress="long", dress_color="red",
                   outer=None, outer_color=None, outer_open=False)  # fmt: skip
    people = (rich, gown, PLAIN)
    for form in forms:
        said = 0
        for a in people:
            speaker = phrases.Speaker(np.random.default_rng(0), a, captions.visible_attributes(a, "front"))
            if all(wording._SLOTS[slot][0](speaker) for slot in wording.slots_of(form)):
                text = wording.fill(speaker, form)
                assert "{" not in text
                said += 1
        assert said, form


def test_wording_is_half_short_and_unlike_the_training_captions(said: list[tuple[str, Facts]]) -> None:
    rng = np.random.default_rng(8)
    texts = [wording.wording_query(rng, *scene)[0] for scene in scenes(31, 1000)]
    lengths = np.array([len(re.findall(r"[\w'-]+", text)) for text in texts])
    assert lengths.min() >= 3
    assert 0.4 < (lengths <= 8).mean() < 0.7
    trained = {word for text, _ in said for word in captions.tokens(text)}
    unseen = [not trained.issuperset(captions.tokens(text)) for text in texts]
    assert np.mean(unseen) > 0.4  # words that training captions never use


# --- the oracle ---------------------------------------------------------------------------------------------------


def gallery(n_ids: int, per_id: int) -> tuple[list[Attributes], list[frozenset[str]], list[int], list[Facts]]:
    """A small rendered-less set: attributes, visible fields, person ids and the facts of a caption per image."""
    rng = np.random.default_rng(37)
    people, visible, pids, facts = [], [], [], []
    for pid, a in enumerate(sampling.distinct_attributes(41, n_ids, "test")):
        for i in range(per_id):
            view = VIEWS[int(rng.integers(len(VIEWS)))]
            occluded = "lower" if i == 0 else None
            people.append(a)
            visible.append(captions.visible_attributes(a, view, occluded))
            pids.append(pid)
            facts.append(captions.caption_with_facts(rng, a, view, occluded)[1])
    return people, visible, pids, facts


def test_no_image_of_the_right_person_contradicts_the_text() -> None:
    people, visible, pids, facts = gallery(60, 4)
    counts = contradiction_matrix(facts, [readable(a, v) for a, v in zip(people, visible, strict=True)])
    same = np.array(pids)[:, None] == np.array(pids)[None, :]
    assert not counts[same].any()
    assert counts[~same].mean() > 1


def test_contradiction_matrix_equals_a_naive_loop() -> None:
    people, visible, _, facts = gallery(12, 3)
    seen = [readable(a, v) for a, v in zip(people, visible, strict=True)]
    naive = [[contradictions(stated, shown) for shown in seen] for stated in facts]
    np.testing.assert_array_equal(contradiction_matrix(facts, seen), naive)


def test_readable_leaves_open_what_cannot_be_seen() -> None:
    logo = replace(PLAIN, pattern="logo", pattern_color="red", bag="backpack", bag_color="red")
    behind = readable(logo, captions.visible_attributes(logo, "back"))
    assert behind["pattern"] == {"plain", "logo"}
    assert readable(logo, captions.visible_attributes(logo, "front"))["bag"] == {"backpack"}
    assert "eyewear" not in behind


def test_oracle_ceiling_on_a_case_worked_by_hand() -> None:
    """Four images; the text says "red shirt". Two images fit, one of them right: a fair coin decides between them."""
    red, blue = replace(PLAIN, upper_color="red"), replace(PLAIN, upper_color="blue")
    visible = [captions.visible_attributes(PLAIN, "front")] * 4
    got = oracle_ceiling([{"upper_color": ["red"]}], [1], [red, red, blue, blue], visible, [1, 2, 3, 4])
    assert got == pytest.approx({"rank1": 50, "rank5": 100, "rank10": 100, "mean_ap": 75, "mean_inp": 75})


def test_oracle_ceiling_equals_simulated_random_ties() -> None:
    people, visible, pids, facts = gallery(40, 3)
    queries = list(range(0, len(facts), 7))
    got = oracle_ceiling([facts[i] for i in queries], [pids[i] for i in queries], people, visible, pids, block=5)
    rng = np.random.default_rng(43)
    counts = contradiction_matrix(
        [facts[i] for i in queries], [readable(*av) for av in zip(people, visible, strict=True)]
    )
    rank1, mean_ap = [], []
    for levels, i in zip(counts, queries, strict=True):
        for _ in range(400):
            order = np.lexsort((rng.random(len(levels)), levels))
            ranks = np.flatnonzero(np.array(pids)[order] == pids[i]) + 1
            rank1.append(ranks[0] == 1)
            mean_ap.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    assert got["rank1"] == pytest.approx(100 * np.mean(rank1), abs=2)
    assert got["mean_ap"] == pytest.approx(100 * np.mean(mean_ap), abs=1)
    assert 20 < got["rank1"] < 100


def test_oracle_refuses_lists_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="one person id per text"):
        oracle_ceiling([{}], [1, 2], [PLAIN], [frozenset()], [1])
    with pytest.raises(ValueError, match="same split"):
        oracle_ceiling([{}], [2], [PLAIN], [frozenset()], [1])


def test_facts_survive_the_manifest() -> None:
    people, visible, pids, facts = gallery(15, 2)
    stored = json.loads(json.dumps([json_facts(f) for f in facts]))
    direct = oracle_ceiling(facts, pids, people, visible, pids)
    assert oracle_ceiling(stored, pids, people, visible, pids) == direct


def test_describable_covers_every_field() -> None:
    assert len(sampling.describable(PLAIN)) == len(astuple(PLAIN))


def test_the_moment_only_decides_between_equals() -> None:
    seen = [readable(PLAIN, frozenset({"gender"}), view, "walking") for view in ("front", "back-left", "left")]
    assert [one["view"] for one in seen] == [{"front"}, {"back"}, {"side"}]
    stated = {"gender": ["female" if PLAIN.gender == "male" else "male"], "view": ["back"]}
    # Gender is wrong everywhere and counts three; the two images from other sides count one more.
    assert reading([stated, {"view": ["back"], "activity": ["standing"]}], seen).tolist() == [[4, 3, 4], [2, 1, 2]]


def test_captions_state_the_side_and_the_activity_they_speak_of() -> None:
    said = [captions.caption_with_facts(np.random.default_rng(n), PLAIN, "back", None, "standing") for n in range(300)]
    for word, name, value in (("from behind", "view", "back"), ("standing", "activity", "standing")):
        spoken = [facts for text, facts in said if word in text.lower()]
        assert spoken and all(facts[name] == {value} for facts in spoken)
    assert any("view" not in facts for _, facts in said)
