"""What comes out of archives and folders, honest and hostile. Archives are built here, the hostile ones patched byte by
byte; whether the content is an image plays no part.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import tracemalloc
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from indexer.archives import DEFAULT_LIMITS, Entry, Limits, read_folder, read_zip
from indexer.errors import ArchiveError, InvalidMetadata, TimeWithoutZone
from indexer.metadata import ItemMetadata, parse_metadata, pointer_of
from indexer.settings import GallerySettings

LIMITS = Limits()
Lines = bytes | Iterable[Mapping[str, Any]]


def jsonl(lines: Lines) -> bytes:
    return lines if isinstance(lines, bytes) else b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def pack(
    files: Mapping[str, bytes],
    lines: Lines | None = None,
    *,
    at: str = "metadata.jsonl",
    method: int = zipfile.ZIP_DEFLATED,
) -> io.BytesIO:
    """A zip of these files, and of these lines as its metadata."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        if lines is not None:
            archive.writestr(at, jsonl(lines))
    return buffer


def patched(archive: io.BytesIO, old: bytes, new: bytes) -> io.BytesIO:
    data = archive.getvalue()
    assert old in data and len(old) == len(new)
    return io.BytesIO(data.replace(old, new))


def outcomes(entries: Iterable[Entry]) -> list[str]:
    """For each entry its bytes, or the code of its problem."""
    return [entry.problem.code if entry.problem else str((entry.data or b"").decode()) for entry in entries]


def only_problem(entries: Iterable[Entry]) -> Entry:
    (entry,) = entries
    assert entry.problem is not None and entry.data is None and entry.metadata is None
    assert entry.problem.reason.endswith(".")
    return entry


# --- archives as they should be ----------------------------------------------------------------------------------


def test_lines_and_files_become_entries_in_the_order_of_the_lines(tmp_path: Path) -> None:
    line = {
        "external_id": "a-1",
        "file": "people/a.jpg",
        "sha256": hashlib.sha256(b"first").hexdigest().upper(),
        "camera_id": "gate",
        "captured_at": "2026-09-01T18:00:00+02:00",
        "track_id": "t",
        "identity": "p",
        "tags": ["platform", "north", "platform"],
        "attributes": {"carriage": 3, "doors": [1, None]},
    }
    archive = pack({"b.png": b"second", "people/a.jpg": b"first"}, [line, {"file": "b.png"}])
    path = tmp_path / "archive.zip"
    path.write_bytes(archive.getvalue())
    for source in (path, archive):
        first, second = read_zip(source)
        assert (first.position, first.file, first.external_id, first.data) == (0, "people/a.jpg", "a-1", b"first")
        assert first.metadata == ItemMetadata(
            external_id="a-1",
            file="people/a.jpg",
            sha256=hashlib.sha256(b"first").hexdigest(),
            camera_id="gate",
            captured_at=datetime(2026, 9, 1, 16, tzinfo=UTC),
            track_id="t",
            identity="p",
            tags=("platform", "north"),
            attributes={"carriage": 3, "doors": [1, None]},
        )
        assert (second.position, second.metadata, second.data) == (1, ItemMetadata(file="b.png"), b"second")
    assert not archive.closed, "the caller's file stays the caller's"


def test_a_single_top_folder_is_looked_into() -> None:
    archive = pack(
        {"set/a.jpg": b"1", "set/deep/b.jpg": b"2"},
        [{"file": "a.jpg"}, {"file": "deep/b.jpg"}],
        at="set/metadata.jsonl",
    )
    assert outcomes(read_zip(archive)) == ["1", "2"]
    assert read_zip(archive).total == 2


def test_files_outside_the_folder_are_reported() -> None:
    archive = pack({"set/a.jpg": b"1", "other/b.jpg": b"2"}, [{"file": "a.jpg"}], at="set/metadata.jsonl")
    taken, left = read_zip(archive)
    assert (taken.position, left.position, left.file) == (0, 1, "other/b.jpg")
    assert left.problem is not None and left.problem.code == "not_in_metadata"


