"""Logs tell what happened and to whom nothing: no word of a user reaches a line, nor the log of the database."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import insert, text

from indexer.tables import Image
from service.context import Vectors
from service.logs import configure_logs, describe_exception, uncaught_logged
from tests.fake_encoder import GridEncoder
from tests.service.conftest import Json, Service, picture, running_service, zipped

MARKER = "Xanthippe"  # a word that no program says by itself


@contextmanager
def what_is_written() -> Iterator[io.StringIO]:
    """What goes to stderr, at the most talkative level."""
    with redirect_stderr(io.StringIO()) as written:
        configure_logs("debug")
        yield written
    configure_logs("info")


def lines(written: io.StringIO) -> list[Json]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


class Upset(GridEncoder):
    """Cannot embed some texts, and says which."""

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        for one in texts:
            if "upset" in one:
                raise RuntimeError(f"cannot embed {one!r}")
        return super().embed_texts(texts)


def say_it_everywhere(service: Service) -> list[int]:
    """Requests with the marker wherever a user may write something; returns the statuses."""
    http, M = service.http, MARKER
    metadata = {"external_id": M, "camera_id": M, "identity": M, "track_id": M, "tags": [M], "attributes": {M: M}}
    archive = zipped({f"{M}.png": picture(2)}, [{"file": f"{M}.png", **metadata}, {"file": M}, {M: M}])
    everything = {
        "query": {"text": f"a man {M}", "image": None},
        "filter": {"identity": {"eq": M}, "tags": {"any": [M]}, "any": [{"external_id": {"in": [M]}}]},
    }
    del everything["query"]["image"]
    by_image = {"request": (None, json.dumps({"query": {"text": M}})), "image": (f"{M}.png", picture(1))}
    hold = {"reason": M, "identity": M}
    answers = [
        http.post("/api/v1/cameras", json={"id": M, "name": M, "site": M}),
        http.post("/api/v1/cameras", json={"id": M}),
        service.add(picture(1), metadata),
        service.add(picture(3), metadata),  # the external id is taken
        service.add(b"no image " + M.encode(), metadata),
        service.add(picture(4), {M: M}),
        http.post("/api/v1/ingestions", content=archive, headers={"Content-Type": "application/zip"}),
        http.post("/api/v1/ingestions", content=M, headers={"Content-Type": "application/zip", "Idempotency-Key": M}),
        http.post("/api/v1/ingestions", json={"manifest": f"file:///{M}/metadata.jsonl"}),
        service.search(everything),
        service.search({"query": {"text": f"upset {M}"}}),  # ends as a 500
        service.search({"query": {"text": M}, "filter": {"camera_id": {"in": [M, M + "2"]}}}),
        service.search({"query": {"text": M}, M: M}),
        http.post("/api/v1/searches", files=by_image),
        http.post("/api/v1/searches", content=f"{{{M}", headers={"Content-Type": "application/json"}),
        http.post("/api/v1/searches", content=M, headers={"Content-Type": f"text/{M}"}),
        http.get(f"/api/v1/searches/{M}"),
        http.get(f"/api/v1/{M}?{M}={M}"),
        http.get("/api/v1/cameras", params={M: M}),
        http.get("/livez", headers={"Host": f"{M}.example", "User-Agent": M, "Cookie": f"{M}={M}"}),
        http.get("/livez", headers={"Authorization": f"Bearer {M}", "Origin": M, "X-Request-Id": M}),
        http.request(M.upper(), "/livez"),
        http.post("/api/v1/erasures", json={"identity": M, "reason": "by request"}),
        http.post("/api/v1/legal-holds", json=hold),
        http.post("/api/v1/erasures", json={"filter": {"tags": {"any": [M]}}, "reason": M, "dry_run": True}),
    ]
    return [answer.status_code for answer in answers]


def test_no_word_of_a_user_reaches_a_log(tmp_path: Path) -> None:
    with (
        what_is_written() as written,
        running_service(tmp_path, embedded=True, encoder=Upset(), log_level="debug") as service,
    ):
        statuses = say_it_everywhere(service)
        service.embed()
        service.found({"query": {"text": MARKER}})
        assert {201, 202, 409, 415, 421, 422, 500} <= set(statuses)
        # What the handlers guard against, straight to the server: errors whose messages and details quote values.
        columns = {"sha256": "0" * 64, "width": 8, "height": 8, "format": "png", "byte_size": 1}
        for statement, values in [
            (insert(Image), [{**columns, "external_id": MARKER + "2"}] * 2),
            (text("SELECT CAST(:value AS uuid)"), [{"value": MARKER}]),
            (text(f"SELECT '{MARKER}'::int"), [{}]),
            (text(f"SELECT {MARKER}"), [{}]),
        ]:
            with pytest.raises(Exception, match=f"(?i){MARKER}") as raised, service.database.engine.begin() as database:
                database.execute(statement, values)
            structlog.get_logger("service.test").error("failed", exc_info=raised.value)
        with pytest.raises(RuntimeError) as unexpected:
            service.encoder.embed_texts([f"upset {MARKER}"])
        logging.getLogger("somebody.else").error("failed", exc_info=unexpected.value)
    told = lines(written)
    assert len([line for line in told if line["event"] == "request"]) > 20
    failures = [line["exception"] for line in told if line["event"] == "unexpected error"]
    assert len(failures) == 1 and failures[0].startswith("RuntimeError\n") and "embed_texts" in failures[0]
    assert any("sqlstate=23505" in line.get("exception", "") for line in told)
    assert [line for line in written.getvalue().splitlines() if MARKER.lower() in line.lower()] == []
    logs = [path for path in tmp_path.rglob("*") if path.is_file() and ".log" in path.name]
    assert {path.name for path in logs} == {"postgres.log"}
    assert "database system is ready" in logs[0].read_text()
    assert MARKER.lower() not in logs[0].read_text().lower()
    assert MARKER not in (tmp_path / "erasures.jsonl").read_text()


def failing(told: Mapping[str, Any]) -> BaseException:
    """An exception with a cause, both of which quote."""
    try:
        try:
            raise KeyError(told["inner"])
        except KeyError as error:
            raise ValueError(told["outer"]) from error
    except ValueError as error:
        return error


def test_an_exception_is_told_by_kind_and_place() -> None:
    described = describe_exception(failing({"inner": "secret-1", "outer": "secret-2"}))
    kinds = [line for line in described.splitlines() if not line.startswith("  ")]
    assert kinds == ["ValueError", "caused by KeyError"]
    assert "secret" not in described
    places = [line for line in described.splitlines() if line.startswith("  ")]
    assert len(places) == 2 and all("tests/service/test_logs.py:" in line and "failing" in line for line in places)


def test_what_the_system_says_of_a_file_stays_its_name_goes() -> None:
    with pytest.raises(OSError) as raised:
        open("/nowhere/secret.png")  # noqa: PTH123, SIM115
    assert describe_exception(raised.value).splitlines()[0] == "FileNotFoundError: No such file or directory"
    group = describe_exception(ExceptionGroup("secret", [ValueError("secret"), TypeError("secret")]))
    assert group == "ExceptionGroup\n  of ValueError, TypeError"


def test_libraries_are_held_short() -> None:
    with what_is_written() as written:
        logging.getLogger("sqlalchemy.engine.Engine").info("SELECT ... [secret]")
        logging.getLogger("python_multipart.multipart").debug("secret")
        logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: <ValueError('secret')>")
        structlog.get_logger("indexer.test").info("said", query="secret", thing=Exception("secret"))
    assert [line["event"] for line in lines(written)] == ["Task exception was never retrieved", "said"]
    assert "secret" not in written.getvalue()


def test_what_ends_a_thread_or_the_process_is_logged_the_same_way() -> None:
    def breaks() -> None:
        raise ValueError("secret")

    def process() -> None:
        with uncaught_logged():
            thread = threading.Thread(target=breaks, name="some thread")
            thread.start()
            thread.join()
            breaks()

    with what_is_written() as written, pytest.raises(SystemExit):
        process()
    first, second = lines(written)
    assert (first["event"], first["thread"]) == ("thread ended by an error", "some thread")
    assert second["event"] == "process ended by an error"
    for line in (first, second):
        assert line["exception"].startswith("ValueError\n") and "breaks" in line["exception"]
    assert "secret" not in written.getvalue()
