"""Case work over HTTP: members, items, notes, verdicts by several people, exports that a stranger can check."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from indexer import audit, case_exports, cases
from indexer.audit import Wanted
from indexer.cases import VerdictRecord, Word, outcome
from indexer.database import transaction
from tests.service.conftest import Json, Service, picture, problem, running_service
from tests.service.people import ANNA, BERT, CARL, DORA, EDDA, NORTH, ROBOT, client, people_known

ROOT = Path(__file__).parents[2]
PATH = "/api/v1/cases"


@dataclass
class World:
    """A service with six images of two cameras, and everybody who works with it."""

    service: Service
    anna: httpx.Client
    bert: httpx.Client
    carl: httpx.Client
    dora: httpx.Client
    edda: httpx.Client
    nora: httpx.Client
    robot: httpx.Client
    images: list[str]

    def search(self, text: str = "a man in a red jacket", by: httpx.Client | None = None, **more: Any) -> Json:
        """A search of Anna's, if nobody else is named: results of others are nobody's to put into a case."""
        answer = (by or self.anna).post("/api/v1/searches", json={"query": {"text": text}, **more})
        assert answer.status_code == 201, answer.text
        found: Json = answer.json()
        return found

    def case(self, *members: Any, title: str = "missing person") -> str:
        made = self.anna.post(PATH, json={"title": title})
        assert made.status_code == 201, made.text
        for member in members:
            body = {"person_id": str(member.id), "name": member.name}
            assert self.anna.post(f"{made.headers['Location']}/members", json=body).status_code == 200
        return str(made.headers["Location"])

    def put(self, case: str, result: Json, search: Json, note: str | None = None) -> Json:
        body = {"search_id": search["id"], "image_id": result["image_id"], "note": note}
        answer = self.anna.post(f"{case}/items", json=body)
        assert answer.status_code == 201, answer.text
        item: Json = answer.json()
        return item

    def last(self) -> audit.Event:
        with transaction(self.service.database.engine) as session:
            return audit.events(session, Wanted(), limit=1)[0]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        stack.enter_context(people_known())
        service = stack.enter_context(running_service(tmp_path_factory.mktemp("service")))
        service.camera("north", "south")
        images = [
            service.added(picture(n), external_id=f"ext-{n}", camera_id=("north", "south")[n % 2]) for n in range(6)
        ]
        service.embed()
        everybody = [stack.enter_context(client(service, p)) for p in (ANNA, BERT, CARL, DORA, EDDA, NORTH, ROBOT)]
        yield World(service, *everybody, images)


# ------------------------------------------------------------------------------------------------------------- cases


def test_a_case_exists_for_its_members_only(world: World) -> None:
    case = world.case(BERT)
    shown = world.bert.get(case).json()
    assert (shown["title"], shown["state"], shown["created_by"]) == ("missing person", "open", "anna")
    assert [member["name"] for member in shown["members"]] == ["anna", "bert"]
    assert shown["id"] in [one["id"] for one in world.bert.get(PATH).json()["cases"]]
    assert world.carl.get(PATH).json() == {"cases": [], "next_before": None}
    item = f"{case}/items/{uuid4()}"
    for method, path, body in [
        ("GET", case, None),
        ("PATCH", case, {"state": "closed"}),
        ("POST", f"{case}/members", {"person_id": str(CARL.id), "name": "carl"}),
        ("DELETE", f"{case}/members/{BERT.id}", None),
        ("GET", f"{case}/items", None),
        ("POST", f"{case}/items", {"search_id": str(uuid4()), "image_id": str(uuid4())}),
        ("GET", item, None),
        ("PATCH", item, {"note": "mine"}),
        ("DELETE", item, None),
        ("POST", f"{item}/verdicts", {"verdict": "match"}),
        ("GET", f"{case}/notes", None),
        ("POST", f"{case}/notes", {"note": "mine"}),
        ("POST", f"{case}/exports", {}),
        ("GET", f"{case}/exports", None),
        ("GET", f"{case}/exports/{uuid4()}", None),
        ("GET", f"{case}/exports/{uuid4()}/content", None),
    ]:
        answer = world.carl.request(method, path, json=body)
        assert problem(answer)["code"] == "not_found", (method, path)
        assert "case" in answer.json()["detail"], "a stranger does not learn whether there is one"
        judging = path.endswith("verdicts")
        if not judging:
            assert problem(world.edda.request(method, path, json=body))["code"] == "forbidden", (
                "operators have no cases"
            )
        assert problem(world.dora.request(method, path, json=body))["code"] == "forbidden", "nor have auditors"


def test_members_come_and_go_but_one_stays(world: World) -> None:
    case = world.case()
    nameless = problem(world.anna.post(f"{case}/members", json={"person_id": str(BERT.id)}))
    assert nameless["errors"][0]["pointer"] == "/name", "an open service has no accounts to take the name from"
    body = {"person_id": str(BERT.id), "name": "bert"}
    for _ in range(2):
        members = world.anna.post(f"{case}/members", json=body).json()["members"]
        assert [member["name"] for member in members] == ["anna", "bert"]
    assert world.bert.delete(f"{case}/members/{ANNA.id}").status_code == 204
    assert (world.last().action, world.last().object_id) == ("case.member_remove", str(ANNA.id))
    assert problem(world.anna.get(case))["code"] == "not_found"
    assert problem(world.bert.delete(f"{case}/members/{CARL.id}"))["code"] == "not_found"
    assert problem(world.bert.delete(f"{case}/members/{BERT.id}"))["code"] == "case_conflict"


def test_a_closed_case_can_be_read_and_opened_again(world: World) -> None:
    case, search = world.case(BERT), world.search()
    item = world.put(case, search["results"][0], search)
    path = f"{case}/items/{item['id']}"
    closed = world.anna.patch(case, json={"state": "closed"}).json()
    assert closed["state"] == "closed" and closed["closed_at"]
    for method, where, body in [
        ("POST", f"{case}/members", {"person_id": str(CARL.id), "name": "carl"}),
        ("DELETE", f"{case}/members/{BERT.id}", None),
        ("POST", f"{case}/items", {"search_id": search["id"], "image_id": search["results"][1]["image_id"]}),
        ("PATCH", path, {"note": "x"}),
        ("DELETE", path, None),
        ("POST", f"{path}/verdicts", {"verdict": "match"}),
        ("POST", f"{case}/notes", {"note": "x"}),
    ]:
        assert problem(world.anna.request(method, where, json=body))["code"] == "case_closed", (method, where)
    assert world.anna.get(path).json() == item
    listed = world.anna.get(PATH, params={"state": "closed"}).json()["cases"]
    assert [one["id"] for one in listed] == [closed["id"]]
    opened = world.anna.patch(case, json={"state": "open", "title": "found"}).json()
    assert (opened["state"], opened["title"], opened["closed_at"]) == ("open", "found", None)
    assert world.anna.patch(path, json={"note": "x"}).json()["note"] == "x"
    assert problem(world.anna.patch(case, json={}))["code"] == "invalid_request"


def test_cases_and_items_come_in_pages(world: World) -> None:
    made = [world.case(title=f"case {n}").rpartition("/")[2] for n in range(5)]
    first = world.anna.get(PATH, params={"limit": 2}).json()
    second = world.anna.get(PATH, params={"limit": 2, "before": first["next_before"]}).json()
    assert [case["id"] for case in (*first["cases"], *second["cases"])] == made[:0:-1]
    case, search = f"{PATH}/{made[0]}", world.search()
    added = [world.put(case, result, search)["id"] for result in search["results"][:5]]
    found, after = [], {}
    while after is not None:
        page = world.anna.get(f"{case}/items", params={"limit": 2, **after}).json()
        found += [item["id"] for item in page["items"]]
        after = {"after": page["next_after"]} if page["next_after"] else None
    assert found == added
    assert world.anna.get(case).json()["items"] == 5


# ------------------------------------------------------------------------------------------------------------- items


def test_an_item_keeps_what_the_search_said_of_it(world: World) -> None:
    case, search = world.case(), world.search(limit=4)
    result = search["results"][2]
    item = world.put(case, result, search, "the same bag")
    for name in ("image_id", "rank", "similarity", "band", "image"):
        assert item[name] == result[name], name
    assert (item["search_id"], item["checkpoint_id"]) == (search["id"], search["checkpoint_id"])
    assert (item["note"], item["added_by"], item["outcome"], item["verdicts"]) == (
        "the same bag",
        "anna",
        "undecided",
        [],
    )
    body = {"search_id": world.search()["id"], "image_id": result["image_id"]}
    again = world.anna.post(f"{case}/items", json=body)
    assert again.status_code == 200 and again.json() == item, "an image is in a case once"
    changed = world.anna.patch(f"{case}/items/{item['id']}", json={"note": None}).json()
    assert changed == {**item, "note": None}
    acts = [world.last()]
    assert world.anna.delete(f"{case}/items/{item['id']}").status_code == 204
    acts.append(world.last())
    assert [(act.action, act.object_id, str(act.case_id)) for act in acts] == [
        ("case.item_change", item["id"], case.rpartition("/")[2]),
        ("case.item_remove", item["id"], case.rpartition("/")[2]),
    ]
    assert problem(world.anna.get(f"{case}/items/{item['id']}"))["code"] == "not_found"


def test_only_results_of_kept_searches_become_items(world: World) -> None:
    case = world.case()
    few = world.search(filter={"external_id": {"eq": "ext-0"}})
    others = [image for image in world.images if image != few["results"][0]["image_id"]]
    for body in (
        {"search_id": str(uuid4()), "image_id": world.images[0]},
        {"search_id": few["id"], "image_id": others[0]},
        {"search_id": few["id"], "image_id": str(uuid4())},
        {"search_id": world.search(by=world.bert)["id"], "image_id": world.images[0]},
    ):
        assert problem(world.anna.post(f"{case}/items", json=body))["code"] == "not_found"
    with transaction(world.service.database.engine) as session:
        session.execute(text("UPDATE search SET expires_at = now() WHERE id = :id"), {"id": few["id"]})
    body = {"search_id": few["id"], "image_id": few["results"][0]["image_id"]}
    assert problem(world.anna.post(f"{case}/items", json=body))["code"] == "expired"
    verdict = f"/api/v1/searches/{few['id']}/results/{body['image_id']}/verdicts"
    assert problem(world.anna.post(verdict, json={"verdict": "match"}))["code"] == "expired"


def test_whoever_may_not_see_a_camera_sees_only_that_there_is_an_item(world: World) -> None:
    case, search = world.case(NORTH), world.search()
    south = next(result for result in search["results"] if result["image"]["camera_id"] == "south")
    north = next(result for result in search["results"] if result["image"]["camera_id"] == "north")
    hidden, seen = world.put(case, south, search, "secret"), world.put(case, north, search)
    first, second = world.nora.get(f"{case}/items").json()["items"]
    assert (first["state"], first["image_id"], first["image"], first["note"]) == ("withheld", None, None, None)
    assert first["similarity"] is None and second == seen
    assert "ext-" not in json.dumps(first)
    path = f"{case}/items/{hidden['id']}"
    for answer in (
        world.nora.patch(path, json={"note": "x"}),
        world.nora.delete(path),
        world.nora.post(f"{path}/verdicts", json={"verdict": "match"}),
        world.nora.post(f"{case}/items", json={"search_id": search["id"], "image_id": south["image_id"]}),
        world.nora.post(
            f"/api/v1/searches/{search['id']}/results/{south['image_id']}/verdicts", json={"verdict": "match"}
        ),
    ):
        assert problem(answer)["code"] == "not_found"
    exported = world.nora.post(f"{case}/exports", json={}).json()
    assert exported["images"] == 1
    whole = world.anna.post(f"{case}/exports", json={}).json()
    assert whole["images"] == 2
    assert world.anna.get(f"{case}/exports").json()["exports"] == [whole, exported]
    assert world.nora.get(f"{case}/exports").json()["exports"] == [exported]
    assert problem(world.nora.get(whole["content"]))["code"] == "not_found", "nor by way of somebody else's export"
    assert world.anna.get(exported["content"]).status_code == 200


def test_notes_on_the_case(world: World) -> None:
    case = world.case(BERT)
    assert world.anna.post(f"{case}/notes", json={"note": "first\nsecond line"}).status_code == 201
    assert world.bert.post(f"{case}/notes", json={"note": "from bert"}).json()["name"] == "bert"
    listed = world.anna.get(f"{case}/notes").json()["notes"]
    assert [(note["name"], note["note"]) for note in listed] == [("anna", "first\nsecond line"), ("bert", "from bert")]
    assert "bert" not in json.dumps(dict(world.last().detail)), "the audit has no words of a note"
    for note in ("", "x" * 2001, "a\x00b"):
        assert problem(world.anna.post(f"{case}/notes", json={"note": note}))["code"] == "invalid_request"


# ---------------------------------------------------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("said", "needed", "together"),
    [
        ([], 2, "undecided"),
        ([("a", "match")], 2, "undecided"),
        ([("a", "match")], 1, "confirmed"),
        ([("a", "match"), ("b", "match")], 2, "confirmed"),
        ([("a", "match"), ("a", "match")], 2, "undecided"),
        ([("a", "match"), ("b", "match")], 3, "undecided"),
        ([("a", "match"), ("b", "unsure")], 2, "undecided"),
        ([("a", "match"), ("b", "match"), ("c", "unsure")], 2, "confirmed"),
        ([("a", "match"), ("b", "match"), ("c", "no_match")], 2, "conflicting"),
        ([("a", "match"), ("b", "no_match")], 1, "conflicting"),
        ([("a", "no_match"), ("b", "no_match")], 2, "rejected"),
        ([("a", "match"), ("machine", "match")], 2, "undecided"),
        ([("a", "match"), ("b", "match"), ("machine", "no_match")], 2, "conflicting"),
    ],
)
def test_what_several_verdicts_mean_together(said: list[tuple[str, Word]], needed: int, together: str) -> None:
    records = [
        VerdictRecord(
            *(UUID(int=1), UUID(int=2), UUID(bytes=name.encode().ljust(16))),
            *("api_key" if name == "machine" else "user", name, word, None, datetime.now(UTC)),
        )
        for name, word in said
    ]
    assert outcome(records, needed) == together


def test_a_match_takes_two_people(world: World) -> None:
    case, search = world.case(BERT, ROBOT), world.search()
    item = world.put(case, search["results"][0], search)
    path = f"{case}/items/{item['id']}/verdicts"
    of_search = f"/api/v1/searches/{search['id']}/results/{item['image_id']}/verdicts"

    def judge(by: httpx.Client, verdict: str, note: str | None = None) -> Json:
        answer = by.post(path, json={"verdict": verdict, "note": note})
        assert answer.status_code == 201, answer.text
        shown: Json = answer.json()
        return shown

    assert judge(world.anna, "match", "scar")["outcome"] == "undecided"
    assert judge(world.anna, "match")["outcome"] == "undecided", "the same person twice is one person"
    assert judge(world.robot, "match")["outcome"] == "undecided", "a key is nobody"
    conflicting = judge(world.bert, "no_match")
    assert conflicting["outcome"] == "conflicting"
    assert {one["name"]: one["verdict"] for one in conflicting["verdicts"]} == {
        "anna": "match",
        "robot": "match",
        "bert": "no_match",
    }
    assert problem(world.bert.post(of_search, json={"verdict": "match"}))["code"] == "not_found", "it is Anna's search"
    assert judge(world.bert, "match", "on second thoughts")["outcome"] == "confirmed"
    answer = world.anna.post(of_search, json={"verdict": "unsure", "note": "a shadow?"})
    assert answer.status_code == 201 and answer.json()["note"] == "a shadow?"
    doubted = world.anna.get(f"{case}/items/{item['id']}").json()
    assert doubted["outcome"] == "undecided", "what was said of the result counts for the item, too"
    acts = [event for event in _acts(world, "verdict.give") if event.actor_name == "bert"][:2]
    assert [act.detail["verdict"] for act in acts] == ["match", "no_match"], "the audit has both words"
    hers = world.search(by=world.edda)
    of_hers = f"/api/v1/searches/{hers['id']}/results/{hers['results'][0]['image_id']}/verdicts"
    assert world.edda.post(of_hers, json={"verdict": "unsure"}).status_code == 201, "operators judge what they find"
    assert problem(world.anna.post(path, json={"verdict": "maybe"}))["code"] == "invalid_request"


def _acts(world: World, action: str) -> list[audit.Event]:
    with transaction(world.service.database.engine) as session:
        return audit.events(session, Wanted(action=action))


# ----------------------------------------------------------------------------------------------------------- exports


def sha256sum_check(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)


def test_the_export_is_checked_by_a_stranger(world: World, tmp_path: Path) -> None:
    """With nothing but hashlib, csv, json, sha256sum and the command line; two people have judged."""
    case = world.case(BERT, title='=HYPERLINK("http://example.test")')
    first, second = world.search(), world.search("woman red coat black bag", limit=3)
    items = [
        world.put(case, result, first, note) for result, note in zip(first["results"], ["+1+1", None], strict=False)
    ]
    other = next(result for result in second["results"] if result["image_id"] not in [i["image_id"] for i in items])
    items.append(world.put(case, other, second, "a plain note"))
    for by in (world.anna, world.bert):
        by.post(f"{case}/items/{items[0]['id']}/verdicts", json={"verdict": "match"})
    world.anna.post(f"{case}/notes", json={"note": "handed over"})
    made = world.anna.post(f"{case}/exports", json={"reason": "for the court"})
    assert made.status_code == 201, made.text
    told = made.json()
    assert world.anna.get(made.headers["Location"]).json() == told
    zipped = world.bert.get(told["content"])
    assert hashlib.sha256(zipped.content).hexdigest() == told["sha256"]
    assert int(zipped.headers["Content-Length"]) == len(zipped.content) == told["byte_size"]
    assert "attachment" in zipped.headers["Content-Disposition"]
    assert (world.last().action, world.last().actor_name) == ("case.export_fetch", "bert")

    folder = tmp_path / "elsewhere"
    with zipfile.ZipFile(io.BytesIO(zipped.content)) as archive:
        assert archive.testzip() is None
        archive.extractall(folder)
        names = set(archive.namelist())
    checked = sha256sum_check(folder)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    listed = {line.split("  ", 1)[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert listed == names - {"SHA256SUMS"}
    assert {name for name in names if "/" not in name} == {
        *("manifest.json", "manifest.csv", "queries.json", "checkpoint.json", "audit-extract.jsonl"),
        *("README.txt", "SHA256SUMS"),
    }

    manifest = json.loads((folder / "manifest.json").read_text())
    with (folder / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(manifest["items"]) == 3 and set(rows[0]) == set(manifest["items"][0])
    for row, line, item in zip(rows, manifest["items"], items, strict=True):
        image = (folder / row["file"]).read_bytes()
        seed = world.images.index(item["image_id"])
        assert image == picture(seed), "the file as it was added"
        assert hashlib.sha256(image).hexdigest() == row["sha256"] == line["sha256"]
        assert (row["image_id"], int(row["rank"])) == (item["image_id"], item["rank"])
        assert float(row["similarity"]) == line["similarity"] == item["similarity"]
        assert row["search_id"] == item["search_id"] and row["checkpoint_id"] == item["checkpoint_id"]
        assert row["camera_id"] == item["image"]["camera_id"] and row["external_id"] == f"ext-{seed}"
    assert [row["outcome"] for row in rows] == ["confirmed", "undecided", "undecided"]
    assert rows[0]["verdicts"] == "anna: match; bert: match"
    assert [row["note"] for row in rows] == ["'+1+1", "", "a plain note"]
    for row in rows:
        assert not any(value.startswith(("=", "+", "@", "\t")) for value in row.values()), "no cell is a formula"
    assert rows[2]["query"] == "woman red coat black bag"
    queries = {query["search_id"]: query for query in json.loads((folder / "queries.json").read_text())}
    assert {first["id"], second["id"]} == set(queries)
    assert queries[first["id"]]["request"]["query"]["text"] == "a man in a red jacket"
    assert [one["id"] for one in json.loads((folder / "checkpoint.json").read_text())] == [first["checkpoint_id"]]
    assert manifest["notes"][0]["note"] == "handed over" and manifest["members"] == ["anna", "bert"]

    check_extract(folder / "audit-extract.jsonl", case.rpartition("/")[2], manifest["audit_head"])
    assert verify_elsewhere(folder) == 0
    extract = (folder / "audit-extract.jsonl").read_text()
    (folder / "audit-extract.jsonl").write_text(extract.replace('"match"', '"unsure"', 1))
    assert verify_elsewhere(folder) == 1
    assert sha256sum_check(folder).returncode == 1


def check_extract(path: Path, case_id: str, head: Json) -> None:
    """The chain as the documentation describes it, worked out anew."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines.pop()["head"] == head
    shown, previous = [], lines[0]["previous"]
    for expected, line in enumerate(lines, start=lines[0]["seq"]):
        assert line["seq"] == expected
        if "digest" not in line:
            links = {name: line.pop(name) for name in ("previous", "hash", "reason", "reason_salt")}
            assert links["previous"] == previous
            content = json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            line["digest"] = hashlib.sha256(content.encode()).hexdigest()
            shown.append((line["action"], links))
        previous = hashlib.sha256(bytes.fromhex(previous) + bytes.fromhex(line["digest"])).hexdigest()
        assert "hash" not in line or line["hash"] == previous
    assert previous == head["hash"] and lines[-1]["seq"] == head["seq"]
    others = [line["action"] for line in lines if line.get("case_id", case_id) != case_id]
    assert others == ["search.run"] * 2, "nothing of other cases, but the searches its items come from"
    actions = [action for action, _ in shown]
    assert actions[0] == "case.create" and actions[-1] == "case.export"
    assert actions.count("case.item_add") == 3 and actions.count("verdict.give") == 2
    assert shown[-1][1]["reason"] == "for the court"


