"""The worker in a thread of the test: what it records, what it blames on whom, and what it hands back.

On a real PostgreSQL and real files; killing it for real is in tests/flows.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import structlog
from PIL import Image
from sqlalchemy import text

from indexer import gallery, worker
from indexer.database import Database, transaction
from indexer.errors import DatabaseUnavailable
from indexer.images import ImageStore
from indexer.intake import ingest_one
from indexer.metadata import ItemMetadata
from indexer.worker import run
from model.errors import DeviceLost
from tests.fake_encoder import GridEncoder
from tests.indexer.workers import (
    DEADLINE,
    Allergic,
    Gate,
    Vectors,
    add,
    colour,
    column,
    embed_all,
    number_of,
    picture,
    records,
    register,
    running,
    settings,
    states,
    store,
    wait_until,
)

__all__ = ["store"]

# --- what is recorded --------------------------------------------------------------------------------------------


def test_every_image_gets_the_vector_of_its_own_pixels(database: Database, store: ImageStore) -> None:
    encoder = GridEncoder()
    register(database, encoder)
    ids = add(database, store, 21)  # two full batches and a rest
    embed_all(database, store, encoder)
    assert states(database, ids) == ["indexed"] * 21
    with transaction(database.engine) as session:
        vectors = gallery.vectors_of(session, ids, encoder.checkpoint_id)
    for number, id in enumerate(ids):
        expected = GridEncoder().embed_images([Image.new("RGB", (16, 24), colour(number))])[0]
        np.testing.assert_array_equal(vectors[id], expected)
    assert column(database, "attempts") == [1] * 21


def test_images_that_come_later_are_found(database: Database, store: ImageStore) -> None:
    encoder = GridEncoder()
    register(database, encoder)
    with running(database, store, encoder):
        ids = add(database, store, 3)
        wait_until(lambda: states(database, ids) == ["indexed"] * 3)


def test_the_next_batch_is_decoded_while_the_encoder_works(
    database: Database, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    open_image = store.open

    def watched(sha256: str) -> Image.Image:
        image = open_image(sha256)
        decoded.append(sha256)
        return image

    monkeypatch.setattr(store, "open", watched)
    encoder = Gate()
    register(database, encoder)
    add(database, store, 24)
    with running(database, store, encoder):
        assert encoder.entered.wait(DEADLINE)
        wait_until(lambda: len(decoded) == 16)  # its own batch and the one ahead, not the third
        assert len(encoder.calls) == 1
        encoder.opened.set()
        wait_until(lambda: column(database, "state") == ["ready"] * 24)
    assert [len(call) for call in encoder.calls] == [8, 8, 8]


def test_several_workers_share_the_work(database: Database, store: ImageStore) -> None:
    encoders = [Gate(), Gate()]
    register(database, encoders[0])
    ids = add(database, store, 40)
    for encoder in encoders:
        encoder.opened.set()
    with running(database, store, encoders[0]), running(database, store, encoders[1]):
        wait_until(lambda: states(database, ids) == ["indexed"] * 40)
    seen = [number for encoder in encoders for call in encoder.calls for number in call]
    assert sorted(seen) == list(range(40)), "each image once, by one of them"


# --- whose fault -------------------------------------------------------------------------------------------------


def test_missing_and_damaged_files_fail_alone(database: Database, store: ImageStore) -> None:
    encoder = GridEncoder()
    register(database, encoder)
    ids = add(database, store, 8)
    damaged, missing = records(database, ids)[2], records(database, ids)[5]
    store.path(damaged.sha256).write_bytes(b"damaged")
    store.path(missing.sha256).unlink()
    embed_all(database, store, encoder)
    found = records(database, ids)
    assert [record.state for record in found] == ["indexed" if i not in (2, 5) else "failed" for i in range(8)]
    assert "damaged" in str(found[2].error) and "missing" in str(found[5].error)


def test_a_file_that_cannot_be_read_now_is_tried_again(
    database: Database, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "FILE_RETRY_SECONDS", 0.05)
    encoder = GridEncoder()
    register(database, encoder)
    ids = add(database, store, 3)
    open_image = store.open
    failed: list[str] = []

    def stale(sha256: str) -> Image.Image:
        if sha256 == records(database, ids)[1].sha256 and len(failed) < 2:
            failed.append(sha256)
            raise OSError(116, "Stale file handle")
        return open_image(sha256)

    monkeypatch.setattr(store, "open", stale)
    with running(database, store, encoder):
        wait_until(lambda: states(database, ids) == ["indexed"] * 3)
    assert len(failed) == 2
    assert column(database, "attempts") == [1, 3, 1]


def test_an_image_the_encoder_cannot_take_fails_alone(database: Database, store: ImageStore) -> None:
    encoder = Allergic(3, 11)
    register(database, encoder)
    ids = add(database, store, 16)
    with structlog.testing.capture_logs() as logs:
        embed_all(database, store, encoder)
    assert [i for i, state in enumerate(states(database, ids)) if state != "indexed"] == [3, 11]
    assert records(database, ids)[3].error == "The encoder could not embed this image (RuntimeError)."
    assert {entry["event"] for entry in logs} >= {"batch_refused", "image_refused", "images_embedded"}


def test_an_encoder_that_gives_no_number_fails_that_image(database: Database, store: ImageStore) -> None:
    class Dividing(GridEncoder):
        def embed_images(self, images: Sequence[Image.Image]) -> Vectors:
            rows = super().embed_images(images)
            for row, image in zip(rows, images, strict=True):
                if number_of(image) == 2:
                    row[0] = np.nan
            return rows

    encoder = Dividing()
    register(database, encoder)
    ids = add(database, store, 4)
    embed_all(database, store, encoder)
    assert states(database, ids) == ["indexed", "indexed", "failed", "indexed"]


@pytest.mark.parametrize("kind", [RuntimeError, DeviceLost])
def test_a_broken_encoder_ends_the_worker_and_fails_no_image(
    database: Database, store: ImageStore, kind: type[Exception]
) -> None:
    class Broken(GridEncoder):
        calls = 0

        def embed_images(self, images: Sequence[Image.Image]) -> Vectors:
            self.calls += 1
            assert self.calls == 1 or kind is not DeviceLost, "a GPU that is lost is not tried again"
            raise kind("the device is gone")

    register(database, Broken())
    ids = add(database, store, 20)
    with pytest.raises(kind, match="device is gone"):
        embed_all(database, store, Broken())
    assert states(database, ids) == ["pending"] * 20
    # The batch it held keeps its attempt, as one of these may have broken it; the one ahead is as if never claimed.
    assert column(database, "attempts") == [1] * 8 + [0] * 12
    assert column(database, "state") == ["running"] * 8 + ["pending"] * 12


def test_images_tried_before_run_one_by_one_and_with_no_other_in_hand(database: Database, store: ImageStore) -> None:
    encoder = Gate()
    register(database, encoder)
    add(database, store, 5)
    with transaction(database.engine) as session:
        session.execute(text("UPDATE embedding SET attempts = 1, run_at = run_at - interval '1 hour'"))
    with running(database, store, encoder):
        assert encoder.entered.wait(DEADLINE)
        assert sorted(column(database, "state")) == ["pending"] * 4 + ["running"]
        encoder.opened.set()
        wait_until(lambda: column(database, "state") == ["ready"] * 5)
    assert [len(call) for call in encoder.calls] == [1] * 5
    assert column(database, "attempts") == [2] * 5


def test_a_suspect_claimed_ahead_of_its_turn_is_put_back_unblamed(database: Database, store: ImageStore) -> None:
    encoder = Gate()
    register(database, encoder)
    add(database, store, 4)
    with transaction(database.engine) as session:  # the last is a suspect, due after the fresh ones
        session.execute(
            text(
                "UPDATE embedding SET attempts = 1, run_at = statement_timestamp() "
                "WHERE image_row = (SELECT max(image_row) FROM embedding)"
            )
        )
    with running(database, store, encoder):
        assert encoder.entered.wait(DEADLINE)
        assert encoder.calls == [[0, 1, 2]]
        wait_until(lambda: column(database, "state") == ["running"] * 3 + ["pending"])
        assert column(database, "attempts") == [1] * 4
        encoder.opened.set()
        wait_until(lambda: column(database, "state") == ["ready"] * 4)


# --- leases and stopping -----------------------------------------------------------------------------------------


def test_a_lease_is_renewed_while_the_encoder_works(database: Database, store: ImageStore) -> None:
    slow, quick = Gate(), GridEncoder()
    register(database, slow)
    ids = add(database, store, 3)
    with running(database, store, slow, lease_seconds=0.6):
        assert slow.entered.wait(DEADLINE)
        (first,) = set(column(database, "lease_until"))
        wait_until(lambda: min(column(database, "lease_until")) > first)
        wait_until(lambda: _has_passed(database, first))  # without renewal the lease would be over by now
        embed_all(database, store, quick)
        assert states(database, ids) == ["pending"] * 3, "another worker finds nothing to claim"
        slow.opened.set()
        wait_until(lambda: states(database, ids) == ["indexed"] * 3)
    assert column(database, "attempts") == [1] * 3


def _has_passed(database: Database, moment: Any) -> bool:
    with transaction(database.engine) as session:
        return bool(session.scalar(text("SELECT statement_timestamp() > :moment"), {"moment": moment}))


def test_a_hanging_encoder_loses_its_images_and_writes_nothing_later(
    database: Database, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "RENEWALS", 0)
    hanging, quick = Gate(), GridEncoder()
    register(database, quick)
    ids = add(database, store, 3)
    with structlog.testing.capture_logs() as logs, running(database, store, hanging, lease_seconds=0.2):
        assert hanging.entered.wait(DEADLINE)
        with running(database, store, quick):
            wait_until(lambda: states(database, ids) == ["indexed"] * 3)
        numbers = column(database, "seq")
        hanging.opened.set()
        wait_until(lambda: any(entry["event"] == "images_embedded" and entry["late"] == 3 for entry in logs))
    assert column(database, "seq") == numbers, "written once"


def test_stop_finishes_the_batch_in_the_encoder_and_hands_back_the_rest(database: Database, store: ImageStore) -> None:
    encoder = Gate()
    register(database, encoder)
    add(database, store, 24)
    with running(database, store, encoder) as stop:
        assert encoder.entered.wait(DEADLINE)
        wait_until(lambda: column(database, "state").count("running") == 16)
        stop.set()
        encoder.opened.set()
    assert column(database, "state") == ["ready"] * 8 + ["pending"] * 16
    assert column(database, "attempts") == [1] * 8 + [0] * 16
    assert column(database, "lease_token") == [None] * 24


def test_stop_in_a_batch_taken_apart_hands_back_what_was_not_tried(database: Database, store: ImageStore) -> None:
    stop = threading.Event()

    class Stopping(Allergic):
        def embed_images(self, images: Sequence[Image.Image]) -> Vectors:
            rows = super().embed_images(images)
            if [number_of(image) for image in images] == [2]:
                stop.set()
            return rows

    encoder = Stopping(7)
    register(database, encoder)
    add(database, store, 8)
    run(database, store, encoder, settings(), stop)
    assert column(database, "state") == ["ready"] * 3 + ["pending"] * 5
    assert column(database, "attempts") == [1] * 3 + [0] * 5


# --- the database ------------------------------------------------------------------------------------------------


def test_a_lost_connection_is_outlived_and_no_vector_is_lost(
    database: Database, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "FIRST_PAUSE", 0.01)
    record = gallery.record_embeddings
    lost: list[int | None] = []

    def record_and_lose_connection(session: Any, *args: Any) -> int:
        written = record(session, *args)
        if not lost:
            lost.append(session.scalar(text("SELECT pg_backend_pid()")))
            with transaction(database.engine) as other:
                other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": lost[0]})
        return written

    monkeypatch.setattr(gallery, "record_embeddings", record_and_lose_connection)
    encoder = Gate()
    encoder.opened.set()
    register(database, encoder)
    ids = add(database, store, 8)
    with structlog.testing.capture_logs() as logs:
        embed_all(database, store, encoder)
    assert states(database, ids) == ["indexed"] * 8
    assert len(encoder.calls) == 1, "the vectors were kept, not made again"
    assert "database_lost" in {entry["event"] for entry in logs}


def test_stop_ends_the_wait_for_a_database(
    database: Database, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = GridEncoder()
    register(database, encoder)
    add(database, store, 1)
    asked = threading.Event()

    def gone(*_: Any, **__: Any) -> Any:
        asked.set()
        raise DatabaseUnavailable("The database cannot be reached; try again in a moment.")

    monkeypatch.setattr(gallery, "claim_unembedded", gone)
    with running(database, store, encoder):
        assert asked.wait(DEADLINE)


# --- logs --------------------------------------------------------------------------------------------------------


def test_logs_name_no_image(database: Database, store: ImageStore) -> None:
    encoder = Allergic(1)
    register(database, encoder)
    data = picture(0), picture(1), picture(2)
    names = [ItemMetadata(external_id=f"name-of-{i}", identity=f"identity-of-{i}") for i in range(3)]
    ids = [ingest_one(database, store, image, known).image_id for image, known in zip(data, names, strict=True)]
    with structlog.testing.capture_logs() as logs:
        embed_all(database, store, encoder)
    written = repr(logs)
    assert "images_embedded" in written
    secrets = [str(id) for id in ids] + [record.sha256 for record in records(database, ids)]
    assert not [secret for secret in [*secrets, "name-of", "identity-of"] if secret in written]