def test_what_file_managers_leave_behind_is_no_item() -> None:
    clutter = {".DS_Store": b"x", "__MACOSX/._a.jpg": b"x", "sub/Thumbs.db": b"x", "sub/": b""}
    assert outcomes(read_zip(pack({"a.jpg": b"1", **clutter}, [{"file": "./a.jpg"}]))) == ["1"]


def test_names_are_found_whatever_way_their_accents_are_written() -> None:
    archive = pack({"caf\u00e9.jpg": b"1"}, [{"file": "cafe\u0301.jpg"}])
    assert outcomes(read_zip(archive)) == ["1"]
    unflagged = patched(pack({"cafX.jpg": b"1"}, [{"file": "caé.jpg"}]), b"cafX.jpg", "caé.jpg".encode())
    assert outcomes(read_zip(unflagged)) == ["1"], "UTF-8 without the flag that says so"


def test_blank_lines_and_a_byte_order_mark_are_no_fault() -> None:
    archive = pack({"a.jpg": b"1", "b.jpg": b"2"}, b'\xef\xbb\xbf{"file": "a.jpg"}\r\n\n  \n{"file": "b.jpg"}')
    assert outcomes(read_zip(archive)) == ["1", "2"]


def test_an_empty_archive_has_no_entries() -> None:
    assert list(read_zip(pack({}, []))) == []


def test_default_limits_are_those_of_the_settings() -> None:
    settings = GallerySettings()
    assert {field.name: getattr(DEFAULT_LIMITS, field.name) for field in fields(Limits)} == {
        field.name: getattr(settings, field.name) for field in fields(Limits)
    }


# --- one item's fault --------------------------------------------------------------------------------------------


def test_a_faulty_line_is_rejected_with_its_number_and_the_others_go_on() -> None:
    lines = b"\n".join(
        [
            b'{"file": "a.jpg"}',
            b'{"file": "b.jpg"',
            b'{"file": "\xff.jpg"}',
            b"[1, 2]",
            b'{"file": "b.jpg", "file": "a.jpg"}',
            b'{"file": "b.jpg", "attributes": {"x": NaN}}',
            b'{"file": "b.jpg", "attributes": {"x": 1e999}}',
            b"[" * 60_000,
            b'{"file": "' + b"x" * 70_000 + b'"}',
            b'{"file": "b.jpg"}',
        ]
    )
    entries = list(read_zip(pack({"a.jpg": b"1", "b.jpg": b"2"}, lines)))
    assert outcomes(entries) == [
        "1", "invalid_json", "invalid_utf8", "invalid_json", "invalid_json", "invalid_json", "invalid_metadata",
        "invalid_json", "line_too_long", "2",
    ]  # fmt: skip
    for number, entry in enumerate(entries, start=1):
        assert entry.position == number - 1
        assert entry.problem is None or entry.problem.reason.startswith(f"Line {number}: ")


