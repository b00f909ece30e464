"""A PostgreSQL for tests: one server a process, one fresh database a test, copied from a migrated template.

A folder's conftest.py imports the fixtures it wants: `database` (an open, migrated, empty database of the test's own)
and `session` (in a database shared by those who, like it, never commit: that is faster). `fresh_database` is for tests
that need more of them.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from indexer.database import Database, connect, migrate
from indexer.postgres import EmbeddedPostgres

TEMPLATE = "template_gallery"
FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}  # durability is not tested here
_numbers = itertools.count(1)


@functools.cache
def server() -> EmbeddedPostgres:
    """This process's server (pytest-xdist: each worker's), with the template in it; stopped when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="person-search-test-"))
    server = EmbeddedPostgres(folder, options=FAST)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.stop)
    server.start()
    execute(f"CREATE DATABASE {TEMPLATE}", on=server)
    engine = connect(server.url(TEMPLATE))
    migrate(engine)
    engine.dispose()
    return server


def execute(statement: str, on: EmbeddedPostgres) -> None:
    with psycopg.connect(on.dsn(), autocommit=True) as connection:
        connection.execute(statement)


@contextlib.contextmanager
def fresh_database(template: str = TEMPLATE, options: str = "") -> Iterator[Database]:
    """A database of its own, empty but migrated (`template0`: not even that), gone afterwards."""
    postgres = server()
    name = f"test_{next(_numbers)}"
    execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY {options}", on=postgres)
    engine = connect(postgres.url(name))
    try:
        yield Database(engine, postgres.url(name))
    finally:
        engine.dispose()
        execute(f"DROP DATABASE {name} WITH (FORCE)", on=postgres)


@pytest.fixture
def database() -> Iterator[Database]:
    """An open, migrated, empty database."""
    with fresh_database() as database:
        yield database


@functools.cache
def never_committed() -> Engine:
    """A migrated database that stays empty."""
    execute(f"CREATE DATABASE never_committed TEMPLATE {TEMPLATE}", on=server())
    engine = connect(server().url("never_committed"))
    atexit.register(engine.dispose)
    return engine


@pytest.fixture
def session() -> Iterator[Session]:
    """A session in a transaction that is rolled back. It is not in the fixture `database`."""
    with Session(never_committed(), expire_on_commit=False) as session:
        yield session
