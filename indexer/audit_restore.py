"""The audit when a backup is restored: what was recorded since the backup is kept, and the chain goes on.

Both functions work within the transaction of the restore; between them the tables are made anew.
"""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.orm import Session

from indexer import audit

TABLES = ("audit_event", "audit_reason", "audit_head")


def set_aside(session: Session) -> None:
    """Copy the audit to where the restore does not reach."""
    for table in TABLES:
        session.execute(text(f"CREATE TEMPORARY TABLE kept_{table} ON COMMIT DROP AS TABLE {table}"))


def go_on(session: Session) -> bool:
    """Append what was set aside to the chain of the backup, if that is its beginning; whether it was.

    Otherwise the backup is of another gallery, and its own chain is the one that goes on.
    """
    restored = audit.head(session)
    kept = session.execute(text("SELECT seq, hash FROM kept_audit_head")).one_or_none()
    if kept is None:
        return restored.seq == 0
    met = {"seq": restored.seq, "hash": restored.hash}
    same = session.scalar(text("SELECT EXISTS (SELECT FROM kept_audit_event WHERE seq = :seq AND hash = :hash)"), met)
    if restored.seq > kept.seq:  # this gallery was an earlier state of the backup, or is another one
        known = text("SELECT EXISTS (SELECT FROM audit_event WHERE seq = :seq AND hash = :hash)")
        return bool(session.scalar(known, {"seq": kept.seq, "hash": kept.hash}))
    if restored.seq and not same:
        return False
    for table in TABLES[:2]:
        session.execute(text(f"INSERT INTO {table} SELECT * FROM kept_{table} WHERE seq > :seq"), met)
    # What was blanked since stays blank.
    session.execute(
        text(
            "UPDATE audit_reason SET salt = NULL, reason = NULL FROM kept_audit_reason AS kept"
            " WHERE kept.seq = audit_reason.seq AND kept.reason IS NULL AND audit_reason.reason IS NOT NULL"
        )
    )
    end = {"seq": kept.seq, "hash": kept.hash}
    session.execute(
        text(
            "INSERT INTO audit_head VALUES (1, :seq, :hash)"
            " ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, hash = excluded.hash"
        ),
        end,
    )
    return True
