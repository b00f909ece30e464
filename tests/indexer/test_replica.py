"""The replica against the database: it ends up with what is there, whatever happened when."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from indexer import gallery
from indexer import index as index_module
from indexer import replica as replica_module
from indexer.database import Database, connect, transaction
from indexer.errors import DatabaseUnavailable
from indexer.index import SPECS
from indexer.replica import Gap, Replica
from indexer.settings import GallerySettings
from tests.indexer.live_gallery import DIM, Encoder, add, assert_same, delete, eventually, register, vectors_in
from tests.milvus_fixtures import milvus, needs_milvus

__all__ = ["milvus"]


in_milvus = pytest.param("milvus", marks=[needs_milvus, pytest.mark.xdist_group("milvus")])


in_this_process = pytest.mark.parametrize("replica", SPECS, indirect=True)


@pytest.fixture(params=[*SPECS, in_milvus])
def replica(database: Database, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Replica[Encoder]:
    monkeypatch.setattr(index_module, "COMPRESSED_FROM", 2)
    register(database)
    if request.param == "milvus":
        return Replica(database, Encoder(), milvus=request.getfixturevalue("milvus"))
    return Replica(database, Encoder(), request.param)


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


@in_this_process
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


def test_follower_waits_for_a_database_that_is_away(database: Database, replica: Replica[Encoder]) -> None:
    add(database, "a")
    name = database.engine.url.database
    maintenance = connect(str(database.url).replace(f"/{name}?", "/postgres?"))
    with maintenance.connect().execution_options(isolation_level="AUTOCOMMIT") as admin:
        replica.load()
        admin.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        admin.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"))
        try:
            with capture_logs() as logs:
                replica.start_following(0.001)
                eventually(lambda: any(line["event"] == "index_stays_as_it_is" for line in logs))
            with pytest.raises(DatabaseUnavailable):
                replica.load()
            assert len(replica.state.index) == 1, "what was loaded stays searchable"
            admin.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
            (row,) = add(database, "b")
            eventually(lambda: row in replica.state.index)
        finally:
            replica.stop()
    maintenance.dispose()


@in_this_process
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


# ------------------------------------------------------------------------------------------------------------- the gap


def stray(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that no image has, and vectors for them."""
    return np.arange(10**6, 10**6 + n), np.random.default_rng(9).normal(size=(n, DIM)).astype(np.float32)


@pytest.mark.parametrize(("lost", "strays"), [(3, 0), (0, 2), (2, 2), (20, 0)])
def test_a_gap_is_found_said_and_mended(
    database: Database, replica: Replica[Encoder], monkeypatch: pytest.MonkeyPatch, lost: int, strays: int
) -> None:
    """Missing rows, surplus rows, as many of both so that the counts agree, and all of them gone."""
    monkeypatch.setattr(replica_module, "AT_A_TIME", 3)
    rows = add(database, *map(str, range(20)))
    replica.load()
    replica.state.index.remove(np.array(rows[:lost]))
    replica.state.index.add(*stray(strays))
    with capture_logs() as logs:
        assert replica.mend() == Gap(lost, strays) == replica.gap
    (said,) = [line for line in logs if line["event"] == "index_mended"]
    assert (said["missing"], said["surplus"], said["log_level"]) == (lost, strays, "warning")
    assert_same(database, replica.state)
    assert replica.mended == lost + strays
    with capture_logs() as logs:
        assert replica.mend() == Gap(0, 0) == replica.gap
    assert logs == [] and replica.mended == lost + strays


def test_changes_that_were_not_followed_yet_are_no_gap(database: Database, replica: Replica[Encoder]) -> None:
    rows = add(database, "a", "b", "c")
    replica.load()
    delete(database, rows[0])
    add(database, "d")
    assert replica.mend() == Gap(0, 0)
    assert_same(database, replica.state)


def test_a_gap_is_mended_by_itself_while_others_write(database: Database, replica: Replica[Encoder]) -> None:
    add(database, *map(str, range(10)))
    replica.load()
    replica.start_following(0.001, check_seconds=0.001)
    try:
        for n in range(10):
            replica.state.index.remove(replica.state.index.rows[:1])
            replica.state.index.add(stray(10)[0][n : n + 1], stray(10)[1][n : n + 1])
            rows = add(database, f"a{n}", f"b{n}")
            delete(database, rows[0])
        eventually(lambda: sorted(replica.state.index.rows.tolist()) == sorted(vectors_in(database)))
    finally:
        replica.stop()
    assert_same(database, replica.state)


def test_an_index_ahead_of_a_restored_database_is_loaded_again(database: Database, replica: Replica[Encoder]) -> None:
    rows = add(database, "a", "b", "c")
    replica.load()
    with transaction(database.engine) as session:  # as if it had been restored from before the last two
        session.execute(text("DELETE FROM image WHERE row = ANY(:rows)"), {"rows": rows[1:]})
        session.execute(text("SELECT setval('change_seq', 1)"))
    with capture_logs() as logs:
        replica.mend()
    assert [line["event"] for line in logs] == ["index_ahead_of_database", "index_loaded"]
    assert_same(database, replica.state)


# ------------------------------------------------------------------------------------- what is promised of the follower


@in_this_process
def test_following_alone_brings_additions_in_and_removed_vectors_out(
    database: Database, replica: Replica[Encoder]
) -> None:
    """Nobody searches, so nothing but the follower takes them in; the default polling is well below a second."""
    rows = add(database, *map(str, range(8)))
    replica.load()
    assert GallerySettings().poll_seconds <= 0.5
    replica.start_following(GallerySettings().poll_seconds, check_seconds=0.01)
    try:
        (later,) = add(database, "later")
        eventually(lambda: later in replica.state.index)
        forgotten = replica.state.index.reconstruct(np.array(rows[:1]))[0]
        delete(database, rows[0])
        eventually(lambda: rows[0] not in replica.state.index)
        eventually(lambda: not any((b.vectors == forgotten).all(1).any() for b in replica.state.index.blocks))
    finally:
        replica.stop()
    assert_same(database, replica.state)
