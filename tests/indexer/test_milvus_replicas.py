"""Several replicas on one index in Milvus: they share its writing, none undoes another's, and it outlives them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from indexer import checkpoints, erasure, gallery
from indexer.database import Database, transaction
from indexer.erasure import Eraser
from indexer.errors import IndexUnavailable
from indexer.milvus import Milvus
from indexer.replica import Gap, Replica
from indexer.traces import Selection
from tests.indexer.live_gallery import Encoder, add, assert_same, delete, eventually, register, vectors_in
from tests.milvus_fixtures import MilvusServer, milvus, needs_milvus, open_milvus, server
from tests.small_gallery import ENCODER, OTHER, Gallery, metadata

__all__ = ["milvus"]

pytestmark = [needs_milvus, pytest.mark.xdist_group("milvus")]


def replica_on(database: Database, milvus: Milvus, checkpoint: str = "checkpoint") -> Replica[Encoder]:
    replica = Replica(database, Encoder(checkpoint), milvus=milvus)
    replica.load()
    return replica


def sent(milvus: Milvus, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows whose vectors are written to Milvus from here on."""
    rows: list[int] = []
    real = milvus.client.upsert

    def upsert(name: str, data: list[dict[str, int]], **more: object) -> object:
        rows.extend(one["row"] for one in data)
        return real(name, data, **more)

    monkeypatch.setattr(milvus.client, "upsert", upsert)
    return rows


