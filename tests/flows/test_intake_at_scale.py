"""Many images through the front door while everything behind it is killed: all good ones in once, all bad ones named.

The service in this process, two workers and PostgreSQL as processes of their own; only the network is replaced. The
numbers are those of the environment, so that the same test runs in a minute or over night.
"""

from __future__ import annotations

import io
import json
import os
import random
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from sqlalchemy import text

from indexer.database import Database, connect, migrate, transaction
from indexer.errors import DatabaseUnavailable
from indexer.postgres import EmbeddedPostgres
from indexer.replica import Replica
from tests.fake_encoder import GridEncoder
from tests.flows.processes import WorkerProcess, wait_until
from tests.flows.test_worker_killed import answers, audit_writes, count, pixels, values
from tests.postgres_fixtures import fresh_database
from tests.service.conftest import running_service

IMAGES = int(os.environ.get("INTAKE_SCALE_IMAGES", "20000"))
KILLS_OF_EACH, RESTARTS = 3, 2
PATIENCE = 60 + IMAGES / 20  # seconds
ENCODER = GridEncoder()


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@dataclass
class Delivery:
    """A zip, and what has to become of it."""

    archive: io.BytesIO = field(default_factory=io.BytesIO)
    good: list[int] = field(default_factory=list)
    duplicates: int = 0
    bad: dict[int, str] = field(default_factory=dict)  # position -> code


def delivery(images: int, chance: random.Random) -> Delivery:
    """One item in twenty is wrong in one of these ways, one in fifty is the one before it once more."""
    made = Delivery()
    lines: list[dict[str, Any]] = []
    faults = {
        "unreadable_image": (lambda n: png(pixels(n))[:-40], {}),
        "image_too_small": (lambda n: png(pixels(n).resize((4, 4))), {}),
        "unknown_camera": (lambda n: png(pixels(n)), {"camera_id": "nowhere"}),
        "time_without_zone": (lambda n: png(pixels(n)), {"captured_at": "2026-09-01T18:00:00"}),
        "file_missing": (lambda n: None, {}),
        "sha256_mismatch": (lambda n: png(pixels(n)), {"sha256": "0" * 64}),
    }
    with zipfile.ZipFile(made.archive, "w") as archive:
        for n in range(images):
            data: bytes | None = png(pixels(n))
            line: dict[str, Any] = {"file": f"{n}.png", "external_id": str(n)}
            kind = chance.random()
            if kind < 0.05:
                code = chance.choice(sorted(faults))
                make, more = faults[code]
                data, made.bad[n] = make(n), code
                line |= more
            elif kind < 0.07 and made.good:
                data = png(pixels(made.good[-1]))
                made.duplicates += 1
            else:
                made.good.append(n)
            lines.append(line)
            if data is not None:
                archive.writestr(line["file"], data)
        archive.writestr("metadata.jsonl", "\n".join(json.dumps(line) for line in lines))
    made.archive.seek(0)
    return made


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    postgres = EmbeddedPostgres(tmp_path / "postgres", options={"fsync": "off"})
    postgres.start()
    yield postgres
    postgres.stop()


def ready(database: Database) -> int:
    try:
        return count(database, "ready")
    except DatabaseUnavailable:
        return -1


