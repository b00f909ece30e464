"""Manifests that come without an archive: beside their files in a form, by reference, or as metadata alone.

A manifest by reference lies below a folder or an object store that the operator listed, and so do the files it names:
neither `..` nor a link leads out. The store is reached through fsspec; which protocols work depends on what is
installed beside it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Protocol

from indexer.errors import ArchiveError, InvalidSettings
from indexer.items import (
    CHUNK,
    DEFAULT_LIMITS,
    ArchiveLimits,
    Entries,
    ItemError,
    Piece,
    image_too_large,
    items,
    missing,
    split_lines,
    unsafe,
    updates,
)
from indexer.metadata import printable

LOCAL = "file://"


def read_parts(
    file: BinaryIO, manifest: Piece, files: Mapping[str, Piece], limits: ArchiveLimits = DEFAULT_LIMITS
) -> Entries:
    """A manifest and files by key, all of them pieces of one file -> entries."""

    def read(name: str) -> bytes:
        return files[name].read(file, limits)

    return Entries(items(split_lines(manifest.chunks(file), limits), set(files), read, limits), total=len(files))


def read_updates(file: BinaryIO, limits: ArchiveLimits = DEFAULT_LIMITS) -> Entries:
    """Lines about images that are there already -> entries that change them."""
    manifest = _whole(file)
    return Entries(updates(split_lines(manifest.chunks(file), limits), limits), total=_count_lines(file, manifest))


def read_reference(file: BinaryIO, folder: Folder, manifest: str, limits: ArchiveLimits = DEFAULT_LIMITS) -> Entries:
    """The manifest at a path below a folder -> entries; the files its lines name lie beside it or further below.

    The manifest is copied to `file` first: it may change while its files are read. Raises ArchiveError when it cannot
    be read.
    """
    beside = PurePosixPath(manifest).parent
    try:
        copied = 0
        for chunk in folder.chunks(manifest):
            copied += len(chunk)
            if copied > limits.archive_max_total_bytes:
                raise ItemError("too_large", "It is larger than an archive may be.")
            file.write(chunk)
    except ItemError as error:
        raise ArchiveError(f"The manifest cannot be read. {error}", code="reference_unreadable") from error
    lines = split_lines(_whole(file).chunks(file), limits)

    def read(name: str) -> bytes:
        parts: list[bytes] = []
        size = 0
        for chunk in folder.chunks(str(beside / name)):
            size += len(chunk)
            if size > limits.max_image_bytes:
                raise image_too_large(limits)
            parts.append(chunk)
        return b"".join(parts)

    return Entries(items(lines, None, read, limits), total=_count_lines(file, _whole(file)))


def _whole(file: BinaryIO) -> Piece:
    return Piece(0, file.seek(0, os.SEEK_END))


def _count_lines(file: BinaryIO, manifest: Piece) -> int:
    return sum(chunk.count(b"\n") for chunk in manifest.chunks(file))


# --- where manifests may lie -------------------------------------------------------------------------------------


class Folder(Protocol):
    """A folder or an object store, read by paths below it."""

    def chunks(self, path: str) -> Iterator[bytes]:
        """A file's content. Raises ItemError when it is not there or cannot be read."""
        ...


def locate(location: str, roots: Sequence[str], limits: ArchiveLimits = DEFAULT_LIMITS) -> tuple[Folder, str]:
    """A manifest's path or URL -> the folder among `roots` that it lies below, and its path from there.

    Raises ArchiveError when it lies below none of them, or its path is not a plain one.
    """
    wanted = _url(location)
    for root in sorted(roots, key=len, reverse=True):
        base = _url(root).rstrip("/") + "/"
        if wanted.startswith(base) and len(wanted) > len(base):
            path = wanted.removeprefix(base)
            if fault := unsafe(path, limits):
                sentence = f"The manifest's path {fault}. Use a plain path below the folder."
                raise ArchiveError(sentence, code="reference_not_allowed")
            return open_root(root), path
    raise ArchiveError(
        f'"{printable(location)}" does not lie below a folder this service may read. '
        "Whoever runs it can add one to PERSON_SEARCH_INTAKE_ROOTS.",
        code="reference_not_allowed",
    )


def open_root(root: str) -> Folder:
    """A configured root as a folder. Raises InvalidSettings for one that this installation cannot read."""
    url = _url(root)
    if url.startswith(LOCAL):
        if not url.removeprefix(LOCAL).startswith("/"):
            raise InvalidSettings(f"PERSON_SEARCH_INTAKE_ROOTS: {root!r} must be an absolute path or a URL.")
        return LocalFolder(url.removeprefix(LOCAL))
    import fsspec  # takes a while, and only those with an object store need it

    protocol = url.partition("://")[0]
    try:
        return RemoteFolder(fsspec.filesystem(protocol), url.rstrip("/"))
    except (ImportError, ValueError) as error:
        raise InvalidSettings(
            f"PERSON_SEARCH_INTAKE_ROOTS: {protocol}:// cannot be read here ({error}). Install its fsspec package."
        ) from error


def _url(location: str) -> str:
    return location if "://" in location else LOCAL + location


@dataclass(frozen=True)
class LocalFolder:
    """A folder of this machine. Every step below it is opened by itself, so that no link is ever followed."""

    root: str

    def chunks(self, path: str) -> Iterator[bytes]:
        try:
            with os.fdopen(self._open(path), "rb") as file:
                while chunk := file.read(CHUNK):
                    yield chunk
        except FileNotFoundError:
            raise missing(path) from None
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise _not_a_file(path) from error
            raise _unreadable(path, error) from error

    def _open(self, path: str) -> int:
        *folders, name = PurePosixPath(path).parts
        at = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for folder in folders:
                below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
                os.close(at)
                at = below
            # Not blocking: a pipe would wait for somebody to write into it.
            opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
            if not stat.S_ISREG(os.fstat(opened).st_mode):
                os.close(opened)
                raise _not_a_file(path)
            return opened
        finally:
            os.close(at)


@dataclass(frozen=True)
class RemoteFolder:
    """A part of an object store, through fsspec."""

    filesystem: Any  # fsspec is not typed
    root: str

    def chunks(self, path: str) -> Iterator[bytes]:
        # Stores answer with errors of their own kinds, and none of them is worth ending a delivery for.
        file = _or_item_error(path, lambda: self.filesystem.open(f"{self.root}/{path}", "rb"))
        try:
            while chunk := _or_item_error(path, lambda: file.read(CHUNK)):
                yield chunk
        finally:
            file.close()


def _or_item_error(path: str, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except FileNotFoundError:
        raise missing(path) from None
    except Exception as error:
        raise _unreadable(path, error) from error


def _not_a_file(path: str) -> ItemError:
    return ItemError("unsafe_path", f'"{printable(path)}" is, or lies below, a link or is no plain file. Name a file.')


def _unreadable(path: str, error: Exception) -> ItemError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return ItemError("file_unreadable", f'The file "{printable(path)}" cannot be read ({reason}).')
