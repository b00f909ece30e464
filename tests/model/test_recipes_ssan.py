"""SSAN's recipes are what its source prints, and a checkpoint of one reads, searches, explains and goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from model import batching
from model.checkpoint import describe, load, save
from model.datasets import read_cuhk_pedes
from model.encoder import Encoder
from model.evaluate import evaluate
from model.explain import explain
from model.nets.ssan import SSAN, SSANConfig
from model.preprocess import Preprocessing
from model.recipe import Recipe, override, to_dict
from model.recipes import RECIPES, tiny
from model.recipes_ssan import ALL, ssan_cuhk_pedes, ssan_cuhk_pedes_code, ssan_icfg_pedes, ssan_rstpreid, ssan_synth
from model.text import TextSpec, load_text, vocabulary
from model.train import BEST, STATE, TrainingError, train
from model.training_data import read_splits
from tests.helpers import make_toy_dataset

CAPTION = "A person in a red shirt and black pants."


def records(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "step"]


def mean_losses(out: Path) -> dict[tuple[int, int], float]:
    """Mean total loss of every epoch, by stage and epoch."""
    totals: dict[tuple[int, int], list[float]] = {}
    for step in records(out):
        totals.setdefault((step["stage"], step["epoch"]), []).append(sum(step["loss"].values()))
    return {epoch: sum(losses) / len(losses) for epoch, losses in totals.items()}


def small(make: Any, **settings: Any) -> Recipe:
    """A recipe in small for toy people, who all are in one folder."""
    return override(replace(tiny(make()), dataset="synth", hold_out=0), **settings)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy_dataset(tmp_path_factory.mktemp("people"), {"train": 16, "val": 8, "test": 8}, images=4)


@pytest.fixture(scope="module")
def trained(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train ssan_cuhk_pedes --preset tiny`, on flat people whose clothes are easy to tell."""
    out = tmp_path_factory.mktemp("run") / "whole"
    return train(small(ssan_cuhk_pedes, validate_every=5), people, out, progress=False, threads=1)


# --- recipes ------------------------------------------------------------------------------------------------------


def test_recipes_are_what_the_specification_prints() -> None:
    paper = ssan_cuhk_pedes()
    p, (stage,) = paper.preprocessing, paper.stages
    assert (p.height, p.width, p.mean, p.std, p.interpolation) == (384, 128, (0.5,) * 3, (0.5,) * 3, "bicubic")
    assert (stage.epochs, stage.lr, stage.batch, stage.sampler) == (60, 1e-3, 64, "pairs")
    assert (stage.optimizer, stage.weight_decay) == ("adamw", 0.0)  # which is Adam
    assert (stage.schedule, stage.milestones, stage.gamma, stage.warmup) == ("step", (20, 40), 0.1, 0.0)
    assert stage.weak_captions and not stage.weak_positives
    a = stage.augmentation
    assert (a.flip, a.translate, a.erase, a.brightness, a.shift_text) == (0.5, 0.0, 0.0, 0.0, False)
    assert paper.clip_norm == 0 and paper.min_images == 2 and paper.average == 0
    assert (paper.text.kind, paper.text.length, paper.text.min_count) == ("words", 100, 2)
    c = paper.net_config
    assert isinstance(c, SSANConfig)
    assert (c.margin, c.weak_weight, c.part_weight, c.backbone_lr_scale, c.dropout) == (0.2, 0.1, 0.5, 0.1, 0.3)
    for make in ALL:
        assert RECIPES[make.__name__] is make and make().name == make.__name__
        json.dumps(to_dict(make()))


def test_benchmarks_differ_from_the_paper_in_their_data_alone() -> None:
    paper, icfg, rstp = ssan_cuhk_pedes(), ssan_icfg_pedes(), ssan_rstpreid()
    assert (icfg.dataset, icfg.hold_out, rstp.dataset, rstp.hold_out) == ("icfg-pedes", 200, "rstpreid", 0)
    for recipe in (icfg, rstp):
        assert replace(recipe, name=paper.name, dataset=paper.dataset, hold_out=0) == paper


def test_the_published_code_differs_where_it_is_said_to() -> None:
    paper, code = ssan_cuhk_pedes(), ssan_cuhk_pedes_code()
    assert replace(code, name=paper.name, net_config=paper.net_config) == paper
    ours, theirs = asdict(paper.net_config), asdict(code.net_config)
    assert {name: theirs[name] for name in ours if ours[name] != theirs[name]} == {
        "relation_values": "unit",
        "max_sees_padding": True,
        "weak_negatives": "weak",
        "fixed_margin_epochs": 5,
        "absolute_margin": True,
        "least_weak_margin": 0.16,
    }


