"""Visible and infrared: readers and the mistakes people make, protocols against loops, and MCJA from data to search."""

from __future__ import annotations

import io
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from model.batching import augment_images, draw_groups, modality_labels
from model.checkpoint import CheckpointError, describe
from model.datasets import DatasetError, Sample, open_image
from model.datasets_infrared import read_regdb, read_synth_infrared, read_sysu_mm01, regdb_split
from model.encoder import Encoder
from model.evaluate import evaluate, report
from model.nets.mcja import MCJAConfig
from model.preprocess import Preprocessing
from model.recipes import RECIPES, Recipe, override, tiny
from model.retrieval_infrared import (
    GALLERY_CAMERAS,
    MSER,
    Permutations,
    read_permutations,
    reranked_distance,
    search_across,
    search_sysu,
    sysu_gallery,
)
from model.train import TrainingError, train
from model.training_data import read_splits
from tests.helpers import make_toy_dataset
from tests.model.infrared_toys import make_regdb, make_rendered, make_sysu

COUNTS = "ignore:(SYSU-MM01|RegDB) split"  # small folders do not have the published numbers of images
pytestmark = pytest.mark.filterwarnings(COUNTS)


@pytest.fixture(scope="module")
def sysu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sysu(tmp_path_factory.mktemp("sysu") / "SYSU-MM01")


@pytest.fixture(scope="module")
def regdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_regdb(tmp_path_factory.mktemp("regdb") / "RegDB")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rendered(tmp_path_factory.mktemp("rendered"))


# --- readers ------------------------------------------------------------------------------------------------------


def test_sysu_is_read_by_its_lists(sysu: Path) -> None:
    training, test = read_sysu_mm01(sysu, "train"), read_sysu_mm01(sysu, "test")
    assert {s.pid for s in training} == {1, 2, 4} and {s.pid for s in test} == {3, 7, 9}
    assert Counter((s.camera, s.modality) for s in test) == {
        ("1", "visible"): 9, ("2", "visible"): 6, ("3", "infrared"): 9,
        ("4", "visible"): 9, ("5", "visible"): 9, ("6", "infrared"): 9,
    }  # fmt: skip
    assert test[0].path == sysu / "cam1" / "0003" / "0001.jpg" and test[0].captions == ()
    open_image(test[0].path)
    with pytest.warns(
        UserWarning, match=r"test has 3 people, 33 visible and 18 infrared.*published are 96, 33 and 3803"
    ):
        read_sysu_mm01(sysu, "test")


def broken(root: Path, change: Callable[[Path], Any]) -> Path:
    change(root)
    return root


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r / "nowhere", "is not a folder"),
        (lambda r: r.parent, r"has no folder cam1, but .*SYSU-MM01 has. Give that folder"),
        (lambda r: r / "cam3", r"folder of one camera. Give the folder above it, .*SYSU-MM01"),
        (lambda r: shutil.rmtree(r / "cam6"), r"lacks cam6. Unpack all six cameras"),
        (lambda r: shutil.rmtree(r / "exp"), r"exp lacks test_id.txt, train_id.txt, val_id.txt"),
        (
            lambda r: (r / "exp" / "test_id.txt").rename(r / "exp" / "test_id.mat"),
            r"lacks test_id.txt.*The .mat files there hold the same, but are not read",
        ),
        (lambda r: (r / "exp" / "test_id.txt").write_text("3\n7\n"), r"with commas between them, as 1,2,4"),
        (lambda r: (r / "exp" / "test_id.txt").write_text("3,77"), r"1 of the 2 people .* the first is 0077"),
    ],
)
def test_what_people_get_wrong_with_sysu(tmp_path: Path, change: Callable[[Path], Any], message: str) -> None:
    root = make_sysu(tmp_path / "SYSU-MM01", dict.fromkeys(range(1, 7), 1))
    changed = change(root)
    with pytest.raises(DatasetError, match=message):
        read_sysu_mm01(changed if isinstance(changed, Path) and changed.suffix == "" else root, "test")


