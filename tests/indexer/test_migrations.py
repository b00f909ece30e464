"""The migrations arrive at the tables the program works with, once, whoever runs them and how often."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text

import migrations
from indexer.database import Database, migrate, migrate_to, schema_is_current
from indexer.errors import DatabaseTooNew
from indexer.tables import Base
from tests.postgres_fixtures import fresh_database


def newest() -> str:
    """The number of the last file in migrations/versions/."""
    return max(path.name[:4] for path in (Path(migrations.__file__).parent / "versions").glob("[0-9]*.py"))


def test_migrated_schema_is_the_tables(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": Base.metadata}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_constraints_and_indexes_are_those_of_the_tables(database: Database) -> None:
    """What alembic's comparison overlooks: checks, partial index conditions, sequences."""
    questions = {
        "checks": "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE contype = 'c' AND connamespace = 'public'::regnamespace ORDER BY 1",
        "indexes": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
        " AND tablename <> 'alembic_version' ORDER BY 1",
        "exclusions": "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE contype = 'x' AND connamespace = 'public'::regnamespace ORDER BY 1",
        "sequences": "SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' ORDER BY 1",
    }
    with fresh_database("template0") as created:
        Base.metadata.create_all(created.engine)
        for name, question in questions.items():
            with database.engine.connect() as migrated, created.engine.connect() as wanted:
                answer = migrated.execute(text(question)).all()
                assert answer == wanted.execute(text(question)).all(), name
                assert answer, name


def test_migrating_at_once_and_again_changes_nothing() -> None:
    with fresh_database("template0") as database:
        assert not schema_is_current(database.engine)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(migrate, [database.engine] * 4))
        migrate(database.engine)
        assert schema_is_current(database.engine)
        with database.engine.connect() as connection:
            assert connection.scalars(text("SELECT version_num FROM alembic_version")).all() == [newest()]


def test_vectors_that_were_there_get_their_digest() -> None:
    with fresh_database("template0") as database:
        with database.engine.begin() as connection:
            migrate_to(connection, "0001")
            connection.execute(text("INSERT INTO checkpoint VALUES ('c', 'net', 2, '{}', '', 'active')"))
            for n in (1, 2):
                columns = "(id, sha256, width, height, format, byte_size)"
                connection.execute(
                    text(f"INSERT INTO image {columns} VALUES (gen_random_uuid(), '{n}', 1, 1, 'png', 1)")
                )
            columns = "(image_row, checkpoint_id, state, vector, seq)"
            values = "(1, 'c', 'ready', '\\x0102030405060708', 1), (2, 'c', 'pending', NULL, NULL)"
            connection.execute(text(f"INSERT INTO embedding {columns} VALUES {values}"))
        migrate(database.engine)
        with database.engine.connect() as connection:
            digests = connection.scalars(text("SELECT digest FROM embedding ORDER BY image_row")).all()
        assert digests == [hashlib.sha256(bytes(range(1, 9))).digest()[:8], None]


def test_migrating_newer_database_is_refused_and_leaves_it_alone(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseTooNew, match="9999"):
        migrate(database.engine)
    assert not schema_is_current(database.engine)
    assert inspect(database.engine).has_table("image")
