"""Cross-view splits by hand on a small folder list, and their properties on random ones."""

from __future__ import annotations

import hashlib
import json
import random
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.datasets import DatasetError, Sample
from model.splits import CrossViewSplit, cross_view_split, file_path, hold_out_identities, view_key, write_split


def sample(pid: int, path: str, root: str = "data") -> Sample:
    return Sample(Path(root, "imgs", path), pid, (f"a caption of {path}", "another"))


@pytest.mark.parametrize(
    ("path", "view"),
    [
        ("CUHK01/0363001.png", "CUHK01 0"),
        ("CUHK01/0363002.png", "CUHK01 0"),
        ("CUHK01/0363003.png", "CUHK01 1"),
        ("CUHK01/0363004.png", "CUHK01 1"),
        ("CUHK01/0363000.png", None),
        ("cam_a/000_45.bmp", "cam_a"),
        ("cam_b/000_135.bmp", "cam_b"),
        ("Market/0002_c3s1_000551_01.jpg", "Market c3"),
        ("train_query/p10376_s14337.jpg", "scene 14337"),
        ("test_query/p10376_s14338.jpg", "scene 14338"),
        ("CUHK03/564_3.jpg", None),
        ("test_query/10376.jpg", None),
    ],
)
def test_the_view_is_read_from_the_path(path: str, view: str | None) -> None:
    assert view_key(Path("CUHK-PEDES/imgs", path)) == view


PEOPLE = [
    *(sample(1, f"CUHK01/000100{n}.png") for n in (1, 2, 3, 4)),
    *(sample(2, f"cam_{camera}/2.bmp") for camera in "ab"),
    *(sample(3, f"Market/0003_c{camera}s1_0_0.jpg") for camera in (1, 1, 1)),  # one view only
    *(sample(4, f"CUHK03/4_{n}.jpg") for n in (1, 2)),  # the path does not tell the view
    *(sample(5, f"test_query/p5_s{scene}.jpg") for scene in (1, 2, 3)),
    *(sample(6, f"train_query/p6_s{scene}.jpg") for scene in (1, 2)),
]


def test_cross_view_by_hand() -> None:
    split = cross_view_split(PEOPLE)
    size = {pid: (sum(s.pid == pid for s in split.query), sum(s.pid == pid for s in split.gallery)) for pid in range(7)}
    assert size == {0: (0, 0), 1: (2, 2), 2: (1, 1), 3: (0, 0), 4: (0, 0), 5: (1, 2), 6: (1, 1)}
    assert (split.unknown_view, split.single_view, split.train) == (2, 1, ())


def test_cuhk_sysu_style_tests_people_of_test_query_and_trains_on_the_others() -> None:
    split = cross_view_split(PEOPLE, "CUHK-SYSU-style")
    assert {s.pid for s in split.query} == {s.pid for s in split.gallery} == {5}
    assert [file_path(s) for s in split.train] == ["train_query/p6_s1.jpg", "train_query/p6_s2.jpg"]


def test_samples_without_two_views_are_refused() -> None:
    with pytest.raises(DatasetError, match="No person is seen in two views"):
        cross_view_split([s for s in PEOPLE if s.pid in (3, 4)])


PATHS = st.one_of(
    st.builds("CUHK01/{:04d}{:03d}.png".format, st.integers(0, 5), st.integers(1, 8)),
    st.builds("Market/{:04d}_c{}s1_{}.jpg".format, st.integers(0, 5), st.integers(1, 6), st.integers(0, 3)),
    st.builds("test_query/p{}_s{}.jpg".format, st.integers(0, 5), st.integers(0, 9)),
    st.builds("cam_{}/{}.bmp".format, st.sampled_from("ab"), st.integers(0, 3)),
)


@given(st.dictionaries(PATHS, st.integers(0, 8), min_size=2), st.randoms(use_true_random=False))
def test_no_person_is_asked_for_and_found_in_one_view(owners: dict[str, int], shuffler: random.Random) -> None:
    samples = [sample(pid, path) for path, pid in owners.items()]
    views = defaultdict(set)
    for s in samples:
        views[s.pid].add(view_key(s.path))
    usable = {pid for pid, seen in views.items() if len(seen) > 1}
    if not usable:
        with pytest.raises(DatasetError):
            cross_view_split(samples)
        return
    split = cross_view_split(samples)
    asked = {(s.pid, view_key(s.path)) for s in split.query}
    offered = {(s.pid, view_key(s.path)) for s in split.gallery}
    assert not asked & offered
    assert {pid for pid, _ in asked} == {pid for pid, _ in offered} == usable  # nobody without a positive
    assert len(split.query) + len(split.gallery) == sum(s.pid in usable for s in samples)
    shuffler.shuffle(samples)
    assert cross_view_split(samples) == split


def written(split: CrossViewSplit, path: Path) -> tuple[str, dict[str, object]]:
    digest = write_split(split, path)
    return digest, json.loads(path.read_text())


def test_the_written_list_carries_its_hash_wherever_the_files_lie(tmp_path: Path) -> None:
    digest, content = written(cross_view_split(PEOPLE), tmp_path / "split.json")
    assert content["style"] == "CrossRe-ID-style"
    assert content["sha256"] == digest
    lists = {key: content[key] for key in ("style", "query", "gallery", "train")}
    canonical = json.dumps(lists, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(canonical.encode()).hexdigest() == digest
    assert content["counts"] == {
        "identities": 4,
        "query": {"images": 5, "captions": 10},
        "gallery": {"images": 6, "captions": 12},
        "images_of_unknown_view": 2,
        "identities_of_a_single_view": 1,
    }
    moved = [sample(s.pid, file_path(s), "elsewhere") for s in reversed(PEOPLE)]
    assert written(cross_view_split(moved), tmp_path / "moved.json") == (digest, content)
    assert write_split(cross_view_split(PEOPLE[:6]), tmp_path / "fewer.json") != digest


def test_the_division_is_the_same_in_every_version() -> None:
    """Written down once: a change would silently make results of two versions incomparable."""
    assert [file_path(s) for s in cross_view_split(PEOPLE).query] == [
        "CUHK01/0001003.png",
        "CUHK01/0001004.png",
        "cam_a/2.bmp",
        "test_query/p5_s1.jpg",
        "train_query/p6_s1.jpg",
    ]


@given(st.lists(st.integers(0, 20), min_size=2), st.integers(0, 3), st.data())
def test_held_out_identities_are_whole(pids: list[int], seed: int, data: st.DataObject) -> None:
    people = [sample(pid, f"p/{n}.png") for n, pid in enumerate(pids)]
    if len(set(pids)) < 2:
        with pytest.raises(ValueError, match="Hold out between 1 and 0"):
            hold_out_identities(people, 1)
        return
    count = data.draw(st.integers(1, len(set(pids)) - 1))
    rest, held = hold_out_identities(people, count, seed)
    assert len({s.pid for s in held}) == count
    assert not {s.pid for s in held} & {s.pid for s in rest}
    assert sorted([*rest, *held], key=people.index) == people
    assert hold_out_identities(people, count, seed) == (rest, held)
