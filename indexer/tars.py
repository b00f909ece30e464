"""What arrives as a tar, plain or gzipped: its headers are walked once, then each file is read where it lies.

Of the format only files and folders are understood, under names of any length; links, devices and sparse files end it.
The standard reader is not used: it takes an extended header of any size into memory, and searches it in quadratic time.
"""

from __future__ import annotations

import os
import zlib
from typing import BinaryIO, Protocol

from indexer.archives import RATIO_FREE_BYTES
from indexer.errors import ArchiveError
from indexer.items import (
    DEFAULT_LIMITS,
    METADATA,
    ArchiveLimits,
    Entries,
    Piece,
    check_name,
    duplicate_name,
    is_clutter,
    key,
    link_inside,
    metadata_folder,
    packed_items,
    split_lines,
    too_large,
    too_many_entries,
)
from indexer.metadata import printable

BLOCK = 512
EXTENSION_BYTES = 64 * 1024  # of one extended header: a path, times and a few attributes
FILE, FOLDER = (b"0", b"\0", b"7"), b"5"
LONG_NAME, LONG_LINK, EXTENDED, GLOBAL = b"L", b"K", b"x", b"g"
SPARSE = b"S"
GZIP_OPENING = b"\x1f\x8b"


def read_tar(file: BinaryIO, limits: ArchiveLimits = DEFAULT_LIMITS) -> Entries:
    """A plain tar with metadata.jsonl, at its root or in its only top folder -> entries, read as they are asked for.

    `file` is seekable and stays the caller's. Raises ArchiveError: here for what the headers show, while reading for a
    damaged metadata.jsonl.
    """
    members = _members(file, limits)
    prefix = metadata_folder(set(members))
    lines = split_lines(members[prefix + METADATA].chunks(file), limits)
    entries = packed_items(set(members), prefix, lines, lambda name: members[name].read(file, limits), limits)
    return Entries(entries, total=len(members) - 1)


def looks_like_tar(file: BinaryIO) -> bool:
    """Whether the file has a tar's first header. Leaves it at its start."""
    file.seek(0)
    block = file.read(BLOCK)
    file.seek(0)
    return len(block) == BLOCK and block[257:262] == b"ustar"


