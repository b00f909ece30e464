"""A model upgrade over HTTP and on the command line, with cheap encoders: from the file to the rollback and the end."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from indexer import worker
from indexer.database import transaction
from indexer.snapshots import FOLDER
from service import cli
from tests.fake_encoder import GridEncoder, GridFiles
from tests.service.conftest import Json, Service, picture, problem, running_service, wait_until

OLD, NEW = GridEncoder(48).checkpoint_id, GridEncoder(96).checkpoint_id
ASK = {"query": {"text": "a man in red"}, "limit": 5}
OCTETS = {"Content-Type": "application/octet-stream"}
PATH = "/api/v1/checkpoints"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Six images, embedded with the old checkpoint."""
    with running_service(tmp_path, files=GridFiles(tmp_path / "files")) as running:
        for seed in range(6):
            running.added(picture(seed))
        embed(running)
        wait_until(lambda: running.found(ASK)["candidates"] == 6, "all are found")
        yield running


def embed(service: Service) -> None:
    """What a worker that serves every checkpoint does, until nothing is left."""
    stop, load = threading.Event(), service.context.files.load
    worker.run(service.database, service.context.store, None, service.settings, stop, once=True, load=load)


def register(service: Service, content: str = NEW) -> Json:
    response = service.http.post(PATH, content=content.encode(), headers=OCTETS)
    assert response.status_code == 201, response.text
    answer: Json = response.json()
    assert response.headers["Location"] == f"{PATH}/{answer['id']}"
    return answer


def act(service: Service, id: str, action: str, status: int = 200, **body: object) -> Json:
    given = None if action == "retire" else body
    response = service.http.post(f"{PATH}/{id}/{action}", json=given)
    assert response.status_code == status, response.text
    return problem(response) if status >= 400 else dict(response.json())


def follows(service: Service, id: str) -> None:
    wait_until(lambda: bool(service.found(ASK)["checkpoint_id"] == id), f"{id} answers")


def states(service: Service) -> dict[str, str]:
    return {one["id"]: one["state"] for one in service.http.get(PATH).json()["checkpoints"]}


def test_an_upgrade_from_the_file_to_the_rollback_and_the_end(service: Service) -> None:
    before = service.found(ASK)
    registered = register(service)
    assert registered["state"] == "candidate" and registered["coverage"]["pending"] == 6
    assert registered["coverage"]["seconds_left"] is None
    refused = act(service, NEW, "activate", 409)
    assert refused["code"] == "gate_refused" and "6 images that are found now" in refused["detail"]
    assert service.found(ASK)["checkpoint_id"] == OLD

    embed(service)
    report = act(service, NEW, "gate")
    assert report["passed"] and report["overlap"]["text"]["queries"] == 1
    assert states(service) == {OLD: "active", NEW: "candidate"}, "the gate changes nothing"
    activated = act(service, NEW, "activate")
    assert activated["state"] == "active" and activated["previous_id"] == OLD and activated["gate"]["passed"]
    follows(service, NEW)
    after = service.found(ASK)
    assert len(after["results"]) == 5 and after["pending"] == 0
    again = service.http.get(f"/api/v1/searches/{before['id']}").json()
    assert again["checkpoint_id"] == OLD and again["results"] == before["results"], "frozen, as it was"
    assert service.http.get("/readyz").status_code == 200

    later = service.added(picture(50))
    embed(service)
    assert act(service, NEW, "rollback", reason="it is worse")["id"] == OLD
    follows(service, OLD)
    found = service.found({"query": {"image": {"image_id": later}}, "limit": 1})
    assert found["results"][0]["image_id"] == later, "what was added meanwhile is found as well"
    assert act(service, NEW, "rollback", 409)["code"] == "checkpoint_conflict", "twice is once"

    on_disk = service.settings.data_dir / FOLDER / NEW
    on_disk.mkdir(parents=True, exist_ok=True)
    (on_disk / "0.block").touch()
    retired = act(service, NEW, "retire")
    assert not on_disk.exists()
    assert retired["state"] == "retired" and retired["coverage"] is None
    assert isinstance(service.context.files, GridFiles) and service.context.files.removed == [NEW]
    assert service.http.get(f"/api/v1/searches/{after['id']}").json()["results"] == after["results"]
    detail = service.http.get(f"{PATH}/{NEW}").json()
    kinds = ["retired", "rolled_back", "activated", "gate", "gate", "gate", "registered"]
    assert [event["kind"] for event in detail["events"]] == kinds
    assert detail["events"][1]["detail"]["reason"] == "it is worse"


def test_what_is_refused_can_be_forced_for_a_reason_that_is_kept(service: Service) -> None:
    register(service)
    assert act(service, NEW, "activate", 422, force=True)["code"] == "invalid_request"
    act(service, NEW, "activate", force=True, reason="the old one is unusable")
    follows(service, NEW)
    assert service.found(ASK)["pending"] == 6, "said in every answer"
    (event,) = [e for e in service.http.get(f"{PATH}/{NEW}").json()["events"] if e["kind"] == "activated"]
    assert event["detail"]["forced"] is True and event["detail"]["reason"] == "the old one is unusable"
    assert event["detail"]["missing"] == 6 and event["detail"]["refusals"]


def test_a_loss_can_be_allowed(service: Service) -> None:
    register(service)
    embed(service)
    service.added(picture(60))
    own = GridEncoder(48)
    worker.run(service.database, service.context.store, own, service.settings, threading.Event(), once=True)
    assert "1 images" in act(service, NEW, "activate", 409)["detail"]
    assert act(service, NEW, "activate", allow_missing=1)["gate"]["warnings"]


