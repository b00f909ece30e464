"""Items on their way in: the lines of a manifest, the files they name, and the checks that all deliveries share.

A fault of the whole raises ArchiveError; a fault of one item becomes an entry with its problem, and the others go on.
How a delivery is packed is known to archives.py, tars.py and manifests.py. Whether bytes show anybody is not asked.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Protocol

from indexer.errors import ArchiveError, GalleryError
from indexer.metadata import MAX_STRING, ItemMetadata, is_clean, parse_metadata, pointer_of, printable

METADATA = "metadata.jsonl"
ARCHIVE_SUFFIXES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".jar"}
ARCHIVE_OPENINGS = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")
CLUTTER = {".DS_Store", "Thumbs.db", "desktop.ini"}  # left by file managers: neither items nor worth a rejection
CHUNK = 64 * 1024


class ArchiveLimits(Protocol):
    """What a delivery may hold. `GallerySettings` is one."""

    @property
    def archive_max_entries(self) -> int: ...
    @property
    def archive_max_total_bytes(self) -> int: ...
    @property
    def archive_max_ratio(self) -> int: ...
    @property
    def archive_max_depth(self) -> int: ...
    @property
    def manifest_max_line_bytes(self) -> int: ...
    @property
    def max_image_bytes(self) -> int: ...


@dataclass(frozen=True)
class Limits:
    """Archive limits on their own, with the defaults of `GallerySettings`."""

    archive_max_entries: int = 100_000
    archive_max_total_bytes: int = 20 * 2**30
    archive_max_ratio: int = 200
    archive_max_depth: int = 32
    manifest_max_line_bytes: int = 64 * 1024
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
    """One item on its way in: metadata and the bytes of its file, or the problem that keeps it out.

    An entry without either changes an image that is there already: `changes` are the fields its line names.
    """

    position: int
    file: str | None = None
    external_id: str | None = None
    metadata: ItemMetadata | None = None
    data: bytes | None = None
    problem: Problem | None = None
    changes: frozenset[str] = frozenset()


class Entries(Iterator[Entry]):
    """Entries, read as they are asked for. `total` is about how many will come: good enough for a progress bar."""

    def __init__(self, entries: Iterator[Entry], total: int) -> None:
        self._entries = entries
        self.total = total

    def __next__(self) -> Entry:
        return next(self._entries)


class ItemError(GalleryError):
    """An item cannot be taken, for a reason only deliveries know."""

    def __init__(self, code: str, sentence: str, pointer: str | None = "/file") -> None:
        super().__init__(sentence, code=code)
        self.pointer = pointer


# --- items -------------------------------------------------------------------------------------------------------


def items(
    lines: Iterator[bytes], names: set[str] | None, read: Callable[[str], bytes], limits: ArchiveLimits
) -> Iterator[Entry]:
    """Lines of a manifest, the names of the files there, and how to read one -> an entry for each line, then one for
    each file that no line names. With names None nobody knows what is there: `read` says so when a file is not.
    """
    used: set[str] = set()  # by lines that were fine
    named: set[str] = set()  # by any line: a file whose line is refused is not reported once more
    position = -1
    for position, (number, line) in enumerate(read_lines(lines, limits)):
        if position >= limits.archive_max_entries:
            raise too_many_entries(limits)
        if isinstance(line, Problem):
            yield Entry(position, problem=line)
        else:
            if isinstance(file := line.get("file", line.get("path")), str):
                named.add(key(file))
            yield _item(position, number, line, names, used, read, limits)
    for name in sorted((names or set()) - named):
        position += 1
        yield left_over(position, name)


def _item(
    position: int,
    number: int,
    line: Mapping[str, Any],
    names: set[str] | None,
    used: set[str],
    read: Callable[[str], bytes],
    limits: ArchiveLimits,
) -> Entry:
    field = "path" if "path" in line else "file"
    try:
        metadata = parse_metadata(line)
        name = _file_of(metadata, field, limits)
        if names is not None and name not in names:
            raise missing(name)
        if name in used:
            raise ItemError("file_repeated", f'The file "{printable(name)}" is named by an earlier line as well.')
        used.add(name)
        data = read(name)
        _check_content(data, metadata)
    except ArchiveError:
        raise
    except GalleryError as error:
        return _rejected(position, number, line, error)
    return Entry(position, metadata.file, metadata.external_id, metadata, data)


def updates(lines: Iterator[bytes], limits: ArchiveLimits) -> Iterator[Entry]:
    """Lines that describe images which are there already -> an entry for each, without bytes.

    A field that a line names is set, to nothing if it is null; one that it leaves out stays as it is.
    """
    seen: set[str] = set()
    for position, (number, line) in enumerate(read_lines(lines, limits)):
        if position >= limits.archive_max_entries:
            raise too_many_entries(limits)
        if isinstance(line, Problem):
            yield Entry(position, problem=line)
            continue
        try:
            metadata = parse_metadata(line)
            if metadata.file is not None:
                sentence = "These lines describe images that are there already. Leave the file out, or send a zip."
                raise ItemError("file_not_expected", sentence, "/path" if "path" in line else "/file")
            if metadata.external_id is None:
                raise ItemError("external_id_missing", "The external id says which image is meant.", "/external_id")
            if metadata.external_id in seen:
                raise ItemError("external_id_repeated", "An earlier line describes this image as well.", "/external_id")
            seen.add(metadata.external_id)
        except GalleryError as error:
            yield _rejected(position, number, line, error)
            continue
        yield Entry(position, None, metadata.external_id, metadata, changes=frozenset(line) - {"external_id", "sha256"})


def _rejected(position: int, number: int, line: Mapping[str, Any], error: GalleryError) -> Entry:
    pointer = error.pointer if isinstance(error, ItemError) else pointer_of(error)
    if pointer == "/file" and "path" in line:
        pointer = "/path"
    problem = Problem(error.code, f"Line {number}: {error}", pointer)
    return Entry(position, _shown(line, "file") or _shown(line, "path"), _shown(line, "external_id"), problem=problem)


def _shown(line: Mapping[str, Any], name: str) -> str | None:
    """What a rejected line called itself, where that can be shown."""
    value = line.get(name)
    return value if isinstance(value, str) and len(value) <= MAX_STRING and is_clean(value) else None


def left_over(position: int, name: str) -> Entry:
    """The entry of a file that no line names."""
    if PurePosixPath(name).suffix.lower() in ARCHIVE_SUFFIXES:
        problem = Problem("nested_archive", "Archives inside an archive are not opened. Send this one on its own.")
    else:
        problem = Problem("not_in_metadata", f"No line of {METADATA} names this file. Add one, or leave the file out.")
    return Entry(position, file=printable(name), problem=problem)


def missing(name: str) -> ItemError:
    return ItemError("file_missing", f'The file "{printable(name)}" is not there. Add it, or leave the line out.')


def image_too_large(limits: ArchiveLimits) -> ItemError:
    return ItemError(
        "image_too_large",
        f"The file has more than {limits.max_image_bytes:,} bytes (PERSON_SEARCH_MAX_IMAGE_BYTES). "
        "Send the crop of the person.",
    )


def _check_content(data: bytes, metadata: ItemMetadata) -> None:
    if data.startswith(ARCHIVE_OPENINGS) or data[257:262] == b"ustar":
        sentence = "The file is an archive itself, and those are not opened. Send it on its own."
        raise ItemError("nested_archive", sentence)
    if metadata.sha256 is not None and hashlib.sha256(data).hexdigest() != metadata.sha256:
        sentence = "The file's sha256 is not the one stated: it was changed or damaged on the way. Send it again."
        raise ItemError("sha256_mismatch", sentence, "/sha256")


# --- lines -------------------------------------------------------------------------------------------------------


def split_lines(chunks: Iterator[bytes], limits: ArchiveLimits) -> Iterator[bytes]:
    """Chunks -> lines. One that is too long comes out cut just above the limit: refused, and never in memory."""
    longest = limits.manifest_max_line_bytes + 1
    line = b""
    for chunk in chunks:
        *complete, rest = chunk.split(b"\n")
        for piece in complete:
            yield (line + piece)[:longest]
            line = b""
        line = (line + rest)[:longest]
    if line:
        yield line


def read_lines(lines: Iterator[bytes], limits: ArchiveLimits) -> Iterator[tuple[int, Mapping[str, Any] | Problem]]:
    """Raw lines -> (line number from 1, JSON object or the problem with that line). Blank lines are skipped."""
    for number, raw in enumerate(lines, start=1):
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")  # the byte order mark some editors write
        if raw.strip():
            yield number, _read_line(number, raw, limits.manifest_max_line_bytes)


def _read_line(number: int, raw: bytes, longest: int) -> Mapping[str, Any] | Problem:
    if len(raw) > longest:
        limit = f"{longest:,} bytes, the most accepted (PERSON_SEARCH_MANIFEST_MAX_LINE_BYTES)"
        return Problem("line_too_long", f"Line {number}: longer than {limit}.")
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


# --- names -------------------------------------------------------------------------------------------------------


def _file_of(metadata: ItemMetadata, field: str, limits: ArchiveLimits) -> str:
    """The file a line names, as a key."""
    if metadata.file is None:
        raise ItemError("file_not_named", 'The field "file" is missing. Name the image this line describes.')
    if fault := unsafe(metadata.file, limits):
        raise ItemError("unsafe_path", f'The field "{field}" {fault}. Use a plain relative path with "/".')
    return key(metadata.file)


def key(name: str) -> str:
    """One spelling per name: macOS writes accents as two characters, other systems as one."""
    return unicodedata.normalize("NFC", str(PurePosixPath(name)))


def unsafe(name: str, limits: ArchiveLimits) -> str | None:
    """What is wrong with a path, or None."""
    if "\\" in name:
        return "has a backslash"
    if name.startswith("/"):
        return "is an absolute path"
    if len(name) > 1 and name[1] == ":" and name[0].isalpha():
        return "starts with a drive letter"
    if ".." in name.split("/"):
        return 'has ".." in it'
    if any("\ud800" <= character <= "\udfff" for character in name):
        return "is not valid UTF-8"
    if not is_clean(name):
        return "has control characters"
    if name.count("/") > limits.archive_max_depth:
        return f"is more than {limits.archive_max_depth} folders deep (PERSON_SEARCH_ARCHIVE_MAX_DEPTH)"
    return None


def check_name(name: str, limits: ArchiveLimits) -> None:
    """Raise ArchiveError for a path that may lead out of the archive, or that nobody could ask for."""
    if fault := unsafe(name, limits):
        sentence = f'The archive holds a path that {fault} ("{printable(name)}"). Pack plain relative paths.'
        raise ArchiveError(sentence, code="archive_unsafe_path")


def link_inside(name: str) -> ArchiveError:
    sentence = f'The archive holds a link or a special file ("{printable(name)}"). Pack the files themselves.'
    return ArchiveError(sentence, code="archive_link")


def duplicate_name(name: str) -> ArchiveError:
    sentence = f'The archive holds two files named "{printable(name)}". Give every file a name of its own.'
    return ArchiveError(sentence, code="archive_duplicate_name")


def is_clutter(name: str) -> bool:
    path = PurePosixPath(name)
    return path.name in CLUTTER or path.parts[:1] == ("__MACOSX",)


def too_many_entries(limits: ArchiveLimits) -> ArchiveError:
    limit = f"{limits.archive_max_entries:,} items (PERSON_SEARCH_ARCHIVE_MAX_ENTRIES)"
    return ArchiveError(f"There are more than {limit}. Send them in several parts.", code="archive_too_many_entries")


def too_large(limits: ArchiveLimits) -> ArchiveError:
    limit = f"{limits.archive_max_total_bytes:,} bytes (PERSON_SEARCH_ARCHIVE_MAX_TOTAL_BYTES)"
    return ArchiveError(
        f"The archive unpacks to more than {limit}. Send it in several parts.", code="archive_too_large"
    )


def metadata_folder(names: set[str]) -> str:
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


# --- packed files ------------------------------------------------------------------------------------------------


def packed_items(
    names: set[str],
    prefix: str,
    lines: Iterator[bytes],
    read: Callable[[str], bytes],
    limits: ArchiveLimits,
) -> Iterator[Entry]:
    """The items of an archive whose metadata.jsonl lies in the folder `prefix`; `read` takes full names.

    Files outside that folder are reported after all others.
    """
    inside = {name.removeprefix(prefix) for name in names if name.startswith(prefix)} - {METADATA}
    position = -1
    try:
        for entry in items(lines, inside, lambda name: read(prefix + name), limits):
            position = entry.position
            yield entry
    except ItemError as error:  # of metadata.jsonl itself: what is wrong with an item is in its entry
        raise ArchiveError(f"{METADATA} cannot be read. {error}", code="archive_unreadable") from error
    for name in sorted(name for name in names if not name.startswith(prefix)):
        position += 1
        yield left_over(position, name)


@dataclass(frozen=True)
class Piece:
    """Where in a larger file something lies, in bytes."""

    start: int
    size: int

    def chunks(self, file: BinaryIO) -> Iterator[bytes]:
        """Raises ItemError where the file ends early."""
        at, end = self.start, self.start + self.size
        while at < end:
            file.seek(at)  # others read from the same file in between
            chunk = file.read(min(CHUNK, end - at))
            if not chunk:
                raise ItemError("corrupt_entry", "The file is cut short. Send it again.")
            at += len(chunk)
            yield chunk

    def read(self, file: BinaryIO, limits: ArchiveLimits) -> bytes:
        """All of it. Raises ItemError when it is larger than an image may be."""
        if self.size > limits.max_image_bytes:
            raise image_too_large(limits)
        return b"".join(self.chunks(file))
