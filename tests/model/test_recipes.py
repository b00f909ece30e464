"""Recipes are what their sources print, variants change what their rows are about, and both take a step."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from model import variants
from model.checkpoint import describe
from model.datasets import Sample, read_cuhk_pedes
from model.evaluate import DATASETS
from model.interface import Batch, Tokens
from model.nets import build
from model.preprocess import Preprocessing
from model.recipes import (
    RECIPES,
    Dataset,
    Recipe,
    Stage,
    axm_net_cuhk_pedes,
    axm_net_icfg_pedes,
    axm_net_rstpreid,
    axm_net_scratch,
    axm_net_synth,
    axm_net_tiny,
    override,
    tiny,
    to_dict,
)
from model.train import train
from model.training_data import read_splits
from model.variants import VARIANTS
from service import cli
from tests.helpers import make_toy_dataset


def records(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "step"]


# --- recipes ------------------------------------------------------------------------------------------------------


def test_recipes_are_what_the_specification_prints() -> None:
    paper = axm_net_cuhk_pedes()
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


def test_benchmarks_differ_from_the_paper_in_their_data_alone() -> None:
    paper = axm_net_cuhk_pedes()
    assert (paper.dataset, paper.hold_out) == ("cuhk-pedes", 0)
    icfg, rstp = axm_net_icfg_pedes(), axm_net_rstpreid()
    assert (icfg.dataset, icfg.hold_out, rstp.dataset, rstp.hold_out) == ("icfg-pedes", 200, "rstpreid", 0)
    for recipe in (icfg, rstp):
        assert replace(recipe, name=paper.name, dataset=paper.dataset, hold_out=0) == paper
    assert set(get_args(Dataset)) == set(DATASETS)


def test_the_preset_is_the_same_recipe_in_small() -> None:
    for make in (make for make in RECIPES.values() if make().net == "axm_net"):
        recipe, small = make(), tiny(make())
        assert [(s.number, s.optimizer, s.schedule, s.sampler) for s in small.stages] == [
            (s.number, s.optimizer, s.schedule, s.sampler) for s in recipe.stages
        ]
        assert small.dataset == recipe.dataset and bool(small.hold_out) == bool(recipe.hold_out)
        if recipe.net != "axm_net":
            continue  # what the others keep is tested beside them
        kept = {"widths", "feature_dim", "parts", "text_input", "text_dim"}
        ours, theirs = asdict(small.net_config), asdict(recipe.net_config)
        assert {k: v for k, v in ours.items() if k not in kept} == {k: v for k, v in theirs.items() if k not in kept}
        assert {k: ours[k] for k in kept} == {k: asdict(axm_net_tiny().net_config)[k] for k in kept}
        assert small.preprocessing == Preprocessing(64, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hold_out": -1}, "number of identities"),
        ({"caption_noise": 1.5}, r"share in 0\.\.1"),
        ({"caption_noise": 0.2, "stages.0.redraw": True}, "caption_noise misplaces listed captions"),
        ({"stages.0.weak_positives": 1.1}, "weak_positives is a share"),
        ({"stages.0.sampler": "twins", "stages.0.k": 3, "stages.0.batch": 16}, "does not divide into groups of 3"),
        ({"stages.1.sampler": "identities", "stages.1.p": 5}, "batch must be p"),
        ({"stages.0.batch": 1}, "a batch of two"),
        ({"dataset": "market"}, "is one of cuhk-pedes"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        override(axm_net_tiny(), **change)


def test_stage_settings_that_go_together_are_taken() -> None:
    assert Stage(0, 1, sampler="twins", batch=12, k=3).k == 3
    assert Stage(0, 1, weak_positives=1.0, redraw=True).redraw


# --- data ---------------------------------------------------------------------------------------------------------


def pids(samples: list[Sample]) -> set[int]:
    return {sample.pid for sample in samples}


def test_validation_is_the_split_or_held_out_people(toy_dataset: Path) -> None:
    everyone, val = read_cuhk_pedes(toy_dataset, "train"), read_cuhk_pedes(toy_dataset, "val")
    assert read_splits(axm_net_tiny(), toy_dataset) == (everyone, val)
    training, held = read_splits(override(axm_net_tiny(), hold_out=4), toy_dataset)
    assert len(pids(held)) == 4 and not pids(held) & pids(training)
    assert pids(held) | pids(training) == pids(everyone)
    again, limited = read_splits(override(axm_net_tiny(), hold_out=4, seed=9), toy_dataset), override(axm_net_tiny())
    assert again[1] == held  # another seed is measured on the same people
    assert len(pids(read_splits(limited, toy_dataset, limit_ids=5)[0])) == 5


def test_noise_comes_into_training_captions_alone(toy_dataset: Path) -> None:
    clean, val = read_splits(axm_net_tiny(), toy_dataset)
    noisy, still_clean = read_splits(override(axm_net_tiny(), caption_noise=0.5), toy_dataset)
    assert still_clean == val
    assert [s.path for s in noisy] == [s.path for s in clean]
    moved = sum(a != b for n, c in zip(noisy, clean, strict=True) for a, b in zip(n.captions, c.captions, strict=True))
    assert 0.2 * 72 < moved <= 0.5 * 72
    other_seed, _ = read_splits(override(axm_net_tiny(), caption_noise=0.5, seed=1), toy_dataset)
    assert other_seed != noisy


def test_icfg_is_trained_without_a_validation_split(tmp_path: Path) -> None:
    root = make_toy_dataset(tmp_path / "data", {"train": 12})
    rows = json.loads((root / "reid_raw.json").read_text())
    (root / "reid_raw.json").unlink()
    (root / "ICFG-PEDES.json").write_text(json.dumps([{**row, "captions": row["captions"][:1]} for row in rows]))
    out = tmp_path / "run"
    recipe = override(tiny(axm_net_icfg_pedes()), **{"stages.0.epochs": 1, "stages.1.epochs": 1})
    with pytest.warns(UserWarning, match=r"ICFG-PEDES split .train. has 12 identities"):
        train(recipe, root, out, progress=False, threads=1)
    assert [r["stage"] for r in records(out)] == [1, 2, 2]  # 8 people x 3 images: one batch of 16, two of 4 x 2


# --- the tiny preset learns -----------------------------------------------------------------------------------------


def test_the_shipped_recipe_learns_in_small(tmp_path: Path) -> None:
    """`train axm_net_synth --preset tiny`, here on flat people whose clothes are easy to tell."""
    first, last = first_and_last_loss(make_toy_dataset(tmp_path / "flat", images=4), tmp_path / "run")
    assert last < 0.9 * first


@pytest.mark.slow
def test_the_shipped_recipe_learns_rendered_people_in_small(tmp_path: Path) -> None:
    generate = pytest.importorskip("model.synth.generate", reason="the [synth] extra is not installed")
    from model.synth.body import SynthUnavailable

    spec = replace(generate.SETS["tiny"], height=96, width=36)
    try:
        generate.generate(spec, tmp_path / "data", 1)
    except SynthUnavailable as reason:
        pytest.skip(str(reason))
    first, last = first_and_last_loss(tmp_path / "data", tmp_path / "run")
    assert last < 0.95 * first


def first_and_last_loss(data: Path, out: Path) -> tuple[float, float]:
    """Mean loss of the first and of the last epoch of the first stage."""
    recipe = tiny(axm_net_synth())
    train(recipe, data, out, progress=False, threads=1)
    steps = [step for step in records(out) if step["stage"] == recipe.stages[0].number]
    epochs = [[sum(step["loss"].values()) for step in steps if step["epoch"] == n] for n in (1, steps[-1]["epoch"])]
    first, last = (sum(epoch) / len(epoch) for epoch in epochs)
    assert math.isfinite(first + last)
    return first, last


# --- variants -------------------------------------------------------------------------------------------------------

# What each row changes of the network as published, by hand from the tables.
NO_AXM, NO_VFC, NO_TSA = {"align": "separate"}, {"vfc": False}, {"tsa": "off"}
NET_CHANGES: dict[str, dict[str, Any]] = {
    "baseline": NO_AXM | NO_VFC | NO_TSA,
    "axm": NO_VFC | NO_TSA,
    "vfc": NO_AXM | NO_TSA,
    "tsa": NO_AXM | NO_VFC,
    "axm-tsa": NO_VFC,
    "axm-vfc": NO_TSA,
    "all": {},
    "unified-visual": {"unified_visual": True},
    "only-part-branch": {"global_branch": False},
    "single-stage": {},
    "vfc-mlp-separate": {"vfc_mlp": "separate"},
    "vfc-mlp-shared": {},
    "vfc-pool-average": {"strip_pooling": "avg", "part_pooling": "avg"},
    "vfc-pool-max": {},
    "vfc-drop-random": {"feature_drop": "block"},
    "vfc-drop-part": {"feature_drop": "strip"},
    "vfc-drop-none": {},
    "fc-one": {"fc_layers": "one"},
    "fc-two": {"fc_layers": "two"},
    "fc-proposed": {},
    "align-none": {"align": "none"},
    "align-separate": {"align": "separate"},
    "align-1-2": {"align": ("shared",) * 4 + ("separate",) * 2},
    "align-1-3": {"align": ("shared",) * 2 + ("separate",) * 2 + ("shared",) * 2},
    "align-2-3": {"align": ("separate",) * 2 + ("shared",) * 4},
    "align-all": {},
    "text-table": {"text_input": "learned", "text_dim": 300},
    "text-bert": {},
    "loss-id": {"triplet_weight": 0.0, "affinity_weight": 0.0},
    "loss-id-affinity": {"triplet_weight": 0.0},
    "loss-id-triplet": {"affinity_weight": 0.0},
    "loss-all": {},
}
TWO_STEPS = replace(
    tiny(axm_net_cuhk_pedes()),
    dataset="synth",
    stages=tuple(replace(s, epochs=1) for s in tiny(axm_net_cuhk_pedes()).stages),
)


def test_every_row_is_there_and_changes_what_it_says() -> None:
    assert NET_CHANGES.keys() == VARIANTS.keys()
    paper = axm_net_cuhk_pedes()
    for name, changes in NET_CHANGES.items():
        changed = variants.apply(paper, [name])
        assert changed.net_config == replace(paper.net_config, **changes), name
        assert changed.name == f"axm_net_cuhk_pedes + {name}"
        others = {"name", "net_config", *(["stages"] if name == "single-stage" else [])}
        others |= {"text"} if name.startswith("text-") else set()
        for field, value in to_dict(paper).items():
            assert field in others or to_dict(changed)[field] == value, (name, field)


def test_rows_as_proposed_undo_their_alternatives() -> None:
    paper = axm_net_cuhk_pedes()
    pairs = [
        ("baseline", "all"),
        ("vfc-mlp-separate", "vfc-mlp-shared"),
        ("vfc-pool-average", "vfc-pool-max"),
        ("vfc-drop-part", "vfc-drop-none"),
        ("fc-two", "fc-proposed"),
        ("align-1-3", "align-all"),
        ("text-table", "text-bert"),
        ("loss-id", "loss-all"),
    ]
    for other, proposed in pairs:
        there = variants.apply(paper, [other])
        assert replace(there, name="") != replace(paper, name="")
        assert replace(variants.apply(there, [proposed]), name="") == replace(paper, name="")


def test_a_single_stage_has_the_epochs_of_both() -> None:
    (only,) = variants.apply(axm_net_cuhk_pedes(), ["single-stage"]).stages
    assert (only.number, only.epochs, only.milestones) == (2, 130, (100, 120))
    assert [s.number for s in variants.apply(axm_net_scratch(), ["single-stage"]).stages] == [0, 2]


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="no variant 'axn'; choose from baseline, axm"):
        variants.apply(axm_net_cuhk_pedes(), ["axn"])
    with pytest.raises(ValueError, match="axm_net_tiny has no stages 1 and 2 to join"):
        variants.apply(axm_net_tiny(), ["single-stage"])
    only_stage_0 = replace(axm_net_tiny(), name="first", stages=axm_net_tiny().stages[:1])
    with pytest.raises(ValueError, match="first has no stage 2, where these losses act"):
        variants.apply(only_stage_0, ["loss-id"])


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "text-bert"])
def test_every_row_takes_a_step(name: str, toy_dataset: Path, tmp_path: Path) -> None:
    """The last stage of the paper's recipe in small."""
    recipe = variants.apply(TWO_STEPS, [name])
    recipe = replace(recipe, stages=recipe.stages[-1:])
    train(recipe, toy_dataset, tmp_path, progress=False, threads=1, stop_after_steps=1)
    (step,) = records(tmp_path)
    expected = {"identity", "triplet", "affinity"}
    changes = NET_CHANGES[name]
    expected -= {loss for loss in expected if changes.get(f"{loss}_weight") == 0.0}
    assert step["loss"].keys() == expected
    before = fresh(recipe).state_dict()
    after = torch.load(tmp_path / "state.pt", weights_only=True)["net"]
    assert after["text_project.0.weight"].shape == before["text_project.0.weight"].shape
    assert any(name.startswith("text_gates.") for name in after) == ("separate" in str(changes.get("align")))
    assert all(torch.isfinite(value).all() for value in after.values())