def test_a_rollback_that_would_lose_images_is_refused(service: Service) -> None:
    register(service)
    embed(service)
    act(service, NEW, "activate")
    follows(service, NEW)
    service.added(picture(70))
    own = GridEncoder(96)
    worker.run(service.database, service.context.store, own, service.settings, threading.Event(), once=True)
    assert act(service, NEW, "rollback", 409)["code"] == "gate_refused"
    assert act(service, NEW, "rollback", allow_missing=1)["id"] == OLD


@pytest.mark.parametrize(
    ("id", "action", "status", "code"),
    [
        ("nope", "activate", 404, "not_found"),
        ("nope", "retire", 404, "not_found"),
        (OLD, "activate", 409, "checkpoint_conflict"),
        (OLD, "gate", 409, "checkpoint_conflict"),
        (OLD, "rollback", 409, "checkpoint_conflict"),
        (OLD, "retire", 409, "checkpoint_conflict"),
        ("a b", "gate", 422, "invalid_request"),
    ],
)
def test_what_cannot_be_done_is_a_problem(service: Service, id: str, action: str, status: int, code: str) -> None:
    assert act(service, id, action, status)["code"] == code


def test_a_file_that_is_none_is_refused_and_leaves_nothing(service: Service) -> None:
    response = service.http.post(PATH, content=b"no checkpoint", headers=OCTETS)
    assert problem(response)["code"] == "invalid_checkpoint" and "The file sent" in problem(response)["detail"]
    assert service.http.post(PATH, json={}).status_code == 415
    assert isinstance(service.context.files, GridFiles) and not list(service.context.files.folder.iterdir())
    assert states(service) == {OLD: "active"}


def test_a_replica_that_cannot_follow_goes_on_answering_and_says_so(service: Service) -> None:
    register(service)
    embed(service)
    act(service, NEW, "activate")
    follows(service, NEW)
    files = service.context.files
    assert isinstance(files, GridFiles)
    files.lost.add(OLD)
    assert act(service, NEW, "rollback", 503)["code"] == "checkpoint_missing", "not for this replica to begin with"
    with transaction(service.database.engine) as session:  # but another one has done it
        from indexer import checkpoints

        checkpoints.roll_back(session, NEW, OLD, {})
    wait_until(lambda: service.http.get("/readyz").status_code == 503, "it says so")
    (check,) = [c for c in service.http.get("/readyz").json()["checks"] if c["name"] == "checkpoint"]
    assert f"{NEW} still answers instead of {OLD}" in check["detail"]
    assert service.found(ASK)["checkpoint_id"] == NEW


def test_a_replica_on_a_retired_checkpoint_answers_no_filtered_half(service: Service) -> None:
    """It was retired while this replica could not load the one that is active: 503, not a part of the gallery."""
    register(service)
    embed(service)
    files = service.context.files
    assert isinstance(files, GridFiles)
    service.context.succession.stop()
    act(service, NEW, "activate")
    act(service, OLD, "retire")
    response = service.search(ASK)
    assert response.status_code == 503 and problem(response)["code"] == "checkpoint_replaced"
    service.context.succession.start(0.01)
    wait_until(lambda: service.search(ASK).status_code == 201, "the other one is loaded")


def test_the_next_start_loads_what_is_active_not_what_is_configured(service: Service, tmp_path: Path) -> None:
    register(service)
    embed(service)
    act(service, NEW, "activate")
    files = GridFiles(tmp_path / "files")
    from service.upgrades import open_active

    assert open_active(service.database, service.settings, files, None).checkpoint_id == NEW


# -------------------------------------------------------------------------------------------------------- command line

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `person-search checkpoint ARGUMENTS` against the service; gives exit status, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> tuple[int, str, str]:
        address = ["--url", str(service.http.base_url)]
        monkeypatch.setattr(sys, "argv", ["person-search", "checkpoint", *map(str, arguments), *address])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), " ".join(printed.out.split()), " ".join(printed.err.split())

    return call


def test_the_whole_way_on_the_command_line(service: Service, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "new.safetensors"
    file.write_text(NEW)
    status, out, _ = run("register", file)
    assert status == 0 and f"{NEW} is registered. 0 of 6 images are embedded; remaining: 6 images, no worker" in out
    status, out, _ = run("gate", NEW)
    assert status == 1 and "refused: 6 images" in out and "waits for a worker" in out
    status, _, err = run("activate", NEW)
    assert status == 1 and "error: 6 images that are found now" in err
    embed(service)
    queries = tmp_path / "queries.jsonl"
    queries.write_text(json.dumps({"text": "a man", "identity": "nobody"}) + "\n")
    status, out, _ = run("gate", NEW, "--queries", queries)
    assert status == 0 and "The gate lets it pass." in out and "labelled texts were not used" in out
    status, out, _ = run("activate", NEW, "--reason", "it knows more words")
    assert status == 0 and f"{NEW} is active" in out
    status, out, _ = run("status", NEW)
    assert status == 0 and "is active. 6 of 6 images are embedded; remaining: none." in out
    assert "activated: it knows more words" in out
    status, out, _ = run("list")
    assert status == 0 and "6 of 6" in out and "candidate" in out
    status, out, _ = run("rollback")
    assert status == 0 and f"{OLD} is active again instead of {NEW}." in out
    status, out, _ = run("retire", NEW)
    assert status == 0 and f"{NEW} is retired" in out
    assert states(service) == {OLD: "active", NEW: "retired"}


def test_mistakes_are_sentences(run: Run, tmp_path: Path) -> None:
    status, _, err = run("register", tmp_path / "absent")
    assert status == 1 and "There is no checkpoint at" in err
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{")
    status, _, err = run("gate", NEW, "--queries", broken)
    assert status == 1 and "cannot be read as JSON lines" in err
    status, _, err = run("activate", NEW, "--force")
    assert status == 1 and "add a reason" in err
