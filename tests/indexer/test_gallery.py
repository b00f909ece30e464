"""What the gallery's functions promise, on a real PostgreSQL, with real concurrent transactions where that matters."""

from __future__ import annotations

import hashlib
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from indexer import embeddings, gallery
from indexer.database import Database, transaction
from indexer.errors import CameraExists, ExternalIdConflict, InvalidMetadata, NotFound, UnknownCamera
from indexer.filters import Condition, ImageFilter
from indexer.gallery import NewImage

NOON = datetime(2026, 9, 1, 12, tzinfo=UTC)
DIM = 4
CHECKPOINT = "c" * 16


def new_image(name: str = "a", **known: Any) -> NewImage:
    return NewImage(hashlib.sha256(name.encode()).hexdigest(), 48, 128, "png", 1000, **known)


def register(session: Session, id: str = CHECKPOINT) -> None:
    gallery.ensure_checkpoint(session, id, "axm_net", DIM, {"a": 1}, f"/checkpoints/{id}")


def add(session: Session, *names: str) -> list[UUID]:
    return [gallery.add_image(session, new_image(name)).image_id for name in names]


def claim(session: Session, n: int = 10, lease_seconds: float = 60, max_attempts: int = 4) -> gallery.Claim:
    return gallery.claim_unembedded(session, CHECKPOINT, n, lease_seconds, max_attempts)


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)


def embed_all(session: Session, seed: int = 0) -> dict[int, np.ndarray]:
    """Record a vector for every fresh image; returns them by row."""
    claimed = claim(session, n=10_000)
    rows = [item.row for item in claimed.items]
    made = vectors(len(rows), seed)
    assert gallery.record_embeddings(session, CHECKPOINT, claimed.token, rows, made) == len(rows)
    return dict(zip(rows, made, strict=True))


def let_leases_run_out(session: Session) -> None:
    session.execute(text("UPDATE embedding SET lease_until = now() - interval '1 second' WHERE state = 'running'"))


def waits_for_lock(database: Database) -> None:
    """Returns once another connection waits for a lock; fails after ten seconds."""
    deadline = time.monotonic() + 10
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        while connection.scalar(waiting) == 0:
            assert time.monotonic() < deadline, "nobody waits for a lock"


# Images


def test_image_is_stored_as_given(session: Session) -> None:
    gallery.add_camera(session, "c1", "Entrance", "North")
    image = new_image(
        external_id="x1",
        camera_id="c1",
        captured_at=NOON,
        track_id="t1",
        identity="p7",
        tags=("platform", "night"),
        attributes={"bag": "red", "ä": [1, None]},
    )
    added = gallery.add_image(session, image)
    assert not added.duplicate
    record = gallery.image_by_id(session, added.image_id)
    assert record is not None
    for name in NewImage.__dataclass_fields__:
        assert getattr(record, name) == getattr(image, name), name
    assert (record.state, record.error) == ("pending", None)
    assert gallery.images_by_row(session, [record.row, 10**12]) == {record.row: record}
    assert gallery.image_by_id(session, uuid4()) is None


def test_ids_sort_in_order_of_creation(session: Session) -> None:
    ids = add(session, *[str(n) for n in range(50)])
    assert ids == sorted(ids) and {id.version for id in ids} == {7}


@pytest.mark.parametrize("known", [{}, {"camera_id": "c1"}, {"captured_at": NOON}, {"external_id": "x"}])
def test_same_image_again_is_duplicate(session: Session, known: dict[str, Any]) -> None:
    gallery.add_camera(session, "c1")
    register(session)
    first = gallery.add_image(session, new_image(**known))
    again = gallery.add_image(session, new_image(**known))
    assert (again.image_id, again.duplicate) == (first.image_id, True)
    assert gallery.counts(session, CHECKPOINT) == gallery.Counts(images=1, indexed=0, pending=1, failed=0)


