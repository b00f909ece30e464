"""Readers of labelled image-caption folders: a root and a split in, a list of `Sample` out.

The CUHK-PEDES layout (`imgs/` and `reid_raw.json`) is read for the benchmark itself, for the rendered sets of
model.synth, which add keys to the same rows, and for anybody's own labelled images. Reading a split only checks that
its images are there; `open_image` decodes one. Mistakes that people make with these files become sentences that say
what to do.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from model.errors import ModelError

MANIFEST = "reid_raw.json"
# identities, images and captions of the published split, specs/protocols section 1
CUHK_PEDES_COUNTS = {"train": (11003, 34054, 68126), "val": (1000, 3078, 6158), "test": (1000, 3074, 6156)}
_CUHK_PEDES_FOLDERS = {"cam_a", "cam_b", "CUHK01", "CUHK03", "Market", "test_query", "train_query"}


class DatasetError(ModelError):
    """The folder is not the dataset it should be. The message says what is wrong and what to do."""


@dataclass(frozen=True)
class Sample:
    """One image with the captions written for it.

    camera, view: None where the dataset does not say. attributes: the wearer's look by field name, of rendered sets;
    visible: the fields that this image shows. facts: per caption, what it states, for the oracle of rendered sets.
    """

    path: Path
    pid: int
    captions: tuple[str, ...]
    camera: str | None = None
    view: str | None = None
    attributes: dict[str, Any] | None = None
    visible: frozenset[str] | None = None
    facts: tuple[Any, ...] | None = None


def read_cuhk_pedes(root: Path | str, split: str) -> list[Sample]:
    """Samples of one split, in file order. Raises `DatasetError`; unexpected counts of the benchmark only warn.

    ``root`` may also hold each split in a folder of its own, ``root/train``, ``root/val``, as rendered sets lie.
    """
    root = Path(root)
    if not (root / MANIFEST).is_file() and (root / split / MANIFEST).is_file():
        root = root / split
    rows = _read_manifest(root)
    splits = {row.get("split") for row in rows}
    if split not in splits:
        known = ", ".join(sorted(str(name) for name in splits))
        raise DatasetError(f'{root / MANIFEST} has no split "{split}"; it has: {known}.')
    images = root / "imgs"
    wanted = [(n, row) for n, row in enumerate(rows) if row["split"] == split]
    samples = [_sample(images, row, f"Row {n} of {root / MANIFEST}") for n, row in wanted]
    missing = [sample.path for sample in samples if not sample.path.is_file()]
    if missing:
        raise DatasetError(
            f'{len(missing)} of {len(samples)} images of split "{split}" are not in {images}; the first is '
            f"{missing[0].relative_to(images)}. Unpack all images of the dataset into {images}."
        )
    _warn_about_counts(samples, split, images)
    return samples


def open_image(path: Path) -> Image.Image:
    """The decoded picture, upright, in RGB. Raises `DatasetError`."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise DatasetError(f"{path} cannot be read as an image ({error}). Unpack the images again.") from error


def fingerprint(samples: Sequence[Sample]) -> dict[str, Any]:
    """Counts and a hash of what is learned from or measured on; the folder's place does not enter it."""
    digest = hashlib.sha256()
    for sample in samples:
        row = [sample.pid, sample.path.name, sample.path.stat().st_size, sample.captions, sample.camera, sample.view]
        digest.update(json.dumps(row).encode())
    return {
        "identities": len({sample.pid for sample in samples}),
        "images": len(samples),
        "captions": sum(len(sample.captions) for sample in samples),
        "sha256": digest.hexdigest(),
    }


def limit_identities(samples: Sequence[Sample], count: int) -> list[Sample]:
    """The samples of the first ``count`` identities, by number: a smaller but whole problem for a quick try."""
    keep = set(sorted({sample.pid for sample in samples})[:count])
    return [sample for sample in samples if sample.pid in keep]


