"""What the gallery promises to workers: which image is whose, until when, and what becomes of it in the end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from indexer import gallery
from indexer.database import Database, transaction
from tests.indexer.gallery_steps import CHECKPOINT, DIM, add, claim, register, vectors, waits_for_lock


def let_leases_run_out(session: Session) -> None:
    session.execute(text("UPDATE embedding SET lease_until = now() - interval '1 second' WHERE state = 'running'"))


def test_first_checkpoint_is_active_and_later_ones_are_candidates(session: Session) -> None:
    assert gallery.active_checkpoint(session) is None
    add(session, "a", "b")
    register(session, "one")
    register(session, "two")
    register(session, "one")
    active = gallery.active_checkpoint(session)
    assert active is not None and (active.id, active.dim, active.info) == ("one", DIM, {"a": 1})
    add(session, "c")
    for id in ("one", "two"):
        assert gallery.counts(session, id) == gallery.Counts(images=3, indexed=0, pending=3, failed=0)
        assert gallery.pending_count(session, id) == 3


def test_retired_checkpoint_is_completed_when_it_is_wanted_again(session: Session) -> None:
    register(session, "one")
    register(session, "two")
    session.execute(text("UPDATE checkpoint SET state = 'retired' WHERE id = 'two'"))
    session.expire_all()
    add(session, "a")
    assert gallery.counts(session, "two").pending == 0
    register(session, "two")
    assert gallery.counts(session, "two").pending == 1


@pytest.mark.parametrize("checkpoint_first", [True, False])
def test_image_added_while_checkpoint_is_registered_gets_its_embedding(
    database: Database, checkpoint_first: bool
) -> None:
    """Neither transaction sees the other's row; without the lock the pair would be missed by both."""

    def registering() -> None:
        with transaction(database.engine) as session:
            register(session)

    def adding() -> None:
        with transaction(database.engine) as session:
            add(session, "a")

    first, second = (register, adding) if checkpoint_first else (lambda session: add(session, "a"), registering)
    with ThreadPoolExecutor(1) as pool:
        with transaction(database.engine) as session:
            first(session)
            other = pool.submit(second)
            waits_for_lock(database)
        other.result(10)
    with transaction(database.engine) as session:
        assert gallery.counts(session, CHECKPOINT).pending == 1


def test_claimed_images_are_nobody_elses_until_lease_ends(database: Database) -> None:
    with transaction(database.engine) as session:
        register(session)
        add(session, "a", "b", "c", "d", "e")
    with transaction(database.engine) as first, transaction(database.engine) as second:
        one, two = claim(first, n=3), claim(second, n=3)  # both open: rows of the other are skipped, not waited for
        assert [len(one.items), len(two.items)] == [3, 2]
        assert not {item.row for item in one.items} & {item.row for item in two.items}
        assert {item.attempts for item in one.items} == {1}
    with transaction(database.engine) as session:
        assert claim(session).items == []
        assert gallery.pending_count(session, CHECKPOINT) == 5
        assert gallery.renew_lease(session, CHECKPOINT, one.token, 60) == 3
        let_leases_run_out(session)
        assert len(claim(session).items) == 1


def test_image_that_was_tried_before_is_claimed_alone(session: Session) -> None:
    register(session)
    add(session, "a", "b", "c")
    assert len(claim(session).items) == 3
    let_leases_run_out(session)
    claims = [claim(session) for _ in range(4)]
    assert [len(claimed.items) for claimed in claims] == [1, 1, 1, 0]
    assert {item.attempts for claimed in claims for item in claimed.items} == {2}


def test_neither_fresh_nor_suspect_images_wait_for_ever(session: Session) -> None:
    """Whichever has been due for longer goes first."""
    register(session)
    add(session, "old", "tried", "new")
    old, tried, new = (item.row for item in claim(session).items)
    let_leases_run_out(session)
    fresh = text(
        "UPDATE embedding SET attempts = 0, state = 'pending', lease_until = NULL, run_at = now() + :due"
        " WHERE image_row = :row"
    )
    session.execute(fresh, {"row": old, "due": timedelta(hours=-1)})
    session.execute(fresh, {"row": new, "due": timedelta(hours=1)})
    assert [[item.row for item in claim(session, n=1).items] for _ in range(4)] == [[old], [tried], [new], []]


