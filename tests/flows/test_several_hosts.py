"""Database, replicas and workers on several hosts: one cut off and back, one dead, one restarted, and nothing is lost.

Every answer given meanwhile is right or an error. The hosts are network namespaces, the processes are real ones.
"""

from __future__ import annotations

import io
import json
import subprocess
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg
import pytest
from PIL import Image

from indexer.postgres import EmbeddedPostgres
from tests.flows.hosts import Host, network
from tests.helpers import make_tiny_checkpoint
from tests.postgres_fixtures import execute

pytestmark = [pytest.mark.netns, pytest.mark.slow]

PORT = 8000
DEADLINE = 120.0
LEASE_SECONDS = 4
ASK: dict[str, Any] = {"query": {"text": "a man in a red shirt and black pants"}, "limit": 200}

Ranking = list[tuple[str, float]]


@dataclass
class Site:
    """A gallery over several hosts."""

    folder: Path
    url: str
    checkpoint: Path
    logs: dict[str, Path] = field(default_factory=dict)

    def start(self, host: Host, command: str) -> subprocess.Popen[bytes]:
        log = self.logs.setdefault(f"{command} at {host.address}", self.folder / f"{command}-{host.address}.jsonl")
        settings = {
            "database_url": self.url,
            "data_dir": self.folder / "shared",
            "checkpoint": self.checkpoint,
            "auth": "open",
            "device": "cpu",
            "port": PORT,
            "metrics_port": 0,
            "worker_metrics_port": 0,
            "poll_seconds": 0.1,
            "readiness_seconds": 0,
            "index_check_seconds": 1,
            "lease_seconds": LEASE_SECONDS,
            "batch_size": 4,
        }
        environment = {f"PERSON_SEARCH_{name.upper()}": str(value) for name, value in settings.items()}
        return host.start("service.cli", command, environment={**environment, "OMP_NUM_THREADS": "1"}, log=log)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """The first true value of the condition; the logs if none comes in time."""
        end = time.monotonic() + DEADLINE
        while not (value := condition()):
            ends = [f"{name}:\n{log.read_text()[-1500:]}" for name, log in self.logs.items()]
            assert time.monotonic() < end, "\n".join([f"waited in vain until {what}", *ends])
            time.sleep(0.1)
        return value


@dataclass
class Replica:
    """The service on a host, asked from that host."""

    host: Host

    def get(self, path: str) -> httpx.Response | None:
        return self.host.call(self._send, "GET", path, None)

    def ready(self) -> bool:
        answer = self.get("/readyz")
        return answer is not None and answer.status_code == 200

    def check(self, name: str) -> str:
        """What a check of /readyz says."""
        answer = self.get("/readyz")
        assert answer is not None
        (found,) = [check["detail"] for check in answer.json()["checks"] if check["name"] == name]
        return str(found)

    def search(self) -> httpx.Response | None:
        return self.host.call(self._send, "POST", "/api/v1/searches", ASK)

    def ranking(self) -> Ranking | None:
        """The whole ranking, None if there is no answer now."""
        answer = self.search()
        return None if answer is None or answer.status_code != 201 else ranked(answer)

    def ingest(self, archive: bytes) -> str:
        sent = self.host.call(self._archive, archive)
        assert sent.status_code == 202, sent.text
        return str(sent.headers["Location"])

    def delete(self, image_id: str) -> None:
        answer = self.host.call(self._send, "DELETE", f"/api/v1/images/{image_id}", None)
        assert answer is not None and answer.status_code == 204, answer

    @staticmethod
    def _send(method: str, path: str, body: Any) -> httpx.Response | None:
        try:
            return httpx.request(method, f"http://127.0.0.1:{PORT}{path}", json=body, timeout=60, trust_env=False)
        except httpx.TransportError:
            return None

    @staticmethod
    def _archive(archive: bytes) -> httpx.Response:
        url = f"http://127.0.0.1:{PORT}/api/v1/ingestions?register_cameras=true"
        headers = {"Content-Type": "application/zip"}
        return httpx.post(url, content=archive, headers=headers, timeout=60, trust_env=False)


