"""Opening a database, transactions, and what becomes of errors of the database."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, create_engine, exc, text

from indexer import database as database_module
from indexer.database import (
    Database,
    connect,
    database_errors,
    normal_url,
    open_database,
    schema_is_current,
    transaction,
)
from indexer.errors import DatabaseTooNew, DatabaseTooOld, DatabaseUnavailable, InvalidSettings, StorageFull
from indexer.settings import GallerySettings
from tests.postgres_fixtures import fresh_database


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ps-") as folder:
        yield Path(folder)


def names(database: Database) -> list[str]:
    with transaction(database.engine) as session:
        return list(session.scalars(text("SELECT id FROM camera ORDER BY id")))


def add(database: Database, name: str) -> None:
    with transaction(database.engine) as session:
        session.execute(text("INSERT INTO camera (id) VALUES (:name)"), {"name": name})


def run(database: Database, *statements: str) -> None:
    with transaction(database.engine) as session:
        for statement in statements:
            session.execute(text(statement))


@contextlib.contextmanager
def observing(database: Database) -> Iterator[Connection]:
    """A connection that sees at every statement what is going on at that moment."""
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


def until_true(observer: Connection, question: str) -> None:
    deadline = time.monotonic() + 20
    while not observer.scalar(text(question)):
        assert time.monotonic() < deadline, question


def test_embedded_database_is_made_migrated_kept_and_shared(folder: Path) -> None:
    settings = GallerySettings(data_dir=folder / "not there yet")
    with open_database(settings) as owner:
        add(owner, "one")
        with open_database(settings) as joined:
            add(joined, "two")
        assert names(owner) == ["one", "two"], "the one who joined did not stop it"
    with pytest.raises(DatabaseUnavailable, match="cannot be reached"):
        names(owner)
    with open_database(settings) as again:
        assert names(again) == ["one", "two"]
        assert schema_is_current(again.engine)


def test_given_database_is_migrated_and_used() -> None:
    with fresh_database("template0") as empty:
        url = empty.url.replace("postgresql+psycopg:", "postgres:")
        with open_database(GallerySettings(database_url=SecretStr(url))) as database:
            add(database, "one")
        assert names(empty) == ["one"]


def test_database_of_a_newer_version_is_refused(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with (
        pytest.raises(DatabaseTooNew, match="newer version"),
        open_database(GallerySettings(database_url=SecretStr(database.url))),
    ):
        pytest.fail("it must not open")


def test_server_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "OLDEST_POSTGRES", 99)
    with fresh_database("template0") as empty, pytest.raises(DatabaseTooOld, match="99 or newer"):
        database_module.migrate(empty.engine)


def test_database_of_another_encoding_is_refused() -> None:
    with (
        fresh_database("template0", "ENCODING 'SQL_ASCII' LOCALE 'C'") as empty,
        pytest.raises(InvalidSettings, match=r"is in SQL_ASCII.*ENCODING 'UTF8'"),
        open_database(GallerySettings(database_url=SecretStr(empty.url))),
    ):
        pytest.fail("it must not open")


def test_server_that_is_not_there(folder: Path) -> None:
    url = SecretStr(f"postgresql://user:hidden@/name?host={folder}")
    with (
        pytest.raises(DatabaseUnavailable, match="cannot be reached") as raised,
        open_database(GallerySettings(database_url=url)),
    ):
        pytest.fail("it must not open")
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize("url", ["postgres://u:p%40@h/n", "postgresql://u:p%40@h/n", "postgresql+psycopg://u:p%40@h/n"])
def test_addresses_are_brought_into_one_form(url: str) -> None:
    assert normal_url(url) == "postgresql+psycopg://u:p%40@h/n"


@pytest.mark.parametrize("url", ["", "localhost", "mysql://u:secret@h/n", "sqlite:///file"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(InvalidSettings) as raised:
        normal_url(url)
    assert "secret" not in str(raised.value)


def test_transaction_commits_at_its_end_and_rolls_back_on_any_error(database: Database) -> None:
    def fail() -> None:
        with transaction(database.engine) as session:
            session.execute(text("INSERT INTO camera (id) VALUES ('lost')"))
            raise KeyError("something else went wrong")

    add(database, "kept")
    with pytest.raises(KeyError):
        fail()
    assert names(database) == ["kept"]


def test_errors_that_are_not_the_databases_fault_stay_what_they_are(database: Database) -> None:
    add(database, "one")
    with pytest.raises(exc.IntegrityError):
        add(database, "one")
    with pytest.raises(exc.ProgrammingError), transaction(database.engine) as session:
        session.execute(text("SELECT nonsense"))


def test_connection_lost_in_a_transaction_and_recovery_after_it(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable, match="cannot be reached"):
        run(database, "INSERT INTO camera (id) VALUES ('lost')", "SELECT pg_terminate_backend(pg_backend_pid())")
    add(database, "kept")
    assert names(database) == ["kept"]


def test_idle_connections_that_were_dropped_are_replaced_unnoticed(database: Database) -> None:
    assert names(database) == []
    with psycopg.connect(database.url.replace("+psycopg", ""), autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert names(database) == []


def test_statement_that_takes_too_long_is_broken_off(database: Database) -> None:
    with transaction(database.engine) as session:
        assert session.scalar(text("SHOW statement_timeout")) == "30s"
        assert session.scalar(text("SHOW idle_in_transaction_session_timeout")) == "1min"
    with pytest.raises(DatabaseUnavailable, match="too long"):
        run(database, "SET LOCAL statement_timeout = '10ms'", "SELECT pg_sleep(60)")


def test_transaction_left_idle_is_broken_off(database: Database) -> None:
    def be_idle(observer: Connection) -> None:
        with transaction(database.engine) as session:
            session.execute(text("SET LOCAL idle_in_transaction_session_timeout = '20ms'"))
            until_true(observer, "SELECT count(*) = 0 FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'")
            session.execute(text("SELECT 1"))

    with observing(database) as observer, pytest.raises(DatabaseUnavailable, match="cannot be reached"):
        be_idle(observer)


def test_deadlock_is_told_as_something_to_try_again(database: Database) -> None:
    add(database, "a")
    add(database, "b")
    take = "SELECT FROM camera WHERE id = '{}' FOR UPDATE"

    def lock_b_then_a() -> str:
        try:
            run(database, "SET LOCAL deadlock_timeout = '20ms'", take.format("b"), take.format("a"))
        except DatabaseUnavailable as error:
            return str(error)
        return "committed"

    with ThreadPoolExecutor(1) as pool, observing(database) as observer:
        with transaction(database.engine) as session:
            session.execute(text("SET LOCAL deadlock_timeout = '60s'"))  # so that it is the other one who finds out
            session.execute(text(take.format("a")))
            other = pool.submit(lock_b_then_a)
            until_true(observer, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted")
            session.execute(text(take.format("b")))
        assert other.result(30) == "Another change got in the way; try again in a moment."


def test_full_disk_and_exhausted_pool_have_their_own_errors(database: Database) -> None:
    with pytest.raises(StorageFull), database_errors():
        raise psycopg.errors.DiskFull("No space left on device")
    engine = create_engine(database.url, pool_size=1, max_overflow=0, pool_timeout=0.01)
    with engine.connect(), pytest.raises(DatabaseUnavailable, match="in use"), transaction(engine) as session:
        session.execute(text("SELECT 1"))
    engine.dispose()


def test_server_killed_in_the_middle_is_back_for_the_same_pool(folder: Path) -> None:
    """The embedded server dies; its owner starts it again; what was committed is there."""
    settings = GallerySettings(data_dir=folder)
    with open_database(settings) as database:
        add(database, "before")
        postmaster = int((folder / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
        with observing(database) as observer, ThreadPoolExecutor(1) as pool:
            cut_off = pool.submit(run, database, "INSERT INTO camera (id) VALUES ('lost')", "SELECT pg_sleep(60)")
            until_true(observer, "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'")
            os.kill(postmaster, signal.SIGKILL)
            with pytest.raises(DatabaseUnavailable):
                cut_off.result(30)
        deadline = time.monotonic() + 30
        while True:
            try:
                add(database, "after")
                break
            except DatabaseUnavailable:
                assert time.monotonic() < deadline, "the database did not come back"
        assert names(database) == ["after", "before"]


def test_connections_are_opened_only_when_needed() -> None:
    connect("postgresql+psycopg://nobody@nowhere.invalid/none").dispose()


def test_an_unexpected_error_does_not_tell_what_was_searched_for(database: Database) -> None:
    """Errors end up in logs; a stored search is a parameter of a statement."""
    with pytest.raises(exc.DataError) as failed, transaction(database.engine) as session:
        session.execute(text("SELECT CAST(1 AS int) / 0, CAST(:said AS text)"), {"said": "a woman in a red jacket"})
    assert "red jacket" not in str(failed.value)
