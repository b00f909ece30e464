"""Whether the audit is what was written: every row, its place, its end, and the heads that were written down elsewhere.

A page of rows is in memory at a time, however long the chain is. The same walk reads the database and the lines of an
export, which anybody can check without a database.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import text
from sqlalchemy.orm import Session

from indexer import audit, audit_anchors
from indexer.audit import FORGOTTEN, GENESIS, Event, Head, chained, digest, reason_digest
from indexer.audit_anchors import Anchor, AnchorDamaged
from indexer.database import Database, transaction
from indexer.errors import InvalidAuditFile

FaultKind = Literal["changed", "removed", "reordered", "inserted", "truncated", "anchor"]


@dataclass(frozen=True)
class Fault:
    """The first row at which the chain is not what was written, and why."""

    seq: int
    kind: FaultKind
    detail: str


@dataclass(frozen=True)
class Verification:
    """What was read, up to the fault if there is one. `anchors`: heads in the file that agree with the chain."""

    rows: int
    head: Head
    anchors: int = 0
    reasons_erased: int = 0
    fault: Fault | None = None


class _Broken(Exception):  # noqa: N818
    def __init__(self, seq: int, kind: FaultKind, detail: str) -> None:
        super().__init__(detail)
        self.fault = Fault(seq, kind, detail)


@dataclass
class _Walk:
    """The chain up to some row: each row is held against the one before and against the anchors."""

    seq: int = 0
    hash: str = GENESIS
    anchors: Mapping[int, str] = field(default_factory=dict)
    rows: int = 0
    met: int = 0
    reasons_erased: int = 0

    def step(self, seq: int, digest: str, previous: str | None = None, hash: str | None = None) -> None:
        """One row further. Of a row that is not shown only its digest is known."""
        expected = self.seq + 1
        if seq > expected:
            last = f" to {seq - 1}" if seq - 1 > expected else ""
            raise _Broken(expected, "removed", f"Row {expected}{last} is missing.")
        if seq < expected:
            raise _Broken(seq, "reordered", f"Row {seq} stands behind row {self.seq}.")
        true = chained(self.hash, digest)
        if previous is not None and previous != self.hash:
            if true == hash:
                raise _Broken(seq, "changed", f"Row {seq} was changed after it was written.")
            raise _Broken(
                seq, "reordered", f"Row {seq} does not follow row {seq - 1}: rows were moved, exchanged or put between."
            )
        if hash is not None and true != hash:
            raise _Broken(seq, "changed", f"Row {seq} was changed after it was written.")
        if self.anchors.get(seq, true) != true:
            raise _Broken(seq, "anchor", f"Row {seq} is not the one that was there when its hash was written down.")
        self.met += seq in self.anchors
        self.rows += 1
        self.seq, self.hash = seq, true

    def reason(self, seq: int, expected: str | None, salt: str | None, reason: str | None) -> None:
        if expected is None and salt is None and reason is None:
            return
        if expected is not None and salt is None and reason is None:
            self.reasons_erased += 1
            return
        if expected is None or salt is None or reason is None or _reason_digest(salt, reason) != expected:
            raise _Broken(seq, "changed", f"The reason of row {seq} was changed after it was written.")

    def event(self, event: Event) -> None:
        self.step(event.seq, digest(event.content()), event.previous, event.hash)
        self.reason(event.seq, event.reason_digest, event.salt, event.reason)

    def end(self, head: Head) -> None:
        """The chain ends here, where `head` says."""
        if head.seq > self.seq:
            raise _Broken(self.seq + 1, "truncated", f"The chain ends at row {self.seq}; it had {head.seq} rows.")
        if head.seq < self.seq:
            raise _Broken(head.seq + 1, "inserted", f"Row {head.seq + 1} is behind the end of the chain.")
        if head.hash != self.hash:
            raise _Broken(head.seq, "changed", f"Row {head.seq} is not the one with which the chain was to end.")
        beyond = min((seq for seq in self.anchors if seq > self.seq), default=None)
        if beyond is not None:
            sentence = f"The chain ends at row {self.seq}, but row {beyond} was there when its hash was written down."
            raise _Broken(self.seq + 1, "truncated", sentence)

    def result(self, fault: Fault | None = None) -> Verification:
        return Verification(self.rows, Head(self.seq, self.hash), self.met, self.reasons_erased, fault)


# --------------------------------------------------------------------------------------------------------------------
# The database


def verify(database: Database, anchors: Path, progress: Callable[[int], None] = lambda rows: None) -> Verification:
    """Read all of the audit. Rows that are appended meanwhile are left to the next time."""
    walk = _Walk()
    try:
        known = _anchors(anchors)
        walk.anchors = {anchor.head.seq: anchor.head.hash for anchor in known}
        with transaction(database.engine) as session:
            end = audit.head(session)
        for page in pages(database, end.seq):
            for event in page:
                walk.event(event)
            progress(walk.rows)
        walk.end(end)
        with transaction(database.engine) as session:
            session.execute(text("SET LOCAL statement_timeout = 0"))
            _refuse_strays(session)
            _refuse_unexplained(session, end.seq)
    except _Broken as broken:
        return walk.result(broken.fault)
    return walk.result()


def pages(database: Database, until: int, after: int = 0) -> Iterator[list[Event]]:
    """The rows up to `until` in order. A transaction each, so that a slow reader keeps nobody waiting."""
    seq = after
    while True:
        with transaction(database.engine) as session:
            page = audit.events_after(session, seq, until)
        if not page:
            return
        yield page
        seq = page[-1].seq


def _anchors(path: Path) -> list[Anchor]:
    try:
        known = audit_anchors.read(path)
    except AnchorDamaged as damage:
        raise _Broken(0, "anchor", f"{damage} Compare with a copy of the file.") from damage
    heads: dict[int, str] = {}
    for anchor in known:
        if heads.setdefault(anchor.head.seq, anchor.head.hash) != anchor.head.hash:
            seq = anchor.head.seq
            raise _Broken(seq, "anchor", f"Row {seq} was written down with two hashes: it was there in two versions.")
    return known


def _refuse_strays(session: Session) -> None:
    """Rows that the walk from 1 to the head would not meet. One statement: one moment."""
    strays = text("SELECT min(seq) FROM audit_event WHERE seq < 1 OR seq > coalesce((SELECT seq FROM audit_head), 0)")
    if (seq := session.scalar(strays)) is not None:
        raise _Broken(seq, "inserted", f"Row {seq} is beyond the ends of the chain; it was put in by hand.")


def _refuse_unexplained(session: Session, until: int) -> None:
    """A reason is blanked by an erasure, which says so in the chain."""
    blank = text("""
        SELECT min(seq) FROM audit_event LEFT JOIN audit_reason USING (seq)
        WHERE seq <= :until AND reason_digest IS NOT NULL AND reason IS NULL AND NOT EXISTS (
            SELECT FROM audit_event AS told, jsonb_array_elements(told.detail -> 'seqs') AS blanked
            WHERE told.action = :action AND blanked = to_jsonb(audit_event.seq))
    """)
    if (seq := session.scalar(blank, {"until": until, "action": FORGOTTEN})) is not None:
        raise _Broken(seq, "removed", f"The reason of row {seq} was removed, and by no erasure.")


# --------------------------------------------------------------------------------------------------------------------
# Files


def export(database: Database) -> Iterator[str]:
    """All of the audit as it is now: a line for each row, and one that says where the chain ends."""
    with transaction(database.engine) as session:
        end = audit.head(session)
    for page in pages(database, end.seq):
        yield "".join(map(event_line, page))
    yield head_line(end)


def event_line(event: Event) -> str:
    return json.dumps(event.as_json(), ensure_ascii=False) + "\n"


def link_line(event: Event) -> str:
    """A row that is not shown: its digest alone, so that the chain across it can still be followed."""
    return json.dumps({"seq": event.seq, "digest": digest(event.content())}) + "\n"


def head_line(head: Head) -> str:
    return json.dumps({"head": {"seq": head.seq, "hash": head.hash}}) + "\n"


def verify_file(path: Path, progress: Callable[[int], None] = lambda rows: None) -> Verification:
    """Read an export or an extract. It may begin anywhere; from there on it has to be whole, up to its last line.

    Raises `InvalidAuditFile` for a file that is neither.
    """
    walk, end = _Walk(), None
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if end is not None:
                    raise _Broken(walk.seq + 1, "inserted", f"Line {number} stands behind the end of the chain.")
                try:
                    end = _follow(walk, json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise InvalidAuditFile(f"Line {number} of {path} is no line of an audit export.") from error
                progress(walk.rows)
        if end is None:
            raise _Broken(walk.seq + 1, "truncated", f"The file ends after row {walk.seq}, without its last line.")
        walk.end(end)
    except UnicodeDecodeError as error:
        raise InvalidAuditFile(f"{path} is not UTF-8 text, so no audit export.") from error
    except _Broken as broken:
        return walk.result(broken.fault)
    return walk.result()


def _follow(walk: _Walk, line: dict[str, Any]) -> Head | None:
    """One line of a file; the head if it is the last one."""
    if "head" in line:
        head = Head(int(line["head"]["seq"]), str(line["head"]["hash"]))
        if not walk.rows and head.seq:  # nothing was extracted
            walk.seq, walk.hash = head.seq, head.hash
        return head
    seq = int(line["seq"])
    if "digest" in line:
        walk.step(seq, line["digest"])
        return None
    links = {name: line.pop(name) for name in ("previous", "hash", "reason", "reason_salt")}
    if not walk.rows:
        walk.seq, walk.hash = seq - 1, links["previous"] if seq > 1 else GENESIS
    walk.step(seq, digest(line), links["previous"], links["hash"])
    walk.reason(seq, line["reason_digest"], links["reason_salt"], links["reason"])
    return None


def _reason_digest(salt: str, reason: str) -> str | None:
    try:
        return reason_digest(salt, reason)
    except ValueError:  # the salt is no longer hexadecimal
        return None
