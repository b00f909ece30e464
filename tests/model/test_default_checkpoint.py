"""The shipped checkpoints and what their card says of them."""

from __future__ import annotations

import json
import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from model import checkpoint

ROOT = Path(__file__).parents[2]
CARD = (ROOT / "docs/model-card.md").read_text("utf-8")
MEASURED: dict[str, Any] = json.loads((ROOT / "docs/model-card.json").read_text("utf-8"))
COLUMNS = ("rank1", "rank5", "rank10", "mean_ap", "mean_inp")
ROWS = {
    "description to image": "text_to_image",
    "image to image, other cameras": "image_to_image",
    "image and description to image, other cameras": "fused",
    "description to image, other cameras and views": "cross_view",
    "image to image, other cameras and views": "cross_view_image",
    "image and description, other cameras and views": "cross_view_fused",
    "chance": "chance",
    "colour histogram": "color_histogram",
    "oracle ceiling": "oracle",
    "other wording, by hand": "wording",
    "other wording, by hand: ceiling": "wording_oracle",
    "other phrasing": "phrasing",
    "other phrasing: ceiling": "phrasing_oracle",
    "short queries": "short",
    "short queries: ceiling": "short_oracle",
    "unseen outfits": "compositions",
    "unseen outfits: ceiling": "compositions_oracle",
    "partly hidden": "occluded",
    "partly hidden: ceiling": "occluded_oracle",
    "64 pixels high": "low_resolution",
    "among twins": "sets.twins.twins",
    "among twins: ceiling": "sets.twins.twins_oracle",
    "cameras with a strong cast": "sets.unseen.text_to_image",
    "cameras with a strong cast: ceiling": "sets.unseen.oracle",
    "visible to infrared": "infrared.visible_to_infrared",
    "infrared to visible": "infrared.infrared_to_visible",
    "both ways: colour histogram": "infrared.infrared_histogram",
    "both ways: chance": "infrared.infrared_chance",
}


def measured(path: str) -> Any:
    """What docs/model-card.json holds under a dotted path."""
    return reduce(lambda node, key: node[key], path.split("."), MEASURED)


@pytest.mark.parametrize(("name", "net"), [("default", "axm_net"), ("infrared", "mcja")])
def test_it_fits_and_serves(name: str, net: str) -> None:
    path = checkpoint.shipped(name)
    assert path.stat().st_size < 16 * 1024 * 1024
    loaded = checkpoint.load(path)
    assert loaded.info["net"] == net
    assert not [name for name in loaded.net.state_dict() if name.startswith("heads.")]  # type: ignore[attr-defined]


def test_the_card_is_about_this_checkpoint() -> None:
    for name, measured_of in (("default", MEASURED), ("infrared", MEASURED["infrared"])):
        identifier = checkpoint.load(checkpoint.shipped(name)).id
        assert measured_of["checkpoint"] == identifier
        assert identifier in CARD


def test_any_other_name_is_a_file() -> None:
    assert checkpoint.shipped("runs/best.safetensors") == Path("runs/best.safetensors")


@pytest.mark.parametrize(("title", "key"), ROWS.items())
def test_the_card_quotes_the_measured_figures(title: str, key: str) -> None:
    row = re.search(rf"^\| {title} \|(.+)\|$", CARD, re.MULTILINE)
    assert row, f"no row {title!r} in docs/model-card.md"
    quoted = [float(cell) for cell in row[1].split("|")[:5]]
    assert quoted == [round(measured(key)[column], 1) for column in COLUMNS]


def test_the_card_quotes_every_attribute() -> None:
    pairs, named = measured("sets.probe.attribute_probe.attributes"), MEASURED["attributes"]
    rows = dict(re.findall(r"^\| `(\w+)` \|(.+)\|$", CARD, re.MULTILINE))
    assert rows.keys() == pairs.keys() | named.keys()
    for name, cells in rows.items():
        right = [f"{pairs[name]['accuracy']:.1f}", str(pairs[name]["count"])] if name in pairs else ["", ""]
        asked = [f"{named[name][key]:.1f}" for key in ("accuracy", "majority")] if name in named else ["", ""]
        assert [cell.strip() for cell in cells.split("|")] == [*right, *asked]


def test_all_sets_were_measured_with_this_checkpoint() -> None:
    assert {one["checkpoint"] for one in MEASURED["sets"].values()} == {MEASURED["checkpoint"]}


def test_what_it_is_good_for() -> None:
    standard = MEASURED["text_to_image"]
    assert standard["rank1"] >= MEASURED["oracle"]["rank1"] / 2
    assert standard["rank10"] >= 75
    assert MEASURED["wording"]["rank10"] >= standard["rank10"] - 15
    probe = measured("sets.probe.attribute_probe.attributes")
    assert min(probe[name]["accuracy"] for name in ("upper_color", "lower_color")) >= 85


def test_it_is_clearly_above_the_color_histogram() -> None:
    ours, baseline = MEASURED["text_to_image"], MEASURED["color_histogram"]
    assert ours["rank1_low"] > baseline["rank1_high"]
    assert ours["mean_ap"] > baseline["mean_ap"]