def test_what_one_replica_took_in_all_find_and_nobody_sends_again(
    database: Database, milvus: Milvus, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(database)
    one, two = replica_on(database, milvus), replica_on(database, milvus)
    written = sent(milvus, monkeypatch)
    rows = add(database, "a", "b", "c")
    one.refresh()
    assert sorted(two.state.index.rows.tolist()) == rows  # it has not even looked
    two.refresh()
    delete(database, rows[0])
    two.refresh()
    assert_same(database, one.state)
    one.refresh()
    assert_same(database, two.state)
    assert written == rows


def test_the_index_outlives_its_replicas_and_only_what_is_missing_is_sent(
    database: Database, milvus: Milvus, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(database)
    rows = add(database, *"abcdef")
    replica_on(database, milvus)
    delete(database, rows[0])
    later = add(database, "g", "h")
    written = sent(milvus, monkeypatch)
    with capture_logs() as logs:
        again = replica_on(database, milvus)
    assert [line["read_from_database"] for line in logs if line["event"] == "index_loaded"] == [2]
    assert sorted(written) == later
    assert_same(database, again.state)


def test_vectors_that_are_not_the_databases_are_replaced_at_the_start(database: Database, milvus: Milvus) -> None:
    """As after a backup of another day was restored: the same rows, but of other images."""
    register(database)
    rows = add(database, "a", "b", "c")
    index = milvus.index("checkpoint", 4)
    index.add(np.array([*rows[:2], 10**6]), np.eye(3, 4, dtype=np.float32))
    assert_same(database, replica_on(database, milvus).state)


def test_a_replica_that_is_behind_brings_nothing_back(database: Database, milvus: Milvus) -> None:
    """It has read that images were added; before it writes, one is deleted, and others write that. It must not win."""
    register(database)
    slow, quick = replica_on(database, milvus), replica_on(database, milvus)
    rows = add(database, "a", "b")
    reading, go_on = threading.Event(), threading.Event()
    real = slow.state.index.add

    def late(*arguments: np.ndarray) -> None:
        reading.set()
        assert go_on.wait(60)
        real(*arguments)

    slow.state.index.add = late  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(slow.refresh)
        assert reading.wait(60)
        delete(database, rows[0])
        other = pool.submit(quick.refresh)  # has to wait until the slow one has written
        go_on.set()
        writing.result(60)
        other.result(60)
    assert quick.state.index.rows.tolist() == [rows[1]]
    slow.refresh()
    assert_same(database, slow.state)


def test_replicas_follow_many_writers_together(database: Database, milvus: Milvus) -> None:
    register(database)
    replicas = [replica_on(database, milvus) for _ in range(3)]
    for replica in replicas:
        replica.start_following(0.001, check_seconds=0.05)
    try:
        for n in range(12):
            rows = add(database, f"{n}a", f"{n}b", f"{n}c")
            delete(database, rows[0])
        for replica in replicas:
            eventually(lambda one=replica: sorted(one.state.index.rows.tolist()) == sorted(vectors_in(database)))
    finally:
        for replica in replicas:
            replica.stop()
    for replica in replicas:
        assert replica.mend() == Gap()
        assert_same(database, replica.state)


def test_checkpoints_side_by_side_and_the_retired_one_goes(database: Database, milvus: Milvus) -> None:
    register(database)
    add(database, "a", "b", "c")
    replica = replica_on(database, milvus)
    with transaction(database.engine) as session:
        gallery.ensure_checkpoint(session, "next", "axm_net", 4, {}, "/next")
        claimed = gallery.claim_unembedded(session, "next", 10, 60, 4)
        rows = [item.row for item in claimed.items]
        vectors = np.random.default_rng(2).normal(size=(3, 4)).astype(np.float32)
        gallery.record_embeddings(session, "next", claimed.token, rows, vectors)
    before = replica.state
    replica.switch(Encoder("next"))
    assert_same(database, replica.state)
    assert_same(database, before)  # a search that took the old one finishes with it
    assert sorted(milvus.checkpoints()) == ["checkpoint", "next"]
    with transaction(database.engine) as session:
        checkpoints.activate(session, "next", "checkpoint", {})
    assert replica.mend() == Gap() and len(milvus.checkpoints()) == 2, "it may be taken back"
    with transaction(database.engine) as session:
        checkpoints.retire(session, "checkpoint")
    replica.mend()
    assert milvus.checkpoints() == ["next"]
    assert_same(database, replica.state)


def test_an_index_that_milvus_lost_is_filled_again(database: Database, milvus: Milvus) -> None:
    register(database)
    add(database, "a", "b", "c")
    replica = replica_on(database, milvus)
    milvus.drop("checkpoint")
    with pytest.raises(IndexUnavailable, match="filled again"):
        replica.state.index.search(np.ones((1, 4), np.float32), 1)
    replica.mend()
    assert_same(database, replica.state)


def test_an_erasure_reaches_the_collections_of_every_checkpoint(
    database: Database, milvus: Milvus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = Gallery(database, tmp_path)
    filled.add((1, metadata("one")), (2, metadata("two")))
    replica = Replica(database, ENCODER, milvus=milvus)
    replica.load()
    Replica(database, OTHER, milvus=open_again(milvus)).load()
    eraser = Eraser(database, filled.store, filled.journal, replica)

    monkeypatch.setattr(erasure, "INDEX_WAIT", 0.2)
    real = milvus.client.delete
    monkeypatch.setattr(milvus.client, "delete", lambda *_, **__: None)
    with capture_logs() as logs:
        receipt = eraser.erase(Selection(external_ids=("one",)), "a request")
    assert receipt.state == "running" and logs[-1]["event"] == "erasure incomplete"
    monkeypatch.setattr(milvus.client, "delete", real)
    assert replica.mend() == Gap(0, 1)
    (receipt,) = eraser.resume()
    assert receipt.state == "done" and receipt.proof is not None and "in the index" in receipt.proof
    for encoder in (ENCODER, OTHER):
        assert len(milvus.index(encoder.checkpoint_id, encoder.dim)) == 1


def open_again(milvus: Milvus) -> Milvus:
    return Milvus(server().uri, prefix=milvus.prefix)


def test_an_erasure_is_completed_when_milvus_is_back(database: Database, tmp_path: Path) -> None:
    own = MilvusServer(tmp_path)
    own.start()
    try:
        milvus = open_milvus(own)
        filled = Gallery(database, tmp_path)
        filled.add((1, metadata("one")), (2, metadata("two")))
        replica = Replica(database, ENCODER, milvus=milvus)
        replica.load()
        eraser = Eraser(database, filled.store, filled.journal, replica)
        own.kill()
        assert eraser.erase(Selection(external_ids=("one",)), "a request").state == "running"
        own.start()

        def completed() -> bool:
            return [receipt.state for receipt in eraser.resume()] == ["done"]

        eventually(completed)
        assert len(replica.state.index) == 1
    finally:
        own.kill()