def test_other_splits_and_other_folders_are_named(sysu: Path, regdb: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"not \"val\". Its 99 validation people are trained on by everybody: hold"):
        read_sysu_mm01(sysu, "val")
    with pytest.raises(DatasetError, match=r"so it is RegDB\. Read it as the dataset regdb"):
        read_sysu_mm01(regdb, "test")
    with pytest.raises(DatasetError, match=r"so it is SYSU-MM01\. Read it as the dataset sysu-mm01"):
        read_regdb(sysu, "test")
    with pytest.raises(DatasetError, match=r'train_1 to train_10 and test_1 to test_10, not "test_11"'):
        read_regdb(regdb, "test_11")
    with pytest.raises(DatasetError, match=r'not "val"\. Hold training people out'):
        regdb_split("val")
    (tmp_path / "train_rgb_resized_img.npy").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"resized images as \.npy arrays"):
        read_sysu_mm01(tmp_path, "test")


def test_regdb_is_read_by_trials(regdb: Path) -> None:
    assert regdb_split("train") == ("train", 1) and regdb_split("test_10") == ("test", 10)
    first, second = (read_regdb(regdb, f"test_{trial}") for trial in (1, 2))
    assert read_regdb(regdb, "test") == first
    for samples in (first, second):
        assert Counter((s.pid, s.modality) for s in samples) == {
            (pid, modality): 3 for pid in (0, 1) for modality in ("visible", "thermal")
        }
        assert all(s.camera == s.modality for s in samples)
    assert {s.path for s in first} != {s.path for s in second}
    people = {trial: {s.path.parent.name for s in read_regdb(regdb, f"train_{trial}")} for trial in (1, 2)}
    assert people[1].isdisjoint(s.path.parent.name for s in first)
    line = (regdb / "idx" / "test_visible_1.txt").read_text().splitlines()[0]
    assert first[0].path.relative_to(regdb).as_posix() == line.split()[0]
    with pytest.warns(UserWarning, match=r"test_1 has 2 people, 6 visible and 6 thermal images"):
        read_regdb(regdb, "test_1")


def rewrite(name: str, change: Callable[[str], str]) -> Callable[[Path], Any]:
    return lambda root: (root / "idx" / name).write_text(change((root / "idx" / name).read_text()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: shutil.rmtree(r / "idx"), r"lacks idx. idx holds the ten official splits"),
        (lambda r: shutil.rmtree(r / "Thermal"), r"lacks Thermal. Unpack all of RegDB"),
        (
            lambda r: (r / "idx" / "test_thermal_1.txt").unlink(),
            r"There is no .*test_thermal_1.txt. Copy the folder idx",
        ),
        (
            rewrite("test_visible_1.txt", lambda text: text.replace("Visible/", "Thermal/")),
            "no visible image. The lists",
        ),
        (rewrite("test_visible_1.txt", lambda text: text + "Visible/1/x.bmp\n"), "Line 7 .* must be an image path and"),
        (rewrite("test_visible_1.txt", lambda text: ""), "is empty"),
        (rewrite("test_thermal_1.txt", lambda text: text.replace(" 1\n", " 5\n")), "2 people of test_1 are in one"),
        (rewrite("test_visible_1.txt", lambda text: text.replace(".bmp", ".png")), "6 of 6 images of test_visible_1"),
        (
            lambda r: [
                shutil.copy(r / "idx" / f"train_{m}_1.txt", r / "idx" / f"test_{m}_1.txt")
                for m in ("visible", "thermal")
            ],
            r"6 images are both in train_visible_1.txt and in test_visible_1.txt. Lists of different trials",
        ),
    ],
)
def test_what_people_get_wrong_with_regdb(tmp_path: Path, change: Callable[[Path], Any], message: str) -> None:
    root = make_regdb(tmp_path / "RegDB", trials=1)
    change(root)
    with pytest.raises(DatasetError, match=message):
        read_regdb(root, "test_1")


def test_parts_of_regdb_point_to_the_whole(regdb: Path) -> None:
    with pytest.raises(DatasetError, match=r"is one part of RegDB. Give the folder above it, .*RegDB"):
        read_regdb(regdb / "Thermal", "test")
    with pytest.raises(DatasetError, match=r"no folder Visible, but .*RegDB has. Give that folder"):
        read_regdb(regdb.parent, "test")