def ranked(answer: httpx.Response) -> Ranking:
    return [(result["image_id"], result["similarity"]) for result in answer.json()["results"]]


def pictures(first: int, count: int) -> bytes:
    """A zip of so many figures in random colours."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        lines = []
        for n in range(first, first + count):
            blocks = np.random.default_rng(n).integers(0, 256, (4, 2, 3), np.uint8)
            picture = io.BytesIO()
            Image.fromarray(blocks).resize((40, 96), Image.Resampling.NEAREST).save(picture, "PNG")
            archive.writestr(f"{n}.png", picture.getvalue())
            lines.append(json.dumps({"external_id": f"image-{n}", "file": f"{n}.png", "camera_id": "door"}))
        archive.writestr("metadata.jsonl", "\n".join(lines))
    return buffer.getvalue()


@contextmanager
def database_on(host: Host, folder: Path) -> Iterator[EmbeddedPostgres]:
    """PostgreSQL that listens on the host's address; also reached past the network, by its socket."""
    postgres = EmbeddedPostgres(folder, options={"listen_addresses": host.address, "fsync": "off"})
    host.call(postgres.start)
    try:
        with (postgres.data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 10.77.0.0/24 trust\n")
        execute("SELECT pg_reload_conf()", on=postgres)
        execute("CREATE DATABASE gallery", on=postgres)
        yield postgres
    finally:
        host.call(postgres.stop)


@dataclass
class Searches:
    """Somebody who searches at one replica without a pause, and what came of it."""

    replica: Replica
    answers: list[tuple[float, Ranking]] = field(default_factory=list)  # when it was asked, what was answered
    refusals: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                asked = time.monotonic()
                answer = self.replica.search()
                if answer is None:
                    self.refusals["no answer"] += 1
                elif answer.status_code == 201:
                    self.answers.append((asked, ranked(answer)))
                else:
                    self.refusals[answer.json()["code"]] += 1
                stop.wait(0.1)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(120)
            assert not thread.is_alive()


def test_hosts_that_are_cut_off_die_and_come_back(tmp_path: Path) -> None:
    checkpoint = tmp_path / "tiny.safetensors"
    make_tiny_checkpoint(checkpoint)
    with network("database", "replica", "worker", "spare") as hosts:
        at_database, at_replica, at_worker, at_spare = hosts
        with database_on(at_database, tmp_path / "postgres") as postgres:
            url = f"postgresql://person_search@{at_database.address}:5432/gallery"
            gallery = Gallery(postgres)
            site = Site(tmp_path, url, checkpoint)
            home, remote = Replica(at_database), Replica(at_replica)
            site.start(at_database, "serve")
            site.until(home.ready, "the replica beside the database is ready")
            site.start(at_replica, "serve")
            site.start(at_worker, "worker")
            site.until(remote.ready, "the remote replica is ready")

            home.ingest(pictures(0, 40))
            site.until(lambda: gallery.ready() == 40, "a worker elsewhere has embedded everything")
            truth = site.until(lambda: complete(home.ranking(), 40), "all are searchable")
            assert remote.ranking() == truth

            a_replica_is_cut_off(site, home, remote, gallery, truth)
            a_worker_is_cut_off(site, home, at_worker, at_spare, gallery)
            a_worker_host_dies(site, home, at_worker, gallery)
            a_replica_is_restarted(site, home, remote)
            the_database_is_cut_off(site, home, remote, at_database)

            images = 40 + 60 + 60 - 1
            truth = site.until(lambda: complete(home.ranking(), images), "everything is searchable")
            assert remote.ranking() == truth
            assert gallery.ready() == gallery.images() == images
            for replica in (home, remote):
                assert replica.check("index") == f"The index has all {images} vectors.", "nothing had to be put right"
            for name, log in site.logs.items():
                events = [json.loads(line)["event"] for line in log.read_text().splitlines() if line.startswith("{")]
                assert not {"uncaught", "unexpected error", "search_forbidden_hit"} & set(events), name


def complete(ranking: Ranking | None, images: int) -> Ranking | None:
    return ranking if ranking is not None and len(ranking) == images else None


class Gallery:
    """What the database holds, read past the network."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self._dsn = postgres.dsn("gallery")

    def images(self) -> int:
        return self._count("SELECT count(*) FROM image")

    def ready(self) -> int:
        return self._count("SELECT count(*) FROM embedding WHERE state = 'ready' AND vector IS NOT NULL")

    def running(self) -> int:
        return self._count("SELECT count(*) FROM embedding WHERE state = 'running'")

    def _count(self, statement: str) -> int:
        with psycopg.connect(self._dsn) as connection:
            row = connection.execute(statement).fetchone()
        assert row is not None
        return int(row[0])


def a_replica_is_cut_off(site: Site, home: Replica, remote: Replica, gallery: Gallery, truth: Ranking) -> None:
    """It answers with an error until it is back; an image that was erased meanwhile it never shows again."""
    erased, _ = truth[3]
    without = [place for place in truth if place[0] != erased]
    searches = Searches(remote)
    with searches.going_on():
        site.until(lambda: searches.answers, "searches are answered")
        remote.host.cut_off()
        home.delete(erased)
        gone = time.monotonic()
        site.until(lambda: searches.refusals, "the replica notices that it is alone")
        livez = remote.get("/livez")
        assert livez is not None and livez.status_code == 200 and not remote.ready()
        assert home.ranking() == without
        remote.host.plug_in()
        site.until(remote.ready, "the replica is back by itself")
        seen = len(searches.answers)
        site.until(lambda: len(searches.answers) > seen + 2, "searches are answered again")
    assert set(searches.refusals) <= {"database_unavailable", "audit_unavailable", "deadline", "busy"}
    for asked, ranking in searches.answers:
        assert ranking == without or (ranking == truth and asked < gone), "an answer was wrong"


def a_worker_is_cut_off(site: Site, home: Replica, at_worker: Host, at_spare: Host, gallery: Gallery) -> None:
    """Another one takes over what it held, when its lease has run out; back again, it goes on working."""
    before = gallery.ready()
    home.ingest(pictures(1000, 60))
    site.until(lambda: gallery.running() > 0 and gallery.ready() > before, "the worker is in the middle of it")
    at_worker.cut_off()
    site.start(at_spare, "worker")
    site.until(lambda: gallery.ready() == gallery.images() == before + 60, "the other worker has done the rest")
    site.until(lambda: home.check("worker").startswith("1 worker is"), "the database lets go of who is not there")
    at_worker.plug_in()
    at_spare.lose_power()
    home.ingest(pictures(2000, 30))
    site.until(lambda: gallery.ready() == gallery.images() == before + 90, "the first worker works again")


def a_worker_host_dies(site: Site, home: Replica, at_worker: Host, gallery: Gallery) -> None:
    """In the middle of a batch, without a word; a new one finishes it."""
    before = gallery.ready()
    home.ingest(pictures(3000, 30))
    site.until(lambda: gallery.running() > 0, "the worker holds images")
    at_worker.lose_power()
    site.start(at_worker, "worker")
    site.until(lambda: gallery.ready() == gallery.images() == before + 30, "nothing of it was lost")


def a_replica_is_restarted(site: Site, home: Replica, remote: Replica) -> None:
    truth = home.ranking()
    remote.host.lose_power()
    assert remote.ranking() is None
    site.start(remote.host, "serve")
    site.until(remote.ready, "the restarted replica is ready")
    assert remote.ranking() == truth == home.ranking()


def the_database_is_cut_off(site: Site, home: Replica, remote: Replica, at_database: Host) -> None:
    """Only who is beside it goes on."""
    truth = home.ranking()
    at_database.cut_off()
    refused = site.until(remote.search, "there is an answer")
    assert refused.status_code == 503 and refused.json()["code"] in ("database_unavailable", "deadline")
    assert home.ranking() == truth
    at_database.plug_in()
    site.until(remote.ready, "the remote replica is back by itself")
    assert remote.ranking() == truth
