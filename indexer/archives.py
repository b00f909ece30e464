"""What arrives as a zip or lies in a folder, read item by item.

An archive is hostile until shown otherwise: nothing is unpacked to disk, one file at a time is in memory, and sizes are
counted while reading, never believed from a header. Tars are read in tars.py; what a line means is decided in items.py.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from indexer.errors import ArchiveError, GalleryError
from indexer.items import (
    CHUNK,
    CLUTTER,
    DEFAULT_LIMITS,
    METADATA,
    ArchiveLimits,
    Entries,
    Entry,
    ItemError,
    Limits,
    Problem,
    check_name,
    duplicate_name,
    image_too_large,
    is_clutter,
    items,
    key,
    link_inside,
    metadata_folder,
    packed_items,
    split_lines,
    too_large,
    too_many_entries,
)
from indexer.metadata import ItemMetadata, parse_metadata, printable

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

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
RATIO_FREE_BYTES = 2**20  # below this a high compression ratio is harmless: a plain sky in BMP reaches 1000

# --- zip ---------------------------------------------------------------------------------------------------------


def read_zip(source: Path | BinaryIO, limits: ArchiveLimits = DEFAULT_LIMITS) -> Entries:
    """A zip with metadata.jsonl, at its root or in its only top folder -> entries, read as they are asked for.

    `source` is a path, or a seekable binary file which stays the caller's to close. Raises ArchiveError: here for what
    the archive's directory shows, while reading for a whole that outgrows its limits or a damaged metadata.jsonl.
    """
    try:
        _count_directory(source, limits)
        archive = zipfile.ZipFile(source)
    except UnicodeError as error:
        sentence = "The archive holds a file name that is not valid UTF-8, though it says so. Pack it again."
        raise ArchiveError(sentence, code="archive_unreadable") from error
    except (zipfile.BadZipFile, struct.error, NotImplementedError, EOFError, ValueError) as error:
        raise ArchiveError(
            "The archive cannot be read as a zip: it is damaged, cut short, or another format. Pack it again as a zip.",
            code="archive_unreadable",
        ) from error
    try:
        files = _checked_directory(archive, limits)
        prefix = metadata_folder(set(files))
    except ArchiveError:
        archive.close()
        raise
    return Entries(_zip_items(archive, files, prefix, limits), total=len(files) - 1)


def _count_directory(source: Path | BinaryIO, limits: ArchiveLimits) -> None:
    """Refuse a directory of too many entries before zipfile makes an object of each: a million take gigabytes.

    What the archive says about their number is not asked: the entries are counted. Anything odd about the directory is
    left to zipfile, which finds it too.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            _count_directory(file, limits)
        return
    end_record, locator, zip64_record, longest_comment = 22, 20, 56, 65_535
    length = source.seek(0, os.SEEK_END)
    begin = source.seek(max(0, length - end_record - locator - zip64_record - longest_comment))
    tail = source.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + end_record:
        return
    (size,) = struct.unpack_from("<L", tail, end + 12)
    start = end - locator - zip64_record
    if start >= 0 and tail[start : start + 4] == b"PK\x06\x06" and tail[end - locator :].startswith(b"PK\x06\x07"):
        (size,) = struct.unpack_from("<Q", tail, start + 40)
        end = start
    if size > 512 * (limits.archive_max_entries + 100):  # far more than so many entries and their names take
        raise too_many_entries(limits)
    if (at := begin + end - size) < 0:
        return
    source.seek(at)
    _count_entries(source.read(size), limits)


def _count_entries(directory: bytes, limits: ArchiveLimits) -> None:
    at = count = 0
    while directory[at : at + 4] == b"PK\x01\x02" and at + 46 <= len(directory):
        count += 1
        if count > limits.archive_max_entries + 1:  # metadata.jsonl is not an item
            raise too_many_entries(limits)
        at += 46 + sum(struct.unpack_from("<3H", directory, at + 28))  # name, extra fields, comment


