"""How much of what a net finds among images like those it learned from it still finds among others.

Home and away differ in their cameras or in their style of rendering; both are measured by `model.evaluate`, on as many
people. Nothing is trained here: a recipe's ``cameras`` decide what a net learns from.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from model.checkpoint import describe, write_atomically
from model.datasets import limit_cameras
from model.evaluate import DATASETS, evaluate

PROTOCOLS = {
    "text_to_image": "text to image",
    "image_to_image": "image to image",
    "text_to_text": "text to text",
    "pair_to_image": "pair to image",
    "pair_to_pair": "pair to pair",
    "fused": "both to image",
    "color_histogram": "colour histogram",
    "chance": "chance",
}
VALUES = ("rank1", "mean_ap")


def generalisation(
    checkpoint: Path | str,
    dataset: str,
    home: Path | str,
    away: Path | str,
    *,
    split: str = "test",
    home_cameras: Collection[str] = (),
    away_cameras: Collection[str] = (),
    device: Literal["auto", "cpu", "cuda"] = "auto",
    json_out: Path | str | None = None,
) -> dict[str, Any]:
    """The results of `evaluate` on both sets, and what share of Rank-1 and mAP is left away from home, in percent.

    The larger set is cut to as many people as the smaller one has, since a smaller gallery is an easier one. ``away``
    may be the folder of ``home``, with other cameras of it. The colour histogram says how much harder the images are.

    Raises:
        ValueError: the two sets share cameras, or the net was trained on a camera named as away.
    """
    learned = set((describe(checkpoint).get("recipe") or {}).get("cameras", ()))
    if known := sorted(set(away_cameras) & learned):
        raise ValueError(f"{checkpoint} was trained on camera {', '.join(known)}: name others as away.")
    apart = bool(home_cameras) and bool(away_cameras) and set(home_cameras).isdisjoint(away_cameras)
    if not apart and Path(home).resolve() == Path(away).resolve():
        raise ValueError("Home and away are the same folder: name different cameras for each of them.")
    read = DATASETS.get(dataset)
    if read is None:
        raise ValueError(f"There is no dataset {dataset!r}; choose one of {', '.join(DATASETS)}.")
    places = ((home, home_cameras), (away, away_cameras))
    people = min(len({s.pid for s in limit_cameras(read(root, split), cameras)}) for root, cameras in places)
    at_home, elsewhere = (
        evaluate(checkpoint, dataset, root, split, device, cameras=cameras, limit_ids=people)
        for root, cameras in places
    )
    result = {"home": at_home, "away": elsewhere, "kept": kept(at_home, elsewhere)}
    if json_out is not None:
        write_atomically(Path(json_out), (json.dumps(result, indent=2) + "\n").encode())
    return result


def kept(home: dict[str, Any], away: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Per protocol that both results have, away as a share of home in percent; None where home has nothing."""
    shares: dict[str, dict[str, float | None]] = {}
    for name in PROTOCOLS:
        if home.get(name) is not None and away.get(name) is not None:
            here, there = home[name], away[name]
            shares[name] = {value: 100 * there[value] / here[value] if here[value] else None for value in VALUES}
    return shares


def report(result: dict[str, Any], console: Console | None = None) -> None:
    """Print the result of `generalisation` as a table that fits 80 columns."""
    home, away = result["home"], result["away"]
    table = Table(title=f"{home['net']} {home['checkpoint']}, {home['data']['identities']} people at home and away")
    table.add_column("percent", no_wrap=True)
    for name in ("Rank-1 home", "away", "kept", "mAP home", "away", "kept"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, shares in result["kept"].items():
        cells: list[str] = []
        for value, share in shares.items():
            cells += [f"{home[name][value]:.1f}", f"{away[name][value]:.1f}", "" if share is None else f"{share:.0f}"]
        table.add_row(PROTOCOLS[name], *cells)
    (console or Console()).print(table, highlight=False)
