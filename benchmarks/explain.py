"""How often the strip that `explain` marks is where the thing is worn, on rendered people; beside chance."""

from __future__ import annotations

import json
import random
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image
from rich.table import Table

from model.checkpoint import default_checkpoint
from model.encoder import Encoder
from model.explain import explain
from model.synth.generate import SETS, generate

PAIRS = 200
# The noun that ends a phrase, and the strips of six, from 0 at the top, in which a person would look for it.
PLACES: dict[str, tuple[str, frozenset[int]]] = {
    "hair ponytail cap hat fedora glasses eyeglasses sunglasses": ("hair, hat, glasses", frozenset({0})),
    "shirt t-shirt tee polo blouse sweater sweatshirt hoodie jacket blazer cardigan vest": ("upper", frozenset({1, 2})),
    "backpack bookbag rucksack": ("backpack", frozenset({1, 2})),
    "shorts skirt": ("shorts, skirt", frozenset({2, 3})),
    "pants trousers jeans slacks chinos leggings": ("trousers", frozenset({2, 3, 4})),
    "shoes boots sandals sneakers trainers loafers": ("shoes", frozenset({4, 5})),
}
PLACE_OF = {noun: place for nouns, place in PLACES.items() for noun in nouns.split()}


def table() -> Table:
    with tempfile.TemporaryDirectory() as folder:
        manifest = generate(replace(SETS["test"], ids=60), Path(folder), 1)
        return measure(Encoder(default_checkpoint(), device="cpu"), manifest)


def measure(encoder: Encoder, manifest: Path) -> Table:
    """The table over the first pairs of (image, phrase) of a shuffled rendered set; hidden bodies are left aside."""
    rows: list[dict[str, Any]] = [row for row in json.loads(manifest.read_text()) if row["occluded"] is None]
    random.Random(0).shuffle(rows)
    held: dict[str, list[bool]] = defaultdict(list)
    chance: dict[str, float] = {}
    for row in rows:
        if sum(map(len, held.values())) >= PAIRS:
            break
        caption = row["captions"][0]
        if encoder.is_truncated(caption):
            continue
        with Image.open(manifest.parent / "imgs" / row["file_path"]) as image:
            e = explain(encoder, image.convert("RGB"), caption)
        for phrase in e.phrases:
            if place := PLACE_OF.get(phrase.split()[-1].lower()):
                held[place[0]].append(e.best_strip(phrase) in place[1])
                chance[place[0]] = len(place[1]) / len(e.strip_bounds)
    out = Table("phrase", "pairs", "right strip %", "chance %", title="explain: the strip it marks")
    total = sum(map(len, held.values()))
    for name, answers in held.items():
        out.add_row(name, str(len(answers)), f"{100 * sum(answers) / len(answers):.0f}", f"{100 * chance[name]:.0f}")
    by_chance = sum(chance[name] * len(answers) for name, answers in held.items())
    right = sum(map(sum, held.values()))
    out.add_row("all", str(total), f"{100 * right / total:.0f}", f"{100 * by_chance / total:.0f}")
    return out
