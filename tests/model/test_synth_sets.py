"""The sets for evaluation: twins, pairs of a probe, infrared, unseen cameras, and the queries written by hand."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("scipy", reason="the [synth] extra is not installed")

from model.datasets import DatasetError, read_cuhk_pedes
from model.evaluate import evaluate
from model.synth import SynthUnavailable
from model.synth.attributes import Attributes
from model.synth.camera import sample_camera, with_strong_cast
from model.synth.generate import (
    SETS,
    SetSpec,
    _fingerprint,
    derived_seed,
    generate,
    identities,
    probe_pairs,
    sightings,
)
from model.synth.oracle import contradictions, readable
from model.synth.phrases import value_of
from model.synth.probe import PROBED
from model.synth.protocols import _by_hand
from model.synth.sampling import FACETS, changed_facet, describable
from model.synth.visibility import visible_attributes

SIZE = {"height": 96, "width": 40}
TWINS = replace(SETS["twins"], ids=5, images_per_id=1, **SIZE)
PROBE = replace(SETS["probe"], ids=6, **SIZE)
INFRARED = replace(SETS["infrared_test"], ids=1, images_per_id=5, **SIZE)


@pytest.fixture(scope="module", autouse=True)
def _rendering() -> None:
    try:
        from model.synth.body import load_body
        from model.synth.renderer import Renderer

        load_body()
        Renderer(SIZE["width"], SIZE["height"])
    except SynthUnavailable as reason:
        pytest.skip(str(reason))


def rendered(spec: SetSpec, folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(generate(spec, folder, workers=1).read_text())
    return rows


def pixels(folder: Path, row: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(folder / "imgs" / row["file_path"])).astype(float)


# --- what the sets hold -------------------------------------------------------------------------------------------


def test_every_twin_differs_from_its_base_in_one_facet() -> None:
    spec = SETS["twins"]
    people = identities(spec)
    assert (len(people), spec.images_per_id) == (1000, 2)
    assert len({describable(a) for a in people}) == 1000
    assert not {describable(a) for a in people} & {describable(a) for a in identities(SETS["train"])}
    for n in range(0, 1000, 5):
        facets = [changed_facet(people[n], twin) for twin in people[n + 1 : n + 5]]
        assert None not in facets and len(set(facets)) == 4
    assert identities(replace(spec, ids=10)) == people[:10]


def test_what_changed_is_named_by_the_narrowest_facet() -> None:
    a = identities(SETS["tiny"])[0]
    assert changed_facet(a, a) is None
    assert changed_facet(a, replace(a, shoe_color="no such color")) == "shoe_color"
    assert changed_facet(a, replace(a, bag="no such bag", bag_color="none")) == "bag"
    with pytest.raises(ValueError, match="more than one facet"):
        changed_facet(a, replace(a, shoe="none", hair="none"))


def test_a_perfect_reader_tells_every_pair_of_the_probe() -> None:
    spec = SETS["probe"]
    pairs = probe_pairs(spec)
    assert Counter(pair.attribute for pair in pairs) == dict.fromkeys(PROBED, 40)
    for n, pair in enumerate(pairs):
        one, other = sightings(spec, 2 * n)[0], sightings(spec, 2 * n + 1)[0]
        assert one == other  # the very same moment
        shown, changed = (readable(a, visible_attributes(a, one.view)) for a in (pair.shown, pair.changed))
        assert contradictions(pair.facts, shown) == 0
        assert contradictions(pair.facts, changed) == 1
        assert value_of(pair.shown, pair.attribute) in pair.facts[pair.attribute]
        assert value_of(pair.changed, pair.attribute) not in pair.facts[pair.attribute]
        assert 1 < len(pair.text.split()) <= 10 and "none" not in pair.text.lower()
        differing = [x != y for x, y in zip(astuple(pair.shown), astuple(pair.changed), strict=True)]
        assert 1 <= sum(differing) <= len(FACETS[pair.attribute])


def test_cameras_of_the_unseen_set_are_its_own_and_tint_strongly() -> None:
    unseen = SETS["unseen"]
    assert (unseen.ids, unseen.images_per_id, len(unseen.cameras)) == (200, 4, 6)
    for name, spec in SETS.items():
        if name != "unseen":
            assert not set(unseen.cameras) & {*spec.cameras, *spec.infrared_cameras}
    for number in unseen.cameras:
        camera = sample_camera(derived_seed("camera", number))
        tinted = with_strong_cast(camera)
        assert replace(tinted, cast=camera.cast) == camera
        assert max(tinted.cast) / min(tinted.cast) > 1.5 > max(camera.cast) / min(camera.cast)


@pytest.mark.parametrize("name", ["infrared", "thermal"])
def test_infrared_sets_have_both_kinds_of_images_and_cameras_of_their_own(name: str) -> None:
    train, test = SETS[f"{name}_train"], SETS[f"{name}_test"]
    assert not {*train.cameras, *train.infrared_cameras} & {*test.cameras, *test.infrared_cameras}
    assert not {describable(a) for a in identities(train)} & {describable(a) for a in identities(test)}
    for spec in (train, test):
        for seen in (sightings(spec, index) for index in range(3)):
            for s in seen:
                assert s.camera in (spec.cameras if s.modality == "visible" else spec.infrared_cameras)
            assert Counter(s.modality == "visible" for s in seen) == dict.fromkeys([True, False], len(seen) // 2)


def test_what_older_sets_do_not_use_is_not_in_their_fingerprint() -> None:
    """Shards rendered before a field existed stay valid: these fingerprints were written then."""
    assert _fingerprint(SETS["test"]) == "19b1ba79690dd39f"
    assert _fingerprint(replace(SETS["test"], strong_cast=True)) != "19b1ba79690dd39f"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"infrared": "near-infrared"}, "infrared camera"), ({"probe": True}, "A probe has pairs")],
)
def test_settings_that_do_not_go_together_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(SETS["test"], **changes)


def test_queries_by_hand_are_true_of_the_people_they_seek() -> None:
    spec = SETS["test"]
    people = identities(spec)
    queries = _by_hand()
    assert len(queries) >= 200
    wrong = []
    for query in queries:
        index = query["pid"] - spec.first_pid
        assert query["text"].strip() and query["image"] in range(spec.images_per_id)
        assert query["facts"].keys() <= Attributes.__dataclass_fields__.keys()
        for name, values in query["facts"].items():
            if value_of(people[index], name) not in values:
                wrong.append((query["pid"], name, value_of(people[index], name), values))
    assert not wrong


# --- what is rendered ---------------------------------------------------------------------------------------------


def test_twins_say_whose_twin_they_are(tmp_path: Path, tiny_checkpoint: Path) -> None:
    rows = rendered(TWINS, tmp_path)
    assert [row["base"] for row in rows] == [8000] * 5
    assert rows[0]["changed"] is None and all(row["changed"] in FACETS for row in rows[1:])
    assert len({row["seed"] for row in rows}) == 5
    samples = read_cuhk_pedes(tmp_path, "test")
    assert [(s.base, s.changed) for s in samples] == [(8000, row["changed"]) for row in rows]
    result = evaluate(tiny_checkpoint, "synth", tmp_path, device="cpu")
    assert result["twins"]["queries"] == 10
    assert {name: result["twins"][name] for name in result["text_to_image"]} == result["text_to_image"]
    # One family, one image of each: told from all twins is found first.
    assert result["twins"]["twin_accuracy"] == pytest.approx(result["twins"]["rank1"])
    assert result["twins_oracle"]["twin_accuracy"] == pytest.approx(result["oracle"]["rank1"])


def test_a_pair_of_the_probe_is_one_scene_with_one_change(tmp_path: Path, tiny_checkpoint: Path) -> None:
    rows = rendered(PROBE, tmp_path)
    assert [row["changed"] for row in rows] == [None, "upper_color", None, "lower_color", None, "outer_color"]
    for shown, changed in zip(rows[::2], rows[1::2], strict=True):
        assert len(shown["captions"]) == 1 and changed["captions"] == []
        assert shown["base"] == changed["base"] == shown["id"] != changed["id"]
        assert [shown[k] for k in ("seed", "camera", "view")] == [changed[k] for k in ("seed", "camera", "view")]
        difference = np.abs(pixels(tmp_path, shown) - pixels(tmp_path, changed)).mean(2)  # (96, 40)
        assert difference.max() > 40  # the garment
        assert np.median(difference[:, [0, 1, -2, -1]]) < 4  # and nothing beside the person
    result = evaluate(tiny_checkpoint, "synth", tmp_path, device="cpu")
    assert result["attribute_probe"]["count"] == 3
    assert result["text_to_image"] is None


def test_infrared_images_are_gray_and_need_no_captions(tmp_path: Path, tiny_checkpoint: Path) -> None:
    rows = rendered(INFRARED, tmp_path)
    assert [row["modality"] for row in rows] == ["visible"] * 3 + ["infrared"] * 2
    for row in rows:
        colorful = np.ptp(pixels(tmp_path, row), axis=2).mean()
        assert colorful < 2 if row["modality"] == "infrared" else colorful > 4
    with pytest.raises(DatasetError, match="captions must be a list"):
        read_cuhk_pedes(tmp_path, "test")
    samples = read_cuhk_pedes(tmp_path, "test", wordless=True)
    assert [s.modality for s in samples] == [row["modality"] for row in rows]
    result = evaluate(tiny_checkpoint, "synth", tmp_path, device="cpu")
    assert result["image_to_image"] is not None and result["text_to_image"] is None
