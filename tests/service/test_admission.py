"""Who may search: the line, its end, the deadline, and clients that hang up."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from service.context import Vectors
from tests.fake_encoder import GridEncoder
from tests.service.conftest import Service, problem, running_service, wait_until

ASK = {"query": {"text": "a man in red"}}
SHORT = 0.3  # seconds; a deadline that is waited for


class Stuck(GridEncoder):
    """Embeds texts only while its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        assert self.gate.wait(30)
        return super().embed_texts(texts)


@contextmanager
def stuck_service(folder: Path, **changes: float) -> Iterator[tuple[Service, Stuck]]:
    encoder = Stuck()
    with running_service(folder, encoder=encoder, **changes) as service:
        encoder.gate.clear()
        try:
            yield service, encoder
        finally:
            encoder.gate.set()


def searches(service: Service) -> int:
    with service.database.engine.connect() as connection:
        return int(connection.scalar(text("SELECT count(*) FROM search")) or 0)


def test_who_finds_the_line_full_is_told_when_to_come_back(tmp_path: Path) -> None:
    with stuck_service(tmp_path, search_slots=1, search_queue=1) as (service, encoder), ThreadPoolExecutor(2) as pool:
        admission = service.context.admission
        working = pool.submit(service.search, ASK)
        wait_until(lambda: admission.running == 1, "one search is worked on")
        waiting = pool.submit(service.search, ASK)
        wait_until(lambda: admission.waiting == 1, "one search waits")
        refused = service.search(ASK)
        assert (refused.status_code, problem(refused)["code"]) == (503, "busy")
        assert int(refused.headers["Retry-After"]) > 0
        assert service.http.get("/api/v1/cameras").status_code == 200  # whatever does not search goes on
        encoder.gate.set()
        assert working.result().status_code == waiting.result().status_code == 201
        assert (admission.running, admission.waiting) == (0, 0)


def test_a_search_that_waits_for_too_long_is_told_so(tmp_path: Path) -> None:
    limits = {"search_slots": 1, "search_queue": 4, "request_deadline_seconds": SHORT}
    with stuck_service(tmp_path, **limits) as (service, encoder), ThreadPoolExecutor(1) as pool:
        working = pool.submit(service.search, ASK)
        wait_until(lambda: service.context.admission.running == 1, "one search is worked on")
        late = service.search(ASK)
        assert (late.status_code, problem(late)["code"]) == (503, "deadline")
        assert int(late.headers["Retry-After"]) > 0
        encoder.gate.set()
        assert problem(working.result())["code"] == "deadline"  # it was in the encoder until it was too late
        assert searches(service) == 0  # neither left anything
        assert service.search(ASK).status_code == 201


def test_searches_behind_a_busy_encoder_do_not_wait_for_ever(tmp_path: Path) -> None:
    with stuck_service(tmp_path, request_deadline_seconds=SHORT) as (service, encoder), ThreadPoolExecutor(1) as pool:
        first = pool.submit(service.search, ASK)
        wait_until(lambda: service.context.admission.running == 1, "the encoder is busy")
        second = service.search(ASK)
        assert problem(second)["code"] == "deadline"
        assert not first.done()
        encoder.gate.set()


def test_the_database_gets_no_more_time_than_is_left(tmp_path: Path) -> None:
    with running_service(tmp_path, request_deadline_seconds=SHORT) as service:
        with service.database.engine.begin() as connection:
            connection.execute(text("LOCK TABLE search IN ACCESS EXCLUSIVE MODE"))
            late = service.search(ASK)
            assert (late.status_code, problem(late)["code"]) == (503, "deadline")
        assert service.search(ASK).status_code == 201
        assert searches(service) == 1


def test_who_hangs_up_leaves_the_line(tmp_path: Path) -> None:
    with stuck_service(tmp_path, search_slots=1, search_queue=1) as (service, encoder), ThreadPoolExecutor(1) as pool:
        admission = service.context.admission
        working = pool.submit(service.search, ASK)
        wait_until(lambda: admission.running == 1, "one search is worked on")
        url = httpx.URL(str(service.http.base_url))
        with socket.create_connection((url.host, url.port or 0)) as client:
            body = b'{"query": {"text": "a man"}}'
            head = f"POST /api/v1/searches HTTP/1.1\r\nHost: {url.host}\r\nContent-Type: application/json\r\n"
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            wait_until(lambda: admission.waiting == 1, "it waits")
        wait_until(lambda: admission.waiting == 0, "it has left")
        encoder.gate.set()
        assert working.result().status_code == 201
        assert admission.running == 0
        assert searches(service) == 1


@pytest.mark.parametrize("slots", [1, 3])
def test_no_place_is_ever_lost(tmp_path: Path, slots: int) -> None:
    with running_service(tmp_path, search_slots=slots, search_queue=8) as service, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: service.search(ASK if n % 3 else {"query": {}}), range(90)))
        assert {answer.status_code for answer in answers} <= {201, 422, 503}
        assert [problem(answer)["code"] for answer in answers if answer.status_code == 503].count("busy") == sum(
            answer.status_code == 503 for answer in answers
        )
        wait_until(lambda: service.context.admission.running == 0, "all places are free")
        assert service.context.admission.waiting == 0
        assert service.search(ASK).status_code == 201
