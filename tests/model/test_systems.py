"""The side-by-side comparison runs end to end on toy people, goes on where it stopped, and counts what it says."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.nn import functional as F

from benchmarks import systems
from benchmarks.systems import FOUR, NOISY, SYSTEMS, Budget, multiply_adds, recipe_of, resized, untrained
from model.baselines import METRICS
from model.checkpoint import describe, load
from model.evaluate import evaluate
from model.nets import build
from model.recipes import RECIPES
from tests.helpers import make_toy_dataset
from tests.model.infrared_toys import make_rendered

SEEN = 160


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("people")
    people = {"train": 16, "val": 6, "test": 6}
    return {
        "data": make_toy_dataset(root / "captions", people, images=4),
        "infrared": make_rendered(root / "infrared", {"train": 16, "test": 6}),
        "out": root / "out",
    }


def command(folders: dict[str, Path], *more: str) -> None:
    data, infrared = str(folders["data"]), str(folders["infrared"])
    sets = ["--data", data, "--test", data, "--unseen", data, "--infrared", infrared, "--infrared-test", infrared]
    where = ["--out", str(folders["out"]), "--device", "cpu", "--seen", str(SEEN)]
    systems.main(["run", *sets, *where, "--small", *more])


@pytest.fixture(scope="module")
def results(folders: dict[str, Path]) -> dict[str, dict[str, Any]]:
    command(folders, "--systems", "SSAN")
    first = folders["out"] / "ssan-0" / "result.json"
    written = first.stat().st_mtime_ns
    command(folders)
    assert first.stat().st_mtime_ns == written  # what is there is not done again
    found = [json.loads(path.read_text()) for path in folders["out"].glob("*/result.json")]
    return {one["system"]: one for one in found}


def test_every_system_is_measured_on_all_it_can_read(results: dict[str, dict[str, Any]]) -> None:
    assert results.keys() == {system.name for system in FOUR}
    images = {"image", "infrared", "unseen_image"}
    for system in FOUR:
        one = results[system.name]
        tasks = images if system.task == "infrared" else images | {"text", "unseen_text"}
        assert one["trained"].keys() == one["untrained"].keys() == tasks
        for values in (*one["trained"].values(), *one["untrained"].values()):
            assert values.keys() == set(METRICS) and all(0 <= value <= 100 for value in values.values())
        assert one["trained"][system.task] != one["untrained"][system.task]
        assert one["minutes"] > 0 and one["images_per_second"] > 0
        assert SEEN / 2 < one["seen"] < 2 * SEEN


def test_results_are_those_of_the_served_checkpoint(
    results: dict[str, dict[str, Any]], folders: dict[str, Path]
) -> None:
    ours = results["AXM-Net"]
    best = folders["out"] / "axm-net-0" / "best.safetensors"
    found = evaluate(best, "synth", folders["data"], device="cpu")
    histogram = json.loads((folders["out"] / "histogram.json").read_text())
    for name in METRICS:
        assert ours["trained"]["text"][name] == pytest.approx(found["text_to_image"][name])
        assert ours["trained"]["image"][name] == pytest.approx(found["image_to_image"][name])
        assert histogram["text"][name] == pytest.approx(found["color_histogram"][name])
    best = folders["out"] / "mcja-0" / "best.safetensors"
    found = evaluate(best, "synth-infrared", folders["infrared"], device="cpu")
    for name in METRICS:
        ways = [found[way][name] for way in ("infrared_to_visible", "visible_to_infrared")]
        assert results["MCJA"]["trained"]["infrared"][name] == pytest.approx(sum(ways) / 2)
        assert histogram["infrared"][name] == pytest.approx(found["infrared_histogram"][name])
    net = load(best).net
    assert isinstance(net, nn.Module)
    assert results["MCJA"]["parameters"] == sum(p.numel() for p in net.parameters())
    axm: Any = load(folders["out"] / "axm-net-vision-alone-0" / "best.safetensors").net
    vision = [axm.vision, axm.gates, axm.global_project, axm.part_branch]
    alone = sum(p.numel() for module in vision for p in module.parameters())
    assert results["AXM-Net, vision alone"]["parameters"] == alone < results["AXM-Net"]["parameters"]


def test_the_table_shows_costs_where_a_system_is_at_home(
    results: dict[str, dict[str, Any]], folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Console(width=200, record=True, quiet=True)
    table = systems.table(folders["out"])
    shown.print(table)
    systems.main(["table", "--out", str(folders["out"])])
    assert "text to image" in capsys.readouterr().out
    columns = {str(column.header): list(column.cells) for column in table.columns}
    names = columns["percent"]
    assert names.count("  untrained") == 3 + 5 + 5 + 3 + 5 and names.count("colour histogram") == 5
    priced = [name for name, cost in zip(names, columns["M parameters"], strict=True) if cost]
    assert priced == ["AXM-Net", "SSAN", "MMET", "MCJA", "AXM-Net, vision alone"]
    row = names.index("SSAN")
    assert columns["mAP"][row] == f"{results['SSAN']['trained']['text']['mean_ap']:.1f}"
    assert columns["images seen"][row] == f"{results['SSAN']['seen']:,}"


def test_a_folder_keeps_to_one_budget(results: dict[str, dict[str, Any]], folders: dict[str, Path]) -> None:
    assert results
    with pytest.raises(SystemExit, match="begun with the budget"):
        command(folders, "--people", "8")
    with pytest.raises(SystemExit):
        command(folders, "--systems", "AXN")


def test_stages_share_the_budget_as_they_share_a_recipe(folders: dict[str, Path]) -> None:
    captions, infrared = folders["data"], folders["infrared"]
    for system in (*FOUR, *NOISY):
        root = infrared if system.data == "infrared" else captions
        recipe = recipe_of(system, Budget(seen=20_000, small=True), root, seed=3)
        assert recipe.seed == 3 and recipe.caption_noise == system.changes.get("caption_noise", 0)
        own = RECIPES["mcja_synth"]() if system.data == "infrared" else system.recipe()
        assert [stage.number for stage in system.recipe().stages] == [stage.number for stage in recipe.stages]
        assert len(own.stages) == len(recipe.stages)
    ssan = recipe_of(SYSTEMS["SSAN"], Budget(seen=6400, small=True), captions, seed=0)
    assert [stage.epochs for stage in ssan.stages] == [50, 50]  # 64 images an epoch in stages of equal length


def test_a_network_may_start_from_the_tower_of_another(
    results: dict[str, dict[str, Any]], folders: dict[str, Path]
) -> None:
    assert results
    path = folders["out"] / "ssan-0" / "best.safetensors"
    theirs: Any = load(path).net
    config = theirs.config
    net: Any = build("mcja", {"width": config.width, "depths": config.depths, "last_stride": config.last_stride})
    net.load_vision_weights(path)
    assert torch.equal(net.vision.layer4[0].conv2.weight, theirs.vision.layer4[0].conv2.weight)


def test_another_size_is_all_that_changes() -> None:
    recipe = RECIPES["mmet_synth"]()
    small = resized(recipe, 96, 32)
    ours, theirs = asdict(small.net_config), asdict(recipe.net_config)
    changed = {name: ours[name] for name in ours if ours[name] != theirs[name]}
    assert changed == {"image_size": (96, 32), "patch": 8}
    assert (small.preprocessing.height, small.preprocessing.width) == (96, 32)
    assert resized(RECIPES["ssan_synth"](), 96, 32) == RECIPES["ssan_synth"]()


def test_an_untrained_self_has_new_weights_and_the_same_form(
    results: dict[str, dict[str, Any]], folders: dict[str, Path], tmp_path: Path
) -> None:
    assert results
    best = folders["out"] / "mmet-0" / "best.safetensors"
    start = untrained(best, tmp_path / "start.safetensors", seed=0)
    ours, theirs = describe(start), describe(best)
    assert ours["net_config"] == theirs["net_config"] and ours["id"] != theirs["id"]
    torch.manual_seed(0)
    net: Any = build("mmet", theirs["net_config"])
    loaded: Any = load(start).net
    torch.testing.assert_close(loaded.image.cls, net.image.cls, atol=1e-3, rtol=0)


def test_multiply_adds_are_counted_as_by_hand() -> None:
    convolutions = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=4)
    )
    assert multiply_adds(convolutions, torch.zeros(1, 3, 6, 4)) == 24 * 8 * 27 + 6 * 8 * 18
    assert multiply_adds(nn.Linear(10, 7), torch.zeros(5, 10)) == 5 * 70

    def attention(x: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(x, x, x)

    assert multiply_adds(attention, torch.zeros(1, 2, 9, 4)) == 2 * 2 * 9 * 9 * 4
    osnet: Any = build("axm_net", {"part_branch": False, "fc_layers": "one"})
    # 1,468.2 M at 384 x 128 are those of OSNet with its gates and its linear layer of 512 x 512.
    assert multiply_adds(osnet.eval().encode_image, torch.zeros(1, 3, 384, 128)) == pytest.approx(1468.2e6, rel=0.001)
