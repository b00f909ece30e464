"""What arrives in bulk: a zip with `metadata.jsonl`, or a folder, read item by item.

An archive is hostile until shown otherwise: nothing is unpacked to disk, one file at a time is in memory, and sizes are
counted while reading, never believed from a header. A fault of the archive raises ArchiveError; a fault of one item
becomes an entry with its problem, and the others go on. Whether the bytes are an image is not asked here.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

from indexer.errors import ArchiveError, GalleryError
from indexer.metadata import MAX_STRING, ItemMetadata, is_clean, parse_metadata, pointer_of, printable

__all__ = [
    "DEFAULT_LIMITS",
    "ArchiveLimits",
    "Entries",
    "Entry",
    "ItemMetadata",
    "Limits",
    "Problem",
    "parse_metadata",
    "read_folder",
    "read_zip",
]

METADATA = "metadata.jsonl"
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
ARCHIVE_SUFFIXES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".jar"}
ARCHIVE_OPENINGS = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")
CLUTTER = {".DS_Store", "Thumbs.db", "desktop.ini"}  # left by file managers: neither items nor worth a rejection

MAX_LINE_BYTES = 64 * 1024
MAX_FOLDER_DEPTH = 32
RATIO_FREE_BYTES = 2**20  # below this a high compression ratio is harmless: a plain sky in BMP reaches 1000
CHUNK = 64 * 1024


class ArchiveLimits(Protocol):
    """What an archive may hold. `GallerySettings` is one."""

    @property
    def archive_max_entries(self) -> int: ...
    @property
    def archive_max_total_bytes(self) -> int: ...
    @property
    def archive_max_ratio(self) -> int: ...
    @property
    def max_image_bytes(self) -> int: ...


@dataclass(frozen=True)
class Limits:
    """Archive limits on their own, with the defaults of `GallerySettings`."""

    archive_max_entries: int = 100_000
    archive_max_total_bytes: int = 20 * 2**30
    archive_max_ratio: int = 200
    max_image_bytes: int = 20 * 2**20


DEFAULT_LIMITS: ArchiveLimits = Limits()


@dataclass(frozen=True)
class Problem:
    """Why an item is rejected: a code for machines, a sentence for people, and the JSON pointer of the field."""

    code: str
    reason: str
    pointer: str | None = None


@dataclass(frozen=True)
class Entry:
    """One item on its way in: either metadata and the bytes of its file, or the problem that keeps it out."""

    position: int
    file: str | None = None
    external_id: str | None = None
    metadata: ItemMetadata | None = None
    data: bytes | None = None
    problem: Problem | None = None


class Entries(Iterator[Entry]):
    """Entries, read as they are asked for. `total` is about how many will come: good enough for a progress bar."""

    def __init__(self, entries: Iterator[Entry], total: int) -> None:
        self._entries = entries
        self.total = total

    def __next__(self) -> Entry:
        return next(self._entries)


class _ItemError(GalleryError):
    """An item cannot be taken, for a reason only archives know."""

    def __init__(self, code: str, sentence: str, pointer: str | None = "/file") -> None:
        super().__init__(sentence, code=code)
        self.pointer = pointer


# --- lines and items: what zip and folder have in common ---------------------------------------------------------


def _items(
    lines: Iterator[bytes], names: set[str], read: Callable[[str], bytes], limits: ArchiveLimits
) -> Iterator[Entry]:
    """Lines of metadata.jsonl, the names of the files there, and how to read one -> an entry for each line, then one
    for each file that no line names.
    """
    used: set[str] = set()  # by lines that were fine
    named: set[str] = set()  # by any line: a file whose line is refused is not reported once more
    position = -1
    for position, (number, line) in enumerate(_read_lines(lines)):
        if position >= limits.archive_max_entries:
            raise _too_many_entries(limits)
        if isinstance(line, Problem):
            yield Entry(position, problem=line)
        else:
            if isinstance(file := line.get("file"), str):
                named.add(_key(file))
            yield _item(position, number, line, names, used, read)
    for name in sorted(names - named):
        position += 1
        yield _left_over(position, name)


def _item(
    position: int,
    number: int,
    line: Mapping[str, Any],
    names: set[str],
    used: set[str],
    read: Callable[[str], bytes],
) -> Entry:
    try:
        metadata = parse_metadata(line)
        name = _file_of(metadata)
        if name not in names:
            sentence = f'The file "{printable(name)}" is not there. Add it, or leave the line out.'
            raise _ItemError("file_missing", sentence)
        if name in used:
            raise _ItemError("file_repeated", f'The file "{printable(name)}" is named by an earlier line as well.')
        used.add(name)
        data = read(name)
        _check_content(data, metadata)
    except ArchiveError:
        raise
    except GalleryError as error:
        pointer = error.pointer if isinstance(error, _ItemError) else pointer_of(error)
        problem = Problem(error.code, f"Line {number}: {error}", pointer)
        return Entry(position, _shown(line, "file"), _shown(line, "external_id"), problem=problem)
    return Entry(position, metadata.file, metadata.external_id, metadata, data)


def _shown(line: Mapping[str, Any], name: str) -> str | None:
    """What a rejected line called itself, where that can be shown."""
    value = line.get(name)
    return value if isinstance(value, str) and len(value) <= MAX_STRING and is_clean(value) else None


def _left_over(position: int, name: str) -> Entry:
    if PurePosixPath(name).suffix.lower() in ARCHIVE_SUFFIXES:
        problem = Problem("nested_archive", "Archives inside an archive are not opened. Send this one on its own.")
    else:
        problem = Problem("not_in_metadata", f"No line of {METADATA} names this file. Add one, or leave the file out.")
    return Entry(position, file=printable(name), problem=problem)


def _read_lines(lines: Iterator[bytes]) -> Iterator[tuple[int, Mapping[str, Any] | Problem]]:
    """Raw lines -> (line number from 1, JSON object or the problem with that line). Blank lines are skipped."""
    for number, raw in enumerate(lines, start=1):
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")  # the byte order mark some editors write
        if raw.strip():
            yield number, _read_line(number, raw)


def _read_line(number: int, raw: bytes) -> Mapping[str, Any] | Problem:
    if len(raw) > MAX_LINE_BYTES:
        return Problem("line_too_long", f"Line {number}: longer than {MAX_LINE_BYTES:,} bytes, the most accepted.")
    try:
        line = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        return Problem("invalid_utf8", f"Line {number}: not valid UTF-8. Save {METADATA} as UTF-8.")
    except (ValueError, RecursionError) as error:
        what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        return Problem("invalid_json", f"Line {number}: not valid JSON ({what}).")
    if not isinstance(line, dict):
        return Problem("invalid_json", f'Line {number}: not a JSON object. Write it like {{"file": "a.jpg"}}.')
    return line


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A field given twice is a mistake, of which JSON readers silently keep the last."""
    line = dict(pairs)
    if len(line) != len(pairs):
        raise ValueError("a field is given twice")
    return line


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _file_of(metadata: ItemMetadata) -> str:
    """The file a line names, as a key."""
    if metadata.file is None:
        raise _ItemError("file_not_named", 'The field "file" is missing. Name the image this line describes.')
    if fault := _unsafe(metadata.file):
        raise _ItemError("unsafe_path", f'The field "file" {fault}. Use a plain relative path with "/".')
    return _key(metadata.file)


