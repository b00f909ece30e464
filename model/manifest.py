"""The list of rows that comes with a benchmark: where it lies, how its rows look, and what people get wrong with it.

Each known mistake becomes a sentence that says what to do. Images and samples are the business of model.datasets.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import ModelError


class DatasetError(ModelError):
    """The folder is not the dataset it should be. The message says what is wrong and what to do."""


@dataclass(frozen=True)
class Layout:
    """How a benchmark lies on disk.

    dataset: what `evaluate` calls it. manifests: file names of the list of rows, the first as published. path_key: the
    key of a row's image path. own_path: matches paths inside imgs as only the benchmark has them. counts: identities,
    images and captions of each published split.
    """

    name: str
    dataset: str
    manifests: tuple[str, ...]
    path_key: str
    own_path: str
    counts: dict[str, tuple[int, int, int]]


CUHK_PEDES = Layout(
    name="CUHK-PEDES",
    dataset="cuhk-pedes",
    manifests=("reid_raw.json",),
    path_key="file_path",
    own_path=r"(cam_a|cam_b|CUHK01|CUHK03|Market|test_query|train_query)/",
    counts={"train": (11003, 34054, 68126), "val": (1000, 3078, 6158), "test": (1000, 3074, 6156)},
)
ICFG_PEDES = Layout(
    name="ICFG-PEDES",
    dataset="icfg-pedes",
    manifests=("ICFG-PEDES.json", "ICFG_PEDES.json"),
    path_key="file_path",
    own_path=r"(train|test)/",  # the folders of MSMT17, where the images come from; the split stands in the rows alone
    counts={"train": (3102, 34674, 34674), "test": (1000, 19848, 19848)},
)
RSTPREID = Layout(
    name="RSTPReid",
    dataset="rstpreid",
    manifests=("data_captions.json",),
    path_key="img_path",
    own_path=r"\d+_c\d+_\d+\.jpg$",
    counts={"train": (3701, 18505, 37010), "val": (200, 1000, 2000), "test": (200, 1000, 2000)},
)
_LAYOUTS = (CUHK_PEDES, ICFG_PEDES, RSTPREID)
_OLD_RSTPREID_IDS = {"train": 3901, "val": 100, "test": 100}


def manifest_path(root: Path, layout: Layout) -> Path | None:
    """The list of rows in the folder ``root``, under any of its names; None if there is none."""
    return next((root / name for name in layout.manifests if (root / name).is_file()), None)


def find_manifest(root: Path, layout: Layout) -> Path:
    """As `manifest_path`; raises `DatasetError` that says what the folder seems to be instead."""
    name = layout.manifests[0]
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder. Give the folder that holds {name} and imgs.")
    path = manifest_path(root, layout)
    if path is None:
        raise DatasetError(_missing_manifest(root, layout))
    return path


def _missing_manifest(root: Path, layout: Layout) -> str:
    name = layout.manifests[0]
    if layout is CUHK_PEDES and (root / "caption_all.json").is_file():
        return (
            f"{root} has caption_all.json but no {name}. caption_all.json comes with the image archive, has no "
            f"splits and numbers the people differently, so it cannot be used. Ask the authors for {name}."
        )
    for other in _LAYOUTS:
        if (found := manifest_path(root, other)) is not None:
            return f"{root} has {found.name}, so it is {other.name}. Read it as the dataset {other.dataset}."
    inside = [child for child in sorted(root.iterdir()) if child.is_dir() and manifest_path(child, layout) is not None]
    if inside:
        return f"{root} has no {name}, but {inside[0]} has. Give that folder."
    if root.name == "imgs" and manifest_path(root.parent, layout) is not None:
        return f"{root} is the image folder. Give the folder above it, {root.parent}."
    return f"{root} has no {name}. Give the folder that holds {name} and imgs."


def read_rows(path: Path, layout: Layout) -> list[dict[str, Any]]:
    """All rows of all splits, each with split, captions, image path and id, whose values are still unchecked."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is not valid JSON ({error}). Download or write the file again.") from error
    keys = ("split", "captions", layout.path_key, "id")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DatasetError(f"{path} must be a JSON list of rows with {', '.join(keys)}.")
    if not any("split" in row for row in rows):
        raise DatasetError(_without_splits(path, layout))
    for n, row in enumerate(rows):
        absent = [key for key in keys if key not in row]
        if absent:
            raise DatasetError(f"Row {n} of {path} lacks {', '.join(absent)}.{_hint_of_another(row, layout)}")
    if layout is RSTPREID:
        _refuse_old_rstpreid(path, rows)
    return rows


def _without_splits(path: Path, layout: Layout) -> str:
    if layout is not CUHK_PEDES:
        return f"{path} has no splits. Take {layout.manifests[0]} as the authors of {layout.name} hand it out."
    return (
        f"{path} has no splits: this looks like caption_all.json, which comes with the image archive and numbers "
        f"the people differently. Ask the dataset's authors for {layout.manifests[0]}, and put it here."
    )


def _hint_of_another(row: dict[str, Any], layout: Layout) -> str:
    others = [other for other in _LAYOUTS if other.path_key in row and layout.path_key not in row]
    if not others:
        return ""
    named = " or ".join(f"{other.name} ({other.manifests[0]})" for other in others)
    return (
        f" It has {others[0].path_key} instead, as {named}: put the {layout.manifests[0]} of {layout.name} here, or "
        f"give the file its own name and choose its own dataset."
    )


def _refuse_old_rstpreid(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """An earlier file trains on people whom the published split tests on, so a warning would not do."""
    found = {split: len({str(row["id"]) for row in rows if row["split"] == split}) for split in _OLD_RSTPREID_IDS}
    if found == _OLD_RSTPREID_IDS:
        raise DatasetError(
            f"{path} is the old split of RSTPReid, with 3901, 100 and 100 identities in train, val and test; published "
            f"are 3701, 200 and 200. Ask the authors for the present data_captions.json."
        )