def verify_elsewhere(folder: Path) -> int:
    command = [sys.executable, "-m", "service.cli", "audit", "verify", "--file", folder / "audit-extract.jsonl"]
    return subprocess.run(command, cwd=ROOT, capture_output=True).returncode


def test_what_was_erased_is_in_no_case_and_no_export(world: World, tmp_path: Path) -> None:
    world.service.added(picture(70), external_id="zora-1", identity="zora-x", camera_id="north")
    world.service.embed()
    case = world.case(BERT, title="Where is Zora-X?")
    search = world.search(limit=20)
    asked = world.search("somebody like zora-x", filter={"identity": {"ne": "zora-x"}})
    zora = next(result for result in search["results"] if result["image"]["identity"] == "zora-x")
    other = next(result for result in search["results"] if result["image_id"] == world.images[0])
    gone, stays = world.put(case, zora, search, "her bag"), world.put(case, other, asked, "not Zora-X")
    world.anna.post(f"{case}/items/{gone['id']}/verdicts", json={"verdict": "match", "note": "surely"})
    world.anna.post(f"{case}/items/{stays['id']}/verdicts", json={"verdict": "no_match", "note": "zora-x is taller"})
    world.anna.post(f"{case}/notes", json={"note": "zora-x was last seen at noon"})
    world.anna.post(f"{case}/notes", json={"note": "a note without a name"})
    before = world.anna.post(f"{case}/exports", json={"reason": "zora-x"}).json()
    assert before["images"] == 2
    file = case_exports.file_of(world.service.context.eraser.exports, UUID(before["id"]))
    assert file.exists()

    erased = world.service.http.post("/api/v1/erasures", json={"identity": "zora-x", "reason": "asked for"})
    assert erased.status_code == 201 and erased.json()["state"] == "done", erased.text
    counts = erased.json()["counts"]
    assert (counts["case_items"], counts["verdicts"], counts["case_exports"]) == (1, 1, 1)
    assert counts["case_texts"] == 4 and counts["audit_reasons"] == 1
    assert not file.exists() and problem(world.anna.get(before["content"]))["code"] == "not_found"
    with transaction(world.service.database.engine) as session:
        for table in session.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all():
            found = session.scalars(text(f"SELECT t::text FROM \"{table}\" AS t WHERE t::text ILIKE '%zora%'"))
            assert found.all() == [], table

    shown = world.bert.get(f"{case}/items").json()["items"]
    assert [item["state"] for item in shown] == ["erased", "present"], "a line is left, for the count"
    assert shown[0]["erased_at"] and shown[0]["rank"] == gone["rank"]
    assert [shown[0][name] for name in ("image_id", "similarity", "note", "image", "verdicts")] == [None] * 4 + [[]]
    assert (shown[1]["note"], shown[1]["verdicts"][0]["note"]) == (None, None)
    assert world.anna.get(case).json()["items"] == 2
    notes = [note["note"] for note in world.anna.get(f"{case}/notes").json()["notes"]]
    assert notes == ["It named somebody who was erased.", "a note without a name"]
    path = f"{case}/items/{gone['id']}"
    for answer in (world.anna.patch(path, json={"note": "x"}), world.anna.delete(path)):
        assert problem(answer)["code"] == "case_conflict"

    after = world.anna.post(f"{case}/exports", json={}).json()
    assert after["images"] == 1
    data = world.anna.get(after["content"]).content
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert all(b"zora" not in archive.read(name).lower() for name in archive.namelist())
        lines = json.loads(archive.read("manifest.json"))["items"]
        assert [(line["state"], line["file"] is None) for line in lines] == [("erased", True), ("present", False)]
        assert len([name for name in archive.namelist() if name.startswith("images/")]) == 1
        archive.extractall(tmp_path)
    assert sha256sum_check(tmp_path).returncode == 0 and verify_elsewhere(tmp_path) == 0
    told = world.dora.get("/api/v1/audit-events/verification").json()
    assert told["sound"] and told["reasons_erased"] == 1