def test_the_preset_keeps_losses_and_stages() -> None:
    sizes = {
        "width", "depths", "last_stride", "encoder_dim", "parts", "feature_dim", "relation_dim", "word_dim", "dropout",
    }  # fmt: skip
    for make in ALL:
        recipe, less = make(), tiny(make())
        ours, theirs = asdict(less.net_config), asdict(recipe.net_config)
        assert {k: v for k, v in ours.items() if k not in sizes} == {k: v for k, v in theirs.items() if k not in sizes}
        assert [s.weak_captions for s in less.stages] == [s.weak_captions for s in recipe.stages]
        assert (less.preprocessing.height, less.preprocessing.width) == (64, 32)
        assert (less.min_images, less.text.min_count) == (recipe.min_images, recipe.text.min_count)


# --- words --------------------------------------------------------------------------------------------------------


def test_words_are_numbered_from_one_and_others_left_out() -> None:
    known = vocabulary(["A red shirt, a red coat.", "red Shirt; blue coat"], min_count=2)
    assert known == ["a", "coat", "red", "shirt"]
    text = load_text(TextSpec("words", length=5), known=known)
    tokens = text(["A blue shirt and a red coat", "blue", "red " * 9])
    assert tokens.ids.tolist() == [[1, 4, 1, 3, 2], [0, 0, 0, 0, 0], [3, 3, 3, 3, 3]]
    assert torch.equal(tokens.mask, tokens.ids > 0) and tokens.states is None
    assert text.is_truncated("red " * 6) and not text.is_truncated("red " * 5 + "blue") and not text.is_truncated("")
    with pytest.raises(ValueError, match="needs its vocabulary"):
        load_text(TextSpec("words"))


# --- weak captions ------------------------------------------------------------------------------------------------


def test_weak_captions_are_of_another_image_of_the_same_person() -> None:
    pids = [0, 0, 0, 1, 1, 2]  # the last has a single image
    counts = [2, 1, 3, 2, 2, 2]
    samples = np.tile(np.arange(6), (400, 1))
    donors, captions = batching.draw_weak(samples, counts, pids, batching.generator(0))
    assert donors.shape == captions.shape == (400, 6)
    drawn = [set(map(tuple, np.stack([donors[:, n], captions[:, n]], axis=1).tolist())) for n in range(6)]
    assert drawn[0] == {(1, 0), (2, 0), (2, 1), (2, 2)}
    assert drawn[3] == {(4, 0), (4, 1)}
    assert drawn[5] == {(5, 0), (5, 1)}
    assert 0.4 < (donors[:, 0] == 1).mean() < 0.6


def test_people_with_too_few_images_are_left_out(people: Path, tmp_path: Path) -> None:
    rows = json.loads((people / "reid_raw.json").read_text())
    alone = rows[0]["id"]
    kept = [row for n, row in enumerate(rows) if row["id"] != alone or n == 0]
    (tmp_path / "reid_raw.json").write_text(json.dumps(kept))
    (tmp_path / "imgs").symlink_to(people / "imgs")
    training, validation = read_splits(small(ssan_cuhk_pedes), tmp_path)
    assert alone not in {sample.pid for sample in training} and len({sample.pid for sample in training}) == 15
    assert len({sample.pid for sample in read_splits(small(ssan_synth), tmp_path)[0]}) == 16
    assert len(validation) == 32


# --- training and serving -----------------------------------------------------------------------------------------


def test_the_paper_learns_in_small(trained: Path, people: Path) -> None:
    losses = mean_losses(trained.parent)
    assert losses[1, 10] < 0.7 * losses[1, 1]
    assert set(records(trained.parent)[0]["loss"]) == {"identity", "ranking"}
    result = evaluate(trained, "synth", people, "val", device="cpu")
    assert result["net"] == "ssan"
    assert result["text_to_image"]["mean_ap"] > 60  # chance is 21
    assert result["image_to_image"]["mean_ap"] > 60


def test_rendered_peoples_recipe_learns_in_small(people: Path, tmp_path: Path) -> None:
    settings = {"stages.0.epochs": 5, "stages.1.epochs": 2, "validate_every": 5}
    train(small(ssan_synth, **settings), people, tmp_path / "run", progress=False, threads=1)
    losses = mean_losses(tmp_path / "run")
    assert losses[0, 5] < 0.8 * losses[0, 1]
    assert {name for step in records(tmp_path / "run") for name in step["loss"]} == {
        "attribute", "info_nce", "identity", "ranking",
    }  # fmt: skip


