"""The replica against the database: it ends up with what is there, whatever happened when."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
from sqlalchemy import text

from indexer import gallery
from indexer.database import Database, connect, transaction
from indexer.errors import DatabaseUnavailable
from indexer.filters import ImageFilter
from indexer.gallery import NewImage
from indexer.replica import Live, Replica

DIM = 4


@dataclass(frozen=True)
class Encoder:
    """As much of an encoder as the replica asks for."""

    checkpoint_id: str = "checkpoint"
    dim: int = DIM


@pytest.fixture
def replica(database: Database) -> Replica[Encoder]:
    with transaction(database.engine) as session:
        gallery.ensure_checkpoint(session, "checkpoint", "axm_net", DIM, {}, "/checkpoint")
    return Replica(database, Encoder())


def add(database: Database, *names: str) -> list[int]:
    """Add embedded images; returns their rows."""
    with transaction(database.engine) as session:
        for name in names:
            gallery.add_image(session, NewImage(name.rjust(64, "0"), 1, 1, "png", 1))
        claimed = gallery.claim_unembedded(session, "checkpoint", len(names), 60, 4)
        rows = [item.row for item in claimed.items]
        vectors = np.random.default_rng(rows[0]).normal(size=(len(rows), DIM)).astype(np.float32)
        assert gallery.record_embeddings(session, "checkpoint", claimed.token, rows, vectors) == len(names)
    return rows


def delete(database: Database, row: int) -> None:
    with transaction(database.engine) as session:
        gallery.delete_image(session, gallery.images_by_row(session, [row])[row].id)


def assert_same(database: Database, live: Live[Encoder]) -> None:
    with transaction(database.engine) as session:
        rows = gallery.allowed_rows(session, ImageFilter(), "checkpoint")
        images = gallery.images_by_row(session, rows)
        vectors = gallery.vectors_of(session, [image.id for image in images.values()], "checkpoint")
    assert len(live.index) == len(rows) > 0
    for row, image in images.items():
        np.testing.assert_array_equal(live.index.reconstruct(np.array([row]))[0], vectors[image.id])


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def test_load_takes_what_is_there(database: Database, replica: Replica[Encoder]) -> None:
    add(database, "a", "b", "c")
    assert len(replica.state.index) == 0
    empty = replica.state.index
    replica.load()
    assert_same(database, replica.state)
    assert len(empty) == 0, "a search that took the old index must keep it as it was"


def test_refresh_follows_additions_and_removals(database: Database, replica: Replica[Encoder]) -> None:
    rows = add(database, "a", "b", "c")
    replica.load()
    delete(database, rows[1])
    (later,) = add(database, "d")
    index = replica.state.index
    replica.refresh()
    assert_same(database, replica.state)
    assert rows[1] not in index and later in index
    assert replica.state.index is index

    before = replica.state
    replica.refresh()
    assert replica.state is before, "nothing changed, so nothing was replaced"


def test_replica_that_never_loaded_catches_up_from_the_beginning(database: Database, replica: Replica[Encoder]) -> None:
    rows = add(database, *map(str, range(20)))
    delete(database, rows[3])
    replica.refresh()
    assert_same(database, replica.state)


def test_refresh_within_a_session_sees_what_that_session_did(database: Database, replica: Replica[Encoder]) -> None:
    (row,) = add(database, "a")
    replica.load()
    with transaction(database.engine) as session:
        gallery.delete_image(session, gallery.images_by_row(session, [row])[row].id)
        replica.refresh(session)
        assert row not in replica.state.index


def test_vectors_of_other_checkpoints_are_not_taken(database: Database, replica: Replica[Encoder]) -> None:
    add(database, "a")
    with transaction(database.engine) as session:
        gallery.ensure_checkpoint(session, "other", "axm_net", 2, {}, "/other")
        claimed = gallery.claim_unembedded(session, "other", 10, 60, 4)
        rows = [item.row for item in claimed.items]
        gallery.record_embeddings(session, "other", claimed.token, rows, np.ones((1, 2), np.float32))
    replica.refresh()
    assert_same(database, replica.state)
    other = Replica(database, Encoder("other", 2))
    other.load()
    np.testing.assert_array_equal(other.state.index.reconstruct(np.array(rows)), np.ones((1, 2)))


def test_following_many_writers_misses_nothing(database: Database, replica: Replica[Encoder]) -> None:
    """Loaded in the middle of it, and loaded again."""
    add(database, "first")
    replica.start_following(0.001)
    try:

        def write(writer: int) -> None:
            for n in range(25):
                rows = add(database, f"{writer}a{n}", f"{writer}b{n}")
                if n % 3 == 0:
                    delete(database, rows[0])

        with ThreadPoolExecutor(3) as pool:
            writers = [pool.submit(write, writer) for writer in range(3)]
            replica.load()
            replica.load()
            for done in writers:
                done.result(60)
        with transaction(database.engine) as session:
            last = session.scalar(text("SELECT last_value FROM change_seq"))
        eventually(lambda: replica.state.seq == last)
        assert_same(database, replica.state)
    finally:
        replica.stop()


def test_follower_waits_for_a_database_that_is_away(
    database: Database, replica: Replica[Encoder], caplog: pytest.LogCaptureFixture
) -> None:
    add(database, "a")
    name = database.engine.url.database
    maintenance = connect(str(database.url).replace(f"/{name}?", "/postgres?"))
    with maintenance.connect().execution_options(isolation_level="AUTOCOMMIT") as admin:
        replica.load()
        admin.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        admin.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"))
        replica.start_following(0.001)
        try:
            eventually(lambda: "stays as it is" in caplog.text)
            with pytest.raises(DatabaseUnavailable):
                replica.load()
            assert len(replica.state.index) == 1, "what was loaded stays searchable"
            admin.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
            (row,) = add(database, "b")
            eventually(lambda: row in replica.state.index)
        finally:
            replica.stop()
    maintenance.dispose()


def test_refresh_is_not_held_up_by_a_long_one(
    database: Database, replica: Replica[Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one thread is busy taking in changes, another gives up waiting and searches what there is."""
    add(database, "a")
    busy, release = threading.Event(), threading.Event()
    real = gallery.changes_since

    def slow(*arguments: object) -> gallery.Changes:
        busy.set()
        assert release.wait(30)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(gallery, "changes_since", slow)
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(replica.refresh)
        assert busy.wait(30)
        replica.refresh()
        assert not long.done() and len(replica.state.index) == 0
        release.set()
        long.result(30)
    assert_same(database, replica.state)