def _checked_directory(archive: zipfile.ZipFile, limits: ArchiveLimits) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by key, once its directory shows nothing wrong."""
    infos = archive.infolist()
    if len(infos) > limits.archive_max_entries + 1:
        raise too_many_entries(limits)
    if sum(info.file_size for info in infos) > limits.archive_max_total_bytes:
        raise too_large(limits)
    files: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = _name(info)
        check_name(name, limits)
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise link_inside(name)
        if name.endswith("/") or is_clutter(name):
            continue
        if key(name) in files:
            raise duplicate_name(name)
        files[key(name)] = info
    return files


def _name(info: zipfile.ZipInfo) -> str:
    """The entry's name. Some packers write UTF-8 without saying so; zipfile then reads it as code page 437."""
    if not info.flag_bits & 0x800:
        with suppress(UnicodeError):
            return info.orig_filename.encode("cp437").decode("utf-8")
    return info.orig_filename


def _zip_items(
    archive: zipfile.ZipFile, files: dict[str, zipfile.ZipInfo], prefix: str, limits: ArchiveLimits
) -> Iterator[Entry]:
    unpacked = _Unpacked(archive, limits)

    def read(name: str) -> bytes:
        return b"".join(unpacked.chunks(files[name], limits.max_image_bytes))

    with archive:
        lines = split_lines(unpacked.chunks(files[prefix + METADATA], None), limits)
        yield from packed_items(set(files), prefix, lines, read, limits)


class _Unpacked:
    """Reads files of an archive and counts what really comes out: of one file, for its packed size, and in all."""

    def __init__(self, archive: zipfile.ZipFile, limits: ArchiveLimits) -> None:
        self.archive, self.limits = archive, limits
        self.total = 0

    def chunks(self, info: zipfile.ZipInfo, largest: int | None) -> Iterator[bytes]:
        """Raises ItemError for what is wrong with this file, ArchiveError once the whole is too large."""
        if info.flag_bits & 0x1:
            raise ItemError("encrypted_entry", "The file is encrypted. Pack it without a password.")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            sentence = "The file's compression is not supported. Use plain zip (deflate)."
            raise ItemError("unsupported_compression", sentence)
        size = 0
        try:
            with self.archive.open(info) as file:
                while chunk := file.read(CHUNK):
                    size += len(chunk)
                    self.total += len(chunk)
                    self._check(info, size, largest)
                    yield chunk
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, struct.error, OSError) as error:
            wrong = "does not match its checksum (CRC)" if "CRC" in str(error) else "is damaged inside the archive"
            raise ItemError("corrupt_entry", f"The file {wrong}. Pack it again.") from error

    def _check(self, info: zipfile.ZipInfo, size: int, largest: int | None) -> None:
        ratio = self.limits.archive_max_ratio
        if self.total > self.limits.archive_max_total_bytes:
            raise too_large(self.limits)
        if largest is not None and size > largest:
            raise image_too_large(self.limits)
        if size > RATIO_FREE_BYTES and size > ratio * info.compress_size:
            raise ItemError(
                "ratio_too_high",
                f"The file unpacks to more than {ratio} times its packed size (PERSON_SEARCH_ARCHIVE_MAX_RATIO).",
            )


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
                raise image_too_large(limits)
            return files[name].read_bytes()
        except OSError as error:
            raise ItemError("file_unreadable", f"The file cannot be read ({error.strerror}).") from error

    if metadata is not None:
        return Entries(items(_file_lines(metadata, limits), set(files), read, limits), total=len(files))
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
                raise too_many_entries(limits)
            yield key(path.relative_to(folder).as_posix()), path


def _file_lines(path: Path, limits: ArchiveLimits) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from split_lines(iter(lambda: file.read(CHUNK), b""), limits)


def _plain_items(names: list[str], read: Callable[[str], bytes]) -> Iterator[Entry]:
    for position, name in enumerate(names):
        try:
            metadata = parse_metadata({"file": name, "external_id": name})
            yield Entry(position, name, name, metadata, read(name))
        except GalleryError as error:
            yield Entry(position, printable(name), problem=Problem(error.code, str(error)))
