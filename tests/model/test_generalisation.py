"""What is kept away from home: other cameras, another set, as many people, and what may not be compared."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from model.checkpoint import load, save
from model.datasets import DatasetError, limit_cameras, read_cuhk_pedes
from model.evaluate import evaluate
from model.generalisation import generalisation, kept, report
from model.recipes import axm_net_tiny, override
from model.training_data import read_splits
from tests.helpers import make_toy_dataset


def subset(root: Path, out: Path, cameras: set[str]) -> Path:
    """The toy dataset with the images of some cameras alone."""
    rows = json.loads((root / "reid_raw.json").read_text())
    out.mkdir()
    (out / "imgs").symlink_to(root / "imgs")
    (out / "reid_raw.json").write_text(json.dumps([row for row in rows if row["camera"] in cameras]))
    return out


def test_only_images_of_the_cameras_named_are_measured(
    toy_dataset: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    cut = evaluate(tiny_checkpoint, "synth", toy_dataset, device="cpu", cameras=["cam0", "cam2"])
    alone = evaluate(tiny_checkpoint, "synth", subset(toy_dataset, tmp_path / "cut", {"cam0", "cam2"}), device="cpu")
    assert cut == alone and cut["data"]["images"] == 12
    few = evaluate(tiny_checkpoint, "synth", toy_dataset, device="cpu", limit_ids=4)
    assert (few["data"]["identities"], few["data"]["images"]) == (4, 12)
    with pytest.raises(DatasetError, match="No image is from camera cam9; there are images from cam0, cam1, cam2"):
        evaluate(tiny_checkpoint, "synth", toy_dataset, device="cpu", cameras=["cam9"])


def test_both_sets_are_measured_on_as_many_people(toy_dataset: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    away = make_toy_dataset(tmp_path / "away", {"test": 4})
    found = generalisation(tiny_checkpoint, "synth", toy_dataset, away, device="cpu", json_out=tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text()) == found
    assert found["home"] == evaluate(tiny_checkpoint, "synth", toy_dataset, device="cpu", limit_ids=4)
    assert found["away"] == evaluate(tiny_checkpoint, "synth", away, device="cpu")
    text = found["kept"]["text_to_image"]
    for value, share in text.items():
        here, there = found["home"]["text_to_image"][value], found["away"]["text_to_image"][value]
        assert share == pytest.approx(100 * there / here)
    assert found["kept"]["color_histogram"]["rank1"] == 100 and "pair_to_image" not in found["kept"]
    out = io.StringIO()
    report(found, Console(file=out, width=80))
    assert "text to image" in out.getvalue() and "4 people at home and away" in out.getvalue()


def test_shares_are_of_what_is_found_at_home() -> None:
    row = {"rank1": 40.0, "mean_ap": 30.0}
    home: dict[str, Any] = {"text_to_image": row, "image_to_image": {"rank1": 0.0, "mean_ap": 10.0}, "fused": None}
    away: dict[str, Any] = {"text_to_image": {"rank1": 30.0, "mean_ap": 33.0}, "image_to_image": row, "fused": row}
    assert kept(home, away) == {
        "text_to_image": {"rank1": pytest.approx(75), "mean_ap": pytest.approx(110)},
        "image_to_image": {"rank1": None, "mean_ap": pytest.approx(300)},
    }


def test_what_would_compare_a_set_with_itself_is_refused(
    toy_dataset: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    for cameras in ({}, {"home_cameras": ["cam0"]}, {"home_cameras": ["cam0", "cam1"], "away_cameras": ["cam1"]}):
        with pytest.raises(ValueError, match="are the same folder: name different cameras"):
            generalisation(tiny_checkpoint, "synth", toy_dataset, toy_dataset, device="cpu", **cameras)  # type: ignore[arg-type]
    apart = {"home_cameras": ["cam0", "cam2"], "away_cameras": ["cam1"]}
    found = generalisation(tiny_checkpoint, "synth", toy_dataset, toy_dataset, device="cpu", **apart)  # type: ignore[arg-type]
    assert (found["home"]["data"]["images"], found["away"]["data"]["images"]) == (12, 6)

    loaded = load(tiny_checkpoint)
    learned = {**loaded.info, "recipe": {**loaded.info["recipe"], "cameras": ["cam1", "cam0"]}}
    save(tmp_path / "learned.safetensors", loaded.net, learned)
    with pytest.raises(ValueError, match="was trained on camera cam1: name others as away"):
        generalisation(tmp_path / "learned.safetensors", "synth", toy_dataset, toy_dataset, device="cpu", **apart)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no dataset 'market'"):
        generalisation(tiny_checkpoint, "market", toy_dataset, tmp_path)


def test_a_recipe_may_train_on_some_cameras_alone(toy_dataset: Path) -> None:
    everyone, val = read_splits(axm_net_tiny(), toy_dataset)
    some, all_val = read_splits(override(axm_net_tiny(), cameras="cam0,cam2"), toy_dataset)
    assert some == [sample for sample in everyone if sample.camera in ("cam0", "cam2")] and all_val == val
    assert limit_cameras(everyone, ()) == everyone
    with pytest.raises(DatasetError, match="No image is from camera cam7"):
        read_splits(override(axm_net_tiny(), cameras=["cam7"]), toy_dataset)
    assert read_cuhk_pedes(toy_dataset, "train") == everyone
