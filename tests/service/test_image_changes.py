"""Images changed, kept in step by their external ids, and seen with their neighbours; cameras with what they have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest

from indexer import audit
from service import principals
from service.principals import PERMISSIONS, Principal, Role
from tests.service.conftest import Json, Service, picture, problem


def as_one(monkeypatch: pytest.MonkeyPatch, *roles: Role, cameras: frozenset[str] | None = None) -> None:
    """From here on every request is from somebody with these roles and this scope."""
    principal = Principal(uuid4(), "somebody", "user", frozenset(roles), cameras)
    monkeypatch.setattr(principals, "current_principal", lambda request: principal)


@pytest.fixture
def acts() -> Iterator[list[tuple[str, tuple[str, str]]]]:
    """What the audit was told, in order."""
    told: list[tuple[str, tuple[str, str]]] = []
    with patch.object(audit, "record", lambda session, actor, action, object, **_: told.append((action, object))):
        yield told


def get(service: Service, id: str) -> httpx.Response:
    response = service.http.get(f"/api/v1/images/{id}")
    assert response.status_code == 200, response.text
    return response


def change(service: Service, id: str, body: Any, if_match: str | None = "*") -> httpx.Response:
    headers = {} if if_match is None else {"If-Match": if_match}
    return service.http.patch(f"/api/v1/images/{id}", json=body, headers=headers)


def put(service: Service, external_id: str, image: bytes, metadata: Any = None, **headers: str) -> httpx.Response:
    files: dict[str, Any] = {"image": ("image.png", image, "image/png")}
    if metadata is not None:
        files["metadata"] = (None, json.dumps(metadata), "application/json")
    path = f"/api/v1/images/by-external-id/{quote(external_id)}"
    return service.http.put(
        path, files=files, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


def hold(service: Service, **what: Any) -> str:
    placed = service.http.post("/api/v1/legal-holds", json={"reason": "court order", **what})
    assert placed.status_code == 201, placed.text
    return str(placed.json()["id"])


# ------------------------------------------------------------------------------------------------------------- PATCH


def test_what_is_sent_changes_and_the_rest_stays(service: Service, acts: list[Any]) -> None:
    service.camera("pa-1", "pa-2")
    id = service.added(picture(100), camera_id="pa-1", track_id="t", identity="i", tags=["a"], attributes={"n": 1})
    before = get(service, id)
    body = {"camera_id": "pa-2", "captured_at": "2026-09-01T20:00:00+02:00", "track_id": None, "tags": ["b", "b", "c"]}
    response = change(service, id, body, before.headers["ETag"])
    assert response.status_code == 200, response.text
    expected = {"camera_id": "pa-2", "captured_at": "2026-09-01T18:00:00Z", "track_id": None, "tags": ["b", "c"]}
    assert response.json() == {**before.json(), **expected}
    after = get(service, id)
    assert after.json() == response.json() and after.headers["ETag"] == response.headers["ETag"]
    assert after.headers["ETag"] != before.headers["ETag"]
    cleared = change(service, id, {"tags": None, "attributes": None}).json()
    assert (cleared["tags"], cleared["attributes"], cleared["identity"]) == ([], {}, "i")
    assert acts[-2:] == [("image.change", ("image", id))] * 2


def test_a_search_finds_it_by_its_new_metadata_at_once(service: Service) -> None:
    id = service.added(picture(101), identity="before-101")
    service.embed()
    body = {"query": {"text": "a man"}, "filter": {"identity": {"eq": "after-101"}}}
    assert service.found(body)["results"] == []
    assert change(service, id, {"identity": "after-101"}).status_code == 200
    assert [result["image_id"] for result in service.found(body)["results"]] == [id]


def test_a_change_of_an_older_version_is_refused_and_changes_nothing(service: Service) -> None:
    id = service.added(picture(102), tags=["a"])
    first = get(service, id).headers["ETag"]
    assert change(service, id, {"tags": ["b"]}, first).status_code == 200
    now = get(service, id)
    for stale in (first, f"W/{now.headers['ETag']}", '"', "", first.strip('"')):
        refused = change(service, id, {"tags": ["c"]}, stale)
        assert refused.status_code == 412 and problem(refused)["code"] == "precondition_failed", stale
    assert get(service, id).json() == now.json()
    refused = change(service, id, {"tags": ["c"]}, None)
    assert refused.status_code == 428 and problem(refused)["code"] == "precondition_required"
    assert change(service, id, {"tags": ["c"]}, f'"other", {now.headers["ETag"]}').status_code == 200


def test_being_embedded_is_no_new_version(service: Service) -> None:
    id = service.added(picture(103))
    pending = get(service, id)
    service.embed()
    indexed = get(service, id)
    assert (pending.json()["state"], indexed.json()["state"]) == ("pending", "indexed")
    assert indexed.headers["ETag"] == pending.headers["ETag"]


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({"camera_id": "nowhere"}, "unknown_camera", "/camera_id"),
        ({"external_id": "pa-taken"}, "external_id_conflict", "/external_id"),
        ({"captured_at": "2026-09-01T18:00:00"}, "invalid_request", "/captured_at"),
        ({"colour": "red"}, "invalid_request", "/colour"),
        ({"sha256": "0" * 64}, "invalid_request", "/sha256"),
        ({"tags": [" "]}, "invalid_metadata", "/tags"),
        ({"tags": "platform"}, "invalid_request", "/tags"),
        ({"identity": "a\x00b"}, "invalid_request", "/identity"),
        ({"attributes": {"a": "\x00"}}, "invalid_metadata", "/attributes"),
    ],
)
def test_a_change_that_cannot_be_is_refused_whole(service: Service, body: Json, code: str, pointer: str) -> None:
    service.added(picture(104), external_id="pa-taken")
    id = service.added(picture(105), tags=["as", "it", "was"])
    before = get(service, id).json()
    content = json.dumps({"track_id": "new", **body})
    headers = {"If-Match": "*", "Content-Type": "application/json"}
    refused = service.http.patch(f"/api/v1/images/{id}", content=content, headers=headers)
    assert 400 <= refused.status_code < 500
    assert problem(refused)["code"] == code and problem(refused)["errors"][0]["pointer"] == pointer
    assert get(service, id).json() == before


def test_two_images_never_become_the_same(service: Service) -> None:
    service.camera("pa-3", "pa-4")
    service.added(picture(106), camera_id="pa-3")
    other = service.added(picture(106), camera_id="pa-4")
    refused = change(service, other, {"camera_id": "pa-3"})
    assert refused.status_code == 409 and problem(refused)["code"] == "duplicate_content"


def test_a_held_image_keeps_who_where_and_when(service: Service) -> None:
    service.camera("pa-5")
    id = service.added(picture(107), identity="pa-held")
    placed = hold(service, identity="pa-held")
    for body in ({"identity": None}, {"camera_id": "pa-5"}, {"captured_at": "2026-01-01T00:00:00Z", "tags": ["x"]}):
        refused = change(service, id, body)
        assert refused.status_code == 423 and placed in problem(refused)["detail"]
    assert change(service, id, {"tags": ["x"], "identity": "pa-held"}).json()["tags"] == ["x"]
    service.http.delete(f"/api/v1/legal-holds/{placed}")
    assert change(service, id, {"identity": None}).status_code == 200


# --------------------------------------------------------------------------------------------------- by external id


def test_putting_adds_then_changes_then_changes_nothing(service: Service, acts: list[Any]) -> None:
    service.camera("pu-1")
    name = "day 1/north-17.png"
    first = put(service, name, picture(110), {"camera_id": "pu-1", "tags": ["a"], "attributes": {"n": 1}})
    assert first.status_code == 201, first.text
    image = first.json()
    assert image["external_id"] == name and first.headers["Location"] == f"/api/v1/images/{image['id']}"
    second = put(service, name, picture(110), {"external_id": name, "camera_id": "pu-1", "identity": "x"})
    assert second.status_code == 200
    assert second.json() == {**image, "identity": "x", "tags": [], "attributes": {}}, "what is left out is unknown"
    third = put(service, name, picture(110), {"camera_id": "pu-1", "identity": "x"})
    assert third.status_code == 200 and third.json() == {**second.json(), "duplicate": True}
    assert third.headers["ETag"] == second.headers["ETag"] == get(service, image["id"]).headers["ETag"]
    assert [act for act, _ in acts] == ["camera.create", "image.add", "image.change"], "the third changed nothing"


def test_another_file_is_another_image_and_the_one_before_is_erased(service: Service) -> None:
    old = put(service, "pu-2", picture(111)).json()
    service.embed()
    new = put(service, "pu-2", picture(112), {"tags": ["new"]})
    assert new.status_code == 201 and new.json()["id"] != old["id"] and new.json()["state"] == "pending"
    assert service.http.get(f"/api/v1/images/{old['id']}").status_code == 404
    assert not service.context.store.files_of(old["sha256"])
    service.embed()
    found = service.found({"query": {"text": "a man"}, "filter": {"external_id": {"eq": "pu-2"}}})
    assert [result["image_id"] for result in found["results"]] == [new.json()["id"]]


def test_what_cannot_be_added_erases_nothing(service: Service) -> None:
    service.camera("pu-3")
    old = put(service, "pu-4", picture(113)).json()
    service.added(picture(114), camera_id="pu-3")
    for data, metadata, code in [
        (b"no image", None, "unreadable_image"),
        (picture(115), {"camera_id": "nowhere"}, "unknown_camera"),
        (picture(115), {"external_id": "another"}, "invalid_metadata"),
        (picture(115), {"sha256": "0" * 64}, "invalid_metadata"),
        (picture(114), {"camera_id": "pu-3"}, "duplicate_content"),
    ]:
        assert problem(put(service, "pu-4", data, metadata))["code"] == code
    hold(service, image_ids=[old["id"]])
    assert problem(put(service, "pu-4", picture(115)))["code"] == "legal_hold"
    assert get(service, old["id"]).json()["external_id"] == "pu-4"
    assert problem(put(service, "pu-5", picture(114), {"camera_id": "pu-3"}))["code"] == "duplicate_content"


def test_preconditions_of_putting(service: Service) -> None:
    assert put(service, "pu-6", picture(116), If_Match="*").status_code == 412
    first = put(service, "pu-6", picture(116), If_None_Match="*")
    assert first.status_code == 201
    assert put(service, "pu-6", picture(116), If_None_Match="*").status_code == 412
    assert put(service, "pu-6", picture(116), {"tags": ["a"]}, If_Match=first.headers["ETag"]).status_code == 200
    assert put(service, "pu-6", picture(116), {"tags": ["b"]}, If_Match=first.headers["ETag"]).status_code == 412


# -------------------------------------------------------------------------------------------------------- neighbours


def test_neighbours_are_what_the_camera_saw_around_it(service: Service) -> None:
    service.camera("ne-1", "ne-2")
    times = {120: "18:00:00", 121: "17:59:30", 122: "18:00:59.5", 123: "18:01:01", 124: "18:00:00"}
    ids = {
        seed: service.added(picture(seed), camera_id="ne-2" if seed == 124 else "ne-1", captured_at=f"2026-09-01T{at}Z")
        for seed, at in times.items()
    }
    timeless = service.added(picture(125), camera_id="ne-1")
    around = service.http.get(f"/api/v1/images/{ids[120]}/neighbours").json()
    assert [(one["id"], one["seconds"]) for one in around["images"]] == [(ids[121], -30.0), (ids[122], 59.5)]
    assert around["complete"] is True
    wider = service.http.get(f"/api/v1/images/{ids[120]}/neighbours?seconds=61&limit=2").json()
    assert [one["seconds"] for one in wider["images"]] == [-30.0, 59.5] and wider["complete"] is False
    assert service.http.get(f"/api/v1/images/{ids[120]}/neighbours?seconds=61").json()["images"][-1]["id"] == ids[123]
    assert service.http.get(f"/api/v1/images/{timeless}/neighbours").json() == {"images": [], "complete": True}
    assert service.http.get(f"/api/v1/images/{uuid4()}/neighbours").status_code == 404
    assert service.http.get(f"/api/v1/images/{timeless}/neighbours?seconds=-1").status_code == 422


# ----------------------------------------------------------------------------------------------------------- cameras


def test_a_camera_tells_what_it_has_and_goes_when_nothing_names_it(service: Service, acts: list[Any]) -> None:
    path = "/api/v1/cameras/ca-1"
    assert problem(service.http.get(path))["code"] == "not_found"
    service.camera("ca-1")
    ids = [service.added(picture(seed), camera_id="ca-1") for seed in (130, 131)]
    assert service.http.get(path).json()["images"] == 2
    listed = {camera["id"]: camera["images"] for camera in service.http.get("/api/v1/cameras").json()["cameras"]}
    assert listed["ca-1"] == 2
    changed = service.http.patch(path, json={"name": "Crossing", "site": "Town"})
    assert changed.json().items() >= {"id": "ca-1", "name": "Crossing", "site": "Town", "images": 2}.items()
    assert service.http.patch(path, json={"site": None}).json().items() >= {"name": "Crossing", "site": None}.items()
    assert service.http.patch(path, json={"id": "other"}).status_code == 422

    refused = service.http.delete(path)
    assert refused.status_code == 409 and problem(refused)["code"] == "camera_in_use"
    assert "2 images" in problem(refused)["detail"]
    for id in ids:
        service.http.delete(f"/api/v1/images/{id}")
    placed = hold(service, camera_id="ca-1")
    assert placed in problem(service.http.delete(path))["detail"]
    service.http.delete(f"/api/v1/legal-holds/{placed}")
    service.http.put("/api/v1/retention-policies", json={"camera_id": "ca-1", "days": 30})
    assert service.http.delete(path).status_code == 204
    policies = service.http.get("/api/v1/retention-policies").json()["retention_policies"]
    assert not [policy for policy in policies if policy["camera_id"] == "ca-1"], "its policy goes with it"
    for gone in (service.http.get(path), service.http.patch(path, json={}), service.http.delete(path)):
        assert problem(gone)["code"] == "not_found"
    about = [action for action, (kind, id) in acts if (kind, id) == ("camera", "ca-1")]
    assert about == ["camera.create", "camera.change", "camera.change", "camera.remove"]


@pytest.mark.parametrize("id", ["north/upper level", "a%00b", "ca-ü"])
def test_any_camera_id_can_be_asked_for(service: Service, id: str) -> None:
    response = service.http.get(f"/api/v1/cameras/{id if '%' in id else quote(id)}")
    assert problem(response)["code"] == "not_found"


# ------------------------------------------------------------------------------------------------------------- scope


def test_outside_the_scope_there_is_nothing(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.camera("sc-1", "sc-2")
    taken = "2026-09-01T18:00:00Z"
    mine = service.added(picture(140), external_id="sc-mine", camera_id="sc-1", captured_at=taken)
    theirs = service.added(picture(141), external_id="sc-theirs", camera_id="sc-2", captured_at=taken)
    nobodys = service.added(picture(142), captured_at=taken)
    hidden = get(service, theirs).json()
    as_one(monkeypatch, *PERMISSIONS, cameras=frozenset({"sc-1"}))

    assert get(service, mine).status_code == 200
    for id in (theirs, nobodys):
        for answer in (
            service.http.get(f"/api/v1/images/{id}"),
            service.http.get(f"/api/v1/images/{id}/content"),
            service.http.get(f"/api/v1/images/{id}/content?variant=thumb"),
            service.http.get(f"/api/v1/images/{id}/neighbours"),
            change(service, id, {"tags": ["mine"]}),
            change(service, id, {"tags": ["mine"]}, '"no version"'),
        ):
            assert answer.status_code == 404
            assert problem(answer)["code"] == "not_found"
        assert service.http.delete(f"/api/v1/images/{id}").status_code == 403, "nobody with a scope erases"
    assert problem(change(service, mine, {"camera_id": "sc-2"}))["code"] == "unknown_camera"
    assert problem(change(service, mine, {"camera_id": None}))["code"] == "invalid_metadata"
    assert problem(service.add(picture(143), {"camera_id": "sc-2"}))["code"] == "unknown_camera"
    assert problem(service.add(picture(143)))["code"] == "unknown_camera"
    assert problem(put(service, "sc-new", picture(143), {"camera_id": "sc-2"}))["code"] == "unknown_camera"
    assert problem(put(service, "sc-theirs", picture(143), {"camera_id": "sc-1"}))["code"] == "external_id_conflict"

    assert [camera["id"] for camera in service.http.get("/api/v1/cameras").json()["cameras"]] == ["sc-1"]
    assert problem(service.http.get("/api/v1/cameras/sc-2"))["code"] == "not_found"
    for method in ("PATCH", "DELETE"):  # nobody with a scope configures
        answer = service.http.request(method, "/api/v1/cameras/sc-2", json={"name": "mine"})
        assert problem(answer)["code"] == "forbidden"
    monkeypatch.undo()
    assert get(service, theirs).json() == hidden


CALLS = {
    "view": [
        ("GET", "/api/v1/images/{id}"),
        ("GET", "/api/v1/images/{id}/content"),
        ("GET", "/api/v1/images/{id}/neighbours"),
    ],
    "ingest": [
        ("PATCH", "/api/v1/images/{id}"),
        ("PUT", "/api/v1/images/by-external-id/ro-1"),
        ("POST", "/api/v1/images"),
    ],
    "erase": [("DELETE", f"/api/v1/images/{uuid4()}")],
    "configure": [
        ("POST", "/api/v1/cameras"),
        ("PATCH", "/api/v1/cameras/ro-none"),
        ("DELETE", "/api/v1/cameras/ro-none"),
    ],
}


@pytest.mark.parametrize("role", PERMISSIONS)
def test_nobody_does_what_their_role_does_not_include(
    service: Service, monkeypatch: pytest.MonkeyPatch, role: Role
) -> None:
    id = service.added(picture(150))
    as_one(monkeypatch, role)
    for permission, calls in CALLS.items():
        for method, path in calls:
            answer = service.http.request(method, path.format(id=id), json={}, headers={"If-Match": "*"})
            permitted = permission in PERMISSIONS[role]
            assert (answer.status_code == 403) != permitted, (method, path, answer.text)
    assert (service.http.get("/api/v1/cameras").status_code == 403) == (role == "auditor")


def test_replacing_a_file_needs_the_permission_to_erase(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    old = put(service, "ro-2", picture(151)).json()
    as_one(monkeypatch, "ingest")
    assert put(service, "ro-2", picture(151), {"tags": ["a"]}).status_code == 200
    assert problem(put(service, "ro-2", picture(152)))["code"] == "forbidden"
    monkeypatch.undo()
    assert get(service, old["id"]).json()["tags"] == ["a"]


def test_a_change_that_cannot_be_recorded_does_not_happen(service: Service) -> None:
    service.camera("au-1")
    id = service.added(picture(160), tags=["before"])

    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("the audit cannot be written")

    with patch.object(audit, "record", failing):
        assert change(service, id, {"tags": ["after"]}).status_code == 500
        assert put(service, "au-2", picture(161)).status_code == 500
        assert service.http.patch("/api/v1/cameras/au-1", json={"name": "after"}).status_code == 500
        assert service.http.delete("/api/v1/cameras/au-1").status_code == 500
        assert service.http.get(f"/api/v1/images/{id}/content").status_code == 500
    assert get(service, id).json()["tags"] == ["before"]
    assert service.http.get("/api/v1/cameras/au-1").json()["name"] is None
    body = {"query": {"text": "a man"}, "filter": {"external_id": {"eq": "au-2"}}}
    service.embed()
    assert service.found(body)["results"] == []
