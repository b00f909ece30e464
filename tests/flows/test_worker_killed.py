"""Workers that die: at any moment, of one picture, when told to, or with the database. Nothing is lost, nothing twice.

Real processes, a real PostgreSQL, real files; only the network is replaced, by a cheap one.
"""

from __future__ import annotations

import io
import os
import random
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import text

from indexer import gallery
from indexer.archives import Entry
from indexer.database import Database, connect, migrate, transaction
from indexer.errors import DatabaseUnavailable
from indexer.images import ImageStore
from indexer.intake import ingest_entries
from indexer.metadata import ItemMetadata
from indexer.postgres import EmbeddedPostgres
from indexer.replica import Replica
from tests.fake_encoder import GridEncoder
from tests.flows.processes import WorkerProcess, wait_until
from tests.flows.worker_process import POISON
from tests.postgres_fixtures import database

__all__ = ["database"]

ENCODER = GridEncoder()


def pixels(number: int, poison: bool = False) -> Image.Image:
    """Coloured blocks that no other number has."""
    blocks = np.random.default_rng(number).integers(0, 250, (8, 2, 3), np.uint8)
    if poison:
        blocks[0, 0] = POISON
    return Image.fromarray(blocks).resize((16, 32), Image.Resampling.NEAREST)


def entries(count: int, start: int = 0, poison: int | None = None) -> Iterator[Entry]:
    for position, number in enumerate(range(start, start + count)):
        buffer = io.BytesIO()
        pixels(number, poison=number == poison).save(buffer, "PNG", compress_level=1)
        yield Entry(position, metadata=ItemMetadata(external_id=str(number)), data=buffer.getvalue())


def add(database: Database, store: ImageStore, count: int, start: int = 0, poison: int | None = None) -> None:
    with transaction(database.engine) as session:
        gallery.ensure_checkpoint(session, ENCODER.checkpoint_id, "grid", ENCODER.dim, ENCODER.info, "")
    ingest_entries(database, store, entries(count, start, poison), "a test")


def values(database: Database, statement: str) -> list[Any]:
    with transaction(database.engine) as session:
        return list(session.scalars(text(statement)))


def count(database: Database, state: str) -> int:
    return int(values(database, f"SELECT count(*) FROM embedding WHERE state = '{state}'")[0])


def is_ready(database: Database, images: int) -> bool:
    return count(database, "ready") >= images


def audit_writes(database: Database) -> None:
    """From here on every vector that is written leaves a line, the second for one image as well."""
    with transaction(database.engine) as session:
        session.execute(
            text("""
                CREATE TABLE audit (image_row bigint);
                CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN INSERT INTO audit VALUES (new.image_row); RETURN new; END $$;
                CREATE TRIGGER note AFTER INSERT OR UPDATE OF vector ON embedding
                FOR EACH ROW WHEN (new.vector IS NOT NULL) EXECUTE FUNCTION note();
            """)
        )


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


@pytest.fixture
def workers() -> Iterator[list[WorkerProcess]]:
    """Whatever a test starts ends with it."""
    started: list[WorkerProcess] = []
    yield started
    for worker in started:
        if worker.is_alive:
            worker.kill()


def test_ten_workers_killed_at_random_leave_500_images_searchable_once(
    database: Database, store: ImageStore, workers: list[WorkerProcess], tmp_path: Path
) -> None:
    total, kills = 500, 10
    add(database, store, total)
    audit_writes(database)
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    moments = sorted(chance.sample(range(5, 440), kills))  # how many images are ready when somebody is killed

    def start() -> WorkerProcess:
        return WorkerProcess(database.url, store.root, tmp_path, "--seconds-per-image", "0.01")

    def busy() -> list[int]:
        return [number for number, worker in enumerate(workers) if worker.is_busy]

    workers += [start(), start()]
    for moment in moments:
        wait_until(partial(is_ready, database, moment), f"{moment} are ready (seed {seed})")
        wait_until(lambda: bool(busy()), f"somebody is in mid-batch (seed {seed})")
        victim = chance.choice(busy() or [0])
        workers[victim].kill()
        workers[victim] = start()
    wait_until(lambda: count(database, "pending") + count(database, "running") == 0, f"all is done (seed {seed})")

    assert count(database, "ready") == total, values(database, "SELECT error FROM embedding WHERE error IS NOT NULL")
    written = values(database, "SELECT image_row FROM audit ORDER BY image_row")
    assert written == values(database, "SELECT row FROM image ORDER BY row"), "every image once, none twice"
    interrupted = sum(attempts > 1 for attempts in values(database, "SELECT attempts FROM embedding"))
    assert interrupted >= kills, "somebody was killed in the middle of something"

    followed, loaded = Replica(database, ENCODER), Replica(database, ENCODER)
    followed.refresh()
    loaded.load()
    vectors = ENCODER.embed_images([pixels(number) for number in range(total)])
    expected = values(database, "SELECT row FROM image ORDER BY external_id::int")
    for replica in (followed, loaded):
        assert len(replica.state.index) == total
        _, found = replica.state.index.search(vectors, 1)
        assert found[:, 0].tolist() == expected, "each is found by its own picture"


