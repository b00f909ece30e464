"""The reader on a good folder, and on every mistake that people make with these files."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from model.datasets import DatasetError, fingerprint, limit_identities, open_image, read_cuhk_pedes


def rows(count: int = 3, **extra: Any) -> list[dict[str, Any]]:
    return [
        {"split": "train", "captions": [f"a {n}", "b"], "file_path": f"p/{n}.png", "id": n + 1, **extra}
        for n in range(count)
    ]


def write(root: Path, content: Any, *, images: bool = True, manifest: str = "reid_raw.json") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (root / manifest).write_text(text, encoding="utf-8")
    if images and not isinstance(content, str):
        for row in content:
            path = root / "imgs" / str(row.get("file_path", "x.png"))
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 8)).save(path)
    return root


def test_reads_benchmark_rows_and_the_extra_keys_of_rendered_sets(toy_dataset: Path) -> None:
    samples = read_cuhk_pedes(toy_dataset, "val")
    assert len(samples) == 18
    first = samples[0]
    assert first.path == toy_dataset / "imgs" / "val" / "0013_0.png"
    assert (first.pid, first.camera, first.view) == (13, "cam0", "front")
    assert first.captions == ("A person in a red shirt and black pants.", "black pants, red shirt")
    assert first.attributes is not None and first.attributes["bag"] is None
    assert first.visible == {"upper_color", "lower_color", "bag"}


def test_splits_may_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    write(tmp_path / "train", rows())
    write(tmp_path / "val", [{**rows(1)[0], "split": "val"}])
    assert len(read_cuhk_pedes(tmp_path, "train")) == 3
    assert read_cuhk_pedes(tmp_path, "val")[0].path == tmp_path / "val" / "imgs" / "p" / "0.png"


def test_plain_rows_have_no_extras_and_cameras_become_text(tmp_path: Path) -> None:
    plain = read_cuhk_pedes(write(tmp_path / "plain", rows()), "train")
    assert plain[2].camera is plain[2].attributes is plain[2].visible is plain[2].facts is None
    numbered = read_cuhk_pedes(write(tmp_path / "numbered", rows(camera=3, facts=[{"bag": ["none"]}, {}])), "train")
    assert numbered[0].camera == "3"
    assert numbered[0].facts == ({"bag": ["none"]}, {})


def test_only_the_images_of_the_split_asked_for_must_be_there(tmp_path: Path) -> None:
    root = write(tmp_path, rows())
    write(tmp_path, [*rows(), {**rows(1)[0], "split": "test", "file_path": "gone.png"}], images=False)
    assert len(read_cuhk_pedes(root, "train")) == 3
    with pytest.raises(DatasetError, match=r"1 of 1 images.*the first is gone\.png.*Unpack"):
        read_cuhk_pedes(root, "test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "not valid JSON"),
        ("{}", "must be a JSON list"),
        ("[]", "must be a JSON list"),
        ('["a"]', "must be a JSON list"),
        ([{"id": 1, "file_path": "a.png", "captions": ["a"]}], "looks like caption_all.json"),
        ([*rows(1), {"split": "train", "id": 2}], "Row 1 .* lacks captions, file_path"),
        (rows(1, captions=[]), "captions must be a list"),
        (rows(1, captions="a man"), "captions must be a list"),
        (rows(1, captions=["a", " "]), "captions must be a list"),
        (rows(1, id="7"), "id must be a whole number"),
        (rows(1, file_path="../secret.png"), "path inside imgs"),
        (rows(1, facts=[{}]), "one entry for each caption"),
    ],
)
def test_a_wrong_manifest_is_explained(tmp_path: Path, content: Any, message: str) -> None:
    root = write(tmp_path, content, images=False)
    (root / "imgs").mkdir()
    with pytest.raises(DatasetError, match=message):
        read_cuhk_pedes(root, "train")


def test_a_wrong_folder_is_explained(tmp_path: Path) -> None:
    good = write(tmp_path / "CUHK-PEDES", rows())
    with pytest.raises(DatasetError, match="not a folder"):
        read_cuhk_pedes(tmp_path / "nowhere", "train")
    with pytest.raises(DatasetError, match="not a folder"):
        read_cuhk_pedes(good / "reid_raw.json", "train")
    with pytest.raises(DatasetError, match=r"but .*CUHK-PEDES has\. Give that folder"):
        read_cuhk_pedes(tmp_path, "train")
    with pytest.raises(DatasetError, match="Give the folder above it"):
        read_cuhk_pedes(good / "imgs", "train")
    with pytest.raises(DatasetError, match=r"Give the folder that holds reid_raw\.json and imgs"):
        read_cuhk_pedes(good / "imgs" / "p", "train")


def test_caption_all_instead_of_reid_raw_is_explained(tmp_path: Path) -> None:
    write(tmp_path, [{"id": 1}], images=False, manifest="caption_all.json")
    with pytest.raises(DatasetError, match=r"no splits and numbers the people differently.*Ask the authors"):
        read_cuhk_pedes(tmp_path, "train")


def test_missing_image_folder_and_unknown_split_are_explained(tmp_path: Path) -> None:
    write(tmp_path / "a", rows(), images=False)
    with pytest.raises(DatasetError, match="no folder imgs"):
        read_cuhk_pedes(tmp_path / "a", "train")
    write(tmp_path / "b", rows())
    with pytest.raises(DatasetError, match='no split "val"; it has: train'):
        read_cuhk_pedes(tmp_path / "b", "val")


def test_unexpected_counts_warn_for_the_benchmark_only(tmp_path: Path) -> None:
    own = write(tmp_path / "own", rows())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_cuhk_pedes(own, "train")
    benchmark = write(tmp_path / "cuhk", rows(1, file_path="CUHK01/0001001.png"))
    with pytest.warns(UserWarning, match="published are 11003, 34054 and 68126"):
        assert len(read_cuhk_pedes(benchmark, "train")) == 1


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    with pytest.raises(DatasetError, match=r"broken\.png cannot be read"):
        open_image(broken)


def test_images_are_turned_upright(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    Image.new("RGB", (8, 4)).save(path, exif=exif)
    assert open_image(path).size == (4, 8)


def test_fingerprint_follows_content_and_not_place(tmp_path: Path) -> None:
    one = read_cuhk_pedes(write(tmp_path / "one", rows()), "train")
    two = read_cuhk_pedes(write(tmp_path / "two", rows()), "train")
    other = read_cuhk_pedes(write(tmp_path / "three", rows(captions=["another"])), "train")
    assert fingerprint(one) == fingerprint(two)
    assert fingerprint(one)["sha256"] != fingerprint(other)["sha256"]
    assert {k: v for k, v in fingerprint(one).items() if k != "sha256"} == {
        "identities": 3,
        "images": 3,
        "captions": 6,
    }


def test_limiting_keeps_whole_identities(toy_dataset: Path) -> None:
    kept = limit_identities(read_cuhk_pedes(toy_dataset, "train"), 2)
    assert [sample.pid for sample in kept] == [1, 1, 1, 2, 2, 2]
