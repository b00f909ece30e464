"""kill -9 of the database between an act and its row in the audit: afterwards there is neither."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from sqlalchemy import text

from indexer import audit, audit_anchors, audit_verify, gallery, searches
from indexer.audit import Actor
from indexer.database import Database, connect, migrate, transaction
from indexer.errors import DatabaseUnavailable
from indexer.postgres import EmbeddedPostgres
from indexer.searches import Ranking
from tests.fake_encoder import GridEncoder
from tests.flows.processes import wait_until

ANNA = Actor("user", UUID(int=1), "anna")
ENCODER = GridEncoder()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"))  # as durable as in earnest
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def database(server: EmbeddedPostgres) -> Iterator[Database]:
    engine = connect(server.url())
    migrate(engine)
    with transaction(engine) as session:
        gallery.ensure_checkpoint(session, ENCODER.checkpoint_id, "grid", ENCODER.dim, ENCODER.info, "")
    yield Database(engine, server.url())
    engine.dispose()


def kill(server: EmbeddedPostgres) -> None:
    """Every process of the server at once; its owner starts it again."""
    pid = server.server_pid
    assert pid is not None
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for process in (pid, *map(int, children)):
        os.kill(process, signal.SIGKILL)


def search(database: Database, between: Callable[[], None], at_the_end: Callable[[], None]) -> UUID:
    """What a search does in its transaction."""
    id = uuid4()
    with transaction(database.engine) as session:
        nothing = Ranking(np.empty(0, np.int64), np.empty(0, np.float32))
        searches.save(session, id, {"asked": {"query": {"text": "a man"}}}, ENCODER.checkpoint_id, nothing)
        between()
        audit.record(session, ANNA, "search.run", ("search", str(id)), checkpoint_id=ENCODER.checkpoint_id)
        at_the_end()
    return id


def rows(database: Database) -> tuple[int, int]:
    """How many searches there are, and how many rows of the audit tell of one."""
    found: list[Any] = []

    def answers() -> bool:
        try:
            with transaction(database.engine) as session:
                for question in ("search", "audit_event WHERE action = 'search.run'"):
                    found.append(session.scalar(text(f"SELECT count(*) FROM {question}")))
        except DatabaseUnavailable:
            found.clear()
            return False
        return True

    wait_until(answers, "the database is back")
    return found[0], found[1]


@pytest.mark.parametrize("moment", ["between", "at the end"])
def test_a_database_killed_within_an_act_has_neither_the_act_nor_its_row(
    server: EmbeddedPostgres, database: Database, tmp_path: Path, moment: str
) -> None:
    def nothing() -> None:
        pass

    def now() -> None:
        kill(server)

    search(database, nothing, nothing)
    before = rows(database)
    assert before[0] == before[1] > 0
    with pytest.raises(DatabaseUnavailable):
        search(database, now if moment == "between" else nothing, now if moment == "at the end" else nothing)
    assert rows(database) == before
    search(database, nothing, nothing)
    kill(server)  # right after the commit
    assert rows(database) == (before[0] + 1, before[1] + 1), "what was committed is there, and told"
    found = audit_verify.verify(database, tmp_path / audit_anchors.NAME)
    assert (found.fault, found.rows) == (None, before[1] + 1)
