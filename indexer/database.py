"""The connection to the database: finding or starting it, migrating its schema, and `transaction`, the only commit.

What is said to the database is in gallery.py.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import alembic.command
import alembic.config
import psycopg
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, exc, func, make_url, select, text
from sqlalchemy.orm import Session

import migrations
from indexer import deadlines
from indexer.errors import DatabaseTooNew, DatabaseTooOld, DatabaseUnavailable, InvalidSettings, StorageFull
from indexer.postgres import EmbeddedPostgres
from indexer.settings import GallerySettings

NAME = "person_search"  # of the database in the embedded server
MIGRATIONS_LOCK = 7_305_800  # key of an advisory lock, unique within the database
OLDEST_POSTGRES = 15

CONNECT_SECONDS = 5  # to open a connection
POOL_SECONDS = 10  # to wait for a free one
STATEMENT_SECONDS = 30  # for one statement; those that may take longer say so themselves
IDLE_SECONDS = 60  # a transaction that does nothing for this long is broken off: it may hold a lock others wait for

# A host that is cut off says nothing: neither end would notice for a quarter of an hour, often two. We give up soon, so
# that a search is refused instead of left waiting; the server later, and with it go the locks of who is not there.
SILENT_SECONDS, SERVER_SILENT_SECONDS = 10, 25
KEEPALIVES = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 1000 * SILENT_SECONDS,
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Database:
    """An open database: its pool of connections, and its address."""

    engine: Engine
    url: str


@contextlib.contextmanager
def open_database(settings: GallerySettings) -> Iterator[Database]:
    """The configured database, its schema up to date, for as long as the context lasts.

    With `database_url` that server; without, an embedded one in the data folder, which this process owns and stops at
    the end, or joins if another process owns it. Raises `DatabaseUnavailable`, `DatabaseTooNew`, `DatabaseTooOld`,
    `InvalidSettings`.
    """
    with contextlib.ExitStack() as stack:
        if settings.database_url is not None:
            url = normal_url(settings.database_url.get_secret_value())
        else:
            server = EmbeddedPostgres(settings.data_dir / "postgres", bin=settings.postgres_bin)
            stack.callback(server.stop)
            server.start_or_join(settings.database_wait_seconds)
            _create_database(server, NAME)
            url = server.url(NAME)
        engine = connect(url)
        stack.callback(engine.dispose)
        migrate(engine)
        yield Database(engine, url)


def normal_url(url: str) -> str:
    """The address with our driver in it; `postgres://` and `postgresql://` will do. Raises `InvalidSettings`."""
    try:
        parsed = make_url(url)
    except exc.ArgumentError:
        raise InvalidSettings("The database URL cannot be read; write postgresql://user:password@host/name.") from None
    if parsed.drivername not in ("postgres", "postgresql", "postgresql+psycopg"):
        raise InvalidSettings(f"The database must be PostgreSQL (postgresql://...), not {parsed.drivername}.")
    return parsed.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def connect(url: str) -> Engine:
    """A pool of connections; none is opened yet."""
    engine = create_engine(
        url,
        hide_parameters=True,  # errors are logged, and parameters hold what people searched for
        pool_size=10,
        max_overflow=30,  # as many in all as the web framework has threads
        pool_timeout=POOL_SECONDS,
        pool_pre_ping=True,  # a connection the server dropped while it was idle is replaced instead of handed out
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "application_name": "person-search",
            "client_encoding": "UTF8",
            **KEEPALIVES,
        },
    )

    @event.listens_for(engine, "connect")
    def configure(connection: psycopg.Connection[object], _: object) -> None:
        # As a statement, not as a start-up option: poolers between us and the server refuse those.
        connection.execute(
            f"SET statement_timeout = '{STATEMENT_SECONDS}s'; "
            f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'; SET TIME ZONE 'UTC'; "
            "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; "
            f"SET tcp_user_timeout = '{SERVER_SILENT_SECONDS}s'"
        )
        connection.commit()

    return engine


@contextlib.contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """A session that is committed at the end, or rolled back if anything was raised. Nothing is tried twice.

    Under a deadline no statement gets more time than is left, and nothing is committed that comes too late. Raises
    `DeadlinePassed` then, `DatabaseUnavailable` when the database cannot be reached, went away or did not answer in
    time, and `StorageFull` when its disk is full; after the last two it is unknown whether the commit still happened.
    """
    deadlines.check()
    with database_errors(), Session(engine, expire_on_commit=False) as session, session.begin():
        left = deadlines.remaining()
        if left is not None:
            milliseconds = int(1000 * min(max(left, 0.001), STATEMENT_SECONDS))
            session.execute(text(f"SET LOCAL statement_timeout = {milliseconds}"))
        yield session
        deadlines.check()


@contextlib.contextmanager
def database_errors() -> Iterator[None]:
    """What the driver raises when the database is the problem, or the clock, as errors of the gallery."""
    try:
        yield
    except exc.TimeoutError as error:
        raise DatabaseUnavailable("All connections to the database are in use; try again in a moment.") from error
    except exc.DBAPIError as error:
        _raise_known(error.orig, error)
        raise
    except psycopg.Error as error:
        _raise_known(error, error)
        raise


def _raise_known(cause: BaseException | None, error: Exception) -> None:
    state = cause.sqlstate if isinstance(cause, psycopg.Error) else None  # None: it did not come from the server
    if state == "53100":  # disk_full
        raise StorageFull("The disk of the database is full; make room and try again.") from error
    if state in ("57014", "55P03"):  # query_canceled, lock_not_available
        deadlines.check()
        raise DatabaseUnavailable("The database took too long to answer; try again in a moment.") from error
    if state is not None and state.startswith("40"):  # serialization failure, deadlock
        raise DatabaseUnavailable("Another change got in the way; try again in a moment.") from error
    lost = psycopg.OperationalError | psycopg.InterfaceError | psycopg.errors.IdleInTransactionSessionTimeout
    if isinstance(cause, lost):
        raise DatabaseUnavailable("The database cannot be reached; try again in a moment.") from error


def migrate(engine: Engine) -> None:
    """Bring the schema up to date, in one transaction and one process at a time.

    Raises `DatabaseTooNew` for a database that a newer version of this program has migrated, `DatabaseTooOld` for a
    server before PostgreSQL 15, `InvalidSettings` for a database in another encoding than UTF8, `DatabaseUnavailable`.
    """
    config = _alembic()
    script = ScriptDirectory.from_config(config)
    with database_errors(), engine.begin() as connection:
        version = int(connection.scalar(text("SHOW server_version_num"))) // 10_000
        if version < OLDEST_POSTGRES:
            raise DatabaseTooOld(f"This is PostgreSQL {version}; {OLDEST_POSTGRES} or newer is needed.")
        if (encoding := connection.scalar(text("SHOW server_encoding"))) != "UTF8":
            raise InvalidSettings(
                f"The database is in {encoding}, which cannot hold every name. "
                "Make one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0, and give its address."
            )
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(select(func.pg_advisory_xact_lock(MIGRATIONS_LOCK)))
        revision = _revision(connection)
        if revision == script.get_current_head():
            return
        if revision is not None and revision not in {known.revision for known in script.walk_revisions()}:
            raise DatabaseTooNew(
                f"The database has schema {revision}, which this version does not know: "
                "a newer version has been here. Install that version, or restore a backup made before it."
            )
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "head")
    log.info("migrated the database from schema %s to %s", revision, script.get_current_head())


def migrate_to(connection: Connection, revision: str) -> None:
    """Upgrade the schema within the caller's transaction. Raises `DatabaseTooNew` for a revision not known here."""
    config = _alembic()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision not in {*known, "head"}:
        raise DatabaseTooNew(f"Schema {revision} is of a newer version of this program. Install that version.")
    connection.execute(select(func.pg_advisory_xact_lock(MIGRATIONS_LOCK)))
    config.attributes["connection"] = connection
    alembic.command.upgrade(config, revision)


def revision_of(session: Session) -> str:
    """The schema the database has."""
    revision = _revision(session.connection())
    assert revision is not None, "an open database is migrated"
    return revision


def schema_is_current(engine: Engine) -> bool:
    """Whether the schema is the one this version works with. Raises `DatabaseUnavailable`."""
    with database_errors(), engine.connect() as connection:
        return _revision(connection) == ScriptDirectory.from_config(_alembic()).get_current_head()


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _alembic() -> alembic.config.Config:
    """Configured here: the migrations are a package, wherever it is installed, and there is no file to look for."""
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    return config


def _create_database(server: EmbeddedPostgres, name: str) -> None:
    """Unless it is there; another process may be doing the same."""
    with database_errors(), psycopg.connect(server.dsn(), autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_database WHERE datname = %s", [name]).rowcount == 0:
            with contextlib.suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
