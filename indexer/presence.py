"""That a process is there: a lock others can see, which ends with the process however that ended.

What a process began carries the key of its lock. Whoever can take the lock knows that nobody goes on with it.
"""

from __future__ import annotations

import secrets
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from indexer.database import Database, database_errors
from indexer.errors import DatabaseUnavailable

PRESENCE_LOCK = 7_305_812  # first of two keys, the second is the process's
WORKER_LOCK = 7_305_813  # the same for workers, who own nothing by it: they only show that they are there
CHECK_SECONDS = 2.0  # how soon the lock is taken again after the database was away

log = structlog.get_logger(__name__)


class Presence:
    """A context in which this process shows that it is there, under `key`.

    The lock lives on a connection of its own. If the database drops that, a thread takes the lock again; until then
    somebody may believe the process gone, so what is written about its work has to put right what they wrote.
    """

    def __init__(self, database: Database, lock: int = PRESENCE_LOCK) -> None:
        self._lock = lock
        self.key = 1 + secrets.randbelow(2**31 - 1)
        self._database = database
        self._connection: Connection | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="presence", daemon=True)

    def __enter__(self) -> Self:
        self._hold()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        if self._connection is not None:
            with suppress(SQLAlchemyError):  # gone already, and the lock with it
                self._connection.execute(select(func.pg_advisory_unlock_all()))
        self._drop()

    def _hold(self) -> None:
        """Take the lock, or make sure that it is still held. Raises DatabaseUnavailable."""
        try:
            with database_errors():
                if self._connection is not None:
                    self._connection.execute(select(1))
                    return
                opened = self._database.engine.connect()
                self._connection = opened.execution_options(isolation_level="AUTOCOMMIT")
                self._connection.execute(select(func.pg_advisory_lock_shared(self._lock, self.key)))
        except DatabaseUnavailable:
            self._drop()
            raise

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(SQLAlchemyError):
                self._connection.invalidate()  # not given back to the pool: it may still hold the lock
            self._connection.close()
            self._connection = None

    def _watch(self) -> None:
        while not self._end.wait(CHECK_SECONDS):
            try:
                self._hold()
            except DatabaseUnavailable:
                log.warning("presence_lost")


def is_gone(session: Session, key: int | None) -> bool:
    """Whether the process of this key has ended; None is a process that never said it was there."""
    return key is None or bool(session.scalar(select(func.pg_try_advisory_xact_lock(PRESENCE_LOCK, key))))


_PRESENT = text("""
    SELECT count(*) FROM pg_locks
    WHERE locktype = 'advisory' AND classid = :lock AND objsubid = 2 AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")


def present(session: Session, lock: int = PRESENCE_LOCK) -> int:
    """How many processes show that they are there."""
    return int(session.scalar(_PRESENT, {"lock": lock}) or 0)
