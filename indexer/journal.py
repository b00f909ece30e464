"""The erasure journal: a file beside the database that remembers which images were erased, whatever becomes of it.

Each line is one JSON object with ids that name nobody once their images are gone. A database restored from an old
backup is held against it, so that nobody comes back. Lines are only ever added; reading them needs no database.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from indexer.errors import JournalDamaged, StorageFull

NAME = "erasures.jsonl"  # in the data folder
IDS_PER_LINE = 1000


@dataclass(frozen=True)
class JournalEntry:
    """Some images of one erasure; an erasure of many has several entries."""

    erasure_id: UUID
    created_at: datetime
    reason: str
    selection: dict[str, Any]
    image_ids: tuple[UUID, ...]


def entries_of(
    erasure_id: UUID, created_at: datetime, reason: str, selection: dict[str, Any], image_ids: Iterable[UUID]
) -> Iterator[JournalEntry]:
    """An erasure as entries of bounded size; one, empty, if it removes no image."""
    ids = list(image_ids)
    for start in range(0, max(len(ids), 1), IDS_PER_LINE):
        yield JournalEntry(erasure_id, created_at, reason, selection, tuple(ids[start : start + IDS_PER_LINE]))


def append(journal: Path, entries: Iterable[JournalEntry]) -> None:
    """Add entries and wait until they are on the disk. Raises `StorageFull`; whoever wrote them writes them again."""
    append_lines(journal, "".join(json.dumps(_as_json(entry), ensure_ascii=True) + "\n" for entry in entries))


def append_lines(path: Path, lines: str) -> None:
    """Add whole lines and wait until they are on the disk. Any number of processes may do so at once.

    A line that a crash cut short is taken off first. Raises `StorageFull`.
    """
    try:
        new = not path.exists()
        with path.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.truncate(_whole_lines(file.fileno()))
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())
        if new:
            _sync_folder(path.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"The disk of {path.name} is full. Free some space, then try again.") from error
        raise


def read(journal: Path) -> list[JournalEntry]:
    """All entries, each once, in their order; a last line that a crash cut short is left out.

    Raises `JournalDamaged` for any other line that cannot be read.
    """
    if not journal.exists():
        return []
    *lines, _ = journal.read_bytes().split(b"\n")
    found: dict[JournalKey, JournalEntry] = {}
    for number, line in enumerate(lines, start=1):
        try:
            entry = _from_json(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise JournalDamaged(
                f"Line {number} of {journal} cannot be read, so it is not known who was erased. "
                "Put the file back from the newest backup, where it is named erasures.jsonl."
            ) from error
        found[(entry.erasure_id, entry.image_ids)] = entry
    return list(found.values())


JournalKey = tuple[UUID, tuple[UUID, ...]]


def _whole_lines(descriptor: int) -> int:
    """How many bytes there are up to the end of the last whole line."""
    end = os.fstat(descriptor).st_size
    while end:
        start = max(end - 65_536, 0)
        position = os.pread(descriptor, end - start, start).rfind(b"\n")
        if position >= 0:
            return start + position + 1
        end = start
    return 0


def _as_json(entry: JournalEntry) -> dict[str, Any]:
    return {
        "erasure": str(entry.erasure_id),
        "at": entry.created_at.isoformat(),
        "reason": entry.reason,
        "selection": entry.selection,
        "images": [str(id) for id in entry.image_ids],
    }


def _from_json(line: dict[str, Any]) -> JournalEntry:
    return JournalEntry(
        erasure_id=UUID(line["erasure"]),
        created_at=datetime.fromisoformat(line["at"]),
        reason=str(line["reason"]),
        selection=dict(line["selection"]),
        image_ids=tuple(UUID(id) for id in line["images"]),
    )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
