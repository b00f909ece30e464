"""Manifests without an archive: by reference, beside the parts of a form, and metadata alone. Nothing leads outside."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from indexer.errors import ArchiveError, InvalidSettings
from indexer.items import Entry, Limits, Piece
from indexer.manifests import locate, open_root, read_parts, read_reference, read_updates

LIMITS = Limits()


def jsonl(*lines: Mapping[str, Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def outcomes(entries: Iterable[Entry]) -> list[str]:
    return [entry.problem.code if entry.problem else (entry.data or b"").decode() for entry in entries]


def referenced(location: str, *roots: str | Path, limits: Limits = LIMITS) -> list[Entry]:
    folder, path = locate(location, [str(root) for root in roots], limits)
    return list(read_reference(io.BytesIO(), folder, path, limits))


def refusal(location: str, *roots: str | Path) -> tuple[str, str]:
    with pytest.raises(ArchiveError) as refused:
        referenced(location, *roots)
    assert str(refused.value).endswith(".")
    return refused.value.code, str(refused.value)


@pytest.fixture
def delivery(tmp_path: Path) -> Path:
    """root/day/metadata.jsonl and its files, and beside the root something secret."""
    day = tmp_path / "root" / "day"
    (day / "north").mkdir(parents=True)
    (day / "a.jpg").write_bytes(b"1")
    (day / "north" / "b.jpg").write_bytes(b"2")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "metadata.jsonl").write_bytes(jsonl({"file": "../secret.jpg"}))
    (day / "metadata.jsonl").write_bytes(jsonl({"file": "a.jpg"}, {"path": "north/b.jpg"}))
    return day


# --- by reference ------------------------------------------------------------------------------------------------


def test_a_manifest_below_a_root_is_read_with_the_files_beside_it(delivery: Path) -> None:
    root = delivery.parent
    for location in (f"{delivery}/metadata.jsonl", f"file://{delivery}/metadata.jsonl"):
        for given in (root, f"file://{root}", f"{root}/", delivery):
            entries = referenced(location, "/nowhere", given)
            assert outcomes(entries) == ["1", "2"]
    assert entries[1].file == "north/b.jpg"
    folder, path = locate(f"{delivery}/metadata.jsonl", [str(root)])
    assert read_reference(io.BytesIO(), folder, path).total == 2


def test_what_a_line_names_wrongly_is_rejected_alone(delivery: Path, tmp_path: Path) -> None:
    (delivery / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (delivery / "linked").symlink_to(tmp_path)
    (delivery / "hard.jpg").write_bytes(b"x" * 2000)
    os.mkfifo(delivery / "pipe.jpg")
    names = [
        "a.jpg", "../../secret.jpg", "/etc/passwd", "link.jpg", "linked/secret.jpg", "pipe.jpg", "north", "gone.jpg",
        "hard.jpg", "a.jpg/x", "a.jpg",
    ]  # fmt: skip
    (delivery / "metadata.jsonl").write_bytes(jsonl(*({"file": name} for name in names)))
    entries = referenced(f"{delivery}/metadata.jsonl", delivery.parent, limits=replace(LIMITS, max_image_bytes=1000))
    assert outcomes(entries) == [
        "1", "unsafe_path", "unsafe_path", "unsafe_path", "unsafe_path", "unsafe_path", "unsafe_path", "file_missing",
        "image_too_large", "unsafe_path", "file_repeated",
    ]  # fmt: skip
    assert not any("secret" in str(entry.data) for entry in entries)
    assert all(entry.problem.reason.endswith(".") for entry in entries if entry.problem)


def test_no_manifest_outside_the_roots_is_read(delivery: Path, tmp_path: Path) -> None:
    root = delivery.parent
    (delivery / "way-out").symlink_to(tmp_path / "outside")
    (delivery / "linked.jsonl").symlink_to(tmp_path / "outside" / "metadata.jsonl")
    for location in (
        f"{tmp_path}/outside/metadata.jsonl",
        f"{root}/../outside/metadata.jsonl",
        f"{root}x/metadata.jsonl",
        "metadata.jsonl",
        "s3://bucket/metadata.jsonl",
        "simplecache::file:///etc/passwd",
        str(root),
    ):
        code, sentence = refusal(location, root)
        assert code == "reference_not_allowed"
        assert str(root) not in sentence or str(root) in location, "where the roots are is nobody's business"
    for location in (f"{delivery}/way-out/metadata.jsonl", f"{delivery}/linked.jsonl", f"{delivery}/gone.jsonl"):
        assert refusal(location, root)[0] == "reference_unreadable"
    assert refusal(f"{delivery}/metadata.jsonl")[0] == "reference_not_allowed", "by default nothing is allowed"


def test_an_object_store_is_read_through_fsspec() -> None:
    store = fsspec.filesystem("memory")
    store.pipe({"/bucket/day/metadata.jsonl": jsonl({"file": "a.jpg"}, {"file": "gone.jpg"}, {"file": "../x"})})
    store.pipe({"/bucket/day/a.jpg": b"1", "/bucket/x": b"secret", "/other/metadata.jsonl": b""})
    entries = referenced("memory://bucket/day/metadata.jsonl", "/srv", "memory://bucket")
    assert outcomes(entries) == ["1", "file_missing", "unsafe_path"]
    assert refusal("memory://other/metadata.jsonl", "memory://bucket")[0] == "reference_not_allowed"
    assert refusal("memory://bucket/gone.jsonl", "memory://bucket")[0] == "reference_unreadable"


def test_a_root_that_cannot_be_read_here_is_said() -> None:
    with pytest.raises(InvalidSettings, match=r"nosuch:// .*fsspec"):
        open_root("nosuch://bucket")
    with pytest.raises(InvalidSettings, match="absolute"):
        open_root("deliveries")


# --- parts of a form ---------------------------------------------------------------------------------------------


def test_pieces_of_one_file_are_read_where_they_lie() -> None:
    manifest = jsonl({"file": "b.jpg"}, {"file": "a.jpg"}, {"file": "c.jpg"})
    file = io.BytesIO(b"11" + manifest + b"222" + b"4")
    end = 2 + len(manifest)
    files = {"a.jpg": Piece(0, 2), "b.jpg": Piece(end, 3), "d.jpg": Piece(end + 3, 1)}
    entries = read_parts(file, Piece(2, len(manifest)), files)
    assert entries.total == 3
    assert outcomes(entries) == ["222", "11", "file_missing", "not_in_metadata"]


# --- metadata alone ----------------------------------------------------------------------------------------------


def test_lines_without_a_file_become_changes() -> None:
    lines = jsonl(
        {"external_id": "x", "tags": ["a"], "identity": None},
        {"tags": ["a"]},
        {"external_id": "y", "file": "a.jpg"},
        {"external_id": "y", "path": "a.jpg"},
        {"external_id": "x", "camera_id": "c"},
        {"external_id": "z", "captured_at": "2026-09-01T18:00:00"},
    )
    entries = list(read_updates(io.BytesIO(lines)))
    assert [entry.problem and entry.problem.code for entry in entries] == [
        None, "external_id_missing", "file_not_expected", "file_not_expected", "external_id_repeated",
        "time_without_zone",
    ]  # fmt: skip
    assert [entry.problem.pointer for entry in entries if entry.problem][1:3] == ["/file", "/path"]
    assert entries[0].changes == {"tags", "identity"} and entries[0].data is None
    assert entries[0].metadata is not None and entries[0].metadata.tags == ("a",)


def test_too_many_lines_end_it() -> None:
    with pytest.raises(ArchiveError, match="PERSON_SEARCH_ARCHIVE_MAX_ENTRIES"):
        list(read_updates(io.BytesIO(jsonl({"external_id": "x"}) * 4), replace(LIMITS, archive_max_entries=3)))