def _key(name: str) -> str:
    """One spelling per name: macOS writes accents as two characters, other systems as one."""
    return unicodedata.normalize("NFC", str(PurePosixPath(name)))


def _unsafe(name: str) -> str | None:
    """What is wrong with a path, or None."""
    if "\\" in name:
        return "has a backslash"
    if name.startswith("/"):
        return "is an absolute path"
    if len(name) > 1 and name[1] == ":" and name[0].isalpha():
        return "starts with a drive letter"
    if ".." in name.split("/"):
        return 'has ".." in it'
    if not is_clean(name):
        return "has control characters"
    if name.count("/") > MAX_FOLDER_DEPTH:
        return f"is more than {MAX_FOLDER_DEPTH} folders deep"
    return None


def _check_content(data: bytes, metadata: ItemMetadata) -> None:
    if data.startswith(ARCHIVE_OPENINGS) or data[257:262] == b"ustar":
        sentence = "The file is an archive itself, and those are not opened. Send it on its own."
        raise _ItemError("nested_archive", sentence)
    if metadata.sha256 is not None and hashlib.sha256(data).hexdigest() != metadata.sha256:
        sentence = "The file's sha256 is not the one stated: it was changed or damaged on the way. Send it again."
        raise _ItemError("sha256_mismatch", sentence, "/sha256")


def _too_many_entries(limits: ArchiveLimits) -> ArchiveError:
    return ArchiveError(
        f"There are more than {limits.archive_max_entries:,} items. Send them in several parts.",
        code="archive_too_many_entries",
    )


# --- zip ---------------------------------------------------------------------------------------------------------


