"""Archives made to harm: each attack is answered with a code and a sentence of its own, soon and in little memory.

Zips and tars side by side; the archives are made here, the worst of them byte by byte.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from indexer.archives import read_zip
from indexer.errors import ArchiveError
from indexer.items import Entry, Limits
from indexer.tars import EXTENSION_BYTES, Gunzip, looks_like_tar, read_tar

LIMITS = Limits()
LINES = [{"file": "a.jpg"}, {"file": "b.jpg"}]


def jsonl(lines: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def tar(
    files: Mapping[str, bytes],
    lines: Iterable[Mapping[str, Any]] | None = LINES,
    *,
    format: int = tarfile.PAX_FORMAT,
    members: Iterable[tarfile.TarInfo] = (),
    at: str = "metadata.jsonl",
) -> io.BytesIO:
    """A tar of these files, these lines as its metadata, and members without content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, data in {**files, **({at: jsonl(lines)} if lines is not None else {})}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in members:
            archive.addfile(info)
    buffer.seek(0)
    return buffer


def header(name: bytes, size: int, kind: bytes = b"0") -> bytes:
    """One tar header, of a size that may lie."""
    block = bytearray(512)
    block[: len(name)] = name
    block[124:136] = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def outcomes(entries: Iterable[Entry]) -> list[str]:
    return [entry.problem.code if entry.problem else (entry.data or b"").decode() for entry in entries]


def refusal(read: Callable[[], Any]) -> tuple[str, str]:
    """(code, sentence) of an archive that is refused before its first item."""
    with pytest.raises(ArchiveError) as refused:
        read()
    assert str(refused.value).endswith(".")
    str(refused.value).encode()
    return refused.value.code, str(refused.value)


def of_tar(archive: io.BytesIO, limits: Limits = LIMITS) -> tuple[str, str]:
    return refusal(lambda: read_tar(archive, limits))


# --- tars as they should be --------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_is_read_like_a_zip(format: int) -> None:
    long = "d/" * 20 + "x" * 90 + ".jpg"  # needs an extended header, except where ustar can split it
    archive = tar(
        {"a.jpg": b"1", long: b"2", "z.zip": b"3", ".DS_Store": b"x"},
        [{"file": "a.jpg"}, {"path": long}, {"file": "gone.jpg"}],
        format=format,
    )
    assert looks_like_tar(archive)
    entries = read_tar(archive)
    assert entries.total == 3
    assert outcomes(entries) == ["1", "2", "file_missing", "nested_archive"]


def test_accents_folders_and_files_larger_than_a_block() -> None:
    folder = tarfile.TarInfo("set")
    folder.type = tarfile.DIRTYPE
    data = os.urandom(200_000)
    archive = tar({"set/caf\u00e9.jpg": data}, [{"file": "cafe\u0301.jpg"}], members=[folder], at="set/metadata.jsonl")
    (entry,) = read_tar(archive)
    assert entry.data == data


def test_gzip_is_unpacked_on_its_way_whatever_its_pieces() -> None:
    plain = tar({"a.jpg": os.urandom(3_000_000), "b.jpg": b"2"}).getvalue()
    for packed in (gzip.compress(plain, 1), gzip.compress(plain[:1000]) + gzip.compress(plain[1000:], 1) + bytes(64)):
        for piece in (100_003, len(packed)):
            target = io.BytesIO()
            gunzip = Gunzip(target, LIMITS)
            for at in range(0, len(packed), piece):
                gunzip.write(packed[at : at + piece])
            gunzip.finish()
            assert target.getvalue() == plain


