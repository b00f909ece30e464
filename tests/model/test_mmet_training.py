"""MMET from a recipe to a checkpoint: it learns, resumes, agrees with two processes, reads pairs and is measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from model.checkpoint import load
from model.encoder import Encoder
from model.evaluate import evaluate
from model.nets.mmet import MMET, MMETConfig
from model.preprocess import Preprocessing, to_tensor
from model.recipes import RECIPES, Recipe, override, tiny
from model.text import TextSpec, load_text
from model.train import train
from tests.model.test_distributed import in_double_precision, launch, records, state
from tests.model.test_mmet import count


def test_the_published_recipe_is_what_the_code_prints() -> None:
    recipe = RECIPES["mmet"]()
    assert recipe.net_config == MMETConfig(codebook=recipe.net_config.codebook)
    one, two = recipe.stages
    assert (one.optimizer, one.lr, one.weight_decay, one.betas, one.eps, one.batch) == (
        "adamw", 2e-4, 0.01, (0.9, 0.999), 1e-8, 16
    )  # fmt: skip
    assert (two.optimizer, two.lr, two.weight_decay, two.betas, two.eps) == ("adamw", 1e-5, 0.1, (0.9, 0.98), 1e-6)
    assert (two.sampler, two.p, two.k, two.batch) == ("identities", 16, 4, 64)
    assert (recipe.preprocessing.height, recipe.preprocessing.width) == (224, 224)
    assert recipe.text.length + 2 == 77 and recipe.vision_weights is not None
    pairs, people = 68_126 // 16, 11_003 // 16  # steps of an epoch of CUHK-PEDES
    assert one.epochs * pairs == pytest.approx(450_000, rel=0.01)
    assert two.epochs * people == pytest.approx(230_000, rel=0.01)
    for stage in recipe.stages:
        a = stage.augmentation
        assert (a.flip, a.erase, a.shift_text, a.resized_crop) == (0, 0, False, 0.9)
        assert stage.warmup * stage.epochs * (pairs if stage is one else people) == pytest.approx(2000, rel=0.01)


@pytest.mark.parametrize("name", ["mmet", "mmet_synth"])
def test_the_preset_is_the_same_recipe_in_small(name: str) -> None:
    recipe, small = RECIPES[name](), tiny(RECIPES[name]())
    assert [(s.number, s.optimizer, s.sampler, s.betas) for s in small.stages] == [
        (s.number, s.optimizer, s.sampler, s.betas) for s in recipe.stages
    ]
    for field in ("objectives", "triplet_across", "neck_input", "attribute_weight", "branches", "fusion_sees_padding"):
        assert getattr(small.net_config, field) == getattr(recipe.net_config, field)
    assert small.vision_weights is None and small.net_config.image_target == "kmeans"
    with torch.device("meta"):
        assert count(MMET(small.net_config)) < 1e6


def losses_by_epoch(out: Path, stage: int) -> list[dict[str, float]]:
    """The mean of every loss in each epoch of a stage."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step" and line["stage"] == stage]
    epochs = []
    for epoch in range(1, steps[-1]["epoch"] + 1):
        losses = [step["loss"] for step in steps if step["epoch"] == epoch]
        epochs.append({name: float(np.mean([one[name] for one in losses])) for name in losses[0]})
    return epochs


def learned(recipe: Recipe, data: Path, out: Path) -> Encoder:
    best = train(recipe, data, out, progress=False, threads=1, device="cpu")
    return Encoder(best, "cpu")