FAULTS: dict[str, tuple[Mapping[str, Any], str, str, str]] = {
    "no file": ({"camera_id": "c"}, "file_not_named", "/file", "missing"),
    "file not there": ({"file": "z.jpg"}, "file_missing", "/file", '"z.jpg"'),
    "absolute": ({"file": "/etc/passwd"}, "unsafe_path", "/file", "absolute"),
    "parent": ({"file": "x/../../a.jpg"}, "unsafe_path", "/file", '".."'),
    "backslash": ({"file": "x\\a.jpg"}, "unsafe_path", "/file", "backslash"),
    "drive": ({"file": "C:/a.jpg"}, "unsafe_path", "/file", "drive"),
    "unknown field": ({"file": "a.jpg", "camera": "c"}, "invalid_metadata", "/camera", "external_id, file, sha256"),
    "unknown field, odd name": ({"file": "a.jpg", "a/b~\ud800": 1}, "invalid_metadata", "/a~1b~0\ufffd", "known"),
    "no zone": ({"file": "a.jpg", "captured_at": "2026-09-01T18:00:00"}, "time_without_zone", "/captured_at", "+02:00"),
    "no time": ({"file": "a.jpg", "captured_at": "noon"}, "invalid_metadata", "/captured_at", "not a time"),
    "number for time": ({"file": "a.jpg", "captured_at": 17}, "invalid_metadata", "/captured_at", "string"),
    "before the calendar": (
        {"file": "a.jpg", "captured_at": "0001-01-01T00:00:00+14:00"}, "invalid_metadata", "/captured_at", "not a time",
    ),
    "number for camera": ({"file": "a.jpg", "camera_id": 3}, "invalid_metadata", "/camera_id", "string"),
    "empty identity": ({"file": "a.jpg", "identity": ""}, "invalid_metadata", "/identity", "empty"),
    "long external id": ({"file": "a.jpg", "external_id": "x" * 256}, "invalid_metadata", "/external_id", "255"),
    "control character": ({"file": "a.jpg", "track_id": "a\0"}, "invalid_metadata", "/track_id", "control"),
    "half a surrogate": ({"file": "a.jpg", "identity": "\udc00"}, "invalid_metadata", "/identity", "control"),
    "tags as text": ({"file": "a.jpg", "tags": "north"}, "invalid_metadata", "/tags", "list of strings"),
    "tags of numbers": ({"file": "a.jpg", "tags": [1]}, "invalid_metadata", "/tags", "list of strings"),
    "too many tags": ({"file": "a.jpg", "tags": [str(i) for i in range(51)]}, "invalid_metadata", "/tags", "50"),
    "long tag": ({"file": "a.jpg", "tags": ["x" * 65]}, "invalid_metadata", "/tags", "64"),
    "empty tag": ({"file": "a.jpg", "tags": [" "]}, "invalid_metadata", "/tags", "empty"),
    "attributes as list": ({"file": "a.jpg", "attributes": []}, "invalid_metadata", "/attributes", "object"),
    "many attributes": (
        {"file": "a.jpg", "attributes": {str(i): i for i in range(101)}}, "invalid_metadata", "/attributes", "100",
    ),
    "long attributes": (
        {"file": "a.jpg", "attributes": {"a": "x" * 20_000}}, "invalid_metadata", "/attributes", "16,384",
    ),
    "NUL in attributes": ({"file": "a.jpg", "attributes": {"a": "\0"}}, "invalid_metadata", "/attributes", "NUL"),
    "surrogate in attributes": (
        {"file": "a.jpg", "attributes": {"\ud800": 1}}, "invalid_metadata", "/attributes", "stored",
    ),
    "sha256 that is none": ({"file": "a.jpg", "sha256": "abc"}, "invalid_metadata", "/sha256", "64 hexadecimal"),
    "sha256 of another": ({"file": "a.jpg", "sha256": "0" * 64}, "sha256_mismatch", "/sha256", "not the one stated"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_item_is_rejected_with_its_field_and_the_next_one_is_taken(name: str) -> None:
    line, code, pointer, words = FAULTS[name]
    lines: list[Mapping[str, Any]] = [line, {"file": "b.jpg"}]
    entries = list(read_zip(pack({"a.jpg": b"1", "b.jpg": b"2"}, lines)))
    first, second = entries[:2]
    assert first.problem is not None
    assert (first.problem.code, first.problem.pointer) == (code, pointer)
    assert words in first.problem.reason and first.problem.reason.startswith("Line 1: ")
    first.problem.reason.encode(), str(first.file).encode(), str(first.external_id).encode()  # must be storable
    assert second.data == b"2"
    expected = 2 if line.get("file") == "a.jpg" else 3  # a file whose line was refused is not reported once more
    assert len(entries) == expected


def test_a_file_named_twice_is_taken_once() -> None:
    entries = list(read_zip(pack({"a.jpg": b"1"}, [{"file": "a.jpg"}, {"file": "./a.jpg", "external_id": "x"}])))
    assert outcomes(entries) == ["1", "file_repeated"]
    assert entries[1].external_id == "x"


def test_a_rejected_line_leaves_its_file_to_a_better_one() -> None:
    lines: list[Mapping[str, Any]] = [{"file": "a.jpg", "tags": 1}, {"file": "a.jpg"}]
    assert outcomes(read_zip(pack({"a.jpg": b"1"}, lines))) == ["invalid_metadata", "1"]


def test_files_that_no_line_names_are_reported() -> None:
    entries = list(read_zip(pack({"a.jpg": b"1", "z.jpg": b"3", "m.zip": b"2"}, [{"file": "a.jpg"}])))
    assert outcomes(entries) == ["1", "nested_archive", "not_in_metadata"]
    assert [(entry.position, entry.file) for entry in entries[1:]] == [(1, "m.zip"), (2, "z.jpg")]


@pytest.mark.parametrize(
    "content",
    [pack({"a": b"1"}).getvalue(), b"\x1f\x8b\x08rest", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a", bytes(257) + b"ustar"],
)
def test_archives_inside_are_not_opened(content: bytes) -> None:
    entry = only_problem(read_zip(pack({"a.jpg": content}, [{"file": "a.jpg"}])))
    assert entry.problem is not None and entry.problem.code == "nested_archive"


def test_a_file_above_the_single_limit_is_rejected_alone() -> None:
    archive = pack({"a.jpg": b"x" * 1001, "b.jpg": b"y" * 1000}, [{"file": "a.jpg"}, {"file": "b.jpg"}])
    first, second = read_zip(archive, replace(LIMITS, max_image_bytes=1000))
    assert first.problem is not None and first.problem.code == "image_too_large" and "1,000" in first.problem.reason
    assert second.data is not None


def test_a_bomb_is_stopped_soon_and_without_memory() -> None:
    bomb = pack({"a.jpg": bytes(64 * 2**20), "b.jpg": b"2"}, [{"file": "a.jpg"}, {"file": "b.jpg"}])
    limits = replace(LIMITS, max_image_bytes=2**30)
    tracemalloc.start()
    entries = list(read_zip(bomb, limits))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert outcomes(entries) == ["ratio_too_high", "2"]
    assert peak < 40 * 2**20, "200 times its 65 kB, and once more to put it together"
    plain = pack({"a.bmp": bytes(2**19)}, [{"file": "a.bmp"}])
    assert only_data(read_zip(plain)) == bytes(2**19), "a small plain image may compress as well as it likes"


def only_data(entries: Iterable[Entry]) -> bytes | None:
    (entry,) = entries
    return entry.data


def test_one_file_at_a_time_is_in_memory() -> None:
    names = [f"{i}.jpg" for i in range(40)]
    archive = pack({name: os.urandom(2**20) for name in names}, [{"file": name} for name in names])
    entries = read_zip(archive)
    tracemalloc.start()
    count = sum(1 for entry in entries if entry.data is not None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 40
    assert peak < 6 * 2**20


def test_a_header_that_lies_about_the_size_does_not_help() -> None:
    content = os.urandom(5000)
    archive = pack({"a.jpg": content}, [{"file": "a.jpg"}], method=zipfile.ZIP_DEFLATED)
    liar = patched(archive, struct.pack("<L", 5000), struct.pack("<L", 50))
    entry = only_problem(read_zip(liar, replace(LIMITS, max_image_bytes=100)))
    assert entry.problem is not None and entry.problem.code == "corrupt_entry"


def test_a_damaged_file_is_rejected_alone() -> None:
    archive = pack(
        {"a.jpg": b"A" * 100, "b.jpg": b"2"}, [{"file": "a.jpg"}, {"file": "b.jpg"}], method=zipfile.ZIP_STORED
    )
    assert outcomes(read_zip(patched(archive, b"A" * 100, b"A" * 99 + b"B"))) == ["corrupt_entry", "2"]
    packed = pack({"a.jpg": bytes(range(256)), "b.jpg": b"2"}, [{"file": "a.jpg"}, {"file": "b.jpg"}])
    data = bytearray(packed.getvalue())
    data[30 + len("a.jpg")] = 0xFF  # the first compressed byte: no such block type
    assert outcomes(read_zip(io.BytesIO(bytes(data)))) == ["corrupt_entry", "2"]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_rejected(method: int) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zip:
        zip.writestr("a.jpg", b"1" * 100, compress_type=method)
        zip.writestr("metadata.jsonl", '{"file": "a.jpg"}')
    assert outcomes(read_zip(archive)) == ["unsupported_compression"]
    with pytest.raises(ArchiveError, match=r"metadata.jsonl cannot be read. .*deflate") as refused:
        list(read_zip(pack({}, [{"file": "a.jpg"}], method=method)))
    assert refused.value.code == "archive_unreadable"


def encrypted(archive: io.BytesIO, name: str) -> io.BytesIO:
    """With the flag that says so, in both headers of one file."""
    data = bytearray(archive.getvalue())
    for signature, flags, start in ((b"PK\x03\x04", 6, 30), (b"PK\x01\x02", 8, 46)):
        at = data.find(signature)
        while data[at + start : at + start + len(name)] != name.encode():
            at = data.find(signature, at + 1)
            assert at >= 0
        data[at + flags] |= 1
    return io.BytesIO(bytes(data))


def test_encrypted_files_are_rejected_and_encrypted_metadata_ends_it() -> None:
    archive = pack({"a.jpg": b"1", "b.jpg": b"2"}, [{"file": "a.jpg"}, {"file": "b.jpg"}])
    assert outcomes(read_zip(encrypted(archive, "a.jpg"))) == ["encrypted_entry", "2"]
    with pytest.raises(ArchiveError, match="without a password"):
        list(read_zip(encrypted(archive, "metadata.jsonl")))


# --- the archive's fault -----------------------------------------------------------------------------------------


def refusal(archive: io.BytesIO, limits: Limits = LIMITS) -> tuple[str, str]:
    with pytest.raises(ArchiveError) as refused:
        read_zip(archive, limits)  # at once: nothing has been read yet
    assert str(refused.value).endswith(".")
    return refused.value.code, str(refused.value)


@pytest.mark.parametrize(
    "data", [b"", b"no zip at all", b"PK\x03\x04" + bytes(50), b"PK\x05\x06", b"\x1f\x8b" + bytes(99)]
)
def test_what_is_no_zip_is_unreadable(data: bytes) -> None:
    assert refusal(io.BytesIO(data))[0] == "archive_unreadable"


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_a_zip_cut_short_is_unreadable(keep: float) -> None:
    data = pack({"a.jpg": os.urandom(5000)}, [{"file": "a.jpg"}]).getvalue()
    assert refusal(io.BytesIO(data[: int(keep * len(data))]))[0] == "archive_unreadable"


@pytest.mark.parametrize("part", ["end record", "anywhere"])
def test_damage_never_escapes_as_another_exception(part: str) -> None:
    sound = pack({"a.jpg": b"1", "b.jpg": bytes(500)}, [{"file": "a.jpg"}, {"file": "b.jpg"}]).getvalue()
    random = Random(3)
    codes = set()
    for _ in range(400):
        data = bytearray(sound)
        for _ in range(random.randint(1, 3)):
            data[random.randrange(len(data) - 22 if part == "end record" else 0, len(data))] = random.randrange(256)
        try:
            codes |= {entry.problem.code for entry in read_zip(io.BytesIO(bytes(data))) if entry.problem}
        except ArchiveError as error:
            codes.add(error.code)
    assert "archive_unreadable" in codes
    assert part == "end record" or "corrupt_entry" in codes


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../a.jpg", '".."'),
        ("x/../../a.jpg", '".."'),
        ("/etc/a.jpg", "absolute"),
        ("x\\a.jpg", "backslash"),
        ("C:a.jpg", "drive"),
        ("a\x07.jpg", "control"),
        ("d/" * 40 + "a.jpg", "folders deep"),
    ],
)
def test_paths_that_lead_elsewhere_end_it(name: str, words: str) -> None:
    code, sentence = refusal(pack({name: b"1"}, [{"file": "a.jpg"}]))
    assert code == "archive_unsafe_path" and words in sentence


@pytest.mark.parametrize("mode", [0o120777, 0o010644, 0o060644])  # link, pipe, device
def test_links_and_special_files_end_it(mode: int) -> None:
    archive = pack({}, [{"file": "a.jpg"}])
    with zipfile.ZipFile(archive, "a") as zip:
        info = zipfile.ZipInfo("a.jpg")
        info.external_attr = mode << 16
        zip.writestr(info, "/etc/passwd")
    assert refusal(archive)[0] == "archive_link"


def test_two_files_of_one_name_end_it() -> None:
    archive = pack({"a.jpg": b"1", "b.jpg": b"2"}, [{"file": "a.jpg"}])
    code, sentence = refusal(patched(archive, b"b.jpg", b"a.jpg"))
    assert code == "archive_duplicate_name" and '"a.jpg"' in sentence
    assert refusal(pack({"\u00e9": b"1", "e\u0301": b"2"}, []))[0] == "archive_duplicate_name"


def test_metadata_has_to_be_there_once() -> None:
    for files, at, words in (
        ({"a.jpg": b"1"}, "notes.jsonl", "missing"),
        ({"a.jpg": b"1"}, "too/deep/metadata.jsonl", "missing"),
        ({"x/metadata.jsonl": b""}, "y/metadata.jsonl", "more than one"),
    ):
        code, sentence = refusal(pack(files, [{"file": "a.jpg"}], at=at))
        assert code == "archive_missing_metadata" and words in sentence and "metadata.jsonl" in sentence


def test_too_many_files_end_it() -> None:
    limits = replace(LIMITS, archive_max_entries=3)
    files = {f"{i}.jpg": b"1" for i in range(3)}
    assert len(list(read_zip(pack(files, []), limits))) == 3
    code, sentence = refusal(pack({**files, "3.jpg": b"1"}, []), limits)
    assert code == "archive_too_many_entries" and "more than 3" in sentence


def test_a_huge_directory_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack({f"{i:0200}": b"" for i in range(500)}, [])
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("the directory was loaded"))
    assert refusal(archive, replace(LIMITS, archive_max_entries=10))[0] == "archive_too_many_entries"


def test_too_many_lines_end_it() -> None:
    entries = read_zip(pack({}, [{"file": "a.jpg"}] * 4), replace(LIMITS, archive_max_entries=3))
    assert [next(entries).position for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ArchiveError, match="several parts"):
        next(entries)


def test_a_whole_that_says_it_is_too_large_is_refused_at_once() -> None:
    archive = pack({"a.jpg": b"x" * 600, "b.jpg": b"x" * 600}, [])
    code, sentence = refusal(archive, replace(LIMITS, archive_max_total_bytes=1000))
    assert code == "archive_too_large" and "1,000" in sentence


def test_a_whole_that_grows_too_large_is_ended_while_reading() -> None:
    files = {f"{i}.jpg": os.urandom(70_000) for i in range(4)}
    archive = pack(files, [{"file": name} for name in files], method=zipfile.ZIP_STORED)
    limits = _GrowingLimits()
    entries = read_zip(archive, limits)
    limits.archive_max_total_bytes = 150_000
    assert next(entries).data == files["0.jpg"]
    with pytest.raises(ArchiveError) as refused:
        list(entries)
    assert refused.value.code == "archive_too_large"


class _GrowingLimits:
    """Limits that are lowered after the directory was checked, as if the directory had lied."""

    archive_max_entries = 100
    archive_max_total_bytes = 10**9
    archive_max_ratio = 200
    archive_max_depth = 32
    manifest_max_line_bytes = 65_536
    max_image_bytes = 10**6


def test_metadata_that_is_a_bomb_ends_it() -> None:
    with pytest.raises(ArchiveError, match=r"metadata.jsonl cannot be read. .*200 times"):
        list(read_zip(pack({}, b"x" * (64 * 2**20))))


def test_damaged_metadata_ends_it_after_the_items_that_were_sound() -> None:
    archive = pack({"a.jpg": b"1"}, [{"file": "a.jpg"}, {"file": "b.jpg"}], method=zipfile.ZIP_STORED)
    entries = read_zip(patched(archive, b'"b.jpg"', b'"c.jpg"'))
    with pytest.raises(ArchiveError) as refused:
        list(entries)
    assert refused.value.code == "archive_unreadable"


# --- folders -----------------------------------------------------------------------------------------------------


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def test_a_folder_with_metadata_is_read_like_a_zip(tmp_path: Path) -> None:
    lines = [{"file": "people/a.jpg", "camera_id": "gate"}, {"file": "gone.jpg"}, {"file": "../secret"}]
    write(tmp_path, {"people/a.jpg": b"1", "z.png": b"2", "metadata.jsonl": jsonl(lines)})
    entries = read_folder(tmp_path)
    assert entries.total == 2
    read = list(entries)
    assert outcomes(read) == ["1", "file_missing", "unsafe_path", "not_in_metadata"]
    assert read[0].metadata == ItemMetadata(file="people/a.jpg", camera_id="gate")


def test_without_metadata_every_image_below_is_an_item(tmp_path: Path) -> None:
    write(tmp_path, {"b.PNG": b"2", "a/1.jpeg": b"1", "notes.txt": b"x", ".DS_Store": b"x", "a/z.webp": b"3"})
    (tmp_path / "link.jpg").symlink_to("/etc/passwd")
    entries = read_folder(tmp_path)
    assert entries.total == 3
    read = list(entries)
    assert [(entry.position, entry.external_id, entry.data) for entry in read] == [
        (0, "a/1.jpeg", b"1"),
        (1, "a/z.webp", b"3"),
        (2, "b.PNG", b"2"),
    ]
    assert read[0].metadata == ItemMetadata(file="a/1.jpeg", external_id="a/1.jpeg")


def test_faults_in_a_folder_are_each_their_own(tmp_path: Path) -> None:
    write(tmp_path, {"big.jpg": b"x" * 1001, "fine.jpg": b"1", "z" * 200 + "/" + "z" * 200 + ".jpg": b"1"})
    (tmp_path / os.fsdecode(b"\xff.jpg")).write_bytes(b"1")
    read = list(read_folder(tmp_path, replace(LIMITS, max_image_bytes=1000)))
    assert outcomes(read) == ["image_too_large", "1", "invalid_metadata", "invalid_metadata"]
    for entry in read:
        str(entry.file).encode()


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ArchiveError, match="no image") as refused:
        read_folder(tmp_path)
    assert refused.value.code == "archive_empty"
    with pytest.raises(ArchiveError, match="not a folder"):
        read_folder(tmp_path / "gone")