@pytest.mark.slow
def test_everything_good_gets_in_once_whatever_dies(server: EmbeddedPostgres, tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    sent = delivery(IMAGES, chance)
    deeds = ["first"] * KILLS_OF_EACH + ["second"] * KILLS_OF_EACH + ["postgres"] * RESTARTS
    chance.shuffle(deeds)
    moments = sorted(chance.sample(range(len(sent.good) // 20, len(sent.good) * 4 // 5), len(deeds)))
    with ExitStack() as stack:
        engine = connect(server.url())
        stack.callback(engine.dispose)
        migrate(engine)
        database = Database(engine, server.url())
        audit_writes(database)
        service = stack.enter_context(running_service(tmp_path / "data", database=database, max_ingestion_bytes=2**30))
        store = service.context.store

        def start() -> WorkerProcess:
            arguments = ("--seconds-per-image", "0.003", "--batch-size", "16")
            worker = WorkerProcess(database.url, store.root, tmp_path, *arguments)
            stack.callback(lambda: worker.is_alive and worker.kill())
            return worker

        workers = {"first": start(), "second": start()}
        response = service.http.post(
            "/api/v1/ingestions", content=sent.archive.getvalue(), headers={"Content-Type": "application/zip"}
        )
        assert response.status_code == 202, response.text
        path = response.headers["Location"]
        for moment, deed in zip(moments, deeds, strict=True):
            wait_until(lambda: ready(database) >= moment, f"{moment} are ready (seed {seed})", PATIENCE)  # noqa: B023
            if deed == "postgres":
                server.stop()
                server.start()
                wait_until(lambda: answers(database), "the database is back")
            else:
                workers[deed].kill()
                workers[deed] = start()

        def is_done() -> bool:
            try:
                answer = service.http.get(path)
            except httpx.HTTPError:
                return False
            return bool(answer.status_code == 200 and answer.json()["done"])

        wait_until(is_done, f"all is done (seed {seed})", PATIENCE)

        told = service.http.get(path).json()
        assert told["state"] == "done", told
        counts = {state: number for state, number in told["counts"].items() if number}
        expected = {"indexed": len(sent.good), "rejected": len(sent.bad), "duplicate": sent.duplicates}
        assert counts == {state: number for state, number in expected.items() if number}, f"seed {seed}"
        assert sum(counts.values()) == told["total"] == IMAGES
        rejected = {row.position: row for row in ledger(database, "rejected")}
        assert {position: row.code for position, row in rejected.items()} == sent.bad
        assert all(row.reason.endswith(".") for row in rejected.values())

        names = values(database, "SELECT external_id::int FROM image ORDER BY 1")
        assert names == sent.good, "every good image, and no other"
        written = values(database, "SELECT image_row FROM audit ORDER BY 1")
        assert written == values(database, "SELECT row FROM image ORDER BY 1"), "each embedded once"
        replica = Replica(database, ENCODER)
        replica.load()
        assert len(replica.state.index) == len(sent.good)
        rows = values(database, "SELECT row FROM image ORDER BY external_id::int")
        for at in range(0, len(rows), 512):
            vectors = ENCODER.embed_images([pixels(n) for n in sent.good[at : at + 512]])
            _, found = replica.state.index.search(vectors, 1)
            assert found[:, 0].tolist() == rows[at : at + 512], "each is found by its own picture"
        query = {"query": {"text": "a man"}, "limit": 1}
        wait_until(lambda: service.found(query)["candidates"] == len(sent.good), "the service finds them all")
        files = [path for path in store.root.rglob("*") if path.is_file() and "incoming" not in path.parts]
        assert len(files) == len(sent.good), "of what was refused no file is left"


def ledger(database: Database, state: str) -> list[Any]:
    with transaction(database.engine) as session:
        rows = session.execute(text("SELECT * FROM ingestion_item WHERE state = :state"), {"state": state})
        return list(rows)


@pytest.mark.slow
def test_a_picture_that_crashes_the_decoder_fails_alone(tmp_path: Path) -> None:
    with ExitStack() as stack:
        database = stack.enter_context(fresh_database())
        service = stack.enter_context(running_service(tmp_path, database=database))
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for n in range(24):
                archive.writestr(f"{n}.png", png(pixels(n, poison=n == 11)))
            lines = [{"file": f"{n}.png", "external_id": str(n)} for n in range(24)]
            archive.writestr("metadata.jsonl", "\n".join(json.dumps(line) for line in lines))
        headers = {"Content-Type": "application/zip"}
        response = service.http.post("/api/v1/ingestions", content=buffer.getvalue(), headers=headers)
        path = response.headers["Location"]
        wait_until(lambda: service.http.get(path).json()["state"] == "done", "the archive is taken in")
        deaths = 0

        def start() -> WorkerProcess:
            arguments = ("--decoder-dies-of-poison", "--lease-seconds", "0.5")
            worker = WorkerProcess(database.url, service.context.store.root, tmp_path, *arguments)
            stack.callback(lambda: worker.is_alive and worker.kill())
            return worker

        worker = start()

        def supervised() -> bool:
            nonlocal worker, deaths
            if not worker.is_alive:
                deaths += 1
                worker = start()
            return count(database, "pending") + count(database, "running") == 0

        wait_until(supervised, "nothing is left to do")
        assert deaths >= 4, "at least one for each attempt"
        (failed,) = service.http.get(f"{path}/items", params={"state": "failed"}).json()["items"]
        assert (failed["external_id"], failed["code"]) == ("11", "embedding_failed")
        assert "4 attempts" in failed["reason"]
        assert service.http.get(path).json()["counts"]["indexed"] == 23
