"""Training learns, resumes bit for bit after a kill, never reads the test split, and refuses what cannot work."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model import batching
from model.checkpoint import describe
from model.datasets import DatasetError, open_image, read_cuhk_pedes
from model.encoder import Encoder
from model.metrics import ranking_metrics
from model.preprocess import Preprocessing
from model.recipes import Recipe, Stage, axm_net_cuhk_pedes, axm_net_tiny, override, to_dict
from model.runlog import Screen
from model.text import load_text, words
from model.train import (
    BEST,
    STATE,
    TrainingError,
    rate_factor,
    train,
    update_average,
)
from model.training_data import make_batch, prepare, redrawn
from tests.helpers import make_toy_dataset

ROOT = Path(__file__).parents[2]


def short(**values: Any) -> Recipe:
    """Two stages of two short epochs each: 2 steps an epoch in stage 0, 3 in stage 2."""
    return override(axm_net_tiny(), **{"stages.0.epochs": 2, "stages.1.epochs": 2, "average": 0.9, **values})


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def serving_tensors(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / BEST)


def final_state(out: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(out / STATE, weights_only=True)
    return state


def assert_same_tensors(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    different = [name for name in one if not torch.equal(one[name], two[name])]
    assert different == []


@pytest.fixture(scope="module")
def uninterrupted(toy_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "whole"
    assert train(short(), toy_dataset, out, progress=False, threads=1) == out / BEST
    return out


def test_it_learns_to_find_people_by_their_clothes(tmp_path: Path) -> None:
    root = make_toy_dataset(tmp_path / "data", {"train": 16, "val": 8, "test": 8}, images=4)
    shutil.rmtree(root / "imgs" / "test")  # must not be read
    best = train(override(axm_net_tiny(), validate_every=5), root, tmp_path / "run", progress=False, threads=1)
    encoder = Encoder(best, "cpu")
    samples = read_cuhk_pedes(root, "val")
    pids = [sample.pid for sample in samples]
    found = ranking_metrics(
        encoder.embed_texts([sample.captions[0] for sample in samples]),
        encoder.embed_images([open_image(sample.path) for sample in samples]),
        pids,
        pids,
    )
    assert found.mean_ap > 50  # chance is 23
    assert encoder.unknown_words("a person in a red coat") == ["coat"]
    kept = describe(best)["validation"]
    assert found.mean_ap == pytest.approx(kept["mean_ap"], abs=15)  # other captions, half precision


def test_the_best_checkpoint_is_the_best_validation_and_carries_its_story(
    uninterrupted: Path, toy_dataset: Path
) -> None:
    validations = [r for r in records(uninterrupted) if r["kind"] == "validation"]
    assert [(r["stage"], r["epoch"]) for r in validations] == [(0, 1), (0, 2), (2, 1), (2, 2)]
    best = max(validations, key=lambda r: r["rank1"] + r["mean_ap"])
    info = describe(uninterrupted / BEST)
    assert {key: info["validation"][key] for key in ("stage", "epoch", "rank1", "mean_ap")} == {
        key: best[key] for key in ("stage", "epoch", "rank1", "mean_ap")
    }
    assert info["data"]["train"]["images"] == 36 and info["data"]["val"]["identities"] == 6
    assert info["recipe"] == json.loads(json.dumps(to_dict(short())))
    assert "shirt" in info["vocabulary"] and "walking" not in info["vocabulary"]
    assert info["net_config"]["num_ids"] == 0 and info["net_config"]["attributes"] == []


def test_every_step_is_logged_with_named_losses(uninterrupted: Path) -> None:
    steps = [r for r in records(uninterrupted) if r["kind"] == "step"]
    assert [r["global_step"] for r in steps] == list(range(1, 11))
    assert set(steps[0]["loss"]) == {"attribute", "info_nce"}
    assert set(steps[-1]["loss"]) == {"identity", "triplet", "affinity"}
    assert list((uninterrupted / "tensorboard").iterdir())


DIES = """
import os, signal, sys
from model import train as training
from tests.model.test_train import short
real, done = training.train_step, []
def dying(*arguments):
    if len(done) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(1)
    return real(*arguments)