# --- tars made to harm -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../a.jpg", '".."'),
        ("x/../../a.jpg", '".."'),
        ("/etc/a.jpg", "absolute"),
        ("x\\a.jpg", "backslash"),
        ("C:a.jpg", "drive"),
        ("a\x07.jpg", "control"),
        ("d/" * 40 + "a.jpg", "PERSON_SEARCH_ARCHIVE_MAX_DEPTH"),
        ("\udcff\udcfe.jpg", "not valid UTF-8"),
    ],
)
def test_paths_that_lead_elsewhere_end_a_tar(name: str, words: str) -> None:
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        code, sentence = of_tar(tar({name: b"1"}, format=format))
        assert code == "archive_unsafe_path" and words in sentence


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"]
)
def test_links_devices_and_what_nobody_knows_end_a_tar(kind: bytes) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.type, info.linkname = kind, "/etc/passwd"
    code, sentence = of_tar(tar({}, members=[info]))
    assert code == "archive_link" and '"a.jpg"' in sentence


def test_sparse_files_end_a_tar() -> None:
    old = header(b"a.jpg", 0, b"S") + tar({}).getvalue()
    record = b"22 GNU.sparse.major=1\n"
    new = header(b"x", len(record), b"x") + record.ljust(512, b"\0") + header(b"a.jpg", 0) + tar({}).getvalue()
    for data in (old, new):
        code, sentence = of_tar(io.BytesIO(data))
        assert code == "archive_sparse" and "sparse" in sentence


def test_two_files_of_one_name_end_a_tar() -> None:
    info = tarfile.TarInfo("./a.jpg")
    code, sentence = of_tar(tar({"a.jpg": b"1"}, members=[info]))
    assert code == "archive_duplicate_name" and "a.jpg" in sentence


@pytest.mark.parametrize("keep", [0.2, 0.6, 0.9])
def test_a_tar_cut_short_is_refused(keep: float) -> None:
    data = tar({"a.jpg": os.urandom(20_000), "b.jpg": b"2"}).getvalue()
    code, sentence = of_tar(io.BytesIO(data[: int(keep * 22_000)]))
    assert code == "archive_unreadable" and "cut short" in sentence


def test_gzip_cut_short_or_damaged_is_refused() -> None:
    packed = gzip.compress(tar({"a.jpg": os.urandom(20_000)}).getvalue())

    def unpack(data: bytes) -> Callable[[], None]:
        def run() -> None:
            gunzip = Gunzip(io.BytesIO(), LIMITS)
            gunzip.write(data)
            gunzip.finish()

        return run

    assert "cut short" in refusal(unpack(packed[:-100]))[1]
    assert "damaged" in refusal(unpack(packed[:5000] + b"\xff" * 50 + packed[5050:]))[1]
    crc = packed[:-8] + struct.pack("<L", zlib.crc32(packed)) + packed[-4:]
    assert "damaged" in refusal(unpack(crc))[1]


def test_a_gzip_bomb_is_stopped_soon() -> None:
    bomb = gzip.compress(bytes(2**28))
    target = io.BytesIO()
    gunzip = Gunzip(target, replace(LIMITS, archive_max_ratio=20))
    code, sentence = refusal(lambda: gunzip.write(bomb))
    assert code == "archive_ratio_too_high" and "PERSON_SEARCH_ARCHIVE_MAX_RATIO" in sentence
    assert target.tell() < 2**24
    gunzip = Gunzip(io.BytesIO(), replace(LIMITS, archive_max_total_bytes=10_000))
    code, sentence = refusal(lambda: gunzip.write(bomb))
    assert code == "archive_too_large" and "PERSON_SEARCH_ARCHIVE_MAX_TOTAL_BYTES" in sentence


@pytest.mark.parametrize("size", [2**20, 2**40])
def test_sizes_that_lie_are_never_believed(size: int) -> None:
    code, sentence = of_tar(io.BytesIO(header(b"a.jpg", size) + bytes(2048)))
    assert code == "archive_unreadable" and "cut short" in sentence


def test_an_endless_extended_header_takes_no_memory() -> None:
    for kind in (b"x", b"L"):
        data = header(b"x", 2**24, kind) + b"1" * 2**24 + tar({}).getvalue()
        archive = io.BytesIO(data)
        tracemalloc.start()
        code, sentence = of_tar(archive)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert code == "archive_unreadable" and f"{EXTENSION_BYTES:,}" in sentence
        assert peak < 2**20


