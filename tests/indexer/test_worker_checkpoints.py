"""The worker and checkpoints: which it serves, in what order, which it refuses, and which it waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import structlog
from PIL import Image
from sqlalchemy import text

from indexer import checkpoints, gallery, worker
from indexer.database import Database, transaction
from indexer.errors import CheckpointMissing
from indexer.images import ImageStore
from indexer.intake import ingest_one
from indexer.metadata import ItemMetadata
from indexer.worker import WrongCheckpoint, run
from tests.fake_encoder import GridEncoder
from tests.indexer.workers import (
    DEADLINE,
    Gate,
    add,
    colour,
    column,
    embed_all,
    picture,
    register,
    running,
    settings,
    states,
    store,
    wait_until,
)

__all__ = ["store"]


def test_a_checkpoint_nobody_asked_for_is_refused(database: Database, store: ImageStore) -> None:
    register(database, GridEncoder(48))
    with pytest.raises(WrongCheckpoint, match=r"uses checkpoint grid0*48, but this worker was started with grid0*96"):
        embed_all(database, store, GridEncoder(96))


def test_a_retired_checkpoint_is_refused(database: Database, store: ImageStore) -> None:
    register(database, GridEncoder(48))
    register(database, GridEncoder(96))
    with transaction(database.engine) as session:
        session.execute(text("UPDATE checkpoint SET state = 'retired' WHERE dim = 96"))
    with pytest.raises(WrongCheckpoint):
        embed_all(database, store, GridEncoder(96))


def test_an_encoder_of_another_size_is_refused(database: Database, store: ImageStore) -> None:
    encoder = GridEncoder(48)
    register(database, encoder)
    encoder.dim = 96
    with pytest.raises(WrongCheckpoint, match="48 dimensions, but this encoder gives 96"):
        embed_all(database, store, encoder)


def test_a_candidate_is_embedded_beside_the_active_one(database: Database, store: ImageStore) -> None:
    ids = add(database, store, 2)
    for encoder in (GridEncoder(48), GridEncoder(96)):
        register(database, encoder)
        embed_all(database, store, encoder)
    with transaction(database.engine) as session:
        assert set(gallery.vectors_of(session, ids, GridEncoder(96).checkpoint_id)) == set(ids)
        assert set(gallery.vectors_of(session, ids, GridEncoder(48).checkpoint_id)) == set(ids)


def by_id(*encoders: GridEncoder) -> Callable[[str], GridEncoder]:
    """What loads encoders, of these checkpoints only."""
    known = {encoder.checkpoint_id: encoder for encoder in encoders}

    def load(checkpoint_id: str) -> GridEncoder:
        if checkpoint_id not in known:
            raise CheckpointMissing("Its file is not there.")
        return known[checkpoint_id]

    return load


def test_one_worker_serves_every_wanted_checkpoint_the_active_one_first(database: Database, store: ImageStore) -> None:
    active, candidate = Gate(), Gate(96)
    register(database, active)
    ids = add(database, store, 40)
    register(database, candidate)
    active.opened.set()
    with running(database, store, None, load=by_id(active, candidate)):
        assert candidate.entered.wait(DEADLINE)
        assert states(database, ids) == ["indexed"] * 40, "nothing waits for the active one any more"
        assert candidate.calls == [list(range(32, 40))], "the newest first"
        new = ingest_one(database, store, picture(100), ItemMetadata()).image_id
        candidate.opened.set()
        wait_until(lambda: set(column(database, "state")) == {"ready"})
    assert active.calls[-1] == [100]
    turn = [100 in call for call in candidate.calls].index(True)
    assert turn <= 2, "before the rest of the backlog, but for a batch that was claimed ahead"
    with transaction(database.engine) as session:
        for encoder in (active, candidate):
            vectors = gallery.vectors_of(session, [*ids, new], encoder.checkpoint_id)
            np.testing.assert_array_equal(vectors[ids[3]], GridEncoder(encoder.dim).embed_images([flat(3)])[0])
            assert len(vectors) == 41


def flat(number: int) -> Image.Image:
    return Image.new("RGB", (16, 24), colour(number))


def test_a_checkpoint_that_cannot_be_loaded_holds_up_no_other(database: Database, store: ImageStore) -> None:
    active = GridEncoder()
    register(database, active)
    register(database, GridEncoder(96))
    register(database, GridEncoder(24))
    ids = add(database, store, 3)
    with structlog.testing.capture_logs() as logs:
        run(database, store, None, settings(), threading.Event(), once=True, load=by_id(active, GridEncoder(24)))
    assert states(database, ids) == ["indexed"] * 3
    with transaction(database.engine) as session:
        assert len(gallery.vectors_of(session, ids, GridEncoder(24).checkpoint_id)) == 3
        assert gallery.pending_count(session, GridEncoder(96).checkpoint_id) == 3
    assert [log["checkpoint"] for log in logs if log["event"] == "checkpoint_not_loaded"] == ["grid000000000096"]


def test_no_more_than_two_encoders_are_kept(database: Database, store: ImageStore) -> None:
    loaded: list[str] = []
    load = by_id(GridEncoder(48), GridEncoder(96), GridEncoder(24))

    def counting(checkpoint_id: str) -> GridEncoder:
        loaded.append(checkpoint_id[-2:])
        return load(checkpoint_id)

    kept = worker._Encoders(None, counting)
    ids = [GridEncoder(dim).checkpoint_id for dim in (48, 96, 24)]
    for id in (ids[0], ids[1], ids[0], ids[1], ids[2], ids[1], ids[0]):
        assert kept.get(id, is_active=id == ids[0]) is not None
    assert loaded == ["48", "96", "24", "48"]


def test_a_candidate_keeps_its_turn_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = worker._Encoders(None, by_id(GridEncoder(48), GridEncoder(96), GridEncoder(24)))
    active, second, third = (GridEncoder(dim).checkpoint_id for dim in (48, 96, 24))
    kept.get(third, is_active=False)
    assert kept.in_turn([active, second, third], active) == [active, third, second]
    monkeypatch.setattr(worker, "TURN_SECONDS", 0.0)
    assert kept.in_turn([active, second, third], active) == [active, second, third]


def test_a_worker_follows_an_activation(database: Database, store: ImageStore) -> None:
    old, new = GridEncoder(48), GridEncoder(96)
    register(database, old)
    register(database, new)
    with running(database, store, None, load=by_id(old, new)):
        first = add(database, store, 2)
        wait_until(lambda: column(database, "state") == ["ready"] * 4)
        with transaction(database.engine) as session:
            checkpoints.activate(session, new.checkpoint_id, old.checkpoint_id, {})
        later = ingest_one(database, store, picture(50), ItemMetadata()).image_id
        wait_until(lambda: column(database, "state") == ["ready"] * 6)
    assert states(database, [*first, later]) == ["indexed"] * 3
    with transaction(database.engine) as session:
        assert later in gallery.vectors_of(session, [later], old.checkpoint_id), "what a rollback needs"


def test_a_worker_of_no_certain_checkpoint_waits_for_one(database: Database, store: ImageStore) -> None:
    ids = add(database, store, 2)
    with structlog.testing.capture_logs() as logs, running(database, store, None, load=by_id(GridEncoder())):
        wait_until(lambda: "waiting_for_checkpoint" in {entry["event"] for entry in logs})
        register(database, GridEncoder())
        wait_until(lambda: states(database, ids) == ["indexed"] * 2)


def test_a_worker_started_with_what_nobody_wants_is_refused_whatever_it_could_load(
    database: Database, store: ImageStore
) -> None:
    register(database, GridEncoder(48))
    with pytest.raises(WrongCheckpoint):
        run(database, store, GridEncoder(96), settings(), threading.Event(), load=by_id(GridEncoder(48)))


def test_a_worker_started_first_waits_for_the_checkpoint(database: Database, store: ImageStore) -> None:
    ids = add(database, store, 2)
    encoder = GridEncoder()
    with pytest.raises(WrongCheckpoint, match="no checkpoint yet"):
        embed_all(database, store, encoder)
    with structlog.testing.capture_logs() as logs, running(database, store, encoder):
        wait_until(lambda: "waiting_for_checkpoint" in {entry["event"] for entry in logs})
        register(database, encoder)
        wait_until(lambda: states(database, ids) == ["indexed"] * 2)
