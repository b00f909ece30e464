"""Erasures, legal holds and retention policies over HTTP, and their commands."""

from __future__ import annotations

import hashlib
import json
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from indexer import journal, traces
from indexer.database import transaction
from indexer.journal import JournalEntry
from indexer.traces import Selection
from service import cli
from tests.postgres_fixtures import fresh_database
from tests.service.conftest import Service, encoded, picture, pixels, problem, running_service, wait_until, zipped

Run = Callable[..., tuple[int, str, str]]


def erase(service: Service, **body: Any) -> Any:
    return service.http.post("/api/v1/erasures", json={"reason": "asked for", **body})


def test_an_erased_person_is_found_by_no_search_page_or_file(service: Service) -> None:
    lines = [
        {"file": f"zora-{n}.png", "external_id": f"zora-{n}", "identity": "zora-x", "camera_id": "yard"}
        for n in range(3)
    ]
    archive = zipped(
        {f"zora-{n}.png": picture(n) for n in range(3)} | {"m.png": picture(50)}, [*lines, {"file": "m.png"}]
    )
    ingestion = service.ingest(archive, register_cameras=True)
    found = service.found({"query": {"text": "a man"}, "limit": 10})
    ids = [result["image_id"] for result in found["results"] if result["image"]["identity"] == "zora-x"]
    assert len(ids) == 3
    service.http.get(f"/api/v1/images/{ids[0]}/content?variant=thumb")
    by_name = service.found({"query": {"text": "a man"}, "filter": {"identity": {"eq": "zora-x"}}})

    counted = erase(service, identity="zora-x", dry_run=True)
    assert counted.status_code == 200
    assert (counted.json()["state"], counted.json()["id"], counted.json()["counts"]["images"]) == ("counted", None, 3)
    answer = erase(service, identity="zora-x")
    assert answer.status_code == 201, answer.text
    receipt = answer.json()
    assert receipt["state"] == "done" and "index" in receipt["proof"]
    assert (receipt["counts"]["images"], receipt["counts"]["files"]) == (3, 3)
    assert service.http.get(answer.headers["Location"]).json() == receipt
    assert receipt in service.http.get("/api/v1/erasures").json()["erasures"]
    assert "zora" not in answer.text

    for n in range(3):
        for image in (picture(n), encoded(pixels(n), "JPEG")):
            seen = service.found({"query": {}, "limit": 50}, image)["results"]
            assert not {result["image_id"] for result in seen} & set(ids)
    kept = service.http.get(f"/api/v1/searches/{found['id']}").json()
    expected = [result for result in found["results"] if result["image_id"] not in ids]
    assert kept["results"] == expected, "the others keep their ranks"
    assert problem(service.http.get(f"/api/v1/searches/{by_name['id']}"))["code"] == "expired"
    for id in ids:
        assert problem(service.http.get(f"/api/v1/images/{id}/content?variant=thumb"))["code"] == "not_found"
        problem(service.search({"query": {"image": {"image_id": id}}}))
    items = service.items(ingestion)
    assert [item["state"] for item in items] == ["removed", "removed", "removed", "indexed"]
    assert "zora" not in json.dumps(items)
    digests = [hashlib.sha256(picture(n)).hexdigest() for n in range(3)]
    for path in service.settings.data_dir.rglob("*"):
        assert not any(digest in path.name for digest in digests)
        if path.is_file():
            assert b"zora" not in path.read_bytes().lower()