def test_same_file_at_another_time_or_camera_is_another_image(session: Session) -> None:
    for id in ("c1", "c2"):
        gallery.add_camera(session, id)
    places = [{}, {"camera_id": "c1"}, {"camera_id": "c2"}, {"camera_id": "c1", "captured_at": NOON}]
    added = [gallery.add_image(session, new_image(**place)) for place in places]
    assert len({item.image_id for item in added}) == 4


def test_external_id_of_another_image_is_refused_and_transaction_lives_on(session: Session) -> None:
    gallery.add_image(session, new_image("a", external_id="x"))
    with pytest.raises(ExternalIdConflict, match="'x'"):
        gallery.add_image(session, new_image("b", external_id="x"))
    assert not gallery.add_image(session, new_image("b", external_id="y")).duplicate


def test_unknown_camera_is_refused_and_transaction_lives_on(session: Session) -> None:
    with pytest.raises(UnknownCamera, match="'c1'"):
        gallery.add_image(session, new_image(camera_id="c1"))
    gallery.add_camera(session, "c1")
    assert not gallery.add_image(session, new_image(camera_id="c1")).duplicate


@pytest.mark.parametrize(
    "known",
    [
        {"external_id": "a\x00"},
        {"external_id": "x" * 256},
        {"track_id": ""},
        {"identity": "\ud800"},
        {"tags": ("ok", "\x00")},
        {"attributes": {"a": ["\x00"]}},
        {"attributes": {"\x00": 1}},
    ],
)
def test_text_that_cannot_be_stored_is_refused(session: Session, known: dict[str, Any]) -> None:
    with pytest.raises(InvalidMetadata, match=next(iter(known))):
        gallery.add_image(session, new_image(**known))


def test_delete_removes_all_traces_and_tells_whether_file_is_free(session: Session) -> None:
    gallery.add_camera(session, "c1")
    register(session)
    first = gallery.add_image(session, new_image("a")).image_id
    second = gallery.add_image(session, new_image("a", camera_id="c1")).image_id
    made = embed_all(session)
    sha256 = new_image("a").sha256
    record = gallery.image_by_id(session, first)
    assert record is not None and record.state == "indexed"

    assert gallery.delete_image(session, first) is None  # the other image still shows this file
    assert not gallery.unused_file(session, sha256)
    assert gallery.image_by_id(session, first) is None
    assert list(gallery.allowed_rows(session, ImageFilter(), CHECKPOINT)) == [row for row in made if row != record.row]
    assert gallery.delete_image(session, second) == sha256
    assert gallery.unused_file(session, sha256)
    assert gallery.counts(session, CHECKPOINT) == gallery.Counts(0, 0, 0, 0)
    with pytest.raises(NotFound):
        gallery.delete_image(session, first)


def test_file_is_not_removed_while_an_image_of_it_is_being_added(database: Database) -> None:
    sha256 = new_image("a").sha256

    def is_unused() -> bool:
        with transaction(database.engine) as session:
            return gallery.unused_file(session, sha256)

    with ThreadPoolExecutor(1) as pool:
        with transaction(database.engine) as adding:
            gallery.hold_file(adding, sha256)
            unused = pool.submit(is_unused)
            waits_for_lock(database)
            gallery.add_image(adding, new_image("a"))
        assert unused.result(10) is False


def test_two_transactions_adding_the_same_image_make_one(database: Database) -> None:
    def add_same() -> gallery.Added:
        with transaction(database.engine) as session:
            return gallery.add_image(session, new_image("a", external_id="x"))

    with ThreadPoolExecutor(1) as pool:
        with transaction(database.engine) as session:
            first = gallery.add_image(session, new_image("a", external_id="x"))
            second: Future[gallery.Added] = pool.submit(add_same)
            waits_for_lock(database)
        assert second.result(10) == gallery.Added(first.image_id, duplicate=True)


# Cameras


def test_cameras(session: Session) -> None:
    added = gallery.add_camera(session, "c2", site="North")
    gallery.add_camera(session, "c1")
    assert [camera.id for camera in gallery.cameras(session)] == ["c1", "c2"]
    assert gallery.cameras(session)[1] == added
    with pytest.raises(CameraExists):
        gallery.add_camera(session, "c1")
    with pytest.raises(InvalidMetadata):
        gallery.add_camera(session, "")
    assert gallery.unknown_cameras(session, ["c3", "c1", "a\x00", "c3"]) == ["c3", "a\x00"]
    assert gallery.unknown_cameras(session, []) == []