def test_rendered_sets_say_how_each_image_was_taken(rendered: Path, tmp_path: Path) -> None:
    samples = read_synth_infrared(rendered, "test")
    assert Counter(s.modality for s in samples) == {"visible": 24, "infrared": 24}
    labels = modality_labels(samples)
    assert labels is not None and labels.tolist() == [int(s.modality == "infrared") for s in samples]
    assert modality_labels([*samples, replace(samples[0], modality=None)]) is None
    plain = make_toy_dataset(tmp_path / "plain")
    with pytest.raises(DatasetError, match=r"modality is visible, infrared or thermal, not None.*infrared_train"):
        read_synth_infrared(plain, "test")
    root = make_rendered(tmp_path / "day", {"test": 1})
    rows = [row for row in json.loads((root / "reid_raw.json").read_text()) if row["modality"] == "visible"]
    (root / "reid_raw.json").write_text(json.dumps(rows))
    with pytest.raises(DatasetError, match=r"has visible images only. People must be seen in"):
        read_synth_infrared(root, "test")


# --- protocols ----------------------------------------------------------------------------------------------------


def sighted(pid: int, camera: int, number: int) -> Sample:
    modality = "infrared" if camera in (3, 6) else "visible"
    return Sample(Path(f"cam{camera}/{pid:04d}/{number:04d}.jpg"), pid, (), camera=str(camera), modality=modality)


def crowd(images: int = 12) -> list[Sample]:
    """Five people; person 11 is not seen by camera 2 nor 5, person 12 by no camera but 3."""
    cameras = {11: (1, 3, 4, 6), 12: (3,)}
    return [
        sighted(pid, camera, number)
        for pid in (8, 9, 10, 11, 12)
        for camera in cameras.get(pid, range(1, 7))
        for number in range(1, images + 1)
    ]


def unit(count: int, dim: int = 4, seed: int = 0) -> np.ndarray[Any, Any]:
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("shots", [1, 10])
@pytest.mark.parametrize("mode", ["all", "indoor"])
def test_sysu_search_equals_a_loop(mode: Any, shots: int) -> None:
    samples = crowd()
    images = unit(len(samples))
    totals = Counter[str]()
    skipped = 0
    for trial in range(10):
        rng = random.Random(trial)
        gallery: list[int] = []
        for pid in (8, 9, 10, 11, 12):
            for camera in GALLERY_CAMERAS[mode]:
                own = [n for n, s in enumerate(samples) if (s.pid, s.camera) == (pid, str(camera))]
                if own:
                    gallery += [rng.choice(own)] if shots == 1 else rng.sample(own, shots)
        results = []
        skipped = 0
        for q, query in enumerate(samples):
            if query.modality == "visible":
                continue
            seen = [g for g in gallery if not (query.camera == "3" and samples[g].camera == "2")]
            seen.sort(key=lambda g: -float(images[q] @ images[g]))
            ranked = [samples[g].pid for g in seen]
            places = [n for n, pid in enumerate(ranked, 1) if pid == query.pid]
            if not places:
                skipped += 1
                continue
            once = list(dict.fromkeys(ranked)).index(query.pid) + 1
            precision = [n / place for n, place in enumerate(places, 1)]
            results.append((once, sum(precision) / len(precision), len(places) / places[-1]))
        for k in (1, 5, 10):
            totals[f"rank{k}"] += 100 * sum(r[0] <= k for r in results) / len(results)
        totals["mean_ap"] += 100 * sum(r[1] for r in results) / len(results)
        totals["mean_inp"] += 100 * sum(r[2] for r in results) / len(results)
    found = search_sysu(images, samples, mode, shots)
    for name, total in totals.items():
        assert found[name] == pytest.approx(total / 10, abs=1e-4), name
    assert (found["trials"], found["skipped"]) == (10, skipped) and skipped >= 12  # nobody finds person 12
    assert "random.Random(trial)" in found["gallery"]
    assert found == search_sysu(images, samples, mode, shots)


