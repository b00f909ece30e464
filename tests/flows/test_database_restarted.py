"""PostgreSQL is restarted, politely and by force, while clients search: 503 in between, and then all goes on."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from indexer.database import connect, migrate
from indexer.postgres import EmbeddedPostgres
from tests.flows.test_service_killed import until
from tests.flows.test_stopping import serving
from tests.helpers import make_tiny_checkpoint
from tests.postgres_fixtures import execute

CLIENTS = 4
ASK = {"query": {"text": "a man in a red shirt"}}


@dataclass
class Load:
    """Clients that search without a pause, and what they were answered."""

    port: int
    answers: Counter[tuple[int, str | None]] = field(default_factory=Counter)
    without_advice: int = 0  # how many 503 said nothing about when to come back

    def good(self) -> int:
        return self.answers[201, None]

    def refused(self) -> int:
        return self.answers[503, "database_unavailable"]

    @contextmanager
    def running(self) -> Iterator[None]:
        stop, lock = threading.Event(), threading.Lock()

        def client() -> None:
            with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60, trust_env=False) as http:
                while not stop.is_set():
                    answer = http.post("/api/v1/searches", json=ASK)
                    code = None if answer.status_code == 201 else answer.json()["code"]
                    with lock:
                        self.answers[answer.status_code, code] += 1
                        self.without_advice += answer.status_code == 503 and "Retry-After" not in answer.headers
                    if code is not None:
                        stop.wait(0.05)

        threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(90)
        assert not any(thread.is_alive() for thread in threads)


@pytest.mark.slow
def test_searches_fail_while_the_database_is_away_and_recover_by_themselves(tmp_path: Path) -> None:
    checkpoint = tmp_path / "tiny.safetensors"
    make_tiny_checkpoint(checkpoint)
    postgres = EmbeddedPostgres(tmp_path / "postgres")
    postgres.start()
    try:
        execute("CREATE DATABASE gallery", on=postgres)
        url = postgres.url("gallery")
        engine = connect(url)
        migrate(engine)
        engine.dispose()
        with serving(tmp_path, url, checkpoint, poll_seconds=0.1) as service:
            until(service.ready, service.log)
            load = Load(service.port)
            with load.running():
                until(lambda: load.good() >= 20, service.log)

                postgres.stop()
                until(lambda: load.refused() >= 20, service.log)
                assert service.answers("/readyz") == 503 and service.answers("/livez") == 200
                postgres.start()
                before = load.good()
                until(lambda: load.good() >= before + 20, service.log)
                until(service.ready, service.log)

                assert postgres.server_pid is not None
                os.kill(postgres.server_pid, signal.SIGKILL)  # its owner starts it again
                before = load.refused()
                until(lambda: load.refused() > before, service.log)
                before = load.good()
                until(lambda: load.good() >= before + 20, service.log)
                until(service.ready, service.log)
            at_the_record = (503, "audit_unavailable")  # it went away just as the act was to be recorded
            assert set(load.answers) - {at_the_record} == {(201, None), (503, "database_unavailable")}
            assert load.without_advice == 0
            assert service.process.poll() is None
            assert "unexpected error" not in service.events()
    finally:
        postgres.stop()