@pytest.fixture(scope="module")
def trained(toy_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train mmet_synth --preset tiny` on flat people: the folder of the run."""
    out = tmp_path_factory.mktemp("mmet")
    learned(override(tiny(RECIPES["mmet_synth"]()), validate_every=5), toy_dataset, out)
    return out


def test_the_small_recipe_learns_from_nothing(trained: Path) -> None:
    stage1, stage2 = losses_by_epoch(trained, 1), losses_by_epoch(trained, 2)
    assert set(stage1[0]) == {"itm", "mmm_image", "mmm_text", "mim", "mlm", "contrastive", "attribute"}
    assert set(stage2[0]) == {"identity", "triplet", "contrastive", "attribute"}
    for name in ("mmm_image", "mmm_text", "mim", "mlm", "contrastive"):
        assert stage1[-1][name] < stage1[0][name]
    assert sum(stage1[-1].values()) < 0.8 * sum(stage1[0].values())
    assert sum(stage2[-1].values()) < sum(stage2[0].values())


def test_the_published_kind_of_steps_trains_and_resumes(toy_dataset: Path, tmp_path: Path) -> None:
    recipe = override(
        tiny(RECIPES["mmet"]()), dataset="synth", **{"stages.0.epochs": 2, "stages.1.epochs": 1, "validate_every": 2}
    )
    options: dict[str, Any] = {"progress": False, "threads": 1, "device": "cpu"}
    train(recipe, toy_dataset, tmp_path / "whole", **options)
    train(recipe, toy_dataset, tmp_path / "parts", stop_after_steps=3, **options)
    train(recipe, toy_dataset, tmp_path / "parts", resume=True, **options)
    a, b = (torch.load(tmp_path / name / "state.pt", weights_only=True)["net"] for name in ("whole", "parts"))
    assert [name for name, tensor in a.items() if not torch.equal(tensor, b[name])] == []
    assert int(a["stage"]) == 2


PROGRAM = """
import sys
from model import distributed
from model.train import train
from tests.model.test_distributed import in_double_precision, launch, records, state
from tests.model.test_distributed import in_double_precision
from tests.model.test_mmet_training import short
with in_double_precision():
    train(short(), sys.argv[1], sys.argv[2], progress=False, threads=1, device="cpu")
distributed.leave()
"""


def short() -> Recipe:
    """An epoch of each stage by stochastic descent, see `tests.model.test_distributed.short`."""
    recipe = override(tiny(RECIPES["mmet_synth"]()), **{"average": 0.9, "net_config.image_codes": 8})
    return replace(recipe, stages=tuple(replace(s, optimizer="sgd", lr=1e-2, epochs=1) for s in recipe.stages))


@pytest.mark.slow
def test_two_processes_make_the_steps_of_one(toy_dataset: Path, tmp_path: Path) -> None:
    """Masks, torn pairs, codebook, losses and weights: all are drawn and reckoned for the whole batch."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    launch(program, toy_dataset, tmp_path / "two")
    with in_double_precision():
        train(short(), toy_dataset, tmp_path / "one", progress=False, threads=1, device="cpu")
    one, two = records(tmp_path / "one", "step"), records(tmp_path / "two", "step")
    assert {step["stage"] for step in one} == {1, 2}
    for step, other in zip(one, two, strict=True):
        assert other["loss"] == pytest.approx(step["loss"], abs=1e-9)
    expected = state(tmp_path / "one")["net"]
    for name, tensor in state(tmp_path / "two")["net"].items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-9, rtol=1e-9, msg=name)


def test_the_encoder_reads_pairs(trained: Path, tiny_checkpoint: Path) -> None:
    encoder = Encoder(trained / "best.safetensors", "cpu", batch_size=2)
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (h, 32, 3)).astype(np.uint8)) for h in (64, 90, 50)]
    texts = ["a person in a red shirt", "black pants", "a person in a blue shirt and yellow pants"]
    assert encoder.has_pairs and encoder.has_text
    rows = encoder.embed_pairs(images, texts)
    assert rows.shape == (3, encoder.dim) and rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    for n in range(3):
        np.testing.assert_allclose(encoder.embed_pairs(images[n : n + 1], texts[n : n + 1])[0], rows[n], atol=1e-5)
    loaded = load(trained / "best.safetensors")
    assert isinstance(loaded.net, MMET)
    preprocessing = Preprocessing.from_dict(loaded.info["preprocessing"])
    tokens = load_text(TextSpec(**loaded.info["text"]))(texts)
    with torch.inference_mode():
        direct = loaded.net.encode_pair(torch.stack([to_tensor(image, preprocessing) for image in images]), tokens)
    np.testing.assert_allclose(rows, direct.numpy(), atol=1e-5)
    assert encoder.embed_pairs([], []).shape == (0, encoder.dim)
    with pytest.raises(ValueError, match="3 images for 2 texts"):
        encoder.embed_pairs(images, texts[:2])
    apart = Encoder(tiny_checkpoint, "cpu")
    assert not apart.has_pairs
    with pytest.raises(ValueError, match="reads images and texts apart"):
        apart.embed_pairs(images, texts)


def test_its_branches_are_measured_side_by_side(trained: Path, toy_dataset: Path, tiny_checkpoint: Path) -> None:
    result = evaluate(trained / "best.safetensors", "synth", toy_dataset, device="cpu")
    for name in ("image_to_image", "text_to_text", "pair_to_pair", "pair_to_image", "text_to_image"):
        assert result[name]["queries"] + result[name]["skipped"] == (18 if name == "image_to_image" else 36)
    other = evaluate(tiny_checkpoint, "synth", toy_dataset, device="cpu")
    assert other["pair_to_image"] is other["pair_to_pair"] is other["text_to_text"] is None