# Checkpoints and work


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


# Vectors and changes


def test_vectors_come_back_as_recorded(session: Session) -> None:
    register(session)
    ids = add(session, "a", "b")
    made = embed_all(session)
    (pending,) = add(session, "c")
    found = gallery.vectors_of(session, [*ids, pending, uuid4()], CHECKPOINT)
    assert list(found) == ids
    for vector, expected in zip(found.values(), made.values(), strict=True):
        assert vector.dtype == np.float32
        np.testing.assert_array_equal(vector, expected)


def test_changes_are_complete_and_in_order_however_few_are_asked_for(session: Session) -> None:
    register(session)
    ids = add(session, *"abcdefg")
    made = embed_all(session)
    rows = list(made)
    for id in (ids[1], ids[4]):
        gallery.delete_image(session, id)
    kept = [row for row in rows if row not in (rows[1], rows[4])]
    for limit in (1, 2, 100):
        seq, added, removed = 0, {}, []
        while (changes := gallery.changes_since(session, CHECKPOINT, seq, limit)).seq != seq:
            assert changes.seq > seq
            seq = changes.seq
            added |= dict(zip(changes.added_rows.tolist(), changes.added_vectors, strict=True))
            removed += changes.removed_rows.tolist()
        assert list(added) == kept and removed == [rows[1], rows[4]]
        for row in kept:
            np.testing.assert_array_equal(added[row], made[row])


def test_snapshot_sees_one_moment_and_changes_go_on_from_it(database: Database) -> None:
    with transaction(database.engine) as session:
        register(session)
        ids = add(session, *map(str, range(25)))
        before = embed_all(session)
    with transaction(database.engine) as reader:
        taken = gallery.snapshot(reader, CHECKPOINT, chunk=10)
        with transaction(database.engine) as writer:
            add(writer, "later")
            later = embed_all(writer, seed=1)
            gallery.delete_image(writer, ids[0])
        chunks = list(taken.chunks)
    assert taken.count == 25 and [len(rows) for rows, _ in chunks] == [10, 10, 5]
    seen = {row: vector for rows, matrix in chunks for row, vector in zip(rows.tolist(), matrix, strict=True)}
    assert seen.keys() == before.keys()
    for row, vector in seen.items():
        np.testing.assert_array_equal(vector, before[row])
    with transaction(database.engine) as session:
        changes = gallery.changes_since(session, CHECKPOINT, taken.seq)
    assert changes.added_rows.tolist() == list(later) and changes.removed_rows.tolist() == [next(iter(before))]