def test_galleries_have_so_many_images_of_each_person_and_camera() -> None:
    samples = crowd()
    for shots in (1, 10):
        gallery = sysu_gallery(samples, (1, 2, 4, 5), shots, trial=3)
        counts = Counter((samples[g].pid, samples[g].camera) for g in gallery)
        assert set(counts.values()) == {shots} and len(counts) == 3 * 4 + 2
        assert len(set(gallery.tolist())) == len(gallery)
        assert {samples[g].modality for g in gallery} == {"visible"}
    few = crowd(images=4)
    assert len(sysu_gallery(few, (1, 2, 4, 5), 10, trial=0)) == 4 * (3 * 4 + 2)
    drawn = {tuple(sysu_gallery(samples, (1, 2), 1, trial).tolist()) for trial in range(10)}
    assert len(drawn) > 5


def test_official_trials_are_read_from_their_file(tmp_path: Path) -> None:
    io_ = pytest.importorskip("scipy.io")
    rng = np.random.default_rng(0)
    samples = crowd()
    assert read_permutations(tmp_path) is None
    cells = np.empty((6, 1), object)
    for camera in range(6):
        people = np.empty((533, 1), object)
        for pid in range(1, 534):
            seen = any((s.pid, s.camera) == (pid, str(camera + 1)) for s in samples)
            people[pid - 1, 0] = np.stack([rng.permutation(12) + 1 for _ in range(10)]) if seen else np.zeros((0, 0))
        cells[camera, 0] = people
    (tmp_path / "exp").mkdir()
    io_.savemat(tmp_path / "exp" / "rand_perm_cam.mat", {"rand_perm_cam": cells})
    permutations: Permutations | None = read_permutations(tmp_path)
    assert permutations is not None
    gallery = sysu_gallery(samples, (1, 2), 3, trial=7, permutations=permutations)
    expected = [
        (pid, camera, int(number))
        for pid in (8, 9, 10, 11)
        for camera in (1, 2)
        if (pid, camera) != (11, 2)
        for number in cells[camera - 1, 0][pid - 1, 0][7][:3]
    ]
    assert [(samples[g].pid, int(samples[g].camera or 0), int(samples[g].path.stem)) for g in gallery] == expected
    found = search_sysu(unit(len(samples)), samples, "all", 1, permutations=permutations)
    assert found["gallery"] == "rand_perm_cam.mat"
    (tmp_path / "exp" / "rand_perm_cam.mat").write_bytes(b"not matlab")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_permutations(tmp_path)


def test_both_ways_equal_a_loop() -> None:
    samples = [s for s in crowd(2) if s.pid != 12]
    images = unit(len(samples))
    found = search_across(images, samples)
    assert list(found) == ["infrared_to_visible", "visible_to_infrared"]
    for name, asking in (("infrared_to_visible", "infrared"), ("visible_to_infrared", "visible")):
        first, precisions = [], []
        gallery = [n for n, s in enumerate(samples) if s.modality != asking]
        for q, query in enumerate(samples):
            if query.modality == asking:
                ranked = sorted(gallery, key=lambda g: -float(images[q] @ images[g]))
                places = [n for n, g in enumerate(ranked, 1) if samples[g].pid == query.pid]
                first.append(places[0])
                precisions.append(sum(n / place for n, place in enumerate(places, 1)) / len(places))
        assert found[name]["queries"] == len(first)
        assert found[name]["rank1"] == pytest.approx(100 * sum(f == 1 for f in first) / len(first))
        assert found[name]["mean_ap"] == pytest.approx(100 * sum(precisions) / len(precisions), abs=1e-4)
    assert search_across(images, [replace(s, modality="visible") for s in samples]) == {}
    assert search_across(images, [replace(s, modality=None) for s in samples]) == {}