def test_a_held_image_is_neither_erased_nor_deleted(service: Service) -> None:
    service.camera("gate")
    id = service.added(picture(60), camera_id="gate", captured_at="2026-09-01T12:00:00Z")
    placed = service.http.post(
        "/api/v1/legal-holds",
        json={"reason": "order 1", "camera_id": "gate", "captured_from": "2026-09-01T00:00:00Z"},
    )
    assert placed.status_code == 201, placed.text
    hold = placed.json()
    assert hold["images"] == 1 and hold in service.http.get("/api/v1/legal-holds").json()["legal_holds"]
    for refused in (erase(service, image_ids=[id]), service.http.delete(f"/api/v1/images/{id}")):
        body = problem(refused)
        assert (body["status"], body["code"]) == (423, "legal_hold") and hold["id"] in body["detail"]
    assert erase(service, image_ids=[id], dry_run=True).json()["counts"]["held"] == 1
    assert service.http.get(f"/api/v1/images/{id}").status_code == 200
    assert service.http.delete(f"/api/v1/legal-holds/{hold['id']}").status_code == 204
    assert problem(service.http.delete(f"/api/v1/legal-holds/{hold['id']}"))["code"] == "not_found"
    assert service.http.delete(f"/api/v1/images/{id}").status_code == 204
    assert service.http.get("/api/v1/erasures?limit=1").json()["erasures"][0]["reason"] == "Deleted by its id."


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_request"),
        ({"image_ids": []}, "invalid_request"),
        ({"image_ids": None}, "invalid_request"),
        ({"identity": "a", "external_ids": ["b"]}, "invalid_request"),
        ({"filter": {}}, "invalid_request"),
        ({"filter": {"camera_id": {"eq": "nroth"}}}, "unknown_camera"),
        ({"filter": {"colour": {"eq": "red"}}}, "invalid_request"),
        ({"identity": "a", "reason": ""}, "invalid_request"),
        ({"identity": "wilma", "reason": "Wilma wants it"}, "reason_names_person"),
    ],
)
def test_what_is_not_clear_is_not_erased(service: Service, body: dict[str, Any], code: str) -> None:
    assert problem(erase(service, **body))["code"] == code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_request"),
        ({"identity": "a", "camera_id": "b"}, "invalid_request"),
        ({"identity": "a", "captured_from": "2026-09-01T00:00:00Z"}, "invalid_request"),
        ({"camera_id": "nroth"}, "unknown_camera"),
        ({"image_ids": [str(uuid.uuid4())]}, "not_found"),
    ],
)
def test_a_hold_on_nothing_is_refused(service: Service, body: dict[str, Any], code: str) -> None:
    assert problem(service.http.post("/api/v1/legal-holds", json={"reason": "order", **body}))["code"] == code


def test_policies_are_set_read_and_removed(service: Service) -> None:
    service.camera("door")
    path = "/api/v1/retention-policies"
    assert service.http.put(path, json={"days": 40_000}).status_code == 422
    assert problem(service.http.put(path, json={"camera_id": "nroth", "days": 4}))["code"] == "unknown_camera"
    assert service.http.put(path, json={"days": 9000}).json()["camera_id"] is None
    assert service.http.put(path, json={"camera_id": "door", "days": 8000}).json()["days"] == 8000
    listed = service.http.get(path).json()["retention_policies"]
    assert [(policy["camera_id"], policy["days"]) for policy in listed] == [(None, 9000), ("door", 8000)]
    assert service.http.delete(path, params={"camera_id": "door"}).status_code == 204
    assert service.http.delete(path).status_code == 204
    assert problem(service.http.delete(path))["code"] == "not_found"


def test_the_sweeper_erases_what_is_too_old_and_removes_orphans(tmp_path: Path) -> None:
    with running_service(tmp_path, sweep_seconds=0.1, orphan_grace_seconds=0) as service:
        service.camera("north")
        old = datetime.now(UTC) - timedelta(days=40)
        ids = [service.added(picture(1), camera_id="north", captured_at=old.isoformat()), service.added(picture(2))]
        service.http.put("/api/v1/retention-policies", json={"camera_id": "north", "days": 30})
        wait_until(lambda: service.http.get(f"/api/v1/images/{ids[0]}").status_code == 404, "the old one is gone")
        wait_until(lambda: len(service.http.get("/api/v1/erasures").json()["erasures"]) == 1, "there is a receipt")
        assert service.http.get(f"/api/v1/images/{ids[1]}").status_code == 200
        orphan = service.context.store.save(picture(3))
        wait_until(lambda: not service.context.store.files_of(orphan.sha256), "the orphan is gone")
        assert service.context.store.files_of(hashlib.sha256(picture(2)).hexdigest())