def test_bert_reads_frozen_states_and_takes_a_step() -> None:
    recipe = variants.apply(TWO_STEPS, ["text-bert"])
    assert (recipe.text.kind, recipe.text.name, recipe.text.dim) == ("bert", "bert-base-uncased", 768)
    net = fresh(recipe)
    net.begin_stage(2)
    ids = torch.arange(1, 33).repeat(4, 1)
    tokens = Tokens(ids, ids > 0, torch.randn(4, 32, 768))
    losses = net(Batch(torch.randn(4, 3, 64, 32), tokens, torch.tensor([0, 0, 1, 1])), 0)
    torch.stack(list(losses.values())).sum().backward()
    assert net.text.stem[0].weight.grad.abs().sum() > 0


def fresh(recipe: Recipe) -> Any:
    torch.manual_seed(0)
    return build(recipe.net, asdict(replace(recipe.net_config, num_ids=12)))


# --- the command ----------------------------------------------------------------------------------------------------


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["person-search", "train", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_list_shows_recipes_and_rows_with_the_papers_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "list") == 0
    lines = capsys.readouterr().out.splitlines()
    for name in RECIPES:
        assert any(line.startswith(name) for line in lines)
    for name, variant in VARIANTS.items():
        (line,) = [line for line in lines if line.startswith(f"│ {name} ")]
        assert line.endswith(f" {'-' if variant.rank1 is None else f'{variant.rank1:.2f}'} │")


def test_a_preset_two_variants_and_a_setting(
    toy_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ["--root", toy_dataset, "--out", tmp_path / "run", "--device", "cpu", "--threads", 1]
    rows = ["--variant", "align-none", "--variant", "fc-one"]
    assert command(monkeypatch, "axm_net_synth", "--preset", "tiny", *rows, "--set", "stages.0.epochs=1", *where) == 0
    recipe = describe(tmp_path / "run" / "best.safetensors")["recipe"]
    assert recipe["name"] == "axm_net_synth_tiny + align-none + fc-one"
    assert (recipe["net_config"]["align"], recipe["net_config"]["fc_layers"]) == ("none", "one")
    assert recipe["stages"][0]["epochs"] == 1


def test_a_variant_that_does_not_exist_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "axm_net_tiny", "--variant", "axn") == 1
    assert capsys.readouterr().err.startswith("error: There is no variant 'axn'; choose from baseline, axm")