def test_a_picture_that_takes_its_worker_down_fails_and_its_neighbours_do_not(
    database: Database, store: ImageStore, workers: list[WorkerProcess], tmp_path: Path
) -> None:
    add(database, store, 24, poison=11)
    arguments = ("--dies-of-poison", "--lease-seconds", "0.5")
    deaths = 0
    workers.append(WorkerProcess(database.url, store.root, tmp_path, *arguments))

    def supervised() -> bool:
        nonlocal deaths
        if not workers[0].is_alive:
            deaths += 1
            workers[0] = WorkerProcess(database.url, store.root, tmp_path, *arguments)
        return count(database, "pending") + count(database, "running") == 0

    wait_until(supervised, "nothing is left to do")
    failed = "SELECT external_id FROM image JOIN embedding ON image_row = row WHERE state = 'failed'"
    assert values(database, failed) == ["11"]
    assert count(database, "ready") == 23
    (error,) = values(database, "SELECT error FROM embedding WHERE state = 'failed'")
    assert "4 attempts" in error
    assert deaths == 4, "one for each attempt"
    assert max(values(database, "SELECT attempts FROM embedding WHERE state = 'ready'")) <= 2, "no neighbour was blamed"


def test_sigterm_finishes_what_is_in_hand_and_returns_the_rest(
    database: Database, store: ImageStore, workers: list[WorkerProcess], tmp_path: Path
) -> None:
    add(database, store, 60)
    workers.append(
        WorkerProcess(database.url, store.root, tmp_path, "--seconds-per-image", "0.05", "--lease-seconds", "3600")
    )
    wait_until(lambda: workers[0].is_busy and count(database, "ready") > 0, "a batch is under way")
    assert workers[0].terminate() == 0
    ready, pending = count(database, "ready"), count(database, "pending")
    assert ready + pending == 60 and ready % 8 == 0 and pending > 0
    assert set(values(database, "SELECT attempts FROM embedding WHERE state = 'pending'")) == {0}, "as if never claimed"
    assert "worker_stopped" in workers[0].log.read_text()


def test_a_worker_that_hangs_past_its_lease_loses_its_images_and_writes_nothing_later(
    database: Database, store: ImageStore, workers: list[WorkerProcess], tmp_path: Path
) -> None:
    add(database, store, 40)
    audit_writes(database)
    hanging = tmp_path / "hanging"
    hanging.mkdir()
    arguments = ("--seconds-per-image", "0.05", "--lease-seconds", "0.5")
    workers.append(WorkerProcess(database.url, store.root, hanging, *arguments))
    wait_until(lambda: workers[0].is_busy, "a batch is under way")
    workers[0].pause()
    workers.append(WorkerProcess(database.url, store.root, tmp_path, "--lease-seconds", "0.5"))
    wait_until(lambda: count(database, "ready") == 40, "the other one has done everything")
    workers[0].resume()
    wait_until(lambda: '"images": 0, "late": 8' in workers[0].log.read_text(), "it notices that it was late")
    assert len(values(database, "SELECT image_row FROM audit")) == 40, "none twice"
    add(database, store, 10, start=100)
    wait_until(lambda: count(database, "ready") == 50, "and both go on")
    assert workers[0].terminate() == 0 and workers[1].terminate() == 0


def answers(database: Database) -> bool:
    try:
        return values(database, "SELECT 1") == [1]
    except DatabaseUnavailable:
        return False


@pytest.mark.parametrize("how", ["restarted", "killed"])
def test_a_worker_outlives_its_database(tmp_path: Path, workers: list[WorkerProcess], how: str) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", options={"fsync": "off"})
    store = ImageStore(tmp_path / "images")
    with ExitStack() as stack:
        stack.callback(server.stop)
        server.start()
        engine = connect(server.url())
        stack.callback(engine.dispose)
        migrate(engine)
        database = Database(engine, server.url())
        add(database, store, 40)
        audit_writes(database)
        workers.append(WorkerProcess(database.url, store.root, tmp_path, "--seconds-per-image", "0.02"))
        wait_until(lambda: count(database, "ready") >= 8 and workers[0].is_busy, "a batch is under way")
        before = server.server_pid
        assert before is not None
        if how == "restarted":
            server.stop()
            wait_until(lambda: "database_lost" in workers[0].log.read_text(), "the worker noticed")
            server.start()
        else:
            os.kill(before, signal.SIGKILL)  # it is started again by itself
            wait_until(lambda: server.server_pid not in (before, None), "another server runs")
        wait_until(lambda: answers(database), "the database is back")
        add(database, store, 10, start=100)
        wait_until(lambda: count(database, "ready") == 50, "all are embedded, the later ones too")
        assert workers[0].is_alive, "by the same worker"
        assert len(values(database, "SELECT image_row FROM audit")) == 50, "none twice"
        assert workers[0].terminate() == 0