def read_zip(source: Path | BinaryIO, limits: ArchiveLimits = DEFAULT_LIMITS) -> Entries:
    """A zip with metadata.jsonl, at its root or in its only top folder -> entries, read as they are asked for.

    `source` is a path, or a seekable binary file which stays the caller's to close. Raises ArchiveError: here for what
    the archive's directory shows, while reading for a whole that outgrows its limits or a damaged metadata.jsonl.
    """
    try:
        _check_directory_size(source, limits)
        archive = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, struct.error, NotImplementedError, EOFError, UnicodeError, ValueError) as error:
        raise ArchiveError(
            "The archive cannot be read as a zip: it is damaged, cut short, or another format. Pack it again as a zip.",
            code="archive_unreadable",
        ) from error
    try:
        files = _checked_directory(archive, limits)
        prefix = _metadata_folder(set(files))
    except ArchiveError:
        archive.close()
        raise
    return Entries(_zip_items(archive, files, prefix, limits), total=len(files) - 1)


def _check_directory_size(source: Path | BinaryIO, limits: ArchiveLimits) -> None:
    """Refuse a directory far too long for the entries allowed, before zipfile loads all of it into memory."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            _check_directory_size(file, limits)
        return
    end_record, locator, zip64_record, longest_comment = 22, 20, 56, 65_535
    length = source.seek(0, os.SEEK_END)
    source.seek(max(0, length - end_record - locator - zip64_record - longest_comment))
    tail = source.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + end_record:
        return  # not a zip, as zipfile is about to say
    (size,) = struct.unpack_from("<L", tail, end + 12)
    start = end - locator - zip64_record
    if start >= 0 and tail[start : start + 4] == b"PK\x06\x06" and tail[end - locator :].startswith(b"PK\x06\x07"):
        (size,) = struct.unpack_from("<Q", tail, start + 40)
    if size > 512 * (limits.archive_max_entries + 100):  # an entry takes 46 bytes, its name and a few more
        raise _too_many_entries(limits)


def _checked_directory(archive: zipfile.ZipFile, limits: ArchiveLimits) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by key, once its directory shows nothing wrong."""
    infos = archive.infolist()
    if len(infos) > limits.archive_max_entries + 1:  # metadata.jsonl is not an item
        raise _too_many_entries(limits)
    if sum(info.file_size for info in infos) > limits.archive_max_total_bytes:
        raise _too_large(limits)
    files: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = _name(info)
        if fault := _unsafe(name):
            sentence = f'The archive holds a path that {fault} ("{printable(name)}"). Pack plain relative paths.'
            raise ArchiveError(sentence, code="archive_unsafe_path")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            sentence = f'The archive holds a link or a special file ("{printable(name)}"). Pack the files themselves.'
            raise ArchiveError(sentence, code="archive_link")
        path = PurePosixPath(name)
        if name.endswith("/") or path.name in CLUTTER or path.parts[:1] == ("__MACOSX",):
            continue
        if _key(name) in files:
            sentence = f'The archive holds two files named "{printable(name)}". Give every file a name of its own.'
            raise ArchiveError(sentence, code="archive_duplicate_name")
        files[_key(name)] = info
    return files


def _name(info: zipfile.ZipInfo) -> str:
    """The entry's name. Some packers write UTF-8 without saying so; zipfile then reads it as code page 437."""
    if not info.flag_bits & 0x800:
        with suppress(UnicodeError):
            return info.orig_filename.encode("cp437").decode("utf-8")
    return info.orig_filename


def _metadata_folder(names: set[str]) -> str:
    """Where metadata.jsonl lies: "" for the root, or the one top folder that has it, as "folder/"."""
    if METADATA in names:
        return ""
    folders = [name.removesuffix(METADATA) for name in names if name.count("/") == 1 and name.endswith("/" + METADATA)]
    if len(folders) == 1:
        return folders[0]
    where = "in more than one folder" if folders else "missing"
    raise ArchiveError(
        f"{METADATA} is {where}. Put one at the root of the archive, with one JSON object a line for each image.",
        code="archive_missing_metadata",
    )


def _too_large(limits: ArchiveLimits) -> ArchiveError:
    return ArchiveError(
        f"The archive unpacks to more than {limits.archive_max_total_bytes:,} bytes. Send it in several parts.",
        code="archive_too_large",
    )


def _zip_items(
    archive: zipfile.ZipFile, files: dict[str, zipfile.ZipInfo], prefix: str, limits: ArchiveLimits
) -> Iterator[Entry]:
    unpacked = _Unpacked(archive, limits)

    def read(name: str) -> bytes:
        return b"".join(unpacked.chunks(files[prefix + name], limits.max_image_bytes))

    inside = {name.removeprefix(prefix) for name in files if name.startswith(prefix)} - {METADATA}
    outside = sorted(name for name in files if not name.startswith(prefix))
    position = -1
    with archive:
        lines = _split_lines(unpacked.chunks(files[prefix + METADATA], None))
        try:
            for entry in _items(lines, inside, read, limits):
                position = entry.position
                yield entry
        except _ItemError as error:  # of metadata.jsonl itself: what is wrong with an item is in its entry
            raise ArchiveError(f"{METADATA} cannot be read. {error}", code="archive_unreadable") from error
        for name in outside:
            position += 1
            yield _left_over(position, name)