def test_an_image_erased_while_the_case_is_exported_is_in_no_export(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = world.service.added(picture(80), camera_id="north")
    world.service.embed()
    case, search = world.case(), world.search(limit=20)
    world.put(case, next(result for result in search["results"] if result["image_id"] == image), search)
    extract = case_exports._extract

    def erased_meanwhile(*arguments: Any) -> Iterator[str]:
        assert world.service.http.delete(f"/api/v1/images/{image}").status_code == 204
        return extract(*arguments)

    monkeypatch.setattr(case_exports, "_extract", erased_meanwhile)
    assert problem(world.anna.post(f"{case}/exports", json={}))["code"] == "case_conflict"
    monkeypatch.undo()
    folder = world.service.context.eraser.exports
    with transaction(world.service.database.engine) as session:
        kept = {str(id) for id in session.scalars(text("SELECT id FROM case_export"))}
    assert {path.stem for path in folder.iterdir()} <= kept
    assert world.anna.post(f"{case}/exports", json={}).json()["images"] == 0


def test_exports_expire_and_leave_nothing(world: World) -> None:
    case, search = world.case(), world.search()
    world.put(case, search["results"][0], search)
    made = world.anna.post(f"{case}/exports", json={}).json()
    context = world.service.context
    file = case_exports.file_of(context.eraser.exports, UUID(made["id"]))
    case_exports.remove_expired(context.database, context.eraser.exports)
    assert file.exists()
    assert world.anna.get(f"{case}/exports").json()["exports"] == [made]
    broken_off = context.eraser.exports / f"{uuid4()}.zip"
    broken_off.write_bytes(b"half of one")
    with transaction(context.database.engine) as session:
        session.execute(text("UPDATE case_export SET expires_at = now() WHERE id = :id"), {"id": made["id"]})
    assert problem(world.anna.get(made["content"]))["code"] == "not_found"
    assert world.anna.get(f"{case}/exports").json()["exports"] == []
    assert case_exports.remove_expired(context.database, context.eraser.exports) == 2
    assert not file.exists() and not broken_off.exists()


def test_a_missing_file_is_said_and_a_full_disk_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    image = world.service.added(picture(90), camera_id="north")
    world.service.embed()
    case, search = world.case(), world.search(limit=20)
    world.put(case, next(result for result in search["results"] if result["image_id"] == image), search)
    folder = world.service.context.eraser.exports
    before = sorted(folder.iterdir())

    def full(*arguments: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(case_exports, "_add_image", full)
    assert problem(world.anna.post(f"{case}/exports", json={}))["code"] == "storage_full"
    monkeypatch.undo()
    assert sorted(folder.iterdir()) == before
    world.service.context.store.remove(hashlib.sha256(picture(90)).hexdigest())
    made = world.anna.post(f"{case}/exports", json={}).json()
    with zipfile.ZipFile(io.BytesIO(world.anna.get(made["content"]).content)) as archive:
        (line,) = json.loads(archive.read("manifest.json"))["items"]
    assert (line["state"], line["file"], line["image_id"]) == ("present", None, image)


def test_cells_that_would_be_formulas() -> None:
    for text_, safe in [
        ("=1+1", "'=1+1"),
        ("+49 30 1", "'+49 30 1"),
        ("-1", "'-1"),
        ("@cell", "'@cell"),
        ("\t=1", "'\t=1"),
        ("a=b", "a=b"),
        ("", ""),
    ]:
        assert case_exports.cell(text_) == safe
    assert case_exports.cell(-0.25) == -0.25 and case_exports.cell(None) is None


def test_everybody_of_an_open_service_is_one_person(world: World) -> None:
    assert cases.person_of(audit.Actor("open", None, "open")) == UUID(int=0)
    http = world.service.http
    case, search = http.post(PATH, json={"title": "open"}).headers["Location"], world.search(by=http)
    body = {"search_id": search["id"], "image_id": search["results"][0]["image_id"]}
    item = http.post(f"{case}/items", json=body).json()
    for _ in range(2):
        judged = http.post(f"{case}/items/{item['id']}/verdicts", json={"verdict": "match"}).json()
    assert judged["outcome"] == "undecided" and len(judged["verdicts"]) == 1
