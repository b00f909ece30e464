"""Readers of labelled image-caption folders: a root and a split in, a list of `Sample` out.

Three benchmarks are read from the files that their authors hand out; what is wrong with a folder is said in a sentence
(model.manifest). The CUHK-PEDES layout (`imgs/` and `reid_raw.json`) also serves the rendered sets of model.synth,
which add keys to the same rows, and anybody's own labelled images. Reading a split only checks that its images are
there; `open_image` decodes one.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from model.manifest import CUHK_PEDES, ICFG_PEDES, RSTPREID, Layout, find_manifest, manifest_path, read_rows
from model.manifest import DatasetError as DatasetError  # what every reader raises is at home here too


@dataclass(frozen=True)
class Sample:
    """One image with the captions written for it.

    camera, view: None where the dataset does not say. attributes: the wearer's look by field name, of rendered sets;
    visible: the fields that this image shows. facts: per caption, what it states, for the oracle of rendered sets.
    occluded: what an obstacle hides of the person, None for nothing. activity: "walking" or "standing". seed: what the
    image was rendered from. modality: "visible", "infrared" or "thermal". base: of a twin, the pid of whom they differ
    from in one attribute, ``changed`` (None for that person themselves). These too are None where the dataset does not
    say.
    """

    path: Path
    pid: int
    captions: tuple[str, ...]
    camera: str | None = None
    view: str | None = None
    attributes: dict[str, Any] | None = None
    visible: frozenset[str] | None = None
    facts: tuple[Any, ...] | None = None
    occluded: str | None = None
    seed: int | None = None
    modality: str | None = None
    base: int | None = None
    changed: str | None = None
    activity: str | None = None


def read_cuhk_pedes(root: Path | str, split: str, *, wordless: bool = False) -> list[Sample]:
    """Samples of one split, in file order. Raises `DatasetError`; unexpected counts of the benchmark only warn.

    ``wordless`` lets images pass for which no caption was written, as in the rendered infrared sets.

    ``root`` may also hold each split in a folder of its own, ``root/train``, ``root/val``, as rendered sets lie.
    ``processed_tokens`` of the rows are neither needed nor read: captions go through the tokenizer of the net.
    """
    root = Path(root)
    if manifest_path(root, CUHK_PEDES) is None and manifest_path(root / split, CUHK_PEDES) is not None:
        root = root / split
    return _read_split(root, split, CUHK_PEDES, wordless)


def read_icfg_pedes(root: Path | str, split: str) -> list[Sample]:
    """As `read_cuhk_pedes`, for ICFG-PEDES: "train" or "test", one caption an image, identities from 0."""
    return _read_split(Path(root), split, ICFG_PEDES)


def read_rstpreid(root: Path | str, split: str) -> list[Sample]:
    """As `read_cuhk_pedes`, for RSTPReid: identities from 0, cameras from the file names.

    Its captions often run sentences together ("shirt.His trousers"). They are set apart here, so that any later
    splitting into words sees two of them.
    """
    samples = _read_split(Path(root), split, RSTPREID)
    return [
        replace(sample, captions=tuple(separate_sentences(c) for c in sample.captions), camera=_rstp_camera(sample))
        for sample in samples
    ]


def separate_sentences(caption: str) -> str:
    """A space after punctuation that two words are glued to: "shirt.His trousers" -> "shirt. His trousers"."""
    return re.sub(r"(?<=[^\W\d_])([.,;:!?]+)(?=[^\W\d_])", r"\1 ", caption)


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


def limit_cameras(samples: Sequence[Sample], cameras: Collection[str]) -> list[Sample]:
    """The samples that these cameras saw; all of them where none is named. Raises `DatasetError` if none are left."""
    kept = [sample for sample in samples if not cameras or sample.camera in cameras]
    if not kept:
        known = ", ".join(sorted({str(sample.camera) for sample in samples}))
        raise DatasetError(f"No image is from camera {', '.join(cameras)}; there are images from {known}.")
    return kept


# --- reading one split ------------------------------------------------------------------------------------------


def _read_split(root: Path, split: str, layout: Layout, wordless: bool = False) -> list[Sample]:
    path = find_manifest(root, layout)
    rows = read_rows(path, layout)
    splits = {row.get("split") for row in rows}
    if split not in splits:
        known = ", ".join(sorted(str(name) for name in splits))
        message = f'{path} has no split "{split}"; it has: {known}.'
        if split == "val" and "val" not in layout.counts:
            message += (
                f" {layout.name} was published without one: hold identities of train out for validation with "
                f"model.splits.hold_out_identities, and leave test for the last measurement."
            )
        raise DatasetError(message)
    images = root / "imgs"
    if not images.is_dir():
        raise DatasetError(f"{root} has {path.name} but no folder imgs. Unpack the image archive into {images}.")
    wanted = [(n, row) for n, row in enumerate(rows) if row["split"] == split]
    samples = [_sample(images, row, layout.path_key, f"Row {n} of {path}", wordless) for n, row in wanted]
    _refuse_missing_images(samples, split, images)
    _warn_about_counts(samples, split, images, layout)
    return samples


def _sample(images: Path, row: dict[str, Any], path_key: str, where: str, wordless: bool) -> Sample:
    captions = row["captions"]
    texts = isinstance(captions, list) and all(isinstance(c, str) and c.strip() for c in captions)
    if not texts or not (captions or wordless):
        raise DatasetError(f"{where}: captions must be a list of one or more texts.")
    relative = row[path_key]
    if not isinstance(relative, str) or PurePosixPath(relative).is_absolute() or ".." in PurePosixPath(relative).parts:
        raise DatasetError(f"{where}: {path_key} must be a path inside imgs, not {relative!r}.")
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
        occluded=row.get("occluded"),
        seed=row.get("seed"),
        modality=row.get("modality"),
        base=row.get("base"),
        changed=row.get("changed"),
        activity=row.get("activity"),
    )


def _rstp_camera(sample: Sample) -> str | None:
    """The 14 of ``0000_c14_0031.jpg``."""
    match = re.match(r"\d+_c(\d+)_", sample.path.name)
    return sample.camera if match is None else match[1]


# --- checks of the images ---------------------------------------------------------------------------------------


def _refuse_missing_images(samples: Sequence[Sample], split: str, images: Path) -> None:
    missing = [sample.path.relative_to(images) for sample in samples if not sample.path.is_file()]
    if not missing:
        return
    folders = sorted({path.parts[0] for path in missing if len(path.parts) > 1})
    absent = [name for name in folders if not (images / name).is_dir()]
    whole = f" Missing as a whole: {', '.join(absent)}." if absent else ""
    raise DatasetError(
        f'{len(missing)} of {len(samples)} images of split "{split}" are not in {images}; the first is '
        f"{missing[0]}.{whole} Unpack all images of the dataset into {images}."
    )


def _warn_about_counts(samples: Sequence[Sample], split: str, images: Path, layout: Layout) -> None:
    """Someone's own folder has any size; only what is laid out as the benchmark is held to the published counts."""
    own = all(re.match(layout.own_path, sample.path.relative_to(images).as_posix()) for sample in samples)
    if split not in layout.counts or not own:
        return
    found = (len({s.pid for s in samples}), len(samples), sum(len(s.captions) for s in samples))
    expected = layout.counts[split]
    if found != expected:
        warnings.warn(
            f'{layout.name} split "{split}" has {found[0]} identities, {found[1]} images and {found[2]} captions here; '
            f"published are {expected[0]}, {expected[1]} and {expected[2]}. Results are not comparable with published "
            f"ones; take {layout.manifests[0]} as the authors hand it out.",
            stacklevel=4,
        )
