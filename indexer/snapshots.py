"""The vector index on disk, so that a start need not read every vector from the database.

Each checkpoint has a folder: one file for each block of the index, named by its sha256, and a manifest that lists them.
Blocks never change, so the next snapshot writes only those that are new. A file gets its name when it is whole and on
the disk, and the manifest comes last: a crash leaves the snapshot that was there before.

It is a cache. What is not exactly as it was written is refused, never repaired, and nothing in it is believed before
its checksum was: not a length, not a name. Whether it is of this database, replica.py finds out.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from indexer.embeddings import Digests, Rows, Vectors, digests
from indexer.errors import StorageFull
from indexer.index import FAISS_VERSION, MAX_BLOCK, Block, VectorIndex

FOLDER = "index"  # in the data folder
FORMAT = 1
MANIFEST = "manifest.json"
BLOCK_SUFFIX, UNFINISHED_SUFFIX = ".block", ".new"
OUR_SUFFIXES = (BLOCK_SUFFIX, UNFINISHED_SUFFIX, ".json")
MAX_MANIFEST_BYTES = 16 * 1024**2  # some 100,000 blocks
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class SnapshotRefused(Exception):  # noqa: N818  (it is no error: the database has everything)
    """The snapshot cannot be used; the message says why, as the rest of "the snapshot was refused: ..."."""


class BlockFile(BaseModel):
    """One block's file: `count` rows, int64, their digests, 8 bytes each, their vectors, float32; all little endian
    but the digests, whose bytes are kept as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    count: int = Field(gt=0, le=MAX_BLOCK)

    @property
    def name(self) -> str:
        return self.sha256 + BLOCK_SUFFIX

    def size(self, dim: int) -> int:
        return self.count * (8 + 8 + 4 * dim)


class Manifest(BaseModel):
    """What a snapshot is of: all vectors of a checkpoint up to change `seq`, perhaps some newer ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: int
    checkpoint_id: str
    dim: int
    index: str
    faiss: str
    seq: int = Field(ge=0)  # 0 promises nothing: whatever is not in it is read from the database
    count: int = Field(ge=0)
    blocks: list[BlockFile]

    def encoded(self) -> bytes:
        """As it is in the file: JSON, with the checksum of everything else in it."""
        content = self.model_dump()
        checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return json.dumps({**content, "checksum": checksum}, indent=1).encode()

    @classmethod
    def decoded(cls, data: bytes) -> Manifest:
        """Raises `SnapshotRefused` unless these are the very bytes `encoded` made."""
        try:
            content = json.loads(data)
            checksum = content.pop("checksum")
            manifest = cls.model_validate(content)
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            damaged = isinstance(error, ValidationError) and isinstance(content.get("format"), int)
            if damaged and content["format"] != FORMAT:
                raise SnapshotRefused(f"its format is {content['format']}, not {FORMAT}") from error
            raise SnapshotRefused("its manifest is damaged") from error
        if manifest.encoded() != data or not isinstance(checksum, str):
            raise SnapshotRefused("its manifest is damaged")
        return manifest


@dataclass(frozen=True)
class SavedBlock:
    """One block as read: its file was whole."""

    rows: Rows  # (N,)
    digests: Digests  # (N,)
    vectors: Vectors  # (N, dim)


@dataclass(frozen=True)
class Saved:
    """A snapshot under way of being read."""

    folder: Path
    manifest: Manifest

    def blocks(self) -> Iterator[SavedBlock]:
        """One block after the other. Raises `SnapshotRefused` at the first that is not as it was written."""
        for block in self.manifest.blocks:
            yield _read_block(self.folder / block.name, block, self.manifest.dim)


def folder_of(root: Path, checkpoint_id: str) -> Path:
    """Where the snapshot of a checkpoint is: each has its own, so that two can be in use at a time."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", checkpoint_id):
        raise ValueError(f"not a checkpoint id: {checkpoint_id!r}")
    return root / checkpoint_id


# --------------------------------------------------------------------------------------------------------------------
# Reading


