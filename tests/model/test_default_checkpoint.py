"""The shipped checkpoint and what its card says of it."""

from __future__ import annotations

import json
import re
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
    "description to image, other cameras and views": "cross_view",
    "image to image, other cameras": "image_to_image",
    "chance": "chance",
    "colour histogram": "color_histogram",
    "oracle ceiling": "oracle",
    "other wording": "wording",
    "other wording, its ceiling": "wording_oracle",
    "short queries": "short",
    "short queries, their ceiling": "short_oracle",
    "unseen outfits": "compositions",
    "unseen outfits, their ceiling": "compositions_oracle",
    "partly hidden": "occluded",
    "partly hidden, their ceiling": "occluded_oracle",
}


def test_it_fits_and_serves() -> None:
    path = checkpoint.default_checkpoint()
    assert path.stat().st_size < 16 * 1024 * 1024
    loaded = checkpoint.load(path)
    assert loaded.info["net"] == "axm_net"
    assert not [name for name in loaded.net.state_dict() if name.startswith("heads.")]  # type: ignore[attr-defined]


def test_the_card_is_about_this_checkpoint() -> None:
    identifier = checkpoint.load(checkpoint.default_checkpoint()).id
    assert MEASURED["checkpoint"] == identifier
    assert identifier in CARD


@pytest.mark.parametrize(("title", "key"), ROWS.items())
def test_the_card_quotes_the_measured_figures(title: str, key: str) -> None:
    row = re.search(rf"^\| {title} \|(.+)\|$", CARD, re.MULTILINE)
    assert row, f"no row {title!r} in docs/model-card.md"
    quoted = [float(cell) for cell in row[1].split("|")[:5]]
    assert quoted == [round(MEASURED[key][column], 1) for column in COLUMNS]


def test_it_is_clearly_above_the_color_histogram() -> None:
    ours, baseline = MEASURED["text_to_image"], MEASURED["color_histogram"]
    assert ours["rank1_low"] > baseline["rank1_high"]
    assert ours["mean_ap"] > baseline["mean_ap"]