def _read_manifest(root: Path) -> list[dict[str, Any]]:
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder. Give the folder that holds {MANIFEST} and imgs.")
    path = root / MANIFEST
    if not path.is_file():
        raise DatasetError(_missing_manifest(root))
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is not valid JSON ({error}). Download or write the file again.") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DatasetError(f"{path} must be a JSON list of rows with split, captions, file_path and id.")
    if not any("split" in row for row in rows):
        raise DatasetError(
            f"{path} has no splits: this looks like caption_all.json, which comes with the image archive and numbers "
            f"the people differently. Ask the dataset's authors for {MANIFEST}, and put it here."
        )
    for n, row in enumerate(rows):
        absent = [key for key in ("split", "captions", "file_path", "id") if key not in row]
        if absent:
            raise DatasetError(f"Row {n} of {path} lacks {', '.join(absent)}.")
    if not (root / "imgs").is_dir():
        raise DatasetError(f"{root} has {MANIFEST} but no folder imgs. Unpack the image archive into {root / 'imgs'}.")
    return rows


def _missing_manifest(root: Path) -> str:
    if (root / "caption_all.json").is_file():
        return (
            f"{root} has caption_all.json but no {MANIFEST}. caption_all.json comes with the image archive, has no "
            f"splits and numbers the people differently, so it cannot be used. Ask the authors for {MANIFEST}."
        )
    inside = [child.parent for child in sorted(root.glob(f"*/{MANIFEST}"))]
    if inside:
        return f"{root} has no {MANIFEST}, but {inside[0]} has. Give that folder."
    if root.name == "imgs" and (root.parent / MANIFEST).is_file():
        return f"{root} is the image folder. Give the folder above it, {root.parent}."
    return f"{root} has no {MANIFEST}. Give the folder that holds {MANIFEST} and imgs."


def _sample(images: Path, row: dict[str, Any], where: str) -> Sample:
    captions = row["captions"]
    if not isinstance(captions, list) or not captions or not all(isinstance(c, str) and c.strip() for c in captions):
        raise DatasetError(f"{where}: captions must be a list of one or more texts.")
    relative = row["file_path"]
    if not isinstance(relative, str) or PurePosixPath(relative).is_absolute() or ".." in PurePosixPath(relative).parts:
        raise DatasetError(f"{where}: file_path must be a path inside imgs, not {relative!r}.")
    pid = row["id"]
    if not isinstance(pid, int) or isinstance(pid, bool):
        raise DatasetError(f"{where}: id must be a whole number, not {pid!r}.")
    camera, view, visible, facts = row.get("camera"), row.get("view"), row.get("visible"), row.get("facts")
    if facts is not None and len(facts) != len(captions):
        raise DatasetError(f"{where}: facts must have one entry for each caption.")
    return Sample(
        path=images / relative,
        pid=pid,
        captions=tuple(captions),
        camera=None if camera is None else str(camera),
        view=None if view is None else str(view),
        attributes=row.get("attributes"),
        visible=None if visible is None else frozenset(visible),
        facts=None if facts is None else tuple(facts),
    )


def _warn_about_counts(samples: Sequence[Sample], split: str, images: Path) -> None:
    """Someone's own folder has any size; only what is laid out as the benchmark is held to the published counts."""
    folders = {sample.path.relative_to(images).parts[0] for sample in samples}
    if split not in CUHK_PEDES_COUNTS or not folders <= _CUHK_PEDES_FOLDERS:
        return
    found = (len({s.pid for s in samples}), len(samples), sum(len(s.captions) for s in samples))
    expected = CUHK_PEDES_COUNTS[split]
    if found != expected:
        warnings.warn(
            f'CUHK-PEDES split "{split}" has {found[0]} identities, {found[1]} images and {found[2]} captions here; '
            f"published are {expected[0]}, {expected[1]} and {expected[2]}. Results are not comparable.",
            stacklevel=3,
        )