@pytest.mark.parametrize("record", [b"9999 path=x\n", b"0 path=x\n", b"-5 path=x\n", b"path=x\n", b"1" * 500])
def test_extended_headers_without_sense_are_refused(record: bytes) -> None:
    data = header(b"x", len(record), b"x") + record.ljust(512, b"\0") + header(b"a.jpg", 0) + bytes(1024)
    assert of_tar(io.BytesIO(data))[0] == "archive_unreadable"


def test_two_sizes_for_one_file_are_refused() -> None:
    record = b"13 size=1000\n"
    data = header(b"x", len(record), b"x") + record.ljust(512, b"\0") + header(b"a.jpg", 5) + bytes(2048)
    code, sentence = of_tar(io.BytesIO(data))
    assert code == "archive_unreadable" and "two sizes" in sentence


def test_too_many_members_end_a_tar() -> None:
    limits = replace(LIMITS, archive_max_entries=3)
    files = {f"{i}.jpg": b"1" for i in range(3)}
    assert len(list(read_tar(tar(files, []), limits))) == 3
    code, sentence = of_tar(tar({**files, "3.jpg": b"1"}, []), limits)
    assert code == "archive_too_many_entries" and "PERSON_SEARCH_ARCHIVE_MAX_ENTRIES" in sentence
    folders = b"".join(header(b"d%d/" % i, 0, b"5") for i in range(500))
    assert of_tar(io.BytesIO(folders + tar({}).getvalue()), limits)[0] == "archive_too_many_entries"


def test_a_whole_that_is_too_large_ends_a_tar() -> None:
    archive = tar({"a.jpg": b"x" * 600, "b.jpg": b"x" * 600})
    code, sentence = of_tar(archive, replace(LIMITS, archive_max_total_bytes=1000))
    assert code == "archive_too_large" and "1,000" in sentence


def test_a_file_above_the_single_limit_is_rejected_alone() -> None:
    archive = tar({"a.jpg": b"x" * 1001, "b.jpg": b"y"})
    assert outcomes(read_tar(archive, replace(LIMITS, max_image_bytes=1000))) == ["image_too_large", "y"]


@pytest.mark.parametrize("data", [b"", b"no tar at all", b"PK\x03\x04" + bytes(600), b"\x01" * 2000])
def test_what_is_no_tar_is_unreadable(data: bytes) -> None:
    assert of_tar(io.BytesIO(data))[0] == "archive_unreadable"


def test_damage_never_escapes_as_another_exception() -> None:
    sound = tar({"a.jpg": b"1", "d/" * 20 + "x" * 99: bytes(500)}, format=tarfile.PAX_FORMAT).getvalue()
    random = Random(5)
    codes = set()
    for _ in range(300):
        data = bytearray(sound)
        for _ in range(random.randint(1, 4)):
            data[random.randrange(6000)] = random.randrange(256)
        try:
            codes |= {entry.problem.code for entry in read_tar(io.BytesIO(bytes(data))) if entry.problem}
        except ArchiveError as error:
            codes.add(error.code)
    assert "archive_unreadable" in codes


# --- zips made to harm, beyond test_archives.py ------------------------------------------------------------------


def central_entry(name: bytes, size: int = 0, extra: bytes = b"", flags: int = 0) -> bytes:
    fields = (0x02014B50, 20, 20, flags, 0, 0, 0, 0, min(size, 2**32 - 1), min(size, 2**32 - 1))
    return struct.pack("<LHHHHHHLLLHHHHHLL", *fields, len(name), len(extra), 0, 0, 0, 0, 0) + name + extra


def directory_only(entries: list[bytes], count: int) -> io.BytesIO:
    """A zip that is nothing but its directory, and says how many entries that has."""
    directory = b"".join(entries)
    end = struct.pack("<LHHHHLLH", 0x06054B50, 0, 0, count, count, len(directory), 0, 0)
    return io.BytesIO(directory + end)


