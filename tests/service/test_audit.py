"""The audit over HTTP and from the command line, and that every act of the service is in it."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from indexer import audit, audit_anchors, cases, gallery
from indexer.audit import Purpose, Wanted
from indexer.database import transaction
from indexer.errors import CaseClosed
from service import cli, purpose
from service.errors import Refusal
from service.principals import OPEN
from service.settings import ServiceSettings
from tests.fake_encoder import GridFiles
from tests.postgres_fixtures import fresh_database
from tests.service.conftest import Json, Service, picture, problem, running_service, wait_until, zipped
from tests.service.people import ANNA, BERT, DORA, client, people_known

PATH = "/api/v1/audit-events"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with people_known(), running_service(folder, files=GridFiles(folder / "files")) as running:
        yield running


@pytest.fixture(scope="module")
def auditor(service: Service) -> Iterator[httpx.Client]:
    with client(service, DORA) as opened:
        yield opened


def read(auditor: httpx.Client, **filters: Any) -> list[Json]:
    answer = auditor.get(PATH, params=filters)
    assert answer.status_code == 200, answer.text
    found: list[Json] = answer.json()["events"]
    return found


def last(service: Service) -> audit.Event:
    with transaction(service.database.engine) as session:
        return audit.events(session, Wanted(), limit=1)[0]


def test_every_act_of_the_service_is_one_row(service: Service) -> None:
    """Name, call, what it is about; in the order in which they can be done."""
    http, seen = service.http, []

    def act(action: str, object: str | None, do: Callable[[], httpx.Response]) -> httpx.Response:
        before = last(service).seq if seen else 0
        answer = do()
        assert answer.is_success, answer.text
        row = last(service)
        assert (row.action, row.object_kind) == (action, object)
        assert row.seq > before and (row.actor_kind, row.actor_name) == ("open", "open")
        seen.append(action)
        return answer

    act("camera.create", "camera", lambda: http.post("/api/v1/cameras", json={"id": "north"}))
    image = act("image.add", "image", lambda: service.add(picture(1), {"camera_id": "north"})).json()["id"]
    assert last(service).object_id == image and last(service).detail == {"duplicate": False}
    full = f"/api/v1/images/{image}/content"
    act("image.view", "image", lambda: http.get(full))
    views = last(service).seq
    http.get(f"{full}?variant=thumb")
    http.get(full, headers={"If-None-Match": http.get(full).headers["ETag"]})
    assert last(service).seq == views + 1, "a thumbnail, and what the browser has already, are no looks"
    archive, headers = zipped({"a.png": picture(2)}, [{"file": "a.png"}]), {"Content-Type": "application/zip"}
    ingestion = act(
        "ingestion.create", "ingestion", lambda: http.post("/api/v1/ingestions", content=archive, headers=headers)
    ).json()["id"]
    wait_until(lambda: http.get(f"/api/v1/ingestions/{ingestion}").json()["state"] == "done", "it is taken in")
    service.embed()
    with transaction(service.database.engine) as session:
        waiting = gallery.create_ingestion(session, "zip over HTTP")
        session.execute(text("UPDATE embedding SET state = 'failed', vector = NULL, seq = NULL"))
    act("ingestion.cancel", "ingestion", lambda: http.post(f"/api/v1/ingestions/{waiting}/cancel"))
    act("ingestion.retry", "ingestion", lambda: http.post(f"/api/v1/ingestions/{ingestion}/retry"))
    assert last(service).object_id == ingestion
    hold = act(
        "hold.place",
        "legal_hold",
        lambda: http.post("/api/v1/legal-holds", json={"reason": "order 1", "camera_id": "north"}),
    ).json()["id"]
    assert last(service).reason == "order 1"
    act("hold.lift", "legal_hold", lambda: http.delete(f"/api/v1/legal-holds/{hold}"))
    act("retention.set", None, lambda: http.put("/api/v1/retention-policies", json={"days": 9000}))
    act("retention.remove", None, lambda: http.delete("/api/v1/retention-policies"))
    act("image.delete", "image", lambda: http.delete(f"/api/v1/images/{image}"))
    assert last(service).object_id == image
    body = {"identity": "nobody at all", "reason": "to be sure"}
    act("erasure.create", "erasure", lambda: http.post("/api/v1/erasures", json=body))
    assert last(service).detail["images"] == 0 and "nobody" not in json.dumps(last(service).as_json())

    new, octets = "grid000000000024", {"Content-Type": "application/octet-stream"}
    path = "/api/v1/checkpoints"
    act("checkpoint.register", "checkpoint", lambda: http.post(path, content=new.encode(), headers=octets))
    act("checkpoint.gate", "checkpoint", lambda: http.post(f"{path}/{new}/gate", json={}))
    forced = {"force": True, "allow_missing": 9, "reason": "to try it"}
    act("checkpoint.activate", "checkpoint", lambda: http.post(f"{path}/{new}/activate", json=forced))
    assert (last(service).object_id, last(service).reason) == (new, "to try it")
    act("checkpoint.roll_back", "checkpoint", lambda: http.post(f"{path}/{new}/rollback", json=forced))
    act("checkpoint.retire", "checkpoint", lambda: http.post(f"{path}/{new}/retire"))
    assert last(service).checkpoint_id == new


def test_acts_that_were_refused_are_no_acts(service: Service) -> None:
    last_one = last(service).seq if service.http.post("/api/v1/cameras", json={"id": "once"}).is_success else 0
    assert problem(service.http.post("/api/v1/cameras", json={"id": "once"}))["code"] == "camera_exists"
    assert problem(service.http.delete("/api/v1/legal-holds/" + str(UUID(int=3))))["code"] == "not_found"
    assert problem(service.http.get(f"/api/v1/images/{UUID(int=3)}/content"))["code"] == "not_found"
    assert last(service).seq == last_one


def test_the_audit_is_read_by_filters_and_pages(service: Service, auditor: httpx.Client) -> None:
    with client(service, ANNA) as anna:
        image = service.added(picture(20))
        for _ in range(5):
            assert anna.get(f"/api/v1/images/{image}/content").status_code == 200
    views = read(auditor, actor="anna")
    assert [row["action"] for row in views] == ["image.view"] * 5
    assert views[0]["actor"] == {"kind": "user", "id": str(ANNA.id), "name": "anna"}
    assert read(auditor, actor=str(ANNA.id)) == views
    assert read(auditor, object_kind="image", object_id=image, action="image.view") == views
    assert read(auditor, since=views[-1]["at"], until=views[0]["at"], actor="anna") == views[1:]
    pages: list[Json] = []
    before: dict[str, Any] = {}
    while True:
        page = auditor.get(PATH, params={"actor": "anna", "limit": 2, **before}).json()
        pages += page["events"]
        if page["next_before"] is None:
            break
        before = {"before": page["next_before"]}
    assert pages == views
    reading = read(auditor, action="audit.read")
    assert {row["actor"]["name"] for row in reading} == {"dora"}, "who reads the audit is in it"
    assert reading[1]["detail"]["by"] == ["actor"]
    for wrong in ({"since": "1234567"}, {"since": "2026-09-01T00:00:00"}, {"before": 0}, {"who": "anna"}):
        assert problem(auditor.get(PATH, params=wrong))["code"] == "invalid_request"


def test_only_auditors_read_it_and_they_see_no_images(service: Service, auditor: httpx.Client) -> None:
    image = service.added(picture(21))
    with client(service, ANNA) as anna:
        for path in (PATH, f"{PATH}/verification", f"{PATH}/export"):
            assert problem(anna.get(path))["code"] == "forbidden"
    for path in (f"/api/v1/images/{image}/content", f"/api/v1/images/{image}/content?variant=thumb", "/api/v1/cases"):
        assert problem(auditor.get(path))["code"] == "forbidden"


def test_it_is_verified_and_exported_over_http_and_from_the_command_line(
    service: Service,
    auditor: httpx.Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["person-search", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out + printed.err

    monkeypatch.setenv("PERSON_SEARCH_DATABASE_URL", service.database.url)
    monkeypatch.setenv("PERSON_SEARCH_DATA_DIR", str(service.settings.data_dir))
    service.camera("south")
    told = auditor.get(f"{PATH}/verification").json()
    assert told["sound"] and told["fault"] is None and told["rows"] == told["head"]["seq"]
    assert auditor.get(f"{PATH}/verification").json()["anchors"] >= 1, "the last one left its head on the disk"
    status, out = run("audit", "verify")
    assert status == 0 and "is whole" in out

    exported = auditor.get(f"{PATH}/export")
    assert exported.headers["Content-Type"].startswith("application/x-ndjson")
    lines = exported.text.splitlines()
    assert json.loads(lines[-2])["action"] == "audit.export"
    assert json.loads(lines[-1])["head"] == {"seq": len(lines) - 1, "hash": json.loads(lines[-2])["hash"]}
    (tmp_path / "over-http.jsonl").write_text(exported.text)
    assert run("audit", "verify", "--file", tmp_path / "over-http.jsonl")[0] == 0
    status, out = run("audit", "export", tmp_path / "own.jsonl")
    assert status == 0, out
    assert (tmp_path / "own.jsonl").read_text().startswith("\n".join(lines[:-1]))
    status, out = run("audit", "export")
    assert status == 0 and out.count("\n") > len(lines)
    (tmp_path / "own.jsonl").write_text(exported.text.replace('"camera.create"', '"camera.delete"', 1))
    status, out = run("audit", "verify", "--file", tmp_path / "own.jsonl", "--json")
    assert status == 1 and json.loads(out)["fault"]["kind"] == "changed"
    assert run("audit", "verify", "--file", tmp_path / "absent.jsonl")[0] != 0

    with transaction(service.database.engine) as session:
        session.execute(text("ALTER TABLE audit_event DISABLE TRIGGER USER"))
        session.execute(text("UPDATE audit_event SET actor_name = 'nobody' WHERE seq = 2"))
    try:
        told = auditor.get(f"{PATH}/verification").json()
        assert not told["sound"] and (told["fault"]["seq"], told["fault"]["kind"]) == (2, "changed")
        status, out = run("audit", "verify")
        assert status == 1 and "row 2: changed" in out
    finally:
        with transaction(service.database.engine) as session:
            session.execute(text("UPDATE audit_event SET actor_name = 'open' WHERE seq = 2"))
            session.execute(text("ALTER TABLE audit_event ENABLE TRIGGER USER"))
    told = auditor.get(f"{PATH}/verification").json()
    assert told["sound"], told


def test_what_cannot_be_recorded_is_not_done(tmp_path: Path) -> None:
    with fresh_database() as database, running_service(tmp_path, database=database) as service:
        service.camera("north")
        image = service.added(picture(1))
        with transaction(database.engine) as session:
            session.execute(text("ALTER TABLE audit_head DISABLE TRIGGER USER"))
            session.execute(text("DELETE FROM audit_head"))
        failures = audit.write_failures
        refused = [
            service.http.post("/api/v1/cameras", json={"id": "south"}),
            service.add(picture(2)),
            service.http.get(f"/api/v1/images/{image}/content"),
            service.http.delete(f"/api/v1/images/{image}"),
            service.http.put("/api/v1/retention-policies", json={"days": 3}),
            service.http.post("/api/v1/cases", json={"title": "a case"}),
        ]
        for answer in refused:
            body = problem(answer)
            assert (body["status"], body["code"]) == (503, "audit_unavailable") and answer.headers["Retry-After"]
        assert audit.write_failures >= failures + len(refused)
        assert [camera["id"] for camera in service.http.get("/api/v1/cameras").json()["cameras"]] == ["north"]
        assert service.http.get(f"/api/v1/images/{image}").status_code == 200
        assert service.http.get("/api/v1/retention-policies").json() == {"retention_policies": []}
        assert service.http.get("/api/v1/erasures").json()["erasures"] == []
        assert service.http.get("/api/v1/cases").json()["cases"] == []
        # That the chain is broken can still be read.
        told = service.http.get(f"{PATH}/verification").json()
        assert not told["sound"] and told["fault"]["seq"] == 1


def test_each_start_writes_down_where_the_chain_is(tmp_path: Path) -> None:
    anchors = tmp_path / audit_anchors.NAME
    with fresh_database() as database:
        with running_service(tmp_path, database=database) as service:
            service.camera("north")
            seq = last(service).seq
        with running_service(tmp_path, database=database):
            assert seq in [anchor.head.seq for anchor in audit_anchors.read(anchors)]


# ----------------------------------------------------------------------------------------------------------- purpose


def test_the_policy_says_whether_a_search_needs_a_purpose() -> None:
    def settings(policy: str) -> ServiceSettings:
        return ServiceSettings(purpose_policy=policy)

    why, nothing = Purpose(reason="missing person"), Purpose(reason="   ")
    assert ServiceSettings().purpose_policy == "optional"
    assert purpose.check(settings("off"), why) is None
    assert purpose.check(settings("optional"), None) is None and purpose.check(settings("optional"), nothing) is None
    assert purpose.check(settings("optional"), why) == purpose.check(settings("required"), why) == why
    assert purpose.check(settings("required"), Purpose(UUID(int=1))) == Purpose(UUID(int=1))
    for missing in (None, Purpose(), nothing):
        with pytest.raises(Refusal, match="Say why") as refused:
            purpose.check(settings("required"), missing)
        assert refused.value.code == "purpose_required"


def test_a_case_that_is_named_is_open_and_the_caller_s(service: Service) -> None:
    with transaction(service.database.engine) as session:
        case = cases.create(session, ANNA.actor, "a case")
        purpose.check_case(session, ANNA, Purpose(case.id))
        purpose.check_case(session, BERT, Purpose(reason="without a case"))
        purpose.check_case(session, BERT, None)
        for caller, id in ((BERT, case.id), (OPEN, case.id), (ANNA, UUID(int=5))):
            with pytest.raises(Refusal, match="There is no case") as refused:
                purpose.check_case(session, caller, Purpose(id))
            assert (refused.value.code, refused.value.errors[0].pointer) == ("not_found", "/purpose/case_id")
        cases.change(session, case.id, ANNA.actor, {"state": "closed"})
        with contextlib.suppress(CaseClosed):
            purpose.check_case(session, ANNA, Purpose(case.id))
            pytest.fail("a closed case is no purpose")
