"""Training learns, resumes bit for bit after a kill, never reads the test split, and refuses what cannot work."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model.checkpoint import describe
from model.datasets import DatasetError, open_image, read_cuhk_pedes
from model.encoder import Encoder
from model.metrics import ranking_metrics
from model.preprocess import Preprocessing
from model.recipes import RECIPES, Recipe, Stage, axm_net_paper, axm_net_tiny, override, to_dict
from model.train import BEST, STATE, TrainingError, rate_factor, train, update_average
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


@pytest.mark.parametrize("steps", [1, 6, 9])
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


def test_recipes_are_what_the_specification_prints() -> None:
    paper = axm_net_paper()
    assert (paper.preprocessing.height, paper.preprocessing.width) == (384, 128)
    one, two = paper.stages
    assert (one.optimizer, one.lr, one.weight_decay, one.batch, one.epochs) == ("sgd", 0.01, 5e-4, 64, 60)
    assert (one.milestones, one.sampler) == ((30, 50), "pairs")
    assert (two.sampler, two.p, two.k) == ("identities", 16, 4)
    assert one.augmentation.flip == one.augmentation.erase == 0.5 and one.augmentation.shift_text
    assert [stage.number for stage in RECIPES["axm_net_scratch"]().stages] == [0, 1, 2]
    for name, make in RECIPES.items():
        assert make().name == name
        json.dumps(to_dict(make()))


def test_override_reads_text_by_the_type_of_the_setting() -> None:
    changed = override(
        axm_net_paper(),
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
    assert axm_net_paper().stages[1].epochs == 70  # the recipe itself is untouched


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("stages.0.epoch", 3, "does not know 'epoch'"),
        ("stages.7.epochs", 3, "7 is not one of the positions 0 to 1"),
        ("stages.first.epochs", 3, "first is not one of the positions"),
        ("seed.x", 3, "it has no settings of its own"),
        ("stages.0.epochs", "many", "cannot be 'many'"),
        ("stages.0.epochs", 2.5, "cannot be 2.5"),
        ("stages.0.epochs", 0, "at least one epoch"),
        ("stages.0.optimizer", "lion", "is one of sgd, adamw"),
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
        override(axm_net_paper(), **{name: value})
