"""How the processes start and stop, with real signals: nothing under way is cut off, and nobody waits for ever."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from indexer.database import Database
from tests.flows.test_service_killed import free_port, program, until
from tests.helpers import make_tiny_checkpoint
from tests.postgres_fixtures import database

__all__ = ["database"]

ASK = {"query": {"text": "a man in a red shirt"}}


@dataclass(frozen=True)
class Running:
    """A service in a process of its own, and how to talk to it."""

    process: subprocess.Popen[bytes]
    http: httpx.Client
    port: int
    log: Path

    def ready(self) -> bool:
        return self.answers("/readyz") == 200

    def answers(self, path: str) -> int | None:
        """The status, None if nobody answers."""
        try:
            return self.http.get(path).status_code
        except httpx.TransportError:
            return None

    def events(self) -> list[str]:
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [json.loads(line)["event"] for line in lines]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    make_tiny_checkpoint(path)
    return path


@contextmanager
def serving(folder: Path, database_url: str, checkpoint: Path, **settings: object) -> Iterator[Running]:
    """`database_url` is empty for the embedded server."""
    port, log = free_port(), folder / "serve.log"
    chosen = {"data_dir": folder / "data", "database_url": database_url, "checkpoint": checkpoint, "port": port}
    quiet = {"auth": "open", "metrics_port": 0, "readiness_seconds": 0, "device": "cpu"}
    everything = {**chosen, **quiet, **settings}
    environment = {f"PERSON_SEARCH_{name.upper()}": str(value) for name, value in everything.items() if value != ""}
    address = f"http://127.0.0.1:{port}"
    with program("serve", environment, log) as process, httpx.Client(base_url=address, timeout=60) as http:
        yield Running(process, http, port, log)


@contextmanager
def held_up(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """Every search waits in the database as long as this lasts, or until its connection is closed."""
    url = database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE search IN ACCESS EXCLUSIVE MODE")
        yield connection


def waits(connection: psycopg.Connection[Any]) -> bool:
    """Whether somebody waits for the lock."""
    statement = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'search'::regclass"
    return bool(connection.execute(statement).fetchone()[0])  # type: ignore[index]


def search(port: int) -> httpx.Response:
    return httpx.post(f"http://127.0.0.1:{port}/api/v1/searches", json=ASK, timeout=60, trust_env=False)


def test_what_is_under_way_is_finished_and_new_callers_are_sent_away(
    database: Database, tmp_path: Path, checkpoint: Path
) -> None:
    with (
        serving(tmp_path, database.url, checkpoint, shutdown_seconds=60, shutdown_notice_seconds=2) as service,
        ThreadPoolExecutor(1) as pool,
    ):
        until(service.ready, service.log)
        with held_up(database) as connection:
            answer: Future[httpx.Response] = pool.submit(search, service.port)
            until(lambda: waits(connection), service.log)
            service.process.send_signal(signal.SIGTERM)
            until(lambda: service.answers("/readyz") == 503, service.log)  # a load balancer has time to notice
            until(lambda: service.answers("/livez") is None, service.log)  # then nobody new is let in
            assert service.process.poll() is None and not answer.done()
        assert answer.result(60).status_code == 201
        assert service.process.wait(60) == 0
        assert service.events()[-1] == "stopped"


def test_a_second_signal_ends_it_at_once(database: Database, tmp_path: Path, checkpoint: Path) -> None:
    with (
        serving(tmp_path, database.url, checkpoint, shutdown_seconds=600) as service,
        ThreadPoolExecutor(1) as pool,
    ):
        until(service.ready, service.log)
        with held_up(database) as connection:
            answer = pool.submit(search, service.port)
            until(lambda: waits(connection), service.log)
            service.process.send_signal(signal.SIGTERM)
            until(lambda: service.answers("/livez") is None, service.log)
            assert service.process.poll() is None
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(30) == 128 + signal.SIGTERM
            with pytest.raises(httpx.TransportError):
                answer.result(30)


@pytest.mark.slow
def test_a_request_that_never_ends_does_not_keep_the_process(
    database: Database, tmp_path: Path, checkpoint: Path
) -> None:
    with serving(tmp_path, database.url, checkpoint, shutdown_seconds=0.5) as service, ThreadPoolExecutor(1) as pool:
        until(service.ready, service.log)
        with held_up(database) as connection:
            pool.submit(search, service.port)
            until(lambda: waits(connection), service.log)
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(30) == 1
    assert "requests_cut_off" in service.events()


def test_a_service_that_waits_for_its_database_says_so_and_can_be_stopped(tmp_path: Path, checkpoint: Path) -> None:
    """The embedded server's folder is held by somebody else, so that the start takes as long as it may."""
    (tmp_path / "data" / "postgres").mkdir(parents=True)
    with (tmp_path / "data" / "postgres" / "owner.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with serving(tmp_path, "", checkpoint, shutdown_seconds=0.5) as service:
            until(lambda: service.answers("/livez") == 200, service.log)
            answer = service.http.get("/readyz")
            assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
            assert [check["name"] for check in answer.json()["checks"]] == ["start"]
            refused = search(service.port)
            assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(30) == 0
    assert "stopped_while_starting" in service.events()


@pytest.mark.slow
def test_a_port_that_is_taken_is_one_sentence(database: Database, tmp_path: Path, checkpoint: Path) -> None:
    with serving(tmp_path, database.url, checkpoint) as service:
        until(service.ready, service.log)
        again = tmp_path / "again"
        again.mkdir()
        with serving(again, database.url, checkpoint, port=service.port) as second:
            assert second.process.wait(60) == 1
            assert "Address already in use" in second.log.read_text().splitlines()[-1]
        assert service.ready()