def test_its_checkpoint_serves(trained: Path) -> None:
    encoder = Encoder(trained, "cpu")
    info = describe(trained)
    words = ["a", "and", "black", "blue", "green", "in", "orange", "pants", "person", "purple", "red", "shirt", "white"]
    assert info["vocabulary"] == [*words, "yellow"]
    assert info["net_config"]["vocabulary_size"] == 15 and info["net_config"]["num_ids"] == 0
    assert encoder.has_text and encoder.dim == 32 + 4 * 32 + 4 * 16
    texts = encoder.embed_texts([CAPTION, "a word nobody wrote", ""])
    images = encoder.embed_images([Image.new("RGB", (30, 70), "red"), Image.new("L", (64, 64), 90)])
    for rows in (texts, images):
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(encoder.embed_texts([CAPTION])[0], texts[0], atol=1e-5)
    np.testing.assert_allclose(encoder.embed_texts([CAPTION], shifts=4)[0], texts[0], atol=0.5)
    assert encoder.unknown_words("a red cape and black shoes") == ["cape", "shoes"]
    assert encoder.is_truncated("red " * 41) and not encoder.is_truncated("red " * 40 + "cape " * 40)


def test_an_explanation_puts_clothes_where_they_are(trained: Path, people: Path) -> None:
    encoder = Encoder(trained, "cpu")
    samples = read_cuhk_pedes(people, "val")[::4]
    right = 0
    for sample in samples:
        explanation = explain(encoder, Image.open(sample.path), sample.captions[0])
        assert explanation.strips.shape == (2, 4)
        shirt, pants = (explanation.best_strip(phrase) for phrase in explanation.phrases)
        right += (shirt < 2) + (pants >= 2)
    assert right >= 12  # of 16


def test_caption_noise_makes_it_worse_and_never_fails(trained: Path, people: Path, tmp_path: Path) -> None:
    recipe = small(ssan_cuhk_pedes, caption_noise=0.8, validate_every=6, **{"stages.0.epochs": 6})
    train(recipe, people, tmp_path / "noisy", progress=False, threads=1)
    clean, noisy = (mean_losses(out)[1, 6] for out in (trained.parent, tmp_path / "noisy"))
    assert np.isfinite(noisy) and noisy > 1.2 * clean
    assert describe(tmp_path / "noisy" / BEST)["recipe"]["caption_noise"] == 0.8


def test_a_killed_and_resumed_run_ends_with_the_same_bits(people: Path, tmp_path: Path) -> None:
    recipe = small(ssan_synth, **{"stages.0.epochs": 1, "stages.1.epochs": 2, "net_config.dropout": 0.3})
    whole = train(recipe, people, tmp_path / "whole", progress=False, threads=1)
    for _ in range(4):  # 12 steps in all
        train(recipe, people, tmp_path / "pieces", resume=True, progress=False, threads=1, stop_after_steps=3)
    pieces = tmp_path / "pieces" / BEST
    assert len(records(tmp_path / "pieces")) == len(records(tmp_path / "whole")) == 12
    states = [torch.load(path.parent / STATE, weights_only=True)["net"] for path in (whole, pieces)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_words_keep_their_numbers_when_a_run_starts_from_a_checkpoint(
    trained: Path, people: Path, tmp_path: Path
) -> None:
    rows = json.loads((people / "reid_raw.json").read_text())
    for row in rows:
        row["captions"] = [f"aged {caption}" for caption in row["captions"]]
    (tmp_path / "reid_raw.json").write_text(json.dumps(rows))
    (tmp_path / "imgs").symlink_to(people / "imgs")
    recipe = small(ssan_cuhk_pedes, **{"stages.0.epochs": 1})
    out = tmp_path / "run"
    best = train(recipe, tmp_path, out, init=trained, progress=False, threads=1)
    assert describe(best)["vocabulary"] == describe(trained)["vocabulary"]
    assert Encoder(best, "cpu").unknown_words("an aged person") == ["an", "aged"]
    with pytest.raises(TrainingError, match="Resume it with what it was started with"):
        train(recipe, tmp_path, out, resume=True, progress=False, threads=1)
    again = train(recipe, tmp_path, out, resume=True, init=trained, progress=False, threads=1)
    assert describe(again)["id"] == describe(best)["id"]


def test_the_published_recipe_asks_for_its_weights(people: Path, tmp_path: Path) -> None:
    recipe = replace(small(ssan_cuhk_pedes), vision_weights="resnet50_imagenet.pth")
    with pytest.raises(TrainingError, match=r"no file resnet50_imagenet\.pth.*a ResNet-50 for SSAN"):
        train(recipe, people, tmp_path / "run", progress=False, threads=1)
    source = SSAN(recipe.net_config)  # type: ignore[arg-type]
    info = {"net": "ssan", "net_config": source.config, "preprocessing": Preprocessing(64, 32), "text": None}
    save(tmp_path / "start.safetensors", source, info)
    recipe = override(recipe, vision_weights=str(tmp_path / "start.safetensors"), **{"stages.0.epochs": 1})
    best = train(recipe, people, tmp_path / "from", progress=False, threads=1)
    assert isinstance(load(best).net, SSAN)
