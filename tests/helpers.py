"""What tests of several packages share: a small toy dataset and an untrained checkpoint, both made from a seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# No colour is worn both above and below, so that a bag of words tells an outfit.
UPPER = {"red": (200, 40, 40), "green": (50, 150, 60), "blue": (50, 70, 190), "white": (230, 230, 230)}
LOWER = {"black": (20, 20, 20), "yellow": (220, 200, 60), "purple": (110, 50, 130), "orange": (230, 130, 30)}


def make_tiny_checkpoint(path: Path, seed: int = 7) -> str:
    """An untrained, seeded AXM-Net for 64x32 images and its own word table, as a serving checkpoint; returns its id.

    The file is the same byte for byte each time, another one for another seed. Known words: a few colours and garments.
    """
    import torch  # here, so that importing this file costs nothing

    from model.checkpoint import save
    from model.nets import build
    from model.recipes import axm_net_tiny, to_dict

    recipe = axm_net_tiny()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        described = to_dict(recipe)
        net = build(recipe.net, described["net_config"])
    info: dict[str, Any] = {
        "created": "2026-01-01T00:00:00+00:00",
        "net": recipe.net,
        "net_config": recipe.net_config,
        "preprocessing": recipe.preprocessing,
        "text": recipe.text,
        "recipe": described,
        "data": None,
        "validation": None,
        "vocabulary": sorted({*UPPER, *LOWER, "a", "and", "bag", "man", "pants", "person", "shirt", "the", "woman"}),
    }
    return save(path, net, info, half=True, heads=False)


def make_toy_dataset(root: Path, people: Mapping[str, int] | None = None, images: int = 3) -> Path:
    """Flat two-coloured "people" in the CUHK-PEDES layout, with cameras, attributes and captions that tell them.

    people: identities in each split. The top half is the shirt, the lower half the pants.
    """
    people = people or {"train": 12, "val": 6, "test": 6}
    rng = np.random.default_rng(5)
    outfits = [(upper, lower) for upper in UPPER for lower in LOWER]
    rows = []
    pid = 0
    for split, count in people.items():
        for n in range(count):
            pid += 1
            upper, lower = outfits[n % len(outfits)]
            for k in range(images):
                pixels = rng.normal(0, 12, (64, 32, 3))
                pixels[:32] += UPPER[upper]
                pixels[32:] += LOWER[lower]
                name = f"{split}/{pid:04d}_{k}.png"
                (root / "imgs" / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / "imgs" / name)
                captions = [f"A person in a {upper} shirt and {lower} pants.", f"{lower} pants, {upper} shirt"]
                attributes = {"gender": "female", "upper_color": upper, "lower_color": lower, "bag": None}
                rows.append(
                    {
                        "split": split,
                        "captions": captions,
                        "processed_tokens": [c.lower().replace(".", "").replace(",", "").split() for c in captions],
                        "file_path": name,
                        "id": pid,
                        "camera": f"cam{k}",
                        "view": "front",
                        "attributes": attributes,
                        "visible": ["upper_color", "lower_color", "bag"],
                    }
                )
    (root / "reid_raw.json").write_text(json.dumps(rows), encoding="utf-8")
    return root