def test_image_whose_workers_die_is_given_up_with_reason(session: Session) -> None:
    register(session)
    (image,) = add(session, "poison")
    for attempt in (1, 2, 3):
        assert [item.attempts for item in claim(session, max_attempts=3).items] == [attempt]
        let_leases_run_out(session)
    assert claim(session, max_attempts=3).items == []
    record = gallery.image_by_id(session, image)
    assert record is not None and record.state == "failed"
    assert record.error is not None and "3 attempts" in record.error and "worker stopped" in record.error


def test_late_worker_writes_nothing(session: Session) -> None:
    register(session)
    add(session, "a")
    late = claim(session)
    row = late.items[0].row
    let_leases_run_out(session)
    current = claim(session)
    assert gallery.record_embeddings(session, CHECKPOINT, late.token, [row], vectors(1)) == 0
    assert not gallery.record_failure(session, CHECKPOINT, late.token, row, "no")
    assert gallery.release(session, CHECKPOINT, late.token) == 0
    assert gallery.renew_lease(session, CHECKPOINT, late.token, 60) == 0
    assert gallery.record_embeddings(session, CHECKPOINT, current.token, [row], vectors(1)) == 1
    assert gallery.record_embeddings(session, CHECKPOINT, current.token, [row], vectors(1)) == 0


def test_expired_lease_still_counts_while_nobody_took_the_image(session: Session) -> None:
    register(session)
    add(session, "a")
    mine = claim(session)
    let_leases_run_out(session)
    assert gallery.renew_lease(session, CHECKPOINT, mine.token, 60) == 1
    assert claim(session).items == []
    assert gallery.record_embeddings(session, CHECKPOINT, mine.token, [mine.items[0].row], vectors(1)) == 1


def test_released_images_are_fresh_again(session: Session) -> None:
    register(session)
    add(session, "a", "b")
    assert gallery.release(session, CHECKPOINT, claim(session).token) == 2
    assert [item.attempts for item in claim(session).items] == [1, 1]


def test_failure_is_final_or_tried_again_after_its_pause(session: Session) -> None:
    register(session)
    final, again = add(session, "a", "b")
    claimed = claim(session)
    assert gallery.record_failure(session, CHECKPOINT, claimed.token, claimed.items[0].row, "The file is\x00 gone.")
    row = claimed.items[1].row
    assert gallery.record_failure(session, CHECKPOINT, claimed.token, row, "Memory is short.", retry_seconds=60)
    assert claim(session).items == []
    assert gallery.counts(session, CHECKPOINT) == gallery.Counts(images=2, indexed=0, pending=1, failed=1)
    record = gallery.image_by_id(session, final)
    assert record is not None and (record.state, record.error) == ("failed", "The file is\ufffd gone.")

    session.execute(text("UPDATE embedding SET run_at = now() - interval '1 second' WHERE state = 'pending'"))
    assert [item.row for item in claim(session, max_attempts=2).items] == [row]
    let_leases_run_out(session)
    assert claim(session, max_attempts=2).items == []
    session.expire_all()
    record = gallery.image_by_id(session, again)
    assert record is not None and record.error == "Given up after 2 attempts: Memory is short."


def test_clock_that_was_set_back_keeps_no_image_for_ever(session: Session) -> None:
    register(session)
    add(session, "a", "b")
    claimed = claim(session, n=1)
    session.execute(text("UPDATE embedding SET lease_until = now() + interval '1 year' WHERE state = 'running'"))
    session.execute(text("UPDATE embedding SET run_at = now() + interval '1 year' WHERE state = 'pending'"))
    rows = [item.row for _ in range(2) for item in claim(session).items]
    assert sorted(rows) == sorted([claimed.items[0].row, claimed.items[0].row + 1])


@pytest.mark.parametrize("bad", [np.zeros((1, DIM + 1), np.float32), np.full((1, DIM), np.nan, np.float32)])
def test_vectors_that_are_no_embeddings_are_refused(session: Session, bad: np.ndarray) -> None:
    register(session)
    add(session, "a")
    claimed = claim(session)
    with pytest.raises(ValueError, match="finite vectors of 4"):
        gallery.record_embeddings(session, CHECKPOINT, claimed.token, [claimed.items[0].row], bad)