def test_a_start_completes_what_was_broken_off_and_erases_again_whom_a_restore_brought_back(tmp_path: Path) -> None:
    with fresh_database() as database:
        with running_service(tmp_path, database=database) as service:
            ids = [service.added(picture(n), external_id=f"yara-{n}") for n in range(3)]
        broken_off, restored = uuid.uuid4(), uuid.uuid4()
        with transaction(database.engine) as session:
            chosen = Selection(image_ids=(uuid.UUID(ids[0]),)).images()
            traces.decide(session, broken_off, chosen, "asked for", {"by": "image_ids", "given": 1})
        entry = JournalEntry(restored, datetime.now(UTC), "asked for", {"by": "identity"}, (uuid.UUID(ids[1]),))
        journal.append(tmp_path / journal.NAME, [entry])
        with running_service(tmp_path, database=database) as service:
            for id in (broken_off, restored):
                receipt = service.http.get(f"/api/v1/erasures/{id}").json()
                assert (receipt["state"], receipt["counts"]["images"], receipt["counts"]["files"]) == ("done", 1, 1)
            assert [service.http.get(f"/api/v1/images/{id}").status_code for id in ids] == [404, 404, 200]
            assert len(list(service.context.store.files())) == 1


def test_many_deletions_at_once_do_not_wait_for_each_other_s_connections(service: Service) -> None:
    ids = [service.added(picture(1000 + n)) for n in range(60)]
    with ThreadPoolExecutor(60) as pool:
        answers = list(pool.map(lambda id: service.http.delete(f"/api/v1/images/{id}").status_code, ids))
    assert answers == [204] * 60


# -------------------------------------------------------------------------------------------------------- commands


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `person-search ARGUMENTS`; gives exit status, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["person-search", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call


def test_erasing_from_the_command_line(service: Service, run: Run) -> None:
    url = str(service.http.base_url)
    id = service.added(picture(70), external_id="cmd-1")
    status, out, _ = run("erase", "--external-id", "cmd-1", "--reason", "asked for", "--dry-run", "--url", url)
    assert status == 0 and json.loads(out)["images"] == 1
    status, out, _ = run("erase", "--external-id", "cmd-1", "--reason", "asked for", "--yes", "--url", url)
    assert status == 0 and json.loads(out)["state"] == "done"
    assert service.http.get(f"/api/v1/images/{id}").status_code == 404
    status, _, err = run("erase", "--reason", "asked for", "--yes", "--url", url)
    assert status == 1 and "exactly one" in err
    status, _, err = run("erase", "--filter", "{", "--reason", "asked for", "--yes", "--url", url)
    assert status == 1 and "--filter is not JSON" in err


def test_backups_from_the_command_line(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with running_service(tmp_path / "data", embedded=True) as service:
        service.added(picture(80), external_id="first")
        gone = service.added(picture(81), external_id="second")
        monkeypatch.setenv("PERSON_SEARCH_DATA_DIR", str(tmp_path / "data"))
        status, out, err = run("backup", "create", tmp_path / "backup")
        assert status == 0, err
        assert "2 files" in out
        assert erase(service, image_ids=[gone]).json()["state"] == "done"
        status, _, err = run("backup", "restore", tmp_path / "backup", "--replace")
        assert status == 1 and "in use" in " ".join(err.split())
    status, out, err = run("backup", "verify", tmp_path / "backup")
    assert status == 0 and "whole" in out, err
    status, _, err = run("backup", "restore", tmp_path / "backup")
    assert status == 1 and "--replace" in err
    status, out, err = run("backup", "restore", tmp_path / "backup", "--replace")
    assert status == 0, err
    assert "1 images were left out" in " ".join(out.split())
    with running_service(tmp_path / "data", embedded=True) as service:
        service.embed()
        results = service.found({"query": {"text": "a man"}})["results"]
        assert [result["image"]["external_id"] for result in results] == ["first"]
