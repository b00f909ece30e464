"""Readers of people seen in visible and in infrared light: a root and a split in, a list of `Sample` out.

SYSU-MM01 and RegDB as their authors hand them out, and the rendered infrared sets. What is wrong with a folder is said
in a sentence. The trials of their test protocols are in model.retrieval_infrared.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from model.datasets import DatasetError, Sample, read_cuhk_pedes

SYSU_CAMERAS = {1: "visible", 2: "visible", 3: "infrared", 4: "visible", 5: "visible", 6: "infrared"}
SYSU_LISTS = {"train": ("train_id.txt", "val_id.txt"), "test": ("test_id.txt",)}
_SYSU_COUNTS = {"train": (395, 22258, 11909), "test": (96, None, 3803)}  # identities, visible and infrared images
REGDB_TRIALS = range(1, 11)
_REGDB_IDENTITIES = 206


# --- SYSU-MM01 --------------------------------------------------------------------------------------------------------


def read_sysu_mm01(root: Path | str, split: str) -> list[Sample]:
    """SYSU-MM01: "train" is the official training and validation people together, as everybody trains; or "test".

    root holds cam1 to cam6, with images ``cam1/0001/0001.jpg``, and exp with the lists of people. Samples are sorted by
    person, camera and image. Raises `DatasetError`; unexpected counts only warn.
    """
    root = Path(root)
    _check_sysu_root(root)
    if split not in SYSU_LISTS:
        hint = ""
        if split == "val":
            hint = (
                " Its 99 validation people are trained on by everybody: hold training people out for validation "
                "(hold_out of a recipe)."
            )
        raise DatasetError(f'SYSU-MM01 has the splits train and test, not "{split}".{hint}')
    people = sorted({pid for name in SYSU_LISTS[split] for pid in _read_ids(root / "exp" / name)})
    samples: list[Sample] = []
    for pid in people:
        for camera, modality in SYSU_CAMERAS.items():
            folder = root / f"cam{camera}" / f"{pid:04d}"
            paths = sorted(folder.glob("*.jpg")) if folder.is_dir() else []
            samples += [Sample(path, pid, (), camera=str(camera), modality=modality) for path in paths]
    absent = sorted(set(people) - {sample.pid for sample in samples})
    if absent:
        raise DatasetError(
            f"{len(absent)} of the {len(people)} people of the split {split} have no image in {root}; the first is "
            f"{absent[0]:04d}. Images lie as cam1/0001/0001.jpg: unpack all six cameras again."
        )
    _warn_about_sysu_counts(samples, split)
    return samples


def _check_sysu_root(root: Path) -> None:
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder. Give the folder of SYSU-MM01, with cam1 to cam6 and exp.")
    if (root / "idx").is_dir() and (root / "Thermal").is_dir():
        raise DatasetError(f"{root} has idx and Thermal, so it is RegDB. Read it as the dataset regdb.")
    cameras = [f"cam{camera}" for camera in SYSU_CAMERAS]
    missing = [name for name in cameras if not (root / name).is_dir()]
    if len(missing) == len(cameras):
        inside = [child for child in sorted(root.iterdir()) if (child / "cam1").is_dir()]
        if inside:
            raise DatasetError(f"{root} has no folder cam1, but {inside[0]} has. Give that folder.")
        if re.fullmatch(r"cam\d", root.name) and (root.parent / "exp").is_dir():
            raise DatasetError(f"{root} is the folder of one camera. Give the folder above it, {root.parent}.")
        if any(root.glob("*_resized_*.npy")):
            raise DatasetError(
                f"{root} holds resized images as .npy arrays, which some training code writes. Give the folder with "
                f"the images as they were published, cam1 to cam6, and exp."
            )
    if missing:
        raise DatasetError(f"{root} lacks {', '.join(missing)}. Unpack all six cameras of SYSU-MM01 there.")
    lists = sorted({name for names in SYSU_LISTS.values() for name in names})
    absent = [name for name in lists if not (root / "exp" / name).is_file()]
    if absent:
        matlab = any((root / "exp" / name).with_suffix(".mat").is_file() for name in absent)
        hint = " The .mat files there hold the same, but are not read." if matlab else ""
        raise DatasetError(
            f"{root / 'exp'} lacks {', '.join(absent)}, the lists of people of each split.{hint} Copy the folder exp "
            f"of the published archive."
        )


def _read_ids(path: Path) -> list[int]:
    """The people of a list such as ``1,2,4``."""
    text = path.read_text(encoding="utf-8").strip()
    if not re.fullmatch(r"\d+(\s*,\s*\d+)*,?", text):
        raise DatasetError(f"{path} must hold numbers of people with commas between them, as 1,2,4. Copy it again.")
    return [int(number) for number in re.findall(r"\d+", text)]


def _warn_about_sysu_counts(samples: Sequence[Sample], split: str) -> None:
    people, visible, infrared = _SYSU_COUNTS[split]
    modalities = [sample.modality for sample in samples]
    found = len({s.pid for s in samples}), modalities.count("visible"), modalities.count("infrared")
    expected = people, found[1] if visible is None else visible, infrared
    if found != expected:
        warnings.warn(
            f"SYSU-MM01 split {split} has {found[0]} people, {found[1]} visible and {found[2]} infrared images here; "
            f"published are {expected[0]}, {expected[1]} and {expected[2]}. Results are not comparable with published "
            f"ones.",
            stacklevel=3,
        )


# --- RegDB ------------------------------------------------------------------------------------------------------------


def read_regdb(root: Path | str, split: str) -> list[Sample]:
    """RegDB: "train_1" to "train_10" and "test_1" to "test_10", its ten official splits; "train" means "train_1".

    root holds Visible, Thermal and idx with lists of lines ``Visible/1/name.bmp 0``. The pid is the number in the
    list, which counts people within one split: person 0 of train_1 is not person 0 of test_1. Raises `DatasetError`.
    """
    root = Path(root)
    _check_regdb_root(root)
    side, trial = regdb_split(split)
    both = {name: _read_regdb_list(root, side, name, trial) for name in ("visible", "thermal")}
    people = {name: {sample.pid for sample in samples} for name, samples in both.items()}
    if people["visible"] != people["thermal"]:
        differing = len(people["visible"] ^ people["thermal"])
        raise DatasetError(
            f"{differing} people of {side}_{trial} are in one of its two lists only. The lists of one trial belong "
            f"together: copy the folder idx again."
        )
    _refuse_shared_images(root, trial)
    if len(people["visible"]) != _REGDB_IDENTITIES or any(len(s) != 10 * _REGDB_IDENTITIES for s in both.values()):
        warnings.warn(
            f"RegDB split {side}_{trial} has {len(people['visible'])} people, {len(both['visible'])} visible and "
            f"{len(both['thermal'])} thermal images here; published are 206, 2060 and 2060. Results are not comparable "
            f"with published ones.",
            stacklevel=2,
        )
    return [*both["visible"], *both["thermal"]]


def regdb_split(split: str) -> tuple[str, int]:
    """("train", 3) for "train_3", and trial 1 for a bare "train" or "test". Raises `DatasetError`."""
    match = re.fullmatch(r"(train|test)(?:_(\d+))?", split)
    trial = int(match[2] or 1) if match is not None else 0
    if match is None or trial not in REGDB_TRIALS:
        hint = " Hold training people out for validation (hold_out of a recipe)." if split.startswith("val") else ""
        raise DatasetError(f'RegDB has the splits train_1 to train_10 and test_1 to test_10, not "{split}".{hint}')
    return match[1], trial


def _check_regdb_root(root: Path) -> None:
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder. Give the folder of RegDB, with Visible, Thermal and idx.")
    if (root / "cam1").is_dir():
        raise DatasetError(f"{root} has cam1, so it is SYSU-MM01. Read it as the dataset sysu-mm01.")
    missing = [name for name in ("Visible", "Thermal", "idx") if not (root / name).is_dir()]
    if len(missing) == 3:
        inside = [child for child in sorted(root.iterdir()) if (child / "Visible").is_dir()]
        if inside:
            raise DatasetError(f"{root} has no folder Visible, but {inside[0]} has. Give that folder.")
        if root.name in ("Visible", "Thermal", "idx") and (root.parent / "Visible").is_dir():
            raise DatasetError(f"{root} is one part of RegDB. Give the folder above it, {root.parent}.")
    if missing:
        what = " idx holds the ten official splits." if missing == ["idx"] else ""
        raise DatasetError(f"{root} lacks {', '.join(missing)}.{what} Unpack all of RegDB there.")


def _read_regdb_list(root: Path, side: str, modality: str, trial: int) -> list[Sample]:
    path = root / "idx" / f"{side}_{modality}_{trial}.txt"
    rows = _regdb_rows(path, modality)
    missing = [name for name, _ in rows if not (root / name).is_file()]
    if missing:
        raise DatasetError(
            f"{len(missing)} of {len(rows)} images of {path.name} are not in {root}; the first is {missing[0]}. Unpack "
            f"all of RegDB there."
        )
    # One camera of each kind: a person's own modality is a person's own camera.
    return [Sample(root / name, pid, (), camera=modality, modality=modality) for name, pid in rows]


def _regdb_rows(path: Path, modality: str) -> list[tuple[str, int]]:
    """(image path below the root, number of the person) of every line."""
    if not path.is_file():
        raise DatasetError(f"There is no {path}. Copy the folder idx of the published archive, with its 40 lists.")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        match = re.fullmatch(r"(\S.*\S)\s+(\d+)\s*", line)
        if match is None or ".." in match[1] or match[1].startswith("/"):
            raise DatasetError(f"Line {number} of {path} must be an image path and a number, not {line!r}.")
        name = match[1].replace("\\", "/")
        if not name.lower().startswith(f"{modality}/"):
            raise DatasetError(
                f"Line {number} of {path} names {name}, which is no {modality} image. The lists were swapped: copy the "
                f"folder idx again."
            )
        rows.append((name, int(match[2])))
    if not rows:
        raise DatasetError(f"{path} is empty. Copy the folder idx again.")
    return rows


def _refuse_shared_images(root: Path, trial: int) -> None:
    for modality in ("visible", "thermal"):
        lists = [root / "idx" / f"{side}_{modality}_{trial}.txt" for side in ("train", "test")]
        if all(path.is_file() for path in lists):
            train, test = ({name for name, _ in _regdb_rows(path, modality)} for path in lists)
            if train & test:
                raise DatasetError(
                    f"{len(train & test)} images are both in {lists[0].name} and in {lists[1].name}. Lists of "
                    f"different trials were mixed: copy the folder idx again."
                )


# --- rendered people --------------------------------------------------------------------------------------------------


def read_synth_infrared(root: Path | str, split: str) -> list[Sample]:
    """A rendered infrared or thermal set, or one's own in the CUHK-PEDES layout whose rows have ``modality``.

    Captions are not needed. Colours count as not visible, in daylight either: they do not help to recognise somebody at
    night. Raises `DatasetError`.
    """
    samples = read_cuhk_pedes(root, split, wordless=True)
    found = {sample.modality for sample in samples}
    if unknown := found - {"visible", "infrared", "thermal"}:
        value = sorted(map(str, unknown))[0]
        raise DatasetError(
            f"The rows of {root} must say how each image was taken: modality is visible, infrared or thermal, not "
            f"{value}. Rendered sets that have it are infrared_train, infrared_test, thermal_train and thermal_test."
        )
    if "visible" not in found or len(found) < 2:
        raise DatasetError(
            f"The split {split} of {root} has {', '.join(sorted(map(str, found)))} images only. People must be seen in "
            f"visible light and in infrared."
        )
    return [sample if sample.visible is None else replace(sample, visible=_uncolored(sample)) for sample in samples]


def _uncolored(sample: Sample) -> frozenset[str]:
    return frozenset(name for name in sample.visible or () if not name.endswith("_color"))