training.train_step = dying
training.train(short(), sys.argv[1], sys.argv[2], progress=False, threads=1, save_steps=4)
"""


@pytest.mark.parametrize("steps", [*(pytest.param(steps, marks=pytest.mark.slow) for steps in (1, 6)), 9])
def test_a_killed_run_resumes_bit_for_bit(uninterrupted: Path, toy_dataset: Path, tmp_path: Path, steps: int) -> None:
    """Killed after so many steps: before anything was saved, after an epoch, and within an epoch of another stage."""
    killed = subprocess.run([sys.executable, "-c", DIES, toy_dataset, tmp_path, str(steps)], cwd=ROOT, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert len([r for r in records(tmp_path) if r["kind"] == "step"]) == steps
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"kind": "st')  # a line that was being written
    train(short(), toy_dataset, tmp_path, progress=False, threads=1, resume=True)

    assert records(tmp_path) == records(uninterrupted)
    resumed, whole = final_state(tmp_path), final_state(uninterrupted)
    assert resumed["position"] == whole["position"]
    assert_same_tensors(resumed["net"], whole["net"])
    assert_same_tensors(resumed["average"], whole["average"])
    assert_same_tensors(serving_tensors(tmp_path), serving_tensors(uninterrupted))


def test_stopping_now_and_then_changes_nothing(uninterrupted: Path, toy_dataset: Path, tmp_path: Path) -> None:
    for n in (3, 6):
        train(short(), toy_dataset, tmp_path, progress=False, threads=1, resume=True, stop_after_steps=3)
        assert max(r["global_step"] for r in records(tmp_path)) == n
    train(short(), toy_dataset, tmp_path, progress=False, threads=1, resume=True)
    assert records(tmp_path) == records(uninterrupted)
    assert_same_tensors(final_state(tmp_path)["net"], final_state(uninterrupted)["net"])


def test_decoding_on_the_fly_and_another_seed(uninterrupted: Path, toy_dataset: Path, tmp_path: Path) -> None:
    lazy = short(cache_images=False)
    train(lazy, toy_dataset, tmp_path / "lazy", progress=False, threads=1, stop_after_steps=3)
    assert records(tmp_path / "lazy") == records(uninterrupted)[: len(records(tmp_path / "lazy"))]
    train(short(seed=1), toy_dataset, tmp_path / "seed", progress=False, threads=1, stop_after_steps=1)
    assert records(tmp_path / "seed")[0]["loss"] != records(uninterrupted)[0]["loss"]


def test_bfloat16_gives_the_losses_of_float32_but_for_rounding(
    uninterrupted: Path, toy_dataset: Path, tmp_path: Path
) -> None:
    """In a process of its own: some machines announce AMX and crash on it, and oneDNN reads its limit only once."""
    program = (
        "from model.recipes import axm_net_tiny; from model.train import train\n"
        f"train(axm_net_tiny(), {str(toy_dataset)!r}, {str(tmp_path)!r}, progress=False, threads=1, "
        "stop_after_steps=1, precision='bf16')"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, cwd=ROOT, timeout=120)
    found, expected = records(tmp_path)[0]["loss"], records(uninterrupted)[0]["loss"]
    assert found == pytest.approx(expected, rel=0.05) and found != expected


def test_a_run_is_not_overwritten_nor_mixed_with_another(uninterrupted: Path, toy_dataset: Path) -> None:
    with pytest.raises(TrainingError, match="already holds a run"):
        train(short(), toy_dataset, uninterrupted, progress=False)
    with pytest.raises(TrainingError, match="another recipe or other data"):
        train(short(seed=5), toy_dataset, uninterrupted, progress=False, resume=True)
    with pytest.raises(TrainingError, match="another recipe or other data"):
        train(short(), toy_dataset, uninterrupted, progress=False, resume=True, limit_ids=8)


def test_a_damaged_state_is_named(toy_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / STATE).write_bytes(b"half a file")
    with pytest.raises(TrainingError, match=r"state\.pt cannot be read.*another folder"):
        train(short(), toy_dataset, tmp_path, progress=False, resume=True)


def test_another_checkpoint_can_be_the_start(uninterrupted: Path, toy_dataset: Path, tmp_path: Path) -> None:
    start = {"progress": False, "threads": 1, "stop_after_steps": 1, "init": uninterrupted / BEST}
    train(short(average=0.0, **{"stages.0.lr": 1e-30}), toy_dataset, tmp_path / "a", **start)  # type: ignore[arg-type]
    given, taken = serving_tensors(uninterrupted), final_state(tmp_path / "a")["net"]
    weights = [name for name in given if name.endswith("weight")]
    assert len(weights) > 100
    for name in weights:
        assert torch.equal(taken[name], given[name].float()), name
    wide = override(short(), **{"net_config.widths": (12, 20, 28, 36), "net_config.feature_dim": 12})
    wide = override(wide, **{"net_config.text_dim": 8, "text": replace(wide.text, dim=8)})
    with pytest.raises(TrainingError, match="holds a net of other sizes"):
        train(wide, toy_dataset, tmp_path / "b", **start)  # type: ignore[arg-type]


def test_missing_pretrained_weights_say_what_to_do(toy_dataset: Path, tmp_path: Path) -> None:
    recipe = replace(short(), vision_weights=str(tmp_path / "osnet.pth"))
    with pytest.raises(TrainingError, match=r"no file .*osnet\.pth\. Set vision_weights.*axm_net_scratch"):
        train(recipe, toy_dataset, tmp_path, progress=False)


def test_a_loss_that_is_not_finite_stops_the_run(toy_dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no longer finite at step \d+.*stages\.0\.lr"):
        train(short(**{"stages.0.lr": 1e30}), toy_dataset, tmp_path, progress=False, threads=1)


def test_data_without_validation_is_refused(tmp_path: Path) -> None:
    root = make_toy_dataset(tmp_path / "data", {"train": 4})
    with pytest.raises(DatasetError, match='no split "val"'):
        train(short(), root, tmp_path / "run", progress=False)


# --- parts ------------------------------------------------------------------------------------------------------


def test_rate_schedules_at_hand_worked_steps() -> None:
    step = Stage(1, epochs=60, milestones=(30, 50), warmup=2)
    expected = {0: 0.05, 9: 0.5, 19: 1, 20: 1, 299: 1, 300: 0.1, 499: 0.1, 500: 0.01, 599: 0.01}
    for at, factor in expected.items():
        assert rate_factor(step, at, 10) == pytest.approx(factor)
    cycle = Stage(0, epochs=10, schedule="one_cycle", warmup=0.2)
    assert rate_factor(cycle, 0, 10) == pytest.approx(0.04)
    assert rate_factor(cycle, 10, 10) == pytest.approx(0.52)  # half way up: 0.04 + 0.96 / 2
    assert rate_factor(cycle, 20, 10) == pytest.approx(1)
    assert rate_factor(cycle, 60, 10) == pytest.approx(0.5)
    assert 0 < rate_factor(cycle, 99, 10) < 0.001
    constant = Stage(0, epochs=3, schedule="constant", warmup=1)
    assert [rate_factor(constant, at, 4) for at in (0, 1, 3, 4, 11)] == [0.25, 0.5, 1, 1, 1]


def test_the_running_mean_equals_its_recurrence() -> None:
    average, net = torch.nn.BatchNorm1d(1), torch.nn.BatchNorm1d(1)
    expected = 1.0
    for step in range(1, 40):
        torch.nn.init.constant_(net.weight, math.sin(step))
        net.num_batches_tracked += 1
        update_average(average, net, 0.8, step)
        decay = min(0.8, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * math.sin(step)
    assert average.weight.item() == pytest.approx(expected, abs=1e-6)
    assert int(average.num_batches_tracked) == 39


def test_override_reads_text_by_the_type_of_the_setting() -> None:
    changed = override(
        axm_net_cuhk_pedes(),
        **{
            "stages.1.epochs": "3",
            "stages.0.lr": "1e-3",
            "stages.0.milestones": "1,2",
            "preprocessing.height": 192,
            "net_config.align": "none",
            "net_config.vfc": "false",
            "stages.0.augmentation.erase_area": (0.1, 0.2),
            "vision_weights": "none",
            "cache_images": True,
        },
    )
    assert changed.stages[1].epochs == 3 and changed.stages[0].epochs == 60
    assert changed.stages[0].lr == 1e-3 and changed.stages[0].milestones == (1, 2)
    assert changed.preprocessing == replace(Preprocessing(), height=192)
    assert changed.net_config.align == "none" and changed.net_config.vfc is False
    assert changed.stages[0].augmentation.erase_area == (0.1, 0.2)
    assert changed.vision_weights is None and changed.cache_images
    assert axm_net_cuhk_pedes().stages[1].epochs == 70  # the recipe itself is untouched


def test_override_of_settings_that_must_agree() -> None:
    changes = {"stages.1.p": "8", "stages.1.k": "2", "stages.1.batch": "16"}
    for order in itertools.permutations(changes.items()):
        stage = override(axm_net_cuhk_pedes(), **dict(order)).stages[1]
        assert (stage.p, stage.k, stage.batch) == (8, 2, 16)
    whole = replace(axm_net_cuhk_pedes().stages[0], epochs=9)
    assert override(axm_net_cuhk_pedes(), **{"stages.0": whole, "stages.0.lr": 0.5}).stages[0] == replace(whole, lr=0.5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("stages.0.epoch", 3, "does not know 'epoch'"),
        ("stages.7.epochs", 3, "7 is not one of the positions 0 to 1"),
        ("stages.first.epochs", 3, "first is not one of the positions"),
        ("stages.0", "short", "stages.0 cannot be 'short'"),
        ("seed.x", 3, "it has no settings of its own"),
        ("stages.0.epochs", "many", "cannot be 'many'"),
        ("stages.0.epochs", 2.5, "cannot be 2.5"),
        ("stages.0.epochs", 0, "at least one epoch"),
        ("stages.0.optimizer", "lion", "is one of sgd, adam, adamw"),
        ("cache_images", "maybe", "cannot be 'maybe'"),
        ("net_config.align", "sideways", "cannot be 'sideways'"),
        ("stages.0.augmentation.erase_area", "0.1", "cannot be"),
        ("stages.1.p", 5, "batch must be p"),
        ("average", 1.0, r"decay in \[0, 1\)"),
        ("stages", (), "has no stages"),
    ],
)
def test_override_is_strict(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        override(axm_net_cuhk_pedes(), **{name: value})


# --- drawing ------------------------------------------------------------------------------------------------------


def looks(count: int, seed: int = 0) -> np.ndarray:
    """(N, 6) classes of four values each, some unknown."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random((count, 6)) < 0.1, -1, rng.integers(0, 4, (count, 6)))


