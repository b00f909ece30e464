"""ICFG-PEDES and RSTPReid in their real formats, and every mistake that people make with these files."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from model.datasets import DatasetError, read_cuhk_pedes, read_icfg_pedes, read_rstpreid, separate_sentences
from model.evaluate import DATASETS

TOKENS = [["a", "man", "in", "a", "red", "shirt"]]


def icfg(pid: int, path: str, split: str = "train", **extra: Any) -> dict[str, Any]:
    caption = "A man in a red shirt."
    return {
        "split": split,
        "captions": [caption],
        "file_path": path,
        "processed_tokens": TOKENS,
        "id": pid,
        **extra,
    }


def rstp(pid: int, camera: int = 14, split: str = "train", **extra: Any) -> dict[str, Any]:
    captions = ["A man in a red shirt.His trousers are black.", "The man wears a red shirt, and carries a bag."]
    return {"id": pid, "img_path": f"{pid:04d}_c{camera}_0031.jpg", "captions": captions, "split": split, **extra}


def write(root: Path, manifest: str, rows: list[dict[str, Any]], *, images: bool = True) -> Path:
    """Readers only look whether an image is there, so an empty file is enough."""
    root.mkdir(parents=True, exist_ok=True)
    (root / manifest).write_text(json.dumps(rows), encoding="utf-8")
    for row in rows if images else ():
        path = root / "imgs" / (row.get("file_path") or row["img_path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.mark.filterwarnings("ignore:ICFG-PEDES split")
@pytest.mark.parametrize("manifest", ["ICFG-PEDES.json", "ICFG_PEDES.json"])
def test_icfg_pedes_takes_the_split_from_the_rows_and_not_from_the_folders(tmp_path: Path, manifest: str) -> None:
    rows = [icfg(0, "test/0000/a.jpg"), icfg(1, "train/0001/b.jpg", "test"), icfg(0, "train/0000/c.jpg")]
    root = write(tmp_path, manifest, rows)
    train = read_icfg_pedes(root, "train")
    assert [(s.pid, s.path.relative_to(root / "imgs").as_posix()) for s in train] == [
        (0, "test/0000/a.jpg"),
        (0, "train/0000/c.jpg"),
    ]
    assert train[0].captions == ("A man in a red shirt.",)
    assert [s.pid for s in read_icfg_pedes(root, "test")] == [1]


def test_icfg_pedes_has_no_validation_split(tmp_path: Path) -> None:
    root = write(tmp_path, "ICFG-PEDES.json", [icfg(0, "train/a.jpg"), icfg(1, "test/b.jpg", "test")])
    with pytest.raises(DatasetError, match=r"it has: test, train\. .*hold_out_identities, and leave test"):
        read_icfg_pedes(root, "val")
    with pytest.raises(DatasetError, match=r"it has: test, train\.$"):
        read_icfg_pedes(root, "dev")


@pytest.mark.filterwarnings("ignore:RSTPReid split")
def test_rstpreid_reads_img_path_ids_from_0_cameras_and_no_tokens(tmp_path: Path) -> None:
    root = write(tmp_path, "data_captions.json", [rstp(0), rstp(1, 3, "val"), rstp(0, 2)])
    first, second = read_rstpreid(root, "train")
    assert (first.pid, first.camera, second.camera) == (0, "14", "2")
    assert first.path == root / "imgs" / "0000_c14_0031.jpg"
    assert first.captions == (
        "A man in a red shirt. His trousers are black.",
        "The man wears a red shirt, and carries a bag.",
    )


@pytest.mark.parametrize(
    ("glued", "apart"),
    [
        ("shirt.His trousers", "shirt. His trousers"),
        ("a coat,black shoes;no bag", "a coat, black shoes; no bag"),
        ("really?!Yes", "really?! Yes"),
        ("one.two.three", "one. two. three"),
        ("a T-shirt, about 1.80 m. Ends.", "a T-shirt, about 1.80 m. Ends."),
        ("the man's bag...", "the man's bag..."),
    ],
)
def test_glued_sentences_are_set_apart_without_losing_a_character(glued: str, apart: str) -> None:
    assert separate_sentences(glued) == apart
    assert separate_sentences(apart) == apart
    assert apart.replace(" ", "") == glued.replace(" ", "")


def test_the_old_rstpreid_split_is_refused(tmp_path: Path) -> None:
    sizes = {"train": 3901, "val": 100, "test": 100}
    splits = [split for split, size in sizes.items() for _ in range(size)]
    root = write(tmp_path, "data_captions.json", [rstp(n, 1, s) for n, s in enumerate(splits)], images=False)
    (root / "imgs").mkdir()
    for split in sizes:
        with pytest.raises(DatasetError, match=r"old split of RSTPReid.*published are 3701, 200 and 200\. Ask"):
            read_rstpreid(root, split)


def test_the_published_counts_are_silent_and_others_are_named(tmp_path: Path) -> None:
    whole = [rstp(3701 + n // 5, n % 5, "val") for n in range(1000)]
    root = write(tmp_path, "data_captions.json", whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_rstpreid(root, "val")) == 1000
    write(tmp_path, "data_captions.json", whole[:-1], images=False)
    with pytest.warns(UserWarning, match=r'RSTPReid split "val" has 200 .* 999 .* 1998 .* are 200, 1000 and 2000') as w:
        read_rstpreid(root, "val")
    assert w[0].filename == __file__  # the caller's line, not the reader's


def test_icfg_counts_are_named(tmp_path: Path) -> None:
    root = write(tmp_path, "ICFG-PEDES.json", [icfg(0, "train/a.jpg", "test")])
    with pytest.warns(UserWarning, match=r"has 1 identities, 1 images and 1 captions here; published are 1000, 19848"):
        read_icfg_pedes(root, "test")


def test_own_images_in_a_benchmarks_format_have_any_size(tmp_path: Path) -> None:
    own = write(tmp_path / "a", "data_captions.json", [rstp(5, img_path="door/1.jpg")])
    other = write(tmp_path / "b", "ICFG-PEDES.json", [icfg(5, "door/1.jpg")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_rstpreid(own, "train")[0].camera is None
        assert len(read_icfg_pedes(other, "train")) == 1


def test_rows_with_and_without_tokens_read_the_same(tmp_path: Path) -> None:
    row = icfg(1, "p/1.png")
    root = write(tmp_path, "reid_raw.json", [row])
    with_tokens = read_cuhk_pedes(root, "train")
    del row["processed_tokens"]
    assert read_cuhk_pedes(write(tmp_path, "reid_raw.json", [row]), "train") == with_tokens


def test_another_benchmarks_folder_names_the_dataset_to_choose(tmp_path: Path) -> None:
    write(tmp_path / "rstp", "data_captions.json", [rstp(0)])
    write(tmp_path / "icfg", "ICFG_PEDES.json", [icfg(0, "train/a.jpg")])
    with pytest.raises(DatasetError, match=r"has data_captions\.json, so it is RSTPReid.*dataset rstpreid"):
        read_cuhk_pedes(tmp_path / "rstp", "train")
    with pytest.raises(DatasetError, match=r"has ICFG_PEDES\.json, so it is ICFG-PEDES.*dataset icfg-pedes"):
        read_rstpreid(tmp_path / "icfg", "train")
    with pytest.raises(DatasetError, match=r"but .*icfg has\. Give that folder"):
        read_icfg_pedes(tmp_path, "train")
    assert {"cuhk-pedes", "icfg-pedes", "rstpreid"} <= set(DATASETS)  # the names that the messages tell to choose


def test_file_path_and_img_path_are_not_mixed_up(tmp_path: Path) -> None:
    write(tmp_path / "a", "reid_raw.json", [rstp(0)])
    with pytest.raises(DatasetError, match=r"lacks file_path\. It has img_path instead, as RSTPReid \(data_captions"):
        read_cuhk_pedes(tmp_path / "a", "train")
    write(tmp_path / "b", "data_captions.json", [icfg(0, "train/a.jpg")])
    with pytest.raises(DatasetError, match=r"lacks img_path\. It has file_path instead, as CUHK-PEDES .* or ICFG-PED"):
        read_rstpreid(tmp_path / "b", "train")
    write(tmp_path / "c", "data_captions.json", [rstp(0, img_path="../x.jpg")], images=False)
    (tmp_path / "c" / "imgs").mkdir()
    with pytest.raises(DatasetError, match="img_path must be a path inside imgs"):
        read_rstpreid(tmp_path / "c", "train")


def test_a_file_without_splits_is_only_called_caption_all_where_that_exists(tmp_path: Path) -> None:
    rows = [{"id": 1, "file_path": "CUHK01/0363004.png", "captions": ["a"]}]
    write(tmp_path, "reid_raw.json", rows)
    write(tmp_path, "ICFG-PEDES.json", rows)
    with pytest.raises(DatasetError, match=r"caption_all\.json.*Ask the dataset's authors for reid_raw\.json"):
        read_cuhk_pedes(tmp_path, "train")
    with pytest.raises(DatasetError, match=r"has no splits\. Take ICFG-PEDES\.json as the authors"):
        read_icfg_pedes(tmp_path, "train")


def test_missing_folders_are_named(tmp_path: Path) -> None:
    rows = [icfg(0, "train/a.jpg"), icfg(0, "train/b.jpg"), icfg(1, "test/a.jpg")]
    root = write(tmp_path, "ICFG-PEDES.json", rows, images=False)
    with pytest.raises(DatasetError, match=r"has ICFG-PEDES\.json but no folder imgs\. Unpack"):
        read_icfg_pedes(root, "train")
    write(tmp_path, "ICFG-PEDES.json", rows)
    (root / "imgs" / "test" / "a.jpg").unlink()
    (root / "imgs" / "test").rmdir()
    (root / "imgs" / "train" / "b.jpg").unlink()
    with pytest.raises(DatasetError, match=r"2 of 3 images .* first is train/b\.jpg\. Missing as a whole: test\. Unp"):
        read_icfg_pedes(root, "train")
