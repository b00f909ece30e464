"""What surrounds the calls: readiness, faults of the database and the disk, hosts, headers, logs, settings."""

from __future__ import annotations

import errno
import io
import json
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psycopg
import pytest
from PIL import Image
from pydantic import ValidationError

from indexer.errors import InvalidSettings
from indexer.presence import WORKER_LOCK, Presence
from service import search
from service.app import PAGE, open_context
from service.context import Vectors
from service.logs import configure_logs
from service.settings import ServiceSettings
from tests.fake_encoder import GridEncoder
from tests.postgres_fixtures import fresh_database, server
from tests.service.conftest import Json, Service, picture, problem, running_service, wait_until

ASK = {"query": {"text": "a man in red"}}


def checks(service: Service) -> tuple[int, Json]:
    response = service.http.get("/readyz")
    return response.status_code, {check["name"]: check["ok"] for check in response.json()["checks"]}


def test_a_sound_service_is_alive_ready_and_says_what_it_is(service: Service) -> None:
    service.added(picture(300))
    service.embed()
    assert service.http.get("/livez").json() == {"alive": True}
    names = ["schema", "checkpoint", "index", "canary", "disk"]
    status, passed = checks(service)
    assert passed.pop("worker") is False  # information: searches are answered without one
    assert (status, passed) == (200, dict.fromkeys(names, True))
    version = service.http.get("/version").json()
    assert version["checkpoint_id"] == service.encoder.checkpoint_id and version["has_text"] is True


def test_readiness_tells_whether_a_worker_is_there(service: Service) -> None:
    def worker() -> Json:
        (check,) = [check for check in service.http.get("/readyz").json()["checks"] if check["name"] == "worker"]
        return dict(check)

    with Presence(service.database, WORKER_LOCK), Presence(service.database, WORKER_LOCK):
        assert worker()["ok"] is True and worker()["detail"].startswith("2 workers are connected")
    assert worker()["ok"] is False and worker()["required"] is False
    assert "person-search worker" in worker()["detail"]


def test_readiness_is_found_out_once_for_all_who_ask(tmp_path: Path) -> None:
    class Counting(GridEncoder):
        texts = 0

        def embed_texts(self, texts: Sequence[str]) -> Vectors:
            self.texts += len(texts)
            return super().embed_texts(texts)

    encoder = Counting()
    with running_service(tmp_path, encoder=encoder, readiness_seconds=3600) as service:
        before = encoder.texts
        assert [checks(service)[0] for _ in range(5)] == [200] * 5
        assert encoder.texts == before + 1


def test_before_all_is_open_and_after_the_signal_nobody_is_sent_here(service: Service) -> None:
    state, context = service.app.state, service.context
    try:
        state.context = None
        assert checks(service) == (503, {"start": False})
        assert service.http.get("/livez").status_code == 200
        refused = service.http.get("/api/v1/cameras")
        assert (refused.status_code, problem(refused)["code"]) == (503, "not_ready")
        assert int(refused.headers["Retry-After"]) > 0
        state.context, state.stopping = context, True
        assert checks(service) == (503, {"stop": False})
        assert service.search(ASK).status_code == 201  # who is here already is served
    finally:
        state.context, state.stopping = context, False
    assert checks(service)[0] == 200