@contextlib.contextmanager
def opened(folder: Path, checkpoint_id: str, dim: int, spec: str) -> Iterator[Saved | None]:
    """The snapshot in the folder, or None if there is none; nobody writes it anew while the context lasts.

    Raises `SnapshotRefused`, here or while its blocks are read, if it is damaged or made of something else than vectors
    of `dim` numbers of this checkpoint for an index `spec` of this version of FAISS.
    """
    if not folder.exists():
        yield None
        return
    with contextlib.ExitStack() as stack:
        with _refusing_what_cannot_be_read():
            stack.enter_context(_locked(folder, fcntl.LOCK_SH))
            manifest = _read_manifest(folder)
        if manifest is None:
            yield None
            return
        wanted = {"format": FORMAT, "checkpoint_id": checkpoint_id, "dim": dim, "index": spec, "faiss": FAISS_VERSION}
        for name, value in wanted.items():
            if (found := getattr(manifest, name)) != value:
                raise SnapshotRefused(f"its {name} is {found}, not {value}")
        if sum(block.count for block in manifest.blocks) != manifest.count:
            raise SnapshotRefused("its blocks do not add up to its count")
        yield Saved(folder, manifest)


def _read_manifest(folder: Path) -> Manifest | None:
    path = folder / MANIFEST
    if not path.exists():
        if any(folder.glob(f"*{BLOCK_SUFFIX}")):
            raise SnapshotRefused("its manifest is missing")
        return None
    if not path.is_file() or path.stat().st_size > MAX_MANIFEST_BYTES:
        raise SnapshotRefused("its manifest is damaged")
    return Manifest.decoded(path.read_bytes())


def _read_block(path: Path, block: BlockFile, dim: int) -> SavedBlock:
    with _refusing_what_cannot_be_read():
        if not path.is_file() or path.stat().st_size != block.size(dim):
            raise SnapshotRefused(f"{path.name} is missing or not as long as it was written")
        data = path.read_bytes()
    if len(data) != block.size(dim) or hashlib.sha256(data).hexdigest() != block.sha256:
        raise SnapshotRefused(f"{path.name} is not as it was written")
    rows = np.frombuffer(data, "<i8", block.count).astype(np.int64)
    digests = np.frombuffer(data, ">u8", block.count, 8 * block.count).astype(np.uint64)
    vectors = np.frombuffer(data, "<f4", block.count * dim, 16 * block.count)
    return SavedBlock(rows, digests, vectors.reshape(block.count, dim))


@contextlib.contextmanager
def _refusing_what_cannot_be_read() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SnapshotRefused(f"it cannot be read ({error.strerror})") from error


def sequence(folder: Path) -> int | None:
    """Up to which change the snapshot in the folder goes; None if there is none, or its manifest is damaged."""
    try:
        with _locked(folder, fcntl.LOCK_SH):
            manifest = _read_manifest(folder)
    except (SnapshotRefused, OSError):
        return None
    return None if manifest is None else manifest.seq


# --------------------------------------------------------------------------------------------------------------------
# Writing