def agreement(attributes: np.ndarray, group: np.ndarray) -> float:
    """Mean number of known attributes that two images of a group share, counted one by one."""
    shared = [
        sum(int(attributes[a, n] == attributes[b, n] >= 0) for n in range(attributes.shape[1]))
        for a, b in combinations(group.tolist(), 2)
    ]
    return sum(shared) / len(shared)


@pytest.mark.parametrize(("count", "batch", "k"), [(60, 12, 3), (37, 8, 4), (16, 16, 2)])
def test_twins_draw_every_image_at_most_once_in_groups_that_look_alike(count: int, batch: int, k: int) -> None:
    attributes = looks(count)
    samples, which = batching.draw_twins([2] * count, attributes, batch, k, batching.generator(4))
    assert samples.shape == which.shape == (count // k * k // batch, batch)
    assert len(set(samples.ravel().tolist())) == samples.size
    assert set(which.ravel().tolist()) <= {0, 1}
    alike = np.mean([agreement(attributes, group) for group in samples.reshape(-1, k)])
    randomly = batching.generator(5).permutation(count)[: samples.size].reshape(-1, k)
    assert alike > np.mean([agreement(attributes, group) for group in randomly]) + 0.5


def test_a_twin_is_the_nearest_image_left() -> None:
    """Three pairs that share all six attributes, among images that share none: the pairs find each other."""
    attributes = np.arange(36).reshape(6, 6)
    attributes = np.concatenate([attributes, attributes])[np.random.default_rng(1).permutation(12)]
    samples, _ = batching.draw_twins([1] * 12, attributes, 4, 2, batching.generator(0))
    groups = samples.reshape(-1, 2)
    assert len(groups) == 6
    for one, other in groups:
        assert (attributes[one] == attributes[other]).all()


def test_unknown_attributes_make_nobody_alike() -> None:
    """0 and 1 know nothing of each other; 2 shares its one known attribute with 0."""
    attributes = np.array([[5, -1, -1, -1], [-1, -1, -1, -1], [5, 1, 2, 3], [6, -1, -1, -1]])
    for seed in range(8):
        samples, _ = batching.draw_twins([1] * 4, attributes, 4, 2, batching.generator(seed))
        groups = [set(group.tolist()) for group in samples.reshape(-1, 2)]
        first = batching.generator(seed).permutation(4)[0]
        if first in (0, 2):
            assert {0, 2} in groups


def test_twins_are_only_sought_in_the_same_pool() -> None:
    attributes = np.tile(np.arange(8)[:, None], (2, 6))  # n and n + 8 are twins
    samples, _ = batching.draw_twins([1] * 16, attributes, 2, 2, batching.generator(0), pool=4)
    order = batching.generator(0).permutation(16)
    pool_of = {int(n): place // 4 for place, n in enumerate(order)}
    assert all(pool_of[int(a)] == pool_of[int(b)] for a, b in samples)


def test_swapped_captions_come_from_the_same_person_and_never_from_oneself() -> None:
    pids = [n // 4 for n in range(400)] + [1000]  # a hundred people with four images, one with a single image
    samples = np.concatenate([np.arange(400), [400] * 80]).reshape(12, 40)
    donors = batching.swap_captions(samples, pids, 0.3, batching.generator(7))
    assert donors.shape == samples.shape
    own = samples == donors
    assert own[samples == 400].all()  # alone
    assert all(pids[a] == pids[b] for a, b in zip(samples.ravel(), donors.ravel(), strict=True))
    assert 0.22 < 1 - own[samples < 400].mean() < 0.38
    everyone = batching.swap_captions(samples, pids, 1.0, batching.generator(7))
    assert (everyone != samples)[samples < 400].all()
    assert len({int(d) for d in everyone[0]}) > 20  # not always the same neighbour
    assert (batching.swap_captions(samples, pids, 0.0, batching.generator(7)) == samples).all()


def test_a_batch_shows_the_image_of_the_sample_with_a_caption_of_its_donor(toy_dataset: Path, tmp_path: Path) -> None:
    recipe = axm_net_tiny()
    samples = read_cuhk_pedes(toy_dataset, "train")[:6]
    first = [replace(samples[0], captions=samples[0].captions[:1]), *samples[1:]]  # one caption, where others have two
    data = prepare(first, recipe, load_text(recipe.text), {}, 1, tmp_path, Screen(False))
    asked, donors, captions = np.array([1, 4, 5]), np.array([0, 5, 5]), np.array([1, 0, 1])
    batch = make_batch(data, recipe.stages[0], asked, donors, captions, batching.generator(0))
    texts = [first[0].captions[0], first[5].captions[0], first[5].captions[1]]  # caption 1 of one is caption 0
    expected = load_text(recipe.text)(texts)
    assert batch.tokens is not None
    assert torch.equal(batch.tokens.ids, expected.ids) and torch.equal(batch.tokens.mask, expected.mask)
    assert batch.labels.tolist() == [data.labels[n] for n in (1, 4, 5)] == [0, 1, 1]
    unflipped, flipped = data.images[asked], data.images[asked].flip(3)
    for row in range(3):
        assert torch.equal(batch.images[row], unflipped[row]) or torch.equal(batch.images[row], flipped[row])


def test_twins_need_attributes(toy_dataset: Path, tmp_path: Path) -> None:
    rows = json.loads((toy_dataset / "reid_raw.json").read_text())
    (tmp_path / "imgs").symlink_to(toy_dataset / "imgs")
    bare = [{key: value for key, value in row.items() if key not in ("attributes", "visible")} for row in rows]
    (tmp_path / "reid_raw.json").write_text(json.dumps(bare))
    recipe = short(**{"stages.0.sampler": "twins"})
    with pytest.raises(TrainingError, match='"twins" needs labelled attributes'):
        train(recipe, tmp_path, tmp_path / "run", progress=False, threads=1)
    recipe = short(**{"stages.0.sampler": "twins", "stages.0.weak_positives": 0.5, "stages.0.epochs": 1})
    train(recipe, toy_dataset, tmp_path / "run2", progress=False, threads=1, stop_after_steps=1)
    assert math.isfinite(sum(records(tmp_path / "run2")[0]["loss"].values()))


def test_redrawn_captions_are_new_every_epoch_and_the_same_after_a_resume(toy_dataset: Path, tmp_path: Path) -> None:
    generate = pytest.importorskip("model.synth.generate", reason="the [synth] extra is not installed")
    redraw = pytest.importorskip("model.synth.redraw").redraw
    looks = asdict(next(iter(generate.identities(replace(generate.SETS["tiny"], ids=1)))))
    rows = json.loads((toy_dataset / "reid_raw.json").read_text())
    (tmp_path / "imgs").symlink_to(toy_dataset / "imgs")
    rendered = [
        {**row, "attributes": looks, "visible": sorted(looks), "seed": n, "facts": None} for n, row in enumerate(rows)
    ]
    (tmp_path / "reid_raw.json").write_text(json.dumps(rendered))
    recipe = short(**{"stages.0.redraw": True, "stages.1.redraw": True, "stages.1.epochs": 1})
    options: dict[str, Any] = {"progress": False, "threads": 1}
    train(recipe, tmp_path, tmp_path / "whole", **options)
    train(recipe, tmp_path, tmp_path / "parts", **options, stop_after_steps=3)  # within the second epoch
    train(recipe, tmp_path, tmp_path / "parts", **options, resume=True)
    assert records(tmp_path / "parts") == records(tmp_path / "whole")
    assert_same_tensors(final_state(tmp_path / "parts")["net"], final_state(tmp_path / "whole")["net"])

    samples = read_cuhk_pedes(tmp_path, "train")
    assert recipe.text is not None
    text = load_text(recipe.text)
    data = prepare(samples, recipe, text, {}, 1, tmp_path, Screen(False), listed=False)
    assert len(data.captions) == 0
    for epoch in (0, 1):
        drawn = redrawn(data, text, recipe.seed, epoch, Screen(False))
        texts = redraw(samples, recipe.seed, epoch)
        assert drawn.counts.tolist() == [1] * len(samples) == [1] * len(texts)
        assert torch.equal(drawn.captions.tokens([0, 7]).ids, text([texts[0], texts[7]]).ids)
    assert redraw(samples, recipe.seed, 0) != redraw(samples, recipe.seed, 1)
    words_of_redrawn = set(describe(tmp_path / "whole" / BEST)["vocabulary"])
    assert {w for t in redraw(samples, recipe.seed, 0) for w in words(t)} <= words_of_redrawn