@pytest.mark.parametrize("queries_only", [True, False])
@pytest.mark.parametrize(("versions", "k2"), [((1, 4), 3), ((4, 1), 1), ((1, 1), 5)])
def test_reranking_equals_sets_and_loops(versions: tuple[int, int], k2: int, queries_only: bool) -> None:
    (V, W), Q, G, k1, blend = versions, 5, 7, 4, 0.3
    queries, gallery = unit(V * Q, seed=1).reshape(V, Q, 4), unit(W * G, seed=2).reshape(W, G, 4)
    items = [*queries.reshape(-1, 4), *gallery.reshape(-1, 4)]
    count = len(items)
    distance = [[max(2 - 2 * float(a @ b), 0.0) for b in items] for a in items]
    distance = [[d / max(row) for d in row] for row in distance]
    order = [sorted(range(count), key=lambda j, i=i: distance[i][j]) for i in range(count)]  # type: ignore[misc]
    near = [set(row[: k1 + 1]) for row in order]
    described = []
    for i in range(count):
        mutual = {j for j in near[i] if i in near[j] and not (queries_only and j >= V * Q)}
        total = sum(np.exp(-distance[i][j]) for j in mutual)
        described.append({j: np.exp(-distance[i][j]) / total for j in mutual})
    if k2 > 1:
        described = [{j: sum(described[n].get(j, 0.0) for n in row[:k2]) / k2 for j in range(count)} for row in order]
    expected = np.zeros((Q, G))
    for q in range(V * Q):
        for g in range(V * Q, count):
            one, other = described[q], described[g]
            keys = set(one) | set(other)
            least = sum(min(one.get(j, 0.0), other.get(j, 0.0)) for j in keys)
            most = sum(max(one.get(j, 0.0), other.get(j, 0.0)) for j in keys)
            jaccard = 1 - (least / most if most else 0.0)
            expected[q % Q, (g - V * Q) % G] += (1 - blend) * jaccard + blend * distance[q][g]
    found = reranked_distance(queries, gallery, MSER(k1, k2, blend, queries_only))
    np.testing.assert_allclose(found, expected / (V * W), atol=1e-5)


# --- sampling -----------------------------------------------------------------------------------------------------


def test_groups_come_as_often_as_a_person_has_images() -> None:
    pids = [0] * 13 + [1] * 8 + [2] * 4 + [3] * 2 + [4] * 9
    samples, captions = draw_groups(np.ones(len(pids), int), pids, 2, 4, np.random.default_rng(0))
    assert samples.shape[1] == 8 and not captions.any()
    groups = samples.reshape(-1, 4)
    owners = [{pids[n] for n in group} for group in groups]
    assert all(len(owner) == 1 for owner in owners)
    assert all(owners[n] != owners[n + 1] for n in range(0, len(owners), 2))  # two people in a batch
    turns = Counter(next(iter(owner)) for owner in owners)
    assert all(turns[pid] <= most for pid, most in {0: 3, 1: 2, 2: 1, 3: 1, 4: 2}.items())
    assert len(groups) >= 6  # until fewer than two people have any left
    for pid in (0, 1, 2, 4):
        drawn = [int(n) for group, owner in zip(groups, owners, strict=True) if owner == {pid} for n in group]
        assert len(set(drawn)) == len(drawn)
    again, _ = draw_groups(np.ones(len(pids), int), pids, 2, 4, np.random.default_rng(0))
    assert (samples == again).all()
    with pytest.raises(DatasetError, match="fewer than one batch"):
        draw_groups(np.ones(4, int), [0] * 4, 2, 4, np.random.default_rng(0))


# --- recipes ------------------------------------------------------------------------------------------------------


def test_recipes_are_what_the_specification_prints() -> None:
    sysu, regdb = RECIPES["mcja_sysu_mm01"](), RECIPES["mcja_regdb"]()
    for recipe, epochs, (p, k), milestones in ((sysu, 140, (8, 16), (80, 120)), (regdb, 300, (4, 32), ())):
        (stage,) = recipe.stages
        assert recipe.preprocessing == Preprocessing(384, 192) and recipe.net_config == MCJAConfig()
        assert (stage.optimizer, stage.lr, stage.weight_decay, stage.batch) == ("adam", 3.5e-4, 5e-4, 128)
        assert (stage.epochs, stage.p, stage.k, stage.milestones, stage.warmup) == (epochs, p, k, milestones, 0)
        assert (recipe.seed, recipe.text, stage.sampler) == (8, None, "groups")
        assert stage.augmentation.spectrum is not None and not stage.augmentation.spectrum.swap_axes
        assert stage.augmentation.spectrum.hue == 0.2
    assert regdb.stages[0].schedule == "constant" and regdb.train_split == "train_1"
    swapped = override(sysu, **{"stages.0.augmentation.spectrum.swap_axes": "true"})
    assert swapped.stages[0].augmentation.spectrum is not None
    assert swapped.stages[0].augmentation.spectrum.swap_axes
    with pytest.raises(ValueError, match="mcja reads no captions"):
        override(sysu, caption_noise=0.2)
    with pytest.raises(ValueError, match="batch must be p"):
        override(sysu, **{"stages.0.p": 5})