def test_an_index_that_differs_from_the_database_is_not_ready(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.added(picture(301))
    service.embed()
    with monkeypatch.context() as patch:
        wait_until(lambda: checks(service)[0] == 200, "the index has followed")
        patch.setattr(type(service.context.replica), "refresh", lambda *_: None)
        patch.setattr(type(service.context.replica.state.index), "__len__", lambda self: 0)
        status, passed = checks(service)
        assert status == 503 and passed["index"] is False and passed["schema"] is True
    assert checks(service)[0] == 200


def test_readiness_tells_how_much_of_the_index_had_to_be_put_right(tmp_path: Path) -> None:
    with running_service(tmp_path, index_check_seconds=0.05) as service:
        service.added(picture(305))
        service.embed()
        replica = service.context.replica
        wait_until(lambda: len(replica.state.index) == 1, "the index has followed")
        replica.state.index.remove(replica.state.index.rows)
        wait_until(lambda: replica.mended == 1, "the gap is mended")
        assert checks(service)[0] == 200
        (index,) = [check for check in service.http.get("/readyz").json()["checks"] if check["name"] == "index"]
        assert index["detail"] == "The index has all 1 vectors. 1 had to be put right."


def test_the_next_start_takes_the_index_from_disk_unless_it_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fresh_database() as database:
        with running_service(tmp_path, database=database) as service:
            for seed in range(306, 310):
                service.added(picture(seed))
            service.embed()
            before = service.found(ASK)["results"]
            folder = tmp_path / "index" / service.encoder.checkpoint_id
        assert (folder / "manifest.json").exists()

        def started() -> list[Json]:
            written = io.StringIO()
            with monkeypatch.context() as patch:
                patch.setattr(sys, "stderr", written)
                with running_service(tmp_path, database=database) as service:
                    assert service.found(ASK)["results"] == before
            configure_logs("info")
            return [json.loads(line) for line in written.getvalue().splitlines() if '"index_' in line]

        def reads(lines: list[Json]) -> list[int]:
            return [line["read_from_database"] for line in lines if line["event"] == "index_loaded"]

        assert reads(started()) == [0]
        (block,) = folder.glob("*.block")
        block.write_bytes(block.read_bytes()[:-1])
        lines = started()
        assert reads(lines) == [4]
        assert [line["reason"] for line in lines if line["event"] == "index_snapshot_refused"] == [
            f"{block.name} is missing or not as long as it was written"
        ]
        assert reads(started()) == [0]


def test_the_index_can_be_kept_off_the_disk(tmp_path: Path) -> None:
    earlier = tmp_path / "index" / "checkpoint"
    earlier.mkdir(parents=True)
    with running_service(tmp_path, index_snapshot_seconds=0) as service:
        service.added(picture(310))
        service.embed()
    assert not (tmp_path / "index").exists()


def test_an_encoder_that_changed_its_mind_is_not_ready(tmp_path: Path) -> None:
    class Drifting(GridEncoder):
        fault = "none"

        def embed_images(self, images: Sequence[Image.Image]) -> Vectors:
            rows = super().embed_images(images)
            return {"none": rows, "drift": np.roll(rows, 1, axis=1), "nan": rows * np.nan, "long": rows * 2}[self.fault]

    encoder = Drifting()
    with running_service(tmp_path, encoder=encoder) as service:
        for fault in ("drift", "nan", "long"):
            encoder.fault = fault
            status, passed = checks(service)
            assert status == 503 and passed["canary"] is False
        encoder.fault = "none"
        assert checks(service)[0] == 200


def test_a_database_that_goes_away_means_503_until_it_is_back(tmp_path: Path) -> None:
    with fresh_database() as database, running_service(tmp_path, database=database) as service:
        id = service.added(picture(302))
        name = database.engine.url.database
        with psycopg.connect(server().dsn(), autocommit=True) as admin:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            for response in (service.http.get(f"/api/v1/images/{id}"), service.search(ASK), service.add(picture(303))):
                assert problem(response)["code"] == "database_unavailable"
                assert response.status_code == 503 and int(response.headers["Retry-After"]) > 0
            assert checks(service)[0] == 503
            assert service.http.get("/livez").status_code == 200
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        wait_until(lambda: service.search(ASK).status_code == 201, "searches work again")
        assert service.add(picture(303)).status_code in (200, 201)


def test_a_disk_below_the_guard_accepts_nothing_but_still_searches(tmp_path: Path) -> None:
    with running_service(tmp_path, min_free_bytes=2**60) as service:
        archive = service.http.post("/api/v1/ingestions", content=b"x", headers={"Content-Type": "application/zip"})
        for response in (service.add(picture(304)), archive):
            assert response.status_code == 507 and problem(response)["code"] == "storage_full"
        assert service.search(ASK).status_code == 201
        assert checks(service)[1]["disk"] is False


def test_a_disk_that_fills_up_under_way_is_507(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("service.spool.Spool.write", full)
    response = service.http.post("/api/v1/ingestions", files={"archive": ("a.zip", b"x")})
    assert problem(response)["code"] == "storage_full"


# ------------------------------------------------------------------------------------------------- errors and headers


def test_an_unexpected_error_keeps_its_secrets(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr(search, "run", broken)
    response = service.search(ASK)
    assert problem(response)["code"] == "internal" and response.status_code == 500
    assert "hunter2" not in response.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/v1/serches", 404, "no_such_route"),
        ("GET", "/api/v1/images/", 404, "no_such_route"),
        ("GET", "/page/../settings.py", 404, "no_such_route"),
        ("GET", "/page/none.js", 404, "no_such_route"),
        ("PUT", "/api/v1/cameras", 405, "method_not_allowed"),
        ("GET", "/api/v1/images/facets", 405, "method_not_allowed"),
        ("GET", "/api/v1/images/%09", 422, "invalid_request"),
        ("GET", "/api/v1/images/a%0Ab", 422, "invalid_request"),
        ("DELETE", "/", 405, "method_not_allowed"),
    ],
)
def test_addresses_that_are_not_there_are_problems_too(
    service: Service, method: str, path: str, status: int, code: str
) -> None:
    response = service.http.request(method, path)
    assert (response.status_code, problem(response)["code"]) == (status, code)
    assert ("Allow" in response.headers) == (status == 405)


def test_every_answer_has_its_own_request_id_and_the_security_headers(service: Service) -> None:
    paths = ["/", "/page/none.js", "/livez", "/nowhere", "/api/v1/cameras"]
    answers = [service.http.get(path) for path in paths]
    assert len({answer.headers["X-Request-Id"] for answer in answers}) == len(paths)
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none';") and "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1", 200), ("localhost:8000", 200), ("[::1]:9", 200), ("evil.example", 421), ("127.0.0.1.evil", 421),
     ("", 400), ("[", 400)],
)  # fmt: skip
def test_only_names_of_this_machine_are_answered(service: Service, host: str, status: int) -> None:
    response = service.http.get("/livez", headers={"Host": host})
    assert response.status_code == status
    if status != 200:
        problem(response)


