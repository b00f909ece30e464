"""Checkpoints beside each other, on a real PostgreSQL: what is asked of the workers, handed over, taken back, freed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sqlalchemy import text

from indexer import checkpoints, gallery
from indexer.database import Database, transaction
from indexer.errors import CheckpointConflict, NotFound
from indexer.gallery import NewImage

DIM = 4


def register(database: Database, id: str) -> str:
    canaries = {"image": np.ones(DIM, np.float32)}
    return checkpoints.register(database.engine, id, "grid", DIM, {"a": 1}, f"checkpoints/{id}", canaries)


def add(database: Database, *names: str) -> None:
    with transaction(database.engine) as session:
        for name in names:
            gallery.add_image(session, NewImage(name.rjust(64, "0"), 1, 1, "png", 1))


def embed(database: Database, id: str, n: int = 100, newest_first: bool = False) -> list[int]:
    """Embed up to `n` images with made-up vectors; returns their rows."""
    with transaction(database.engine) as session:
        claim = gallery.claim_unembedded(session, id, n, 60, 4, newest_first=newest_first)
        rows = [item.row for item in claim.items]
        vectors = np.random.default_rng(len(id)).normal(size=(len(rows), DIM)).astype(np.float32)
        gallery.record_embeddings(session, id, claim.token, rows, vectors)
    return rows


def states(database: Database) -> dict[str, str]:
    with transaction(database.engine) as session:
        return {record.id: record.state for record in checkpoints.records(session)}


def activate(database: Database, id: str, instead_of: str) -> None:
    with transaction(database.engine) as session:
        checkpoints.activate(session, id, instead_of, {"reason": "a test"})


def roll_back(database: Database, id: str) -> str:
    with transaction(database.engine) as session:
        to = checkpoints.previous(session, id)
        checkpoints.roll_back(session, id, to, {})
    return to


def embeddings(database: Database, id: str) -> int:
    with transaction(database.engine) as session:
        return session.scalar(text("SELECT count(*) FROM embedding WHERE checkpoint_id = :id"), {"id": id}) or 0


def test_registering_asks_for_every_image_in_batches_and_new_images_for_every_checkpoint(database: Database) -> None:
    assert register(database, "a") == "active"
    add(database, *map(str, range(7)))
    assert register(database, "b") == "candidate"
    checkpoints.want_all(database.engine, "b", batch=2)
    add(database, "later")
    assert embeddings(database, "a") == embeddings(database, "b") == 8
    with transaction(database.engine) as session:
        assert [event.kind for event in checkpoints.events(session, "b")] == ["registered"]
        stored = checkpoints.record(session, "b")
    np.testing.assert_array_equal(stored.canaries["image"], np.ones(DIM))
    assert register(database, "b") == "candidate", "again changes nothing"


def test_registering_while_images_come_and_go_misses_no_pair(database: Database) -> None:
    register(database, "a")
    add(database, *map(str, range(50)))
    with transaction(database.engine) as session:
        ids = list(session.scalars(text("SELECT id FROM image ORDER BY row")))

    def come_and_go(n: int) -> None:
        add(database, f"new{n}")
        with transaction(database.engine) as session:
            gallery.delete_image(session, ids[n])

    with ThreadPoolExecutor(3) as pool:
        work = [pool.submit(come_and_go, n) for n in range(25)]
        register(database, "b")
        for done in work:
            done.result(60)
    with transaction(database.engine) as session:
        assert session.scalar(text("SELECT count(*) FROM image")) == 50
    assert embeddings(database, "a") == embeddings(database, "b") == 50


def test_a_registration_that_was_interrupted_is_completed(database: Database) -> None:
    register(database, "a")
    add(database, "1", "2", "3")
    with transaction(database.engine) as session:
        checkpoints.add(session, "b", "grid", DIM, {}, "")
    assert embeddings(database, "b") == 0
    checkpoints.complete_interrupted(database.engine)
    assert embeddings(database, "b") == 3


def test_the_active_checkpoint_comes_first_and_the_backlog_newest_first(database: Database) -> None:
    register(database, "a")
    add(database, *map(str, range(4)))
    first = embed(database, "a")
    register(database, "b")
    with transaction(database.engine) as session:
        assert checkpoints.with_work(session) == ["b"]
    add(database, "new")
    with transaction(database.engine) as session:
        assert checkpoints.with_work(session) == ["a", "b"]
    (new,) = embed(database, "a")
    order = [embed(database, "b", 1, newest_first=True) for _ in range(5)]
    assert order == [[new], *([row] for row in reversed(first))]
    with transaction(database.engine) as session:
        assert checkpoints.with_work(session) == []


def test_a_suspect_of_the_backlog_is_tried_again(database: Database) -> None:
    register(database, "a")
    add(database, "1", "2", "3")
    embed(database, "a")
    register(database, "b")
    with transaction(database.engine) as session:
        claim = gallery.claim_unembedded(session, "b", 1, 60, 4, newest_first=True)
        (suspect,) = [item.row for item in claim.items]
        gallery.record_failure(session, "b", claim.token, suspect, "unreadable now", retry_seconds=-3600)
    seen = [row for _ in range(4) for row in embed(database, "b", 1, newest_first=True)]
    assert suspect in seen and len(seen) == 3


def test_coverage_counts_and_tells_the_speed(database: Database) -> None:
    register(database, "a")
    add(database, *map(str, range(10)))
    with transaction(database.engine) as session:
        before = checkpoints.coverage(session, "a")
    assert (before.images, before.embedded, before.pending, before.failed) == (10, 0, 10, 0)
    assert before.per_second == 0 and before.seconds_left is None
    embed(database, "a", 4)
    with transaction(database.engine) as session:  # four in the last eight seconds: half an image a second
        session.execute(text("UPDATE embedding SET updated_at = now() - interval '8 s' WHERE state = 'ready'"))
    with transaction(database.engine) as session:
        during = checkpoints.coverage(session, "a")
    assert (during.embedded, during.pending) == (4, 6)
    assert during.per_second == pytest.approx(0.5, rel=0.3)
    assert during.seconds_left == pytest.approx(6 / during.per_second, rel=0.01)
    embed(database, "a")
    with transaction(database.engine) as session:
        assert checkpoints.coverage(session, "a").seconds_left == 0


def test_missing_lists_what_would_be_lost_and_why(database: Database) -> None:
    register(database, "a")
    add(database, "1", "2", "3")
    embed(database, "a")
    register(database, "b")
    embed(database, "b", 1, newest_first=True)
    with transaction(database.engine) as session:
        claim = gallery.claim_unembedded(session, "b", 1, 60, 4, newest_first=True)
        gallery.record_failure(session, "b", claim.token, claim.items[0].row, "It is broken.")
    add(database, "embedded by none")
    with transaction(database.engine) as session:
        count, listed = checkpoints.missing(session, "b", "a")
        assert count == 2
        assert [(one.state, one.error) for one in listed] == [("failed", "It is broken."), ("pending", None)]
        assert len(checkpoints.missing(session, "b", "a", limit=1)[1]) == 1
        assert checkpoints.missing(session, "a", "b") == (0, [])


def test_activating_and_rolling_back_hand_over_in_one_statement(database: Database) -> None:
    for id in "abc":
        register(database, id)
    activate(database, "b", "a")
    assert states(database) == {"a": "candidate", "b": "active", "c": "candidate"}
    activate(database, "c", "b")
    assert roll_back(database, "c") == "b"
    assert roll_back(database, "b") == "a"
    assert states(database) == {"a": "active", "b": "candidate", "c": "candidate"}
    with transaction(database.engine) as session, pytest.raises(CheckpointConflict, match="first one"):
        checkpoints.previous(session, "a")
    with transaction(database.engine) as session:
        done = [(event.kind, event.detail) for event in checkpoints.events(session, "b")]
    assert [kind for kind, _ in done] == ["rolled_back", "activated", "registered"]
    assert done[1][1] == {"instead_of": "a", "reason": "a test"}


def test_only_one_of_two_activations_at_once_wins(database: Database) -> None:
    for id in "abc":
        register(database, id)
    with ThreadPoolExecutor(2) as pool:
        tries = [pool.submit(activate, database, id, "a") for id in "bc"]
        errors = [found for found in (done.exception(30) for done in tries) if found is not None]
    assert [type(error) for error in errors] == [CheckpointConflict]
    assert sorted(states(database).values()) == ["active", "candidate", "candidate"]


def test_what_is_not_a_candidate_is_not_activated(database: Database) -> None:
    register(database, "a")
    register(database, "b")
    with transaction(database.engine) as session:
        checkpoints.retire(session, "b")
    for wrong in ("b", "a", "unknown"):
        with pytest.raises(CheckpointConflict):
            activate(database, wrong, "a")
    assert states(database) == {"a": "active", "b": "retired"}


def test_retiring_frees_the_embeddings_and_ends_the_way_back(database: Database) -> None:
    register(database, "a")
    add(database, *map(str, range(5)))
    embed(database, "a")
    register(database, "b")
    embed(database, "b")
    with transaction(database.engine) as session, pytest.raises(CheckpointConflict, match="answers searches"):
        checkpoints.retire(session, "a")
    assert checkpoints.free(database.engine, "a") == 0, "what is wanted is not freed"
    activate(database, "b", "a")
    with transaction(database.engine) as session:
        checkpoints.retire(session, "a")
    add(database, "later")
    assert checkpoints.free(database.engine, "a", batch=2) == 5
    assert embeddings(database, "a") == 0 and embeddings(database, "b") == 6
    with transaction(database.engine) as session, pytest.raises(CheckpointConflict, match="was retired"):
        checkpoints.previous(session, "b")
    assert register(database, "a") == "candidate", "and it can come back"
    assert embeddings(database, "a") == 6


def test_freeing_that_was_interrupted_is_completed(database: Database) -> None:
    register(database, "a")
    register(database, "b")
    add(database, "1")
    with transaction(database.engine) as session:
        checkpoints.retire(session, "b")
    checkpoints.complete_interrupted(database.engine)
    assert embeddings(database, "b") == 0 and embeddings(database, "a") == 1


def test_an_unknown_checkpoint_is_a_sentence(database: Database) -> None:
    with transaction(database.engine) as session:
        for ask in (checkpoints.record, checkpoints.previous, checkpoints.retire):
            with pytest.raises(NotFound, match="There is no checkpoint nope"):
                ask(session, "nope")
