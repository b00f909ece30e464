"""Where the audit stood, written beside the database: whoever rewrites the whole chain there disagrees with this file.

One JSON object a line, only ever added: at each start of a service, at each sweep, after each verification. It is a
witness as long as whoever can write to the database cannot write to the data folder as well; copy it elsewhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from indexer import audit
from indexer.audit import Head
from indexer.database import Database, transaction
from indexer.journal import append_lines

NAME = "audit-heads.jsonl"  # in the data folder


@dataclass(frozen=True)
class Anchor:
    """The end of the chain at some time. `restored`: a backup was put in its place, and lines before do not count."""

    head: Head
    restored: bool = False


class AnchorDamaged(ValueError):  # noqa: N818
    """A line that cannot be read."""


def read(path: Path) -> list[Anchor]:
    """What the chain is held against: the lines from the last restore on. A last line cut short is left out.

    Raises `AnchorDamaged` naming the line.
    """
    if not path.exists():
        return []
    found: list[Anchor] = []
    *lines, _ = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            told = json.loads(line)
            anchor = Anchor(Head(int(told["seq"]), str(told["hash"])), bool(told.get("restored", False)))
        except (ValueError, KeyError, TypeError) as error:
            raise AnchorDamaged(f"Line {number} of {path} cannot be read.") from error
        found = [anchor] if anchor.restored else [*found, anchor]
    return found


def drop(database: Database, path: Path, *, restored: bool = False) -> Head:
    """Write down where the chain ends, unless the last line says the same. Raises `StorageFull`."""
    with transaction(database.engine) as session:
        end = audit.head(session)
    if not end.seq:
        return end
    if not restored:
        try:
            known = read(path)
        except AnchorDamaged:
            known = []
        if known and known[-1].head == end:
            return end
    line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "seq": end.seq, "hash": end.hash}
    path.parent.mkdir(parents=True, exist_ok=True)
    append_lines(path, json.dumps({**line, **({"restored": True} if restored else {})}) + "\n")
    return end