def of_zip(archive: io.BytesIO, limits: Limits = LIMITS) -> tuple[str, str]:
    return refusal(lambda: read_zip(archive, limits))


@pytest.mark.parametrize("said", [1, 65_535])
def test_a_million_entries_are_refused_before_they_take_memory(said: int, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = directory_only([central_entry(b"%06x" % i) for i in range(1_000_000)], said)
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("the directory was loaded"))
    code, sentence = of_zip(archive)
    assert code == "archive_too_many_entries" and "100,000" in sentence
    few = directory_only([central_entry(b"%06x" % i) for i in range(1000)], said)  # short, but too many all the same
    assert of_zip(few, replace(LIMITS, archive_max_entries=10))[0] == "archive_too_many_entries"


def test_zip64_sizes_that_lie_are_refused() -> None:
    huge = struct.pack("<HHQQ", 1, 16, 2**62, 2**62)
    code, _ = of_zip(directory_only([central_entry(b"metadata.jsonl"), central_entry(b"a.jpg", 2**40, huge)], 2))
    assert code == "archive_too_large"
    for extra in (b"", b"\x01\x00\x04\x00\x00\x00\x00\x00", b"\x01\x00\xff\xff"):
        archive = directory_only([central_entry(b"metadata.jsonl"), central_entry(b"a.jpg", 2**40, extra)], 2)
        code, _ = of_zip(archive, replace(LIMITS, archive_max_total_bytes=2**30))
        assert code in ("archive_unreadable", "archive_too_large")


def test_a_zip64_end_that_lies_is_refused() -> None:
    sound = io.BytesIO()
    with zipfile.ZipFile(sound, "w") as archive:
        archive.writestr("metadata.jsonl", b"")
    data = sound.getvalue()[:-22]
    for size, offset in ((2**63, 0), (2**40, 0), (46, 2**50)):
        record = struct.pack("<LQHHLLQQQQ", 0x06064B50, 44, 45, 45, 0, 0, 1, 1, size, offset)
        locator = struct.pack("<LLQL", 0x07064B50, 0, len(data), 1)
        end = struct.pack("<LHHHHLLH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
        assert of_zip(io.BytesIO(data + record + locator + end))[0] in (
            "archive_unreadable",
            "archive_too_many_entries",
        )


def test_names_that_claim_to_be_utf8_and_are_not_are_refused() -> None:
    names = [central_entry(b"metadata.jsonl"), central_entry(b"\xff\xfe.jpg", flags=0x800)]
    code, sentence = of_zip(directory_only(names, 2))
    assert code == "archive_unreadable" and "UTF-8" in sentence


def test_a_wrong_checksum_is_told_apart_from_other_damage() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a.jpg", b"A" * 100)
        archive.writestr("b.jpg", b"2")
        archive.writestr("metadata.jsonl", jsonl(LINES))
    damaged = io.BytesIO(buffer.getvalue().replace(b"A" * 100, b"A" * 99 + b"B"))
    first, second = read_zip(damaged)
    assert first.problem is not None and "checksum (CRC)" in first.problem.reason
    assert second.data == b"2"


def test_depth_and_line_length_are_settings_named_in_the_sentence() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x/y/z/a.jpg", b"1")
        archive.writestr("metadata.jsonl", b'{"file": "a.jpg"}\n{"file": "' + b"x" * 2000 + b'"}\n')
    code, sentence = of_zip(buffer, replace(LIMITS, archive_max_depth=2))
    assert code == "archive_unsafe_path" and "more than 2 folders" in sentence
    _, long, _ = read_zip(buffer, replace(LIMITS, manifest_max_line_bytes=1024))
    assert long.problem is not None and long.problem.code == "line_too_long"
    assert "1,024" in long.problem.reason and "PERSON_SEARCH_MANIFEST_MAX_LINE_BYTES" in long.problem.reason