def write(
    folder: Path,
    checkpoint_id: str,
    spec: str,
    seq: int,
    index: VectorIndex,
    known: MutableMapping[Block, BlockFile],
    keep_free: int = 0,
) -> Manifest:
    """Write what the index holds now, which must be at least what it held at change `seq`.

    `known` remembers, from one call to the next, in which file a block is. Raises `StorageFull`, also where less than
    `keep_free` bytes of disk would be left, and OSError; the snapshot that was there stays then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    blocks = index.blocks
    new: list[Path] = []
    with _locked(folder, fcntl.LOCK_EX) as descriptor:
        try:
            _refuse_when_full(folder, blocks, known, index.dim, keep_free)
            for block in blocks:
                if block not in known or not (folder / known[block].name).exists():
                    known[block] = _write_block(folder, block, new)
            files = [known[block] for block in blocks]
            os.fsync(descriptor)
            manifest = Manifest(
                format=FORMAT,
                checkpoint_id=checkpoint_id,
                dim=index.dim,
                index=spec,
                faiss=FAISS_VERSION,
                seq=seq,
                count=sum(file.count for file in files),
                blocks=files,
            )
            _write_file(folder / MANIFEST, [manifest.encoded()])
            new.clear()  # they belong to the snapshot from here on
            os.fsync(descriptor)
        except OSError as error:
            for path in (*new, *folder.glob(f"*{UNFINISHED_SUFFIX}")):
                path.unlink(missing_ok=True)
            if error.errno in _NO_SPACE:
                raise StorageFull("The disk is full: the index was not written to it. Free some space.") from error
            raise
        _remove_all(folder, but={MANIFEST, *(file.name for file in files)})
    return manifest


def discard(folder: Path) -> None:
    """Forget the snapshot: the next start reads everything from the database. Raises OSError."""
    if folder.exists():
        with _locked(folder, fcntl.LOCK_EX):
            _remove_all(folder)


def remove(folder: Path) -> None:
    """Remove the snapshot of a checkpoint for good, with its folder. Raises OSError."""
    discard(folder)
    with contextlib.suppress(OSError):  # it is not there, or holds what is not ours
        folder.rmdir()


def forget(folder: Path, rows: Rows) -> None:
    """Remove every file with the vector of one of these rows (N,), and what no snapshot needs; the rest stays usable.

    The other vectors of those files are read from the database by the next start. Raises OSError.
    """
    with _locked(folder, fcntl.LOCK_EX) as descriptor:
        blocks, manifest = [], None
        with contextlib.suppress(SnapshotRefused):  # what cannot be used is of no use
            manifest = _read_manifest(folder)
        if manifest is not None:
            blocks = [block for block in manifest.blocks if not _has_one_of(folder / block.name, block.count, rows)]
        if manifest is None or not blocks:
            _remove_all(folder)
        else:
            if len(blocks) < len(manifest.blocks):
                count = sum(block.count for block in blocks)
                left = manifest.model_copy(update={"seq": 0, "count": count, "blocks": blocks})
                _write_file(folder / MANIFEST, [left.encoded()])
            _remove_all(folder, but={MANIFEST, *(block.name for block in blocks)})
        os.fsync(descriptor)


def holds(folder: Path, rows: Rows) -> bool:
    """Whether a file in the folder has the vector of one of these rows (N,), or may have it. Raises OSError."""
    with _locked(folder, fcntl.LOCK_SH):
        try:
            manifest = _read_manifest(folder)
        except SnapshotRefused:
            return True
        counts = {} if manifest is None else {block.name: block.count for block in manifest.blocks}
        kept = [path for path in folder.iterdir() if path.suffix in (BLOCK_SUFFIX, UNFINISHED_SUFFIX)]
        return any(path.name not in counts or _has_one_of(path, counts[path.name], rows) for path in kept)


def _has_one_of(path: Path, count: int, rows: Rows) -> bool:
    """Whether a block's file lists one of the rows, or does not say what it lists."""
    listed = np.fromfile(path, "<i8", count) if path.is_file() else np.empty(0, np.int64)
    return len(listed) != count or bool(np.isin(listed, rows).any())


def _refuse_when_full(
    folder: Path, blocks: tuple[Block, ...], known: MutableMapping[Block, BlockFile], dim: int, keep_free: int
) -> None:
    rows = sum(block.count for block in blocks if block not in known)
    if shutil.disk_usage(folder).free < keep_free + rows * (8 + 8 + 4 * dim):
        raise StorageFull("There is not enough free disk to write the index to it. Free some space.")


def _write_block(folder: Path, block: Block, new: list[Path]) -> BlockFile:
    rows, vectors = block.kept()
    parts = [rows.astype("<i8"), digests(vectors).astype(">u8"), np.ascontiguousarray(vectors, "<f4")]
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(part.data)
    file = BlockFile(sha256=hashed.hexdigest(), count=len(rows))
    path = folder / file.name
    if not path.exists():
        new.append(path)
        _write_file(path, [part.data for part in parts])
    return file


def _write_file(path: Path, parts: Sequence[bytes | memoryview]) -> None:
    """Temporary file, fsync, rename: after a crash the file is whole, or the one that was there before."""
    unfinished = path.with_suffix(UNFINISHED_SUFFIX)
    with unfinished.open("wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def _remove_all(folder: Path, but: Collection[str] = ()) -> None:
    """Remove the files of snapshots, unfinished ones of a process that died included."""
    for path in folder.iterdir():
        if path.suffix not in OUR_SUFFIXES or path.name in but:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextlib.contextmanager
def _locked(folder: Path, kind: int) -> Iterator[int]:
    """Hold the folder, as its only writer (LOCK_EX) or one of its readers (LOCK_SH); yields its descriptor."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, kind)
        yield descriptor
    finally:
        os.close(descriptor)
