"""Small folders in the real formats of SYSU-MM01, RegDB and the rendered infrared sets, made from a seed.

A "person" is a pattern of two-coloured tiles. The colours of a visible image and the grays of an infrared one are drawn
anew for each image, so that the pattern alone tells who it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def save_image(path: Path, pid: int, rng: np.random.Generator, *, infrared: bool) -> None:
    """A 64 x 32 picture of the pattern of a person, 4 x 2 tiles."""
    tiles = np.random.default_rng(1000 + pid).permutation(8).reshape(4, 2) < 4
    dark, light = rng.uniform(0, 90, 3), rng.uniform(150, 255, 3)
    if infrared:
        dark, light = dark[:1].repeat(3), light[:1].repeat(3)
    pixels = np.where(tiles[..., None], light, dark).repeat(16, axis=0).repeat(16, axis=1)
    noise = rng.normal(0, 8, (64, 32, 1 if infrared else 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(path)


def make_sysu(root: Path, images: Mapping[int, int] | None = None) -> Path:
    """People 1 and 4 (train), 2 (val), 3, 7 and 9 (test), with ``images`` from each camera; camera 2 misses 9."""
    rng = np.random.default_rng(0)
    images = images or dict.fromkeys(range(1, 7), 3)
    for pid in (1, 2, 3, 4, 7, 9):
        for camera, count in images.items():
            for n in range(1, count + 1):
                if (pid, camera) != (9, 2):
                    path = root / f"cam{camera}" / f"{pid:04d}" / f"{n:04d}.jpg"
                    save_image(path, pid, rng, infrared=camera in (3, 6))
    (root / "exp").mkdir()
    for name, pids in (("train", "1,4"), ("val", "2"), ("test", "3,7,9")):
        (root / "exp" / f"{name}_id.txt").write_text(pids + "\n")
    return root


def make_regdb(root: Path, people: int = 4, images: int = 3, trials: int = 2) -> Path:
    """Half of the people train and half test, other halves in every trial; labels count from 0 within a split."""
    rng = np.random.default_rng(0)
    (root / "idx").mkdir(parents=True)
    for pid in range(1, people + 1):
        for modality in ("Visible", "Thermal"):
            for n in range(images):
                path = root / modality / str(pid) / f"male_front_{modality[0].lower()}_{pid:05d}_{n}.bmp"
                save_image(path, pid, rng, infrared=modality == "Thermal")
    for trial in range(1, trials + 1):
        order = np.random.default_rng(trial).permutation(people) + 1
        for side, half in (("train", order[: people // 2]), ("test", order[people // 2 :])):
            for modality in ("Visible", "Thermal"):
                lines = [
                    f"{path.relative_to(root).as_posix()} {label}\n"
                    for label, pid in enumerate(sorted(half.tolist()))
                    for path in sorted((root / modality / str(pid)).iterdir())
                ]
                (root / "idx" / f"{side}_{modality.lower()}_{trial}.txt").write_text("".join(lines))
    return root


def make_rendered(root: Path, people: Mapping[str, int] | None = None, images: int = 8) -> Path:
    """The manifest of a rendered infrared set: half of each person's images visible, half infrared, no captions."""
    rng = np.random.default_rng(0)
    rows = []
    pid = 0
    for split, count in (people or {"train": 16, "test": 6}).items():
        for _ in range(count):
            pid += 1
            for n in range(images):
                infrared = 2 * n >= images
                name = f"{50 + n}/{pid:05d}_{n}.png"
                save_image(root / "imgs" / name, pid, rng, infrared=infrared)
                rows.append(
                    {
                        "split": split,
                        "captions": [],
                        "processed_tokens": [],
                        "facts": [],
                        "id": pid,
                        "camera": 50 + n,
                        "view": "front",
                        "modality": "infrared" if infrared else "visible",
                        "file_path": name,
                    }
                )
    (root / "reid_raw.json").write_text(json.dumps(rows), encoding="utf-8")
    return root
