"""Splits that no file brings along: cross-view query and gallery lists, and identities held out for validation.

The lists behind the cross-view figures of the AXM-Net paper were never published. What is built here follows their
description, carries "-style" in its name and a hash of its own, and is never to be printed beside the paper's numbers
as the same set. Nothing is measured here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from model.checkpoint import write_atomically
from model.datasets import DatasetError, Sample

Style = Literal["CrossRe-ID-style", "CUHK-SYSU-style"]


@dataclass(frozen=True)
class CrossViewSplit:
    """Query and gallery of the same people, none of whom is in both in one view.

    train: people to train on where the style fixes them, else empty. unknown_view: images left out because their path
    does not tell the view, as those of CUHK03. single_view: people left out because they have one view only.
    """

    style: Style
    query: tuple[Sample, ...]
    gallery: tuple[Sample, ...]
    train: tuple[Sample, ...]
    unknown_view: int
    single_view: int


def view_key(path: Path) -> str | None:
    """The view of an image of CUHK-PEDES by its folder and name, unique within a person; None where they do not tell.

    CUHK01 has four images of a person, two to a view; cam_a and cam_b are views; Market names its cameras; in
    train_query and test_query, whose images come from CUHK-SYSU, every scene is a view.
    """
    folder, name = path.parent.name, path.stem
    if folder in ("cam_a", "cam_b"):
        return folder
    if folder == "CUHK01" and (match := re.fullmatch(r"\d{4}(\d{3})", name)) and int(match[1]) > 0:
        return f"CUHK01 {(int(match[1]) - 1) // 2}"
    if folder == "Market" and (match := re.search(r"_c(\d+)", name)):
        return f"Market c{match[1]}"
    if folder in ("train_query", "test_query") and (match := re.fullmatch(r"p\d+_s(\d+)", name)):
        return f"scene {match[1]}"
    return None


def cross_view_split(samples: Sequence[Sample], style: Style = "CrossRe-ID-style") -> CrossViewSplit:
    """Divide the views of every person with two or more of them into query and gallery, the larger half to the gallery.

    Which view goes where follows from a hash of person and view, so neither order nor place of the files matters.

    "CrossRe-ID-style" takes the test split of CUHK-PEDES. "CUHK-SYSU-style" takes all of its splits together and uses
    the images from CUHK-SYSU alone: people of test_query are tested, those of train_query are for training - a net
    trained on the ordinary training split of CUHK-PEDES has seen people of this test. **The paper's own lists were
    never published: results on these are never to be printed beside the paper's numbers as the same set.**

    Raises `DatasetError` if nobody is seen in two views.
    """
    train: list[Sample] = []
    if style == "CUHK-SYSU-style":
        test_pids = {sample.pid for sample in samples if sample.path.parent.name == "test_query"}
        train = [s for s in samples if s.path.parent.name == "train_query" and s.pid not in test_pids]
        samples = [s for s in samples if s.path.parent.name in ("train_query", "test_query") and s.pid in test_pids]
    views_of: dict[int, set[str]] = defaultdict(set)
    known = [(sample, view) for sample in samples if (view := view_key(sample.path)) is not None]
    for sample, view in known:
        views_of[sample.pid].add(view)
    asked = {pid: _query_views(pid, views) for pid, views in views_of.items() if len(views) > 1}
    if not asked:
        raise DatasetError(
            f"No person is seen in two views, so there is no {style} split. Views are read from the image paths of "
            f"CUHK-PEDES, such as imgs/CUHK01/0363004.png: give samples of that dataset."
        )
    usable = sorted(
        ((sample, view) for sample, view in known if sample.pid in asked),
        key=lambda pair: (pair[0].pid, file_path(pair[0])),
    )
    return CrossViewSplit(
        style=style,
        query=tuple(sample for sample, view in usable if view in asked[sample.pid]),
        gallery=tuple(sample for sample, view in usable if view not in asked[sample.pid]),
        train=tuple(sorted(train, key=lambda sample: (sample.pid, file_path(sample)))),
        unknown_view=len(samples) - len(known),
        single_view=len(views_of) - len(asked),
    )


def write_split(split: CrossViewSplit, path: Path | str) -> str:
    """Write the lists as JSON and return their sha256, which the file states too.

    The hash is over the canonical JSON (sorted keys, no spaces) of "style", "query", "gallery" and "train", whose rows
    hold id, file_path, view and captions: quote it with every result.
    """
    lists = {
        "style": split.style,
        "query": _listed(split.query),
        "gallery": _listed(split.gallery),
        "train": _listed(split.train),
    }
    digest = _digest(lists)
    head = {
        "note": "Rebuilt in the spirit of a list that was never published; not the set of the paper.",
        "sha256": digest,
        "counts": {
            "identities": len({sample.pid for sample in split.query}),
            **{name: _counts(part) for name, part in (("query", split.query), ("gallery", split.gallery))},
            "images_of_unknown_view": split.unknown_view,
            "identities_of_a_single_view": split.single_view,
        },
    }
    write_atomically(Path(path), (json.dumps({**head, **lists}, indent=1) + "\n").encode())
    return digest


def read_split(path: Path | str, root: Path | str) -> CrossViewSplit:
    """What `write_split` wrote, with the images of the benchmark in ``root/imgs``.

    Raises `DatasetError`: the file is no such list, was changed after it was written, or its images are not there.
    """
    path, images = Path(path), Path(root) / "imgs"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        lists = {name: stored[name] for name in ("style", "query", "gallery", "train")}
        parts = {name: [_from_list(images, row) for row in lists[name]] for name in ("query", "gallery", "train")}
        counts, digest = stored["counts"], stored["sha256"]
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}). Give a list that write_split wrote.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path} is not a list of queries and gallery. Write it again with write_split.") from error
    if _digest(lists) != digest:
        raise DatasetError(f"{path} was changed after it was written: its sha256 differs. Write it again.")
    missing = [sample.path for sample in parts["query"] + parts["gallery"] if not sample.path.is_file()]
    if missing:
        raise DatasetError(f"{len(missing)} listed images are not there; the first is {missing[0]}. Check --root.")
    return CrossViewSplit(
        style=lists["style"],
        query=tuple(parts["query"]),
        gallery=tuple(parts["gallery"]),
        train=tuple(parts["train"]),
        unknown_view=counts["images_of_unknown_view"],
        single_view=counts["identities_of_a_single_view"],
    )


def hold_out_identities(samples: Sequence[Sample], count: int, seed: int = 0) -> tuple[list[Sample], list[Sample]]:
    """(the rest, all samples of ``count`` random identities): a validation set where none was published.

    Raises ValueError unless at least one identity stays on each side.
    """
    pids = sorted({sample.pid for sample in samples})
    if not 0 < count < len(pids):
        raise ValueError(f"Hold out between 1 and {len(pids) - 1} of the {len(pids)} identities, not {count}.")
    held = set(np.random.default_rng(seed).choice(pids, count, replace=False).tolist())
    return [s for s in samples if s.pid not in held], [s for s in samples if s.pid in held]


def file_path(sample: Sample) -> str:
    """Folder and name, as reid_raw.json has them; where the dataset lies does not enter."""
    return f"{sample.path.parent.name}/{sample.path.name}"


def _query_views(pid: int, views: Iterable[str]) -> set[str]:
    """The smaller half of the views, in an order that is fixed but has nothing to do with their names."""
    shuffled = sorted(views, key=lambda view: hashlib.sha256(f"{pid} {view}".encode()).digest())
    return set(shuffled[: len(shuffled) // 2])


def _digest(lists: dict[str, Any]) -> str:
    canonical = json.dumps(lists, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(canonical).hexdigest()


def _from_list(images: Path, row: dict[str, Any]) -> Sample:
    return Sample(images / row["file_path"], row["id"], tuple(row["captions"]), view=row["view"])


def _listed(samples: Iterable[Sample]) -> list[dict[str, Any]]:
    return [
        {"id": s.pid, "file_path": file_path(s), "view": view_key(s.path), "captions": list(s.captions)}
        for s in samples
    ]


def _counts(samples: Sequence[Sample]) -> dict[str, int]:
    return {"images": len(samples), "captions": sum(len(sample.captions) for sample in samples)}