def test_a_folder_with_too_many_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {f"{i}.jpg": b"1" for i in range(5)})
    with pytest.raises(ArchiveError, match="more than 3"):
        read_folder(tmp_path, replace(LIMITS, archive_max_entries=3))


# --- metadata on its own -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-09-01T18:00:00Z", datetime(2026, 9, 1, 18, tzinfo=UTC)),
        ("2026-09-01T18:00:00.250+02:00", datetime(2026, 9, 1, 16, 0, 0, 250_000, tzinfo=UTC)),
        ("2026-03-01 00:30:00-05:30", datetime(2026, 3, 1, 6, tzinfo=UTC)),
    ],
)
def test_times_are_kept_in_utc(text: str, expected: datetime) -> None:
    parsed = parse_metadata({"captured_at": text}).captured_at
    assert parsed == expected and parsed.tzinfo is UTC


def test_null_is_the_same_as_leaving_out() -> None:
    names = [field.name for field in fields(ItemMetadata)]
    assert parse_metadata(dict.fromkeys(names)) == parse_metadata({}) == ItemMetadata()


def test_errors_tell_their_field() -> None:
    with pytest.raises(TimeWithoutZone) as no_zone:
        parse_metadata({"captured_at": "2026-09-01T18:00:00"})
    with pytest.raises(InvalidMetadata) as no_list:
        parse_metadata({"tags": "x"})
    assert (pointer_of(no_zone.value), pointer_of(no_list.value)) == ("/captured_at", "/tags")
    assert pointer_of(ArchiveError("x")) is None