def _members(file: BinaryIO, limits: ArchiveLimits) -> dict[str, Piece]:
    """The files of a tar by key, once its headers show nothing wrong."""
    length = file.seek(0, os.SEEK_END)
    members: dict[str, Piece] = {}
    names: dict[str, str] = {}  # what an extended header says about the next member
    at = total = headers = 0
    while True:
        file.seek(at)
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise _cut_short() if at else _unreadable()
        if not any(block):
            return members
        name, kind, size = _header(block)
        piece = Piece(at + BLOCK, size)
        at = piece.start + -(-size // BLOCK) * BLOCK
        headers += 1
        if piece.start + size > length:
            raise _cut_short()
        if headers > 4 * (limits.archive_max_entries + 100):  # folders and extended headers are no items
            raise too_many_entries(limits)
        if kind in (LONG_NAME, LONG_LINK, EXTENDED, GLOBAL):
            names |= _extension(file, kind, piece)
            continue
        name = names.get("path", name)
        stated, names = names.get("size"), {}
        check_name(name, limits)
        if kind == SPARSE or stated == "sparse":
            sentence = f'The archive holds a sparse file ("{printable(name)}"). Pack it without --sparse.'
            raise ArchiveError(sentence, code="archive_sparse")
        if stated is not None and stated != str(size):
            sentence = f'The archive states two sizes for one file ("{printable(name)}"). Pack it again.'
            raise ArchiveError(sentence, code="archive_unreadable")
        if kind not in (*FILE, FOLDER):
            raise link_inside(name)
        if kind == FOLDER or name.endswith("/") or is_clutter(name):
            continue
        if key(name) in members:
            raise duplicate_name(name)
        members[key(name)] = piece
        total += size
        if total > limits.archive_max_total_bytes:
            raise too_large(limits)
        if len(members) > limits.archive_max_entries + 1:  # metadata.jsonl is not an item
            raise too_many_entries(limits)


def _header(block: bytes) -> tuple[str, bytes, int]:
    """Name, kind and size of one header of 512 bytes."""
    try:
        expected = _number(block[148:156])
        size = _number(block[124:136])
    except ValueError as error:
        raise _unreadable() from error
    if expected != sum(block) - sum(block[148:156]) + 8 * ord(" ") or size < 0:
        raise _unreadable()
    name, prefix = block[:100].partition(b"\0")[0], b""
    if block[257:263] == b"ustar\0":  # GNU tar keeps other things where POSIX keeps the folders of a long name
        prefix = block[345:500].partition(b"\0")[0]
    return _text(prefix + b"/" + name if prefix else name), block[156:157], size


def _number(field: bytes) -> int:
    """Octal digits, or what is too large for them as a binary number with its top bit set."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big") if field[0] == 0x80 else -1
    return int(field.strip(b" \0") or b"0", 8)


def _extension(file: BinaryIO, kind: bytes, piece: Piece) -> dict[str, str]:
    """What an extended header says about the member that follows: its `path` and `size`."""
    if piece.size > EXTENSION_BYTES:
        sentence = f"The archive holds an extended header of more than {EXTENSION_BYTES:,} bytes. Pack it again."
        raise ArchiveError(sentence, code="archive_unreadable")
    data = b"".join(piece.chunks(file))
    if kind == LONG_NAME:
        return {"path": _text(data.partition(b"\0")[0])}
    return _pax(data) if kind == EXTENDED else {}


def _pax(data: bytes) -> dict[str, str]:
    """Records `LENGTH KEY=VALUE\\n`, of which the length counts all of it."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data) and data[at]:
        digits = data[at : at + 20].partition(b" ")[0]
        if not digits.isdigit() or int(digits) <= len(digits) or at + int(digits) > len(data):
            raise _unreadable()
        record = data[at + len(digits) + 1 : at + int(digits) - 1]
        keyword, _, value = record.partition(b"=")
        if keyword in (b"path", b"size"):
            found[keyword.decode()] = _text(value)
        elif keyword.startswith(b"GNU.sparse."):
            found["size"] = "sparse"
        at += int(digits)
    return found


def _text(name: bytes) -> str:
    """A name as text; what is not UTF-8 survives as half surrogates, which `check_name` refuses."""
    return name.decode("utf-8", "surrogateescape")


def _unreadable() -> ArchiveError:
    return ArchiveError(
        "The archive cannot be read as a tar: it is damaged or another format. Pack it again as a tar.",
        code="archive_unreadable",
    )


def _cut_short() -> ArchiveError:
    return ArchiveError("The archive is cut short: its end is missing. Send it again.", code="archive_unreadable")


class Writable(Protocol):
    """Takes bytes, as an open file does."""

    def write(self, data: bytes, /) -> int: ...


class Gunzip:
    """Unpacks gzip into a file while it arrives, so that what lies on disk can be read at any place.

    Counts what comes out: `write` raises ArchiveError once that is too much.
    """

    def __init__(self, target: Writable, limits: ArchiveLimits) -> None:
        self.target, self.limits = target, limits
        self._member = zlib.decompressobj(wbits=31)
        self._packed = self._unpacked = 0

    def write(self, data: bytes) -> None:
        self._packed += len(data)
        while data:
            if self._member.eof:  # gzip files may stand one after another; some writers pad the end with zeros
                data = data.lstrip(b"\0")
                if not data:
                    return
                self._member = zlib.decompressobj(wbits=31)
            try:
                out = self._member.decompress(data, RATIO_FREE_BYTES)
            except zlib.error as error:
                sentence = "The archive's gzip packing is damaged. Send it again."
                raise ArchiveError(sentence, code="archive_unreadable") from error
            self._unpacked += len(out)
            self._check()
            self.target.write(out)
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail

    def _check(self) -> None:
        if self._unpacked > self.limits.archive_max_total_bytes:
            raise too_large(self.limits)
        ratio = self.limits.archive_max_ratio
        if self._unpacked > RATIO_FREE_BYTES and self._unpacked > ratio * self._packed:
            sentence = f"The archive unpacks to more than {ratio} times its size (PERSON_SEARCH_ARCHIVE_MAX_RATIO)."
            raise ArchiveError(sentence, code="archive_ratio_too_high")

    def finish(self) -> None:
        """Raise ArchiveError if the end is missing."""
        while not self._member.eof:
            out = self._member.decompress(self._member.unconsumed_tail, RATIO_FREE_BYTES)
            if not out:
                raise _cut_short()
            self._unpacked += len(out)
            self._check()
            self.target.write(out)