class _Unpacked:
    """Reads files of an archive and counts what really comes out: of one file, for its packed size, and in all."""

    def __init__(self, archive: zipfile.ZipFile, limits: ArchiveLimits) -> None:
        self.archive, self.limits = archive, limits
        self.total = 0

    def chunks(self, info: zipfile.ZipInfo, largest: int | None) -> Iterator[bytes]:
        """Raises _ItemError for what is wrong with this file, ArchiveError once the whole is too large."""
        if info.flag_bits & 0x1:
            raise _ItemError("encrypted_entry", "The file is encrypted. Pack it without a password.")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            sentence = "The file's compression is not supported. Use plain zip (deflate)."
            raise _ItemError("unsupported_compression", sentence)
        size = 0
        try:
            with self.archive.open(info) as file:
                while chunk := file.read(CHUNK):
                    size += len(chunk)
                    self.total += len(chunk)
                    self._check(info, size, largest)
                    yield chunk
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, struct.error, OSError) as error:
            raise _ItemError("corrupt_entry", "The file is damaged inside the archive. Pack it again.") from error

    def _check(self, info: zipfile.ZipInfo, size: int, largest: int | None) -> None:
        ratio = self.limits.archive_max_ratio
        if self.total > self.limits.archive_max_total_bytes:
            raise _too_large(self.limits)
        if largest is not None and size > largest:
            raise _image_too_large(largest)
        if size > RATIO_FREE_BYTES and size > ratio * info.compress_size:
            raise _ItemError("ratio_too_high", f"The file unpacks to more than {ratio} times its packed size.")


def _image_too_large(largest: int) -> _ItemError:
    return _ItemError("image_too_large", f"The file has more than {largest:,} bytes. Send the crop of the person.")


def _split_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Chunks -> lines. One beyond MAX_LINE_BYTES comes out cut just above that length: refused, and never in memory."""
    line = b""
    for chunk in chunks:
        *complete, rest = chunk.split(b"\n")
        for piece in complete:
            yield (line + piece)[: MAX_LINE_BYTES + 1]
            line = b""
        line = (line + rest)[: MAX_LINE_BYTES + 1]
    if line:
        yield line


# --- folder ------------------------------------------------------------------------------------------------------


def read_folder(folder: Path, limits: ArchiveLimits = DEFAULT_LIMITS) -> Entries:
    """A folder -> entries, read as they are asked for. With a metadata.jsonl in it, like a zip; without, every image
    file below becomes an item whose external id is its relative path. Links are not followed.

    Raises ArchiveError when there is nothing to read, or too much.
    """
    if not folder.is_dir():
        raise ArchiveError(f'"{folder}" is not a folder. Name a folder or a zip.', code="archive_unreadable")
    files = dict(sorted(_walk(folder, limits)))
    metadata = files.pop(METADATA, None)

    def read(name: str) -> bytes:
        try:
            if files[name].stat().st_size > limits.max_image_bytes:
                raise _image_too_large(limits.max_image_bytes)
            return files[name].read_bytes()
        except OSError as error:
            raise _ItemError("file_unreadable", f"The file cannot be read ({error.strerror}).") from error

    if metadata is not None:
        return Entries(_items(_file_lines(metadata), set(files), read, limits), total=len(files))
    images = [name for name in files if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise ArchiveError(f'"{folder}" holds no image and no {METADATA}. Name another folder.', code="archive_empty")
    return Entries(_plain_items(images, read), total=len(images))


def _walk(folder: Path, limits: ArchiveLimits) -> Iterator[tuple[str, Path]]:
    """(key, path) of every regular file below a folder."""
    count = 0
    for where, _, names in os.walk(folder):
        for name in names:
            path = Path(where, name)
            if name in CLUTTER or path.is_symlink() or not path.is_file():
                continue
            count += 1
            if count > limits.archive_max_entries + 1:
                raise _too_many_entries(limits)
            yield _key(path.relative_to(folder).as_posix()), path


def _file_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from _split_lines(iter(lambda: file.read(CHUNK), b""))


def _plain_items(names: list[str], read: Callable[[str], bytes]) -> Iterator[Entry]:
    for position, name in enumerate(names):
        try:
            metadata = parse_metadata({"file": name, "external_id": name})
            yield Entry(position, name, name, metadata, read(name))
        except GalleryError as error:
            yield Entry(position, printable(name), problem=Problem(error.code, str(error)))