def test_further_names_can_be_allowed(tmp_path: Path) -> None:
    with running_service(tmp_path, allowed_hosts=("Search.Example",)) as service:
        assert service.http.get("/livez", headers={"Host": "search.example"}).status_code == 200
        assert service.http.get("/livez", headers={"Host": "other.example"}).status_code == 421


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_a_page_elsewhere_cannot_change_anything(service: Service, origin: str) -> None:
    response = service.http.post("/api/v1/cameras", json={"id": "from-elsewhere"}, headers={"Origin": origin})
    assert problem(response)["code"] == "cross_origin"
    own = {"Origin": str(service.http.base_url)}
    assert service.http.post("/api/v1/cameras", json={"id": f"own-{len(origin)}"}, headers=own).status_code == 201


# ------------------------------------------------------------------------------------------------------ page and logs


@pytest.mark.skipif(not PAGE.exists(), reason="the page is not built: make page")
def test_the_page_is_served_and_refers_to_nobody_else(service: Service) -> None:
    page = service.http.get("/")
    assert page.headers["Content-Type"].startswith("text/html")
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert named
    for path in named:
        assert path.startswith("/page/") and service.http.get(path).status_code == 200
    assert "<style" not in page.text and " style=" not in page.text and "onclick=" not in page.text
    assert re.search(r"<script(?![^>]+src=)", page.text) is None


def test_a_page_that_is_not_built_says_how(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.app.PAGE", tmp_path / "none")
    answer = service.http.get("/")
    assert answer.status_code == 503 and "make page" in answer.text


def test_logs_are_json_lines_that_never_say_what_was_looked_for(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", written)
        configure_logs("info")
        answer = service.found({"query": {"text": "a zebra-striped coat"}, "filter": {"identity": {"eq": "anna"}}})
        service.http.get(f"/api/v1/searches/{answer['id']}?secret=zebra")
        wait_until(lambda: "{search_id}" in written.getvalue(), "both lines are written")
    configure_logs("info")
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    requests = [line for line in lines if line["event"] == "request"][-2:]  # a line of the test before may come late
    assert [(line["route"], line["status"]) for line in requests] == [
        ("/api/v1/searches", 201),
        ("/api/v1/searches/{search_id}", 422),
    ]
    assert all(line["duration_ms"] > 0 and line["request_id"] and line["method"] for line in requests)
    assert "zebra" not in written.getvalue() and "anna" not in written.getvalue()


# ------------------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::"])
def test_without_authentication_only_loopback_is_served(host: str) -> None:
    with pytest.raises(ValidationError, match="but is open"):
        ServiceSettings(host=host, auth="open")
    assert ServiceSettings(host=host).auth == "required"


def test_a_mistyped_setting_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSON_SEARCH_SEARCH_LIMIT_MX", "5")
    with pytest.raises(InvalidSettings, match="did you mean PERSON_SEARCH_SEARCH_LIMIT_MAX"), ExitStack() as stack:
        open_context(stack, ServiceSettings(data_dir=tmp_path), None, None)