@pytest.mark.parametrize("at_once", [2, embeddings.LISTED_AT_ONCE])
def test_listing_tells_which_vectors_there_are_without_reading_them(
    database: Database, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(embeddings, "LISTED_AT_ONCE", at_once)
    with transaction(database.engine) as session:
        register(session)
        ids = add(session, *"abcdef")
        embedded = embed_all(session)
        add(session, "pending")
        removed = gallery.image_by_id(session, ids[2])
        assert removed is not None
        gallery.delete_image(session, ids[2])
    del embedded[removed.row]
    with transaction(database.engine) as session:
        listed = gallery.listing(session, CHECKPOINT)
        assert listed.rows.tolist() == sorted(embedded)
        assert len(set(listed.seqs.tolist())) == 5 and max(listed.seqs) <= 6
        assert (listed.seq, listed.drawn) == (7, 7)
        stacked = np.stack([embedded[row] for row in listed.rows.tolist()])
        expected = [int.from_bytes(hashlib.sha256(v.astype("<f4").tobytes()).digest()[:8], "big") for v in stacked]
        assert listed.digests.tolist() == expected == gallery.digests(stacked).tolist()
        assert gallery.removed_since(session, 6).tolist() == [removed.row]
        assert gallery.removed_since(session, 7).tolist() == []
        with transaction(database.engine) as another:
            gallery.delete_image(another, ids[0])
        assert len(gallery.allowed_rows(session, ImageFilter(), CHECKPOINT)) == 5, "it stays at its moment"
        rows, vectors = gallery.ready_vectors(session, CHECKPOINT, np.array([*sorted(embedded), removed.row, 10**9]))
        assert dict(zip(rows.tolist(), vectors.tolist(), strict=True)) == {r: v.tolist() for r, v in embedded.items()}
    with transaction(database.engine) as session:
        nothing = gallery.listing(session, "of nobody")
    assert (len(nothing.rows), len(nothing.seqs), len(nothing.digests), nothing.seq) == (0, 0, 0, 8)


def test_snapshot_of_nothing(session: Session) -> None:
    taken = gallery.snapshot(session, CHECKPOINT)
    assert (taken.seq, taken.count, list(taken.chunks)) == (0, 0, [])


@pytest.mark.parametrize("what", ["record", "delete"])
def test_numbers_become_visible_in_their_order(database: Database, what: str) -> None:
    """The first to draw a number commits last if it may. A follower who saw the higher number would miss the lower."""
    with transaction(database.engine) as session:
        register(session)
        ids = add(session, "a", "b")
        first, second = claim(session, n=1), claim(session, n=1)

    def change(session: Session, n: int) -> None:
        claimed = (first, second)[n]
        if what == "delete":
            gallery.delete_image(session, ids[n])
        else:
            rows = [item.row for item in claimed.items]
            gallery.record_embeddings(session, CHECKPOINT, claimed.token, rows, vectors(1))

    def change_second() -> None:
        with transaction(database.engine) as session:
            change(session, 1)

    def follow(seq: int) -> gallery.Changes:
        with transaction(database.engine) as session:
            return gallery.changes_since(session, CHECKPOINT, seq)

    with ThreadPoolExecutor(1) as pool:
        with transaction(database.engine) as session:
            change(session, 0)
            other = pool.submit(change_second)
            waits_for_lock(database)  # the second cannot overtake
            nothing = follow(0)
            assert nothing.seq == 0
        other.result(10)
    changes = follow(nothing.seq)
    assert len(changes.added_rows) + len(changes.removed_rows) == 2


def test_follower_misses_nothing_while_many_write(database: Database) -> None:
    """Four writers record and delete; a follower reading all the while ends up with exactly what is there."""
    with transaction(database.engine) as session:
        register(session)
        add(session, *map(str, range(200)))
    done = threading.Event()

    def write(seed: int) -> None:
        random = np.random.default_rng(seed)
        while True:
            with transaction(database.engine) as session:
                claimed = claim(session, n=5)
            if not claimed.items:
                return
            with transaction(database.engine) as session:
                rows = [item.row for item in claimed.items]
                gallery.record_embeddings(session, CHECKPOINT, claimed.token, rows, vectors(len(rows)))
            with transaction(database.engine) as session:
                record = gallery.images_by_row(session, [random.choice(rows)])
                for image in record.values():
                    gallery.delete_image(session, image.id)

    def follow() -> set[int]:
        seq, seen = 0, set[int]()
        while True:
            finished = done.is_set()
            with transaction(database.engine) as session:
                changes = gallery.changes_since(session, CHECKPOINT, seq, limit=7)
            seen -= set(changes.removed_rows.tolist())
            seen |= set(changes.added_rows.tolist())
            if finished and changes.seq == seq:
                return seen
            seq = changes.seq

    with ThreadPoolExecutor(5) as pool:
        following = pool.submit(follow)
        for writer in [pool.submit(write, seed) for seed in range(4)]:
            writer.result(60)
        done.set()
        seen = following.result(60)
    with transaction(database.engine) as session:
        there = set(gallery.allowed_rows(session, ImageFilter(), CHECKPOINT).tolist())
    assert seen == there and 0 < len(there) < 200


def test_allowed_rows_are_the_embedded_ones_that_pass(session: Session) -> None:
    gallery.add_camera(session, "c1")
    register(session)
    for n in range(10):
        gallery.add_image(session, new_image(str(n), camera_id="c1" if n % 2 else None))
    rows = sorted(embed_all(session))
    gallery.add_image(session, new_image("pending", camera_id="c1"))
    allowed = gallery.allowed_rows(session, ImageFilter((Condition("camera_id", "eq", "c1"),)), CHECKPOINT)
    assert allowed.dtype == np.int64 and allowed.tolist() == rows[1::2]
    assert gallery.allowed_rows(session, ImageFilter(), CHECKPOINT).tolist() == rows
    assert gallery.allowed_rows(session, ImageFilter(), "other").tolist() == []


def test_many_images_at_once_are_those_that_one_by_one_would_be_new(session: Session) -> None:
    register(session)
    register(session, "other")
    gallery.add_camera(session, "c1")
    there = gallery.add_image(session, new_image("a", external_id="x-a"))
    given = [
        new_image("a"),  # the same file, camera and time: a duplicate
        new_image("b", external_id="x-a"),  # the external id of another image
        new_image("c", camera_id="c1"),
        new_image("c", camera_id="c1"),  # twice in one delivery: the first counts
        new_image("d", camera_id="nowhere"),
        new_image("e", external_id="x-e"),
        new_image("f", external_id="x-e"),
        new_image("g", identity="\x00"),
    ]
    added = gallery.add_images(session, given)
    assert [id is not None for id in added] == [False, False, True, False, False, True, False, False]
    assert gallery.add_images(session, given) == [None] * 8, "none of them is new any more"
    pairs = session.execute(
        text("SELECT image.id, checkpoint_id FROM embedding JOIN image ON row = image_row ORDER BY 1, 2")
    ).all()
    ids = sorted([there.image_id, *filter(None, added)])
    assert [tuple(pair) for pair in pairs] == [(id, name) for id in ids for name in (CHECKPOINT, "other")]
    assert gallery.add_images(session, []) == []


# Ingestions and searches


def test_ledger_follows_what_becomes_of_its_images(session: Session) -> None:
    register(session)
    id = gallery.create_ingestion(session, "zip")
    record = gallery.ingestion(session, id)
    assert record is not None and (record.state, record.total, record.finished_at) == ("receiving", None, None)
    images = add(session, *"abcd")
    items = [gallery.NewItem(n, "accepted", file=f"{n}.png", image_id=image) for n, image in enumerate(images)]
    items.append(gallery.NewItem(4, "duplicate", external_id="x", file="a.png", image_id=images[0]))
    problem = {"code": "unreadable_image", "reason": "It is no image.", "pointer": "/file"}
    gallery.add_items(session, id, [*items, gallery.NewItem(5, "rejected", file="b\x00\ud800", **problem)])
    gallery.finish_ingestion(session, id, "done")

    claimed = claim(session, n=3)
    rows = [item.row for item in claimed.items]
    gallery.record_embeddings(session, CHECKPOINT, claimed.token, rows[:1], vectors(1))
    gallery.record_failure(session, CHECKPOINT, claimed.token, rows[1], "It cannot be decoded.")
    gallery.delete_image(session, images[2])
    record = gallery.ingestion(session, id)
    assert record is not None and (record.state, record.total) == ("done", 6) and record.finished_at is not None
    assert record.counts == gallery.ItemCounts(pending=1, indexed=1, duplicate=1, rejected=1, failed=1, removed=1)
    items = gallery.ingestion_items(session, id)
    assert [item.state for item in items] == ["indexed", "failed", "removed", "pending", "duplicate", "rejected"]
    assert (items[1].code, items[1].reason) == ("embedding_failed", "It cannot be decoded.")
    assert (items[5].file, items[5].code, items[5].pointer) == ("b\ufffd?", "unreadable_image", "/file")
    assert [item.position for item in gallery.ingestion_items(session, id, after=1, limit=2)] == [2, 3]
    assert gallery.ingestion_items(session, id, state="failed") == items[1:2]
    assert gallery.ingestion(session, uuid4()) is None
