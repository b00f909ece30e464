"""A replica that follows the active checkpoint: swapped as a whole, while searches go on with what they took."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from indexer import checkpoints, gallery, snapshots
from indexer.database import Database, transaction
from indexer.errors import CheckpointMissing
from indexer.gallery import NewImage
from indexer.replica import Replica
from indexer.succession import Succession


@dataclass(frozen=True)
class Encoder:
    """As much of an encoder as the replica asks for; the checkpoint "3" has three dimensions."""

    checkpoint_id: str

    @property
    def dim(self) -> int:
        return int(self.checkpoint_id)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def add(database: Database, *names: str) -> None:
    """Images, embedded with every wanted checkpoint: all coordinates are the number of its dimensions."""
    with transaction(database.engine) as session:
        for name in names:
            gallery.add_image(session, NewImage(name.rjust(64, "0"), 1, 1, "png", 1))
        for id in checkpoints.with_work(session):
            claim = gallery.claim_unembedded(session, id, 100, 60, 4)
            vectors = np.full((len(claim.items), int(id)), float(id), np.float32)
            gallery.record_embeddings(session, id, claim.token, [item.row for item in claim.items], vectors)


@pytest.fixture
def replica(database: Database) -> Replica[Encoder]:
    for id in ("3", "5"):
        checkpoints.register(database.engine, id, "grid", int(id), {}, "", {})
    add(database, "a", "b", "c")
    replica = Replica(database, Encoder("3"))
    replica.load()
    return replica


def activate(database: Database, id: str, instead_of: str) -> None:
    with transaction(database.engine) as session:
        checkpoints.activate(session, id, instead_of, {})


def whole(replica: Replica[Encoder]) -> bool:
    """Checkpoint, encoder and index belong together."""
    live = replica.state
    return live.checkpoint_id == live.encoder.checkpoint_id and live.encoder.dim == live.index.dim


def test_the_index_on_disk_follows_and_keeps_nobody_who_is_forgotten(database: Database, tmp_path: Path) -> None:
    for id in ("3", "5"):
        checkpoints.register(database.engine, id, "grid", int(id), {}, "", {})
    add(database, "a", "b", "c")
    replica = Replica(database, Encoder("3"), snapshots=tmp_path)
    replica.load()
    replica.save()
    activate(database, "5", "3")
    replica.switch(Encoder("5"))
    replica.save()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "5"]

    row = int(replica.state.index.rows[0])
    with transaction(database.engine) as session:
        id = session.scalars(text("SELECT id FROM image WHERE row = :row"), {"row": row}).one()
        gallery.delete_image(session, id)
    replica.refresh()
    assert replica.forget(np.array([row]))
    assert not any(snapshots.holds(folder, np.array([row])) for folder in tmp_path.iterdir())
    replica.switch(Encoder("3"))
    assert sorted(replica.state.index.rows) == [other for other in (1, 2, 3) if other != row]
    replica.switch(Encoder("5"))

    with transaction(database.engine) as session:
        checkpoints.retire(session, "3")
    replica.save()
    replica.mend()
    assert [path.name for path in tmp_path.iterdir() if any(path.iterdir())] == ["5"], "nobody needs that of a retired"


def test_it_follows_an_activation_and_a_rollback(database: Database, replica: Replica[Encoder]) -> None:
    succession = Succession(database, replica, Encoder)
    before = replica.state
    succession.follow()
    assert replica.state is before
    activate(database, "5", "3")
    succession.follow()
    assert replica.state.checkpoint_id == "5" and whole(replica)
    assert len(replica.state.index) == 3
    assert len(before.index) == 3 and before.index.dim == 3, "a search that took the old one still has it, whole"
    add(database, "d")
    replica.refresh()
    assert len(replica.state.index) == 4
    with transaction(database.engine) as session:
        checkpoints.roll_back(session, "5", "3", {})
    succession.follow()
    assert replica.state.checkpoint_id == "3" and whole(replica)
    assert len(replica.state.index) == 4, "images added meanwhile are there too"


def test_the_old_one_answers_and_follows_while_the_new_one_is_loading(
    database: Database, replica: Replica[Encoder]
) -> None:
    loading, go_on = threading.Event(), threading.Event()

    def slow(checkpoint_id: str) -> Encoder:
        loading.set()
        assert go_on.wait(30)
        return Encoder(checkpoint_id)

    succession = Succession(database, replica, slow)
    succession.start(0.005)
    try:
        activate(database, "5", "3")
        assert loading.wait(30)
        assert succession.loading == "5" and succession.problem is None
        add(database, "d")
        replica.refresh()
        assert replica.state.checkpoint_id == "3" and len(replica.state.index) == 4
        go_on.set()
        eventually(lambda: replica.state.checkpoint_id == "5")
        assert whole(replica) and len(replica.state.index) == 4
        eventually(lambda: succession.loading is None)
    finally:
        go_on.set()
        succession.stop()


def test_what_cannot_be_loaded_leaves_the_old_one_answering(
    database: Database,
    replica: Replica[Encoder],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("indexer.succession.RETRY_SECONDS", 0.01)
    there = threading.Event()

    def load(checkpoint_id: str) -> Encoder:
        if not there.is_set():
            raise CheckpointMissing("The file is not there.")
        return Encoder(checkpoint_id)

    succession = Succession(database, replica, load)
    succession.start(0.005)
    try:
        activate(database, "5", "3")
        eventually(lambda: succession.problem is not None)
        assert replica.state.checkpoint_id == "3"
        assert caplog.text.count("still answering with 3: The file is not there.") == 1
        there.set()
        eventually(lambda: replica.state.checkpoint_id == "5")
        eventually(lambda: succession.problem is None)
    finally:
        succession.stop()


def test_readers_never_meet_a_mixture(database: Database, replica: Replica[Encoder]) -> None:
    """Threads look all the time while the active checkpoint changes to and fro."""
    succession = Succession(database, replica, Encoder)
    succession.start(0.001)
    stop, mixed, seen = threading.Event(), [], set()

    def look() -> None:
        while not stop.is_set():
            live = replica.state
            replica.refresh()
            similarities, rows = live.index.search(np.ones((1, live.encoder.dim), np.float32), 3)
            expected = float(int(live.checkpoint_id) ** 2)  # so many coordinates of that size, times one
            if similarities[0].tolist() != [expected] * 3 or -1 in rows:
                mixed.append((live.checkpoint_id, similarities))
            seen.add(live.checkpoint_id)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for old, new in [("3", "5"), ("5", "3")] * 3:
            activate(database, new, old)
            eventually(lambda wanted=new: replica.state.checkpoint_id == wanted)  # type: ignore[misc]
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
        succession.stop()
    assert not mixed
    assert seen == {"3", "5"}