def test_people_are_held_out_for_validation(sysu: Path, regdb: Path) -> None:
    training, held = read_splits(override(RECIPES["mcja_sysu_mm01"](), hold_out=1), sysu)
    assert {s.pid for s in training} | {s.pid for s in held} == {1, 2, 4} and len({s.pid for s in held}) == 1
    recipe = override(RECIPES["mcja_regdb"](), hold_out=1, train_split="train_2")
    training, held = read_splits(recipe, regdb)
    assert {s.path for s in training} | {s.path for s in held} == {s.path for s in read_regdb(regdb, "train_2")}


# --- from data to search ------------------------------------------------------------------------------------------


def records(out: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


@pytest.fixture(scope="module")
def trained(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train mcja_synth --preset tiny` on people whose colours mean nothing."""
    out = tmp_path_factory.mktemp("run")
    return train(tiny(RECIPES["mcja_synth"]()), rendered, out, progress=False, threads=1)


def test_the_preset_learns_what_both_lights_show(trained: Path, rendered: Path) -> None:
    steps = records(trained.parent, "step")
    assert set(steps[0]["loss"]) == {"identity", "cmr"}
    # CMR from stage 1 on alone: before, it depends on how many of a batch happen to show one person.
    for name, stage in (("identity", 0), ("cmr", 1)):
        ends = (stage, 1), (1, steps[-1]["epoch"])
        epochs = [[s["loss"][name] for s in steps if (s["stage"], s["epoch"]) == end] for end in ends]
        first, last = (sum(losses) / len(losses) for losses in epochs)
        assert last < (0.5 * first if name == "identity" else first - 0.1)
    result = evaluate(trained, "synth-infrared", rendered, "test", device="cpu", rerank=True)
    ways = ("infrared_to_visible", "visible_to_infrared")
    for name in (*ways, *(f"{way}_reranked" for way in ways)):
        assert result[name]["rank1"] > result["infrared_histogram"]["rank1"] + 20 > result["infrared_chance"]["rank1"]
        assert (result[name]["queries"], result[name]["skipped"]) == (24, 0)
    assert result["infrared_chance"]["rank1"] == pytest.approx(100 / 6)
    assert result["text_to_image"] is None
    out = io.StringIO()
    report(result, Console(file=out, width=160))
    assert "infrared to visible" in out.getvalue() and "re-ranked" in out.getvalue()
    kept = describe(trained)
    assert (kept["text"], kept["vocabulary"]) == (None, [])
    assert kept["validation"]["bands"].keys() == {"image"}


def test_validation_is_the_mean_of_both_ways(trained: Path, rendered: Path) -> None:
    _, held = read_splits(tiny(RECIPES["mcja_synth"]()), rendered)
    encoder = Encoder(trained, "cpu")
    found = search_across(encoder.embed_images([open_image(s.path) for s in held]), held)
    mean = sum(way["mean_ap"] for way in found.values()) / 2
    assert describe(trained)["validation"]["mean_ap"] == pytest.approx(mean, abs=3)  # half precision


def test_one_network_embeds_both_lights_and_reads_no_text(trained: Path, rendered: Path) -> None:
    encoder = Encoder(trained, "cpu")
    assert not encoder.has_text
    samples = read_synth_infrared(rendered, "test")
    pictures = [open_image(sample.path) for sample in samples]
    rows = encoder.embed_images(pictures)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    night = [n for n, sample in enumerate(samples) if sample.modality == "infrared"]
    alone = encoder.embed_images([pictures[n].convert("L") for n in night])  # a gray file, as such cameras write them
    np.testing.assert_allclose(alone, rows[night], atol=2e-2)
    with pytest.raises(ValueError, match="no text branch"):
        encoder.embed_texts(["a man"])


def short(recipe: Recipe, **values: Any) -> Recipe:
    """The only stage with one epoch of batches of two people."""
    small = tiny(override(recipe, **values))
    return replace(small, stages=(replace(small.stages[0], epochs=1, p=2, batch=8),))


def test_sysu_is_trained_and_measured(sysu: Path, tmp_path: Path) -> None:
    recipe = short(RECIPES["mcja_sysu_mm01"](), hold_out=1, **{"net_config.mda_masks": 2})
    best = train(recipe, sysu, tmp_path, progress=False, threads=1)
    result = evaluate(best, "sysu-mm01", sysu, device="cpu", rerank=True)
    names = {f"sysu_{mode}_{shots}" for mode in ("all", "indoor") for shots in ("single", "multi")}
    assert {name for name in result if name.startswith("sysu")} == names | {f"{name}_reranked" for name in names}
    single = result["sysu_all_single"]
    assert (single["queries"], single["trials"]) == (18, 10)
    # Indoors camera 2 is all that a query of camera 3 does not see, and all that person 9 is missing from.
    assert result["sysu_indoor_multi"]["queries"] == 18


def test_a_trial_of_regdb_is_measured_on_its_own_test_half(regdb: Path, tmp_path: Path) -> None:
    recipe = short(RECIPES["mcja_regdb"](), hold_out=0, train_split="train_2")
    with pytest.raises(DatasetError, match='not "val"'):
        read_splits(recipe, regdb)
    root = make_regdb(tmp_path / "RegDB", people=6)
    recipe = replace(recipe, hold_out=1)
    best = train(recipe, root, tmp_path / "run", progress=False, threads=1)
    result = evaluate(best, "regdb", root, "test_2", device="cpu")
    assert result["visible_to_infrared"]["queries"] == 9
    with pytest.raises(
        CheckpointError, match=r"trained on train_2 of RegDB, where people of test_1 are: measure it on"
    ):
        evaluate(best, "regdb", root, "test", device="cpu")


def test_training_needs_modalities_and_reranking_two_of_them(trained: Path, tmp_path: Path) -> None:
    root = make_toy_dataset(tmp_path / "data")
    recipe = override(tiny(RECIPES["mcja_synth"]()), dataset="synth")
    with pytest.raises(TrainingError, match=r"do not say which they are: train on sysu-mm01, regdb"):
        train(recipe, root, tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="of synth-infrared, sysu-mm01, regdb only"):
        evaluate(trained, "synth", root, device="cpu", rerank=True)
    missing = replace(tiny(RECIPES["mcja_synth"]()), vision_weights=str(tmp_path / "resnet.pth"))
    with pytest.raises(TrainingError, match=r"no file .*resnet\.pth\. Set vision_weights.*mcja_synth"):
        train(missing, make_rendered(tmp_path / "rendered", {"train": 8}, 4), tmp_path / "run2", progress=False)


def test_a_resumed_run_ends_with_the_same_bits(rendered: Path, tmp_path: Path) -> None:
    recipe = override(tiny(RECIPES["mcja_synth"]()), **{"stages.0.epochs": 1, "stages.1.epochs": 1})
    train(recipe, rendered, tmp_path / "whole", progress=False, threads=1)
    for _ in range(4):
        train(recipe, rendered, tmp_path / "parts", progress=False, threads=1, resume=True, stop_after_steps=3)
    states = [torch.load(tmp_path / name / "state.pt", weights_only=True)["net"] for name in ("whole", "parts")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert records(tmp_path / "whole", "step") == records(tmp_path / "parts", "step")


def test_both_lights_are_augmented_in_one_batch() -> None:
    recipe = RECIPES["mcja_synth"]()
    pixels = torch.randint(0, 256, (64, 3, 24, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    a = replace(recipe.stages[0].augmentation, flip=0.0, crop=0, erase=0.0)
    out = augment_images(pixels, a, np.random.default_rng(0), torch.arange(64) % 2)
    changed = (out != pixels).flatten(1).any(dim=1)
    assert not changed[1::2].any() and int(changed[::2].sum()) == 32
