"""Who may come in: set-up, sessions, API keys, accounts, scopes; over real HTTP and on a real database."""

from __future__ import annotations

import io
import re
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from sqlalchemy import text

from indexer.audit import Actor
from indexer.database import transaction
from indexer.errors import DatabaseUnavailable
from service import access, access_cli, checkpoint_cli, cli, credentials
from service.client import Client, ServiceError
from service.limits import Backoff, Buckets
from tests.service.accounts import EVERY_ROLE, PASSWORD, key, sign_in, user, visitor
from tests.service.conftest import Json, Service, picture, problem, running_service, wait_until, zipped

NEW = "quiet-anvil-lantern-3"
LATER = (datetime.now(UTC) + timedelta(days=30)).isoformat()


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that asks who is calling, with an admin, two cameras and an image of each; its own client may all."""
    with running_service(tmp_path_factory.mktemp("closed"), auth="required", rate_limit=0) as service:
        user(service, "Ada", "admin")
        service.http.headers["Authorization"] = f"Bearer {key(service, *EVERY_ROLE)[0]}"
        service.camera("north", "south")
        service.embed()
        yield service


@pytest.fixture(autouse=True)
def no_pauses(closed: Service) -> None:
    """Wrong passwords of one test must not slow down another."""
    closed.context.access.names = Backoff(5)
    closed.context.access.addresses = Backoff(20)


def sql(service: Service, statement: str, **values: Any) -> list[Any]:
    with transaction(service.database.engine) as session:
        result = session.execute(text(statement), values)
        return list(result) if result.returns_rows else []


def code(response: httpx.Response) -> tuple[int, str]:
    body = problem(response)
    return response.status_code, body["code"]


# ------------------------------------------------------------------------------------------------------- the first user


def test_the_set_up_link_makes_one_admin_and_no_second(tmp_path: Path) -> None:
    with running_service(tmp_path, auth="required") as service:
        first, second = (service.context.access.setup_token() for _ in range(2))  # two replicas started
        assert first and second
        asked = {"token": first, "name": "Kim", "password": PASSWORD}
        assert code(service.http.post("/api/v1/setup", json={**asked, "token": "wrong"})) == (403, "setup_refused")
        assert code(service.http.post("/api/v1/setup", json={**asked, "password": "short"}))[0] == 422
        made = service.http.post("/api/v1/setup", json=asked)
        assert made.status_code == 201 and made.json()["roles"] == ["admin"]
        for token in (first, second):
            again = {**asked, "token": token, "name": "Mallory"}
            assert code(service.http.post("/api/v1/setup", json=again)) == (403, "setup_refused")
        assert service.context.access.setup_token() is None
        with sign_in(service, "kim") as kim:
            assert [one["name"] for one in kim.get("/api/v1/users").json()["users"]] == ["Kim"]


def test_a_set_up_link_expires_and_is_not_stored(tmp_path: Path) -> None:
    with running_service(tmp_path, auth="required") as service:
        token = service.context.access.setup_token()
        assert token is not None
        (stored,) = sql(service, "SELECT token_hash FROM setup_token")
        assert token.encode() not in bytes(stored[0])
        sql(service, "UPDATE setup_token SET expires_at = now()")
        asked = {"token": token, "name": "Kim", "password": PASSWORD}
        assert code(service.http.post("/api/v1/setup", json=asked)) == (403, "setup_refused")


def test_an_open_service_needs_no_user(service: Service) -> None:
    assert service.context.access.setup_token() is None
    me = service.http.get("/api/v1/session").json()
    assert (me["kind"], me["id"], me["csrf_token"]) == ("open", None, None)
    assert code(service.http.delete("/api/v1/session")) == (403, "forbidden")


# ------------------------------------------------------------------------------------------------------------- sessions


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(closed: Service) -> None:
    with visitor(closed) as client:
        asked = {"name": "ada", "password": PASSWORD}
        answer = client.post("/api/v1/session", json=asked)
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie and "Secure" not in cookie
        token = client.cookies[access.COOKIE]
        assert token not in answer.text and "plum" not in answer.text
        me = client.get("/api/v1/session").json()
        assert (me["name"], me["kind"], me["cameras"]) == ("Ada", "user", None)
        assert me["csrf_token"] == answer.json()["csrf_token"] != token
        stored = sql(closed, "SELECT token_hash FROM user_session")
        assert stored and all(token.encode() not in bytes(row[0]) for row in stored)
        behind_tls = client.post("/api/v1/session", json=asked, headers={"X-Forwarded-Proto": "https"})
        assert "Secure" in behind_tls.headers["Set-Cookie"]


def test_changes_with_a_cookie_need_the_csrf_token(closed: Service) -> None:
    with sign_in(closed, "ada") as client:
        body = {"id": f"c-{uuid.uuid4()}"}
        right = client.headers.pop("X-CSRF-Token")
        assert code(client.post("/api/v1/cameras", json=body)) == (403, "csrf")
        for wrong in ("", "x", right[:-1], right.swapcase()):
            answer = client.post("/api/v1/cameras", json=body, headers={"X-CSRF-Token": wrong})
            assert code(answer) == (403, "csrf")
        assert client.get("/api/v1/users").status_code == 200
        made = client.post("/api/v1/cameras", json=body, headers={"X-CSRF-Token": right})
        assert made.status_code == 201
        with sign_in(closed, "ada") as other:  # the token of one session is nothing in another
            assert code(client.post("/api/v1/cameras", json=body, headers=other.headers))[1] == "csrf"


def test_who_signed_out_is_out(closed: Service) -> None:
    with sign_in(closed, "ada") as client:
        token = client.cookies[access.COOKIE]
        gone = client.delete("/api/v1/session")
        assert gone.status_code == 204 and access.COOKIE not in client.cookies
        again = client.get("/api/v1/session", headers={"Cookie": f"{access.COOKIE}={token}"})
        assert code(again) == (401, "unauthenticated") and again.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "passed",
    [
        "expires_at = now()",
        "last_seen_at = now() - interval '61 minutes'",
        "revoked_at = now()",
    ],
)
def test_a_session_ends(closed: Service, passed: str) -> None:
    with sign_in(closed, "ada") as client:
        assert client.get("/api/v1/session").status_code == 200
        sql(closed, f"UPDATE user_session SET {passed}")
        assert code(client.get("/api/v1/session")) == (401, "unauthenticated")


def test_a_session_that_is_used_stays(closed: Service) -> None:
    with sign_in(closed, "ada") as client:
        sql(closed, "UPDATE user_session SET last_seen_at = now() - interval '50 minutes' WHERE revoked_at IS NULL")
        assert client.get("/api/v1/session").status_code == 200
        seen = sql(closed, "SELECT now() - max(last_seen_at) FROM user_session WHERE revoked_at IS NULL")
        assert seen[0][0] < timedelta(minutes=1)


def test_unknown_names_and_wrong_passwords_look_and_cost_the_same(
    closed: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = user(closed, "gone", "operator")
    assert closed.http.patch(f"/api/v1/users/{gone.id}", json={"disabled": True}).status_code == 200
    verified: list[str] = []
    verify = credentials.is_password
    monkeypatch.setattr(
        credentials, "is_password", lambda hashed, typed: verified.append(hashed) or verify(hashed, typed)
    )
    answers = []
    with visitor(closed) as client:
        for name, password in (("ada", "wrong"), ("nobody", "wrong"), ("gone", PASSWORD)):
            body = problem(client.post("/api/v1/session", json={"name": name, "password": password}))
            answers.append({name: body[name] for name in ("status", "code", "detail", "errors")})
            assert access.COOKIE not in client.cookies
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["status"] == 401
    cost = [re.match(r"\$argon2id\$v=\d+\$[^$]+\$", hashed) for hashed in verified]
    assert len(cost) == 3 and len({found[0] for found in cost if found}) == 1


def test_repeated_failures_have_to_wait_also_for_names_nobody_has(closed: Service) -> None:
    user(closed, "Berta", "operator")
    with visitor(closed) as client:
        for name in ("berta", "no-such-name"):
            seen = [
                client.post("/api/v1/session", json={"name": name, "password": "wrong"}).status_code for _ in range(6)
            ]
            assert seen == [401] * 5 + [429]
        refused = client.post("/api/v1/session", json={"name": "BERTA", "password": PASSWORD})
        assert code(refused) == (429, "rate_limited") and int(refused.headers["Retry-After"]) >= 1
        sign_in(closed, "ada").close()  # others may


def test_one_address_cannot_try_name_after_name(closed: Service) -> None:
    with visitor(closed) as client:
        bodies = [{"name": f"somebody {n}", "password": "wrong"} for n in range(21)]
        seen = [client.post("/api/v1/session", json=body).status_code for body in bodies]
    assert seen == [401] * 20 + [429]


def test_the_own_password_is_changed_with_the_current_one(closed: Service) -> None:
    user(closed, "Carl", "operator")
    with sign_in(closed, "carl") as client, sign_in(closed, "carl") as elsewhere:
        asked = {"current_password": "wrong", "new_password": NEW}
        assert code(client.put("/api/v1/session/password", json=asked)) == (403, "forbidden")
        weak = {"current_password": PASSWORD, "new_password": "carlcarlcarl"}
        assert code(client.put("/api/v1/session/password", json=weak)) == (422, "invalid_request")
        right = {"current_password": PASSWORD, "new_password": NEW}
        assert client.put("/api/v1/session/password", json=right).status_code == 204
        assert client.get("/api/v1/session").status_code == 200
        assert elsewhere.get("/api/v1/session").status_code == 401
    sign_in(closed, "carl", NEW).close()
    with visitor(closed) as client:
        assert client.post("/api/v1/session", json={"name": "carl", "password": PASSWORD}).status_code == 401
    with visitor(closed, key(closed, "operator")[0]) as machine:
        assert code(machine.put("/api/v1/session/password", json=right)) == (403, "forbidden")


# ---------------------------------------------------------------------------------------------------------------- users


def test_users_are_made_read_and_changed(closed: Service) -> None:
    asked = {"name": "Dora", "password": PASSWORD, "roles": ["operator"], "cameras": ["north"]}
    made = closed.http.post("/api/v1/users", json=asked)
    assert made.status_code == 201 and made.json()["cameras"] == ["north"] and "password" not in made.text
    path = made.headers["Location"]
    assert closed.http.get(path).json() == made.json()
    assert made.json() in closed.http.get("/api/v1/users").json()["users"]
    (stored,) = sql(closed, "SELECT password_hash FROM user_account WHERE name = 'Dora'")
    assert stored[0].startswith("$argon2id$")
    assert code(closed.http.post("/api/v1/users", json={**asked, "name": "DORA"})) == (409, "user_exists")
    assert code(closed.http.post("/api/v1/users", json={**asked, "cameras": ["nroth"]})) == (422, "unknown_camera")
    assert code(closed.http.patch(path, json={"cameras": ["nroth"]})) == (422, "unknown_camera")
    for wrong in ({"roles": []}, {"roles": ["root"]}, {"cameras": []}, {"password": "short"}, {"name": " "}):
        assert code(closed.http.post("/api/v1/users", json={**asked, **wrong}))[0] == 422
    without = {name: value for name, value in asked.items() if name != "cameras"}
    assert code(closed.http.post("/api/v1/users", json=without))[0] == 422
    assert code(closed.http.patch(path, json={}))[0] == 422
    assert code(closed.http.patch(f"/api/v1/users/{uuid.uuid4()}", json={"disabled": True})) == (404, "not_found")


def test_what_is_taken_from_a_user_is_gone_at_once(closed: Service) -> None:
    path = f"/api/v1/users/{user(closed, 'Emil', 'operator', 'admin').id}"
    with sign_in(closed, "emil") as emil:
        assert emil.get("/api/v1/users").status_code == 200
        closed.http.patch(path, json={"roles": ["operator"]})
        assert code(emil.get("/api/v1/users")) == (403, "forbidden")
        closed.http.patch(path, json={"cameras": ["south"]})
        assert [camera["id"] for camera in emil.get("/api/v1/cameras").json()["cameras"]] == ["south"]
        closed.http.patch(path, json={"password": NEW})
        assert emil.get("/api/v1/session").status_code == 401
    with sign_in(closed, "emil", NEW) as emil:
        closed.http.patch(path, json={"disabled": True})
        assert emil.get("/api/v1/session").status_code == 401
        assert emil.post("/api/v1/session", json={"name": "emil", "password": NEW}).status_code == 401
        closed.http.patch(path, json={"disabled": False})
        assert emil.get("/api/v1/session").status_code == 401, "an ended session stays ended"
    sign_in(closed, "emil", NEW).close()


def test_disabling_a_user_revokes_the_keys_they_made(closed: Service) -> None:
    boss = user(closed, "Fred", "admin")
    asked = {"name": "theirs", "roles": ["admin"], "cameras": None, "expires_at": LATER}
    with sign_in(closed, "fred") as fred:
        theirs = fred.post("/api/v1/api-keys", json=asked).json()
    assert theirs["created_by"] == "Fred"
    with visitor(closed, theirs["key"]) as machine:
        heir = machine.post("/api/v1/api-keys", json={**asked, "name": "made by a key"}).json()
        assert heir["created_by"] == "Fred", "whoever made a key answers for the keys it makes"
        closed.http.patch(f"/api/v1/users/{boss.id}", json={"disabled": True})
        assert machine.get("/api/v1/session").status_code == 401
    with visitor(closed, heir["key"]) as machine:
        assert machine.get("/api/v1/session").status_code == 401


def test_somebody_can_always_manage_accounts(tmp_path: Path) -> None:
    with running_service(tmp_path, auth="required") as service:
        service.http.headers["Authorization"] = f"Bearer {key(service, *EVERY_ROLE)[0]}"
        service.camera("north")
        one, two = (f"/api/v1/users/{user(service, name, 'admin').id}" for name in ("one", "two"))
        assert service.http.patch(one, json={"disabled": True}).status_code == 200
        for change in ({"disabled": True}, {"roles": ["auditor"]}, {"cameras": ["north"]}):
            assert code(service.http.patch(two, json=change)) == (409, "last_admin")
        assert service.http.get(two).json()["roles"] == ["admin"]


# ------------------------------------------------------------------------------------------------------------- API keys


def test_a_key_is_shown_once_and_works_until_it_is_revoked(closed: Service) -> None:
    asked = {"name": "intake", "roles": ["ingest"], "cameras": ["north"], "expires_at": LATER}
    made = closed.http.post("/api/v1/api-keys", json=asked).json()
    secret = made["key"]
    assert secret.startswith(f"psk_{made['lookup']}_") and len(secret.split("_", 2)[2]) == 43
    listed = closed.http.get("/api/v1/api-keys")
    assert made["id"] in listed.text and "argon2" not in listed.text
    assert secret.split("_", 2)[2] not in listed.text
    (stored,) = sql(closed, "SELECT * FROM api_key WHERE lookup = :lookup", lookup=made["lookup"])
    assert stored.secret_hash.startswith("$argon2id$") and secret.split("_", 2)[2] not in str(stored)
    with visitor(closed, secret) as machine:
        me = machine.get("/api/v1/session").json()
        assert (me["kind"], me["roles"], me["cameras"], me["csrf_token"]) == ("api_key", ["ingest"], ["north"], None)
        used = {one["id"]: one["last_used_at"] for one in closed.http.get("/api/v1/api-keys").json()["api_keys"]}
        assert used[made["id"]] is not None
        assert closed.http.delete(f"/api/v1/api-keys/{made['id']}").status_code == 204
        assert code(machine.get("/api/v1/session")) == (401, "unauthenticated"), "although it was just verified"
    assert closed.http.delete(f"/api/v1/api-keys/{made['id']}").status_code == 204
    assert code(closed.http.delete(f"/api/v1/api-keys/{uuid.uuid4()}")) == (404, "not_found")


def test_a_key_expires_and_its_end_is_bounded(closed: Service) -> None:
    asked = {"name": "x", "roles": ["ingest"], "cameras": None}
    for end in ("2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "2030-01-01T00:00:00", None):
        body = problem(closed.http.post("/api/v1/api-keys", json={**asked, "expires_at": end}))
        assert body["status"] == 422 and body["errors"][0]["pointer"] == "/expires_at"
    assert code(closed.http.post("/api/v1/api-keys", json=asked))[0] == 422
    secret, stored = key(closed, "ingest")
    with visitor(closed, secret) as machine:
        assert machine.get("/api/v1/session").status_code == 200
        sql(closed, "UPDATE api_key SET expires_at = now() WHERE id = :id", id=stored.id)
        assert machine.get("/api/v1/session").status_code == 401


def test_a_key_is_hashed_once_and_then_remembered(closed: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    verify, calls = credentials.is_secret, []
    monkeypatch.setattr(credentials, "is_secret", lambda hashed, secret: calls.append(1) or verify(hashed, secret))
    secret, _ = key(closed, "ingest")
    with visitor(closed, secret) as machine:
        assert [machine.get("/api/v1/session").status_code for _ in range(4)] == [200] * 4
    assert len(calls) == 1
    with visitor(closed, secret[:-1] + ("A" if secret[-1] != "A" else "B")) as machine:
        assert [machine.get("/api/v1/session").status_code for _ in range(2)] == [401] * 2
    assert len(calls) == 3


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Basic a:b", "Bearer x", "Bearer psk__", "Bearer psk_\xe4_\xe4", "psk_a_b"]
)
def test_what_is_no_key_is_a_401(closed: Service, header: str) -> None:
    with visitor(closed) as client:
        answer = client.get("/api/v1/session", headers={b"Authorization": header.encode("latin-1")})
    assert code(answer) == (401, "unauthenticated")


@pytest.mark.parametrize("name", ["api_key", "token", "access_token", "API_KEY"])
@pytest.mark.parametrize("path", ["/api/v1/cameras", "/api/v1/session", "/version"])
def test_a_key_in_the_address_is_refused(closed: Service, path: str, name: str) -> None:
    with visitor(closed) as client:
        answer = client.get(path, params={name: key(closed, "admin")[0] if name == "token" else "x"})
    assert code(answer) == (400, "key_in_url") and "Authorization: Bearer" in answer.text


def test_the_client_shows_its_key_and_says_how_when_it_has_none(
    closed: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(closed.http.base_url)
    with Client(url) as client, pytest.raises(ServiceError, match="--api-key-file"):
        client.checkpoints()
    with Client(url, api_key=key(closed, "admin")[0]) as client:
        assert client.checkpoints()
    monkeypatch.setenv("PERSON_SEARCH_API_KEY", key(closed, "admin")[0])
    with Client(url) as client:
        assert client.checkpoints()


# --------------------------------------------------------------------------------------------------------------- limits


def test_requests_are_limited_by_principal(tmp_path: Path) -> None:
    with (
        running_service(tmp_path, auth="required", rate_limit=0.001, rate_limit_burst=3) as service,
        visitor(service, key(service, "ingest")[0]) as one,
        visitor(service, key(service, "ingest")[0]) as other,
    ):
        assert [one.get("/api/v1/session").status_code for _ in range(5)] == [200] * 3 + [429] * 2
        refused = one.get("/api/v1/cameras")
        assert code(refused) == (429, "rate_limited") and int(refused.headers["Retry-After"]) > 500
        assert other.get("/api/v1/cameras").status_code == 200
        assert one.get("/livez").status_code == 200


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_fills_up_again() -> None:
    clock = Clock()
    buckets = Buckets(2.0, 4, clock)
    assert [buckets.take("a") for _ in range(6)] == [0, 0, 0, 0, 1, 1]
    clock.now += 1.0
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 1]
    clock.now += 3600
    assert [buckets.take("a") for _ in range(5)] == [0, 0, 0, 0, 1]
    assert [Buckets(0, 1, clock).take("a") for _ in range(3)] == [0, 0, 0]


def test_pauses_double_and_end() -> None:
    clock = Clock()
    backoff = Backoff(2, longest=60, clock=clock)
    waits = []
    for _ in range(9):
        backoff.failed("a")
        waits.append(backoff.wait("a"))
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff.wait("b") == 0
    clock.now += 59
    assert backoff.wait("a") == 1
    clock.now += 2
    assert backoff.wait("a") == 0
    backoff.failed("a")
    assert backoff.wait("a") == 60
    clock.now += 241
    backoff.failed("a")
    assert backoff.wait("a") == 0, "after a quiet time it begins anew"
    backoff.failed("a")
    backoff.succeeded("a")
    backoff.failed("a")
    assert backoff.wait("a") == 0


# --------------------------------------------------------------------------------------------------------------- scopes


@pytest.fixture(scope="module")
def images(closed: Service) -> dict[str, str]:
    """camera -> an image of it; "none" has no camera"""
    found = {name: closed.added(picture(50 + n), camera_id=name) for n, name in enumerate(("north", "south"))}
    found["none"] = closed.added(picture(52), external_id="from nowhere")
    closed.embed()
    return found


@pytest.fixture(scope="module")
def northerner(closed: Service) -> Iterator[httpx.Client]:
    """Sees and adds images of camera north."""
    with visitor(closed, key(closed, "operator", "ingest", cameras=["north"])[0]) as client:
        yield client


def without_ids(response: httpx.Response) -> Json:
    body = problem(response)
    ids = r"[0-9a-f]{8}-[0-9a-f-]{27}|north|south|atlantis"
    return {name: re.sub(ids, "ID", str(body[name])) for name in ("status", "code", "title", "detail", "instance")}


@pytest.mark.parametrize(
    "path", ["/api/v1/images/{}", "/api/v1/images/{}/content", "/api/v1/images/{}/content?variant=thumb"]
)
def test_an_image_outside_the_scope_is_as_if_absent(
    northerner: httpx.Client, images: dict[str, str], path: str
) -> None:
    assert northerner.get(path.format(images["north"])).status_code == 200
    absent = northerner.get(path.format(uuid.uuid4()))
    assert absent.status_code == 404
    for camera in ("south", "none"):
        assert without_ids(northerner.get(path.format(images[camera]))) == without_ids(absent)


def test_a_search_stays_within_the_scope(closed: Service, northerner: httpx.Client, images: dict[str, str]) -> None:
    def ask(query: Json, **more: Any) -> httpx.Response:
        return northerner.post("/api/v1/searches", json={"query": query, **more})

    found = ask({"text": "a man"}).json()
    assert {result["image"]["camera_id"] for result in found["results"]} == {"north"}
    assert images["north"] in [result["image_id"] for result in found["results"]]
    assert found["candidates"] == len(found["results"])
    everything = closed.found({"query": {"text": "a man"}, "limit": 200})
    again = northerner.get(f"/api/v1/searches/{everything['id']}")
    if again.status_code == 200:  # whoever may read a search of somebody else still sees no more than their own images
        assert {result["image"]["camera_id"] for result in again.json()["results"]} == {"north"}
    else:
        assert again.status_code == 404
    by_image = {"image": {"image_id": images["south"]}}
    absent = {"image": {"image_id": str(uuid.uuid4())}}
    assert without_ids(ask(by_image)) == without_ids(ask(absent))
    assert ask({"image": {"image_id": images["north"]}}).status_code == 201
    for operator in ({"eq": "south"}, {"in": ["north", "south"]}, {"ne": "south"}):
        unknown = {key: "atlantis" if value == "south" else value for key, value in operator.items()}
        unknown = {key: ["north", "atlantis"] if isinstance(value, list) else value for key, value in unknown.items()}
        refused = ask({"text": "a man"}, filter={"camera_id": operator})
        assert code(refused) == (422, "unknown_camera")
        assert without_ids(refused) == without_ids(ask({"text": "a man"}, filter={"camera_id": unknown}))
    assert [camera["id"] for camera in northerner.get("/api/v1/cameras").json()["cameras"]] == ["north"]


def test_images_are_added_within_the_scope_alone(closed: Service, northerner: httpx.Client) -> None:
    def add(seed: int, metadata: str) -> httpx.Response:
        files: dict[str, Any] = {"image": ("a.png", picture(seed)), "metadata": (None, metadata, "application/json")}
        return northerner.post("/api/v1/images", files=files)

    assert add(60, '{"camera_id": "north"}').status_code == 201
    outside, absent = add(61, '{"camera_id": "south"}'), add(61, '{"camera_id": "atlantis"}')
    assert code(outside) == (422, "unknown_camera") and without_ids(outside) == without_ids(absent)
    assert code(add(61, "{}")) == (422, "unknown_camera")


def delivered(closed: Service, client: httpx.Client, content: bytes, kind: str, **parameters: Any) -> list[Json]:
    headers = {"Content-Type": kind}
    accepted = client.post("/api/v1/ingestions", content=content, headers=headers, params=parameters)
    assert accepted.status_code == 202, accepted.text
    path = accepted.headers["Location"]
    wait_until(lambda: client.get(path).json()["state"] == "done", "the delivery is taken in")
    items: list[Json] = client.get(f"{path}/items").json()["items"]
    return items


def test_deliveries_stay_within_the_scope(closed: Service, northerner: httpx.Client, images: dict[str, str]) -> None:
    lines = [{"file": f"{n}.png", "camera_id": camera} for n, camera in enumerate(("north", "south", "atlantis", None))]
    archive = zipped({f"{n}.png": picture(70 + n) for n in range(4)}, lines)
    items = delivered(closed, northerner, archive, "application/zip", register_cameras=True)
    assert [(item["state"], item["code"]) for item in items[1:]] == [("rejected", "unknown_camera")] * 3
    assert items[0]["state"] == "pending"
    cameras = [camera["id"] for camera in closed.http.get("/api/v1/cameras").json()["cameras"]]
    assert "atlantis" not in cameras

    closed.added(picture(80), external_id="in the south", camera_id="south")
    for n in range(3):
        closed.added(picture(81 + n), external_id=f"north {n}", camera_id="north")
    hold = closed.http.post("/api/v1/legal-holds", json={"reason": "held", "camera_id": "south"}).json()
    changes = b"\n".join(
        [
            b'{"external_id": "in the south", "identity": "x"}',
            b'{"external_id": "nobody", "identity": "x"}',
            b'{"external_id": "from nowhere", "tags": ["x"]}',
            b'{"external_id": "north 0", "camera_id": "south"}',
            b'{"external_id": "north 1", "camera_id": null}',
            b'{"external_id": "north 2", "tags": ["x"]}',
        ]
    )
    items = delivered(closed, northerner, changes, "application/x-ndjson")
    closed.http.delete(f"/api/v1/legal-holds/{hold['id']}")
    assert [item["code"] for item in items] == ["not_found"] * 3 + ["unknown_camera"] * 2 + [None]
    assert items[0]["reason"].replace("in the south", "X") == items[1]["reason"].replace("nobody", "X")
    assert closed.http.get(f"/api/v1/images/{images['none']}").json()["tags"] == []


def test_deliveries_and_their_request_keys_are_the_senders_own(closed: Service) -> None:
    archive = zipped({"a.png": picture(90)}, [{"file": "a.png", "camera_id": "north"}])
    headers = {"Content-Type": "application/zip", "Idempotency-Key": "the same"}
    with visitor(closed, key(closed, "ingest")[0]) as one, visitor(closed, key(closed, "ingest")[0]) as other:
        mine, theirs = (client.post("/api/v1/ingestions", content=archive, headers=headers) for client in (one, other))
        again = one.post("/api/v1/ingestions", content=archive, headers=headers)
        assert mine.json()["id"] == again.json()["id"] != theirs.json()["id"]
        assert other.get(mine.headers["Location"]).status_code == 404
        assert one.get(mine.headers["Location"]).status_code == 200
    with visitor(closed, key(closed, "admin")[0]) as admin:
        assert admin.get(mine.headers["Location"]).status_code == 200


def test_a_scope_keeps_from_what_concerns_the_whole_gallery(closed: Service) -> None:
    with visitor(closed, key(closed, "admin", cameras=["north"])[0]) as scoped:
        for method, path in (("GET", "/users"), ("GET", "/legal-holds"), ("GET", "/checkpoints"), ("GET", "/erasures")):
            refused = scoped.request(method, f"/api/v1{path}")
            assert code(refused) == (403, "forbidden") and "without a camera scope" in refused.text


# ---------------------------------------------------------------------------------------------------------------- audit


def test_acts_are_recorded_with_them_or_do_not_happen(closed: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []

    def note(session: Any, actor: Actor, action: str, *_: Any, detail: Any = None, **__: Any) -> None:
        assert session.in_transaction() and PASSWORD not in str(detail)
        seen.append((actor.name, action))

    monkeypatch.setattr(access.audit, "record", note)
    asked = {"name": "Gus", "password": PASSWORD, "roles": ["operator"], "cameras": None}
    with sign_in(closed, "ada") as ada:
        path = ada.post("/api/v1/users", json=asked).headers["Location"]
        ada.patch(path, json={"disabled": True})
        made = ada.post(
            "/api/v1/api-keys", json={"name": "k", "roles": ["ingest"], "cameras": None, "expires_at": LATER}
        )
        ada.delete(f"/api/v1/api-keys/{made.json()['id']}")
        ada.post("/api/v1/session", json={"name": "ada", "password": "wrong"})
        ada.delete("/api/v1/session")
    assert seen == [
        ("Ada", "session.begin"),
        ("Ada", "user.create"),
        ("Ada", "user.change"),
        ("Ada", "api_key.create"),
        ("Ada", "api_key.revoke"),
        ("person-search", "session.refused"),
        ("Ada", "session.end"),
    ]

    def fails(*_: Any, **__: Any) -> None:
        raise DatabaseUnavailable("The audit cannot be written.")

    monkeypatch.setattr(access.audit, "record", fails)
    before = sql(closed, "SELECT count(*) FROM user_session")
    assert closed.http.post("/api/v1/users", json={**asked, "name": "Hal"}).status_code == 503
    with visitor(closed) as client:
        assert client.post("/api/v1/session", json={"name": "ada", "password": PASSWORD}).status_code == 503
    assert sql(closed, "SELECT 1 FROM user_account WHERE name = 'Hal'") == []
    assert sql(closed, "SELECT count(*) FROM user_session") == before


# --------------------------------------------------------------------------------------------------------- command line


def test_accounts_from_the_command_line(
    closed: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PERSON_SEARCH_DATABASE_URL", closed.database.url)
    monkeypatch.setenv("PERSON_SEARCH_DATA_DIR", str(tmp_path))
    for commands in (access_cli, checkpoint_cli):
        monkeypatch.setattr(commands, "console", Console(width=250))

    def run(*arguments: str, typed: str = "") -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["person-search", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out + printed.err

    created = run(
        "user", "create", "Ida", "--role", "operator", "--camera", "north", "--password-stdin", typed=PASSWORD
    )
    assert created == (0, "Ida may sign in as operator of north.\n")
    sign_in(closed, "ida").close()
    for wrong, sentence in (
        (("user", "create", "IDA", "--role", "operator", "--password-stdin"), "There is a user 'IDA' already"),
        (("user", "create", "X", "--role", "operator", "--camera", "nroth", "--password-stdin"), "no camera 'nroth'"),
        (("user", "disable", "nobody"), "There is no user 'nobody'"),
        (("api-key", "create", "k", "--role", "ingest", "--days", "9999"), "at most 366 days"),
        (("api-key", "revoke", str(uuid.uuid4())), "There is no API key"),
        (("--api-key-file", str(tmp_path / "absent"), "checkpoint", "list"), "cannot be read from"),
    ):
        status, said = run(*wrong, typed=PASSWORD)
        assert status == 1 and said.startswith("error: ") and sentence in said, said
    status, said = run("user", "create", "X", "--role", "operator", "--password-stdin", typed="short")
    assert status == 1 and "at least 12 characters" in said
    assert run("user", "password", "ida", "--password-stdin", typed=NEW)[0] == 0
    sign_in(closed, "ida", NEW).close()
    assert run("user", "disable", "ida")[0] == 0
    assert "Ida" in run("user", "list")[1]

    status, secret = run("api-key", "create", "upgrades", "--role", "admin")
    assert status == 0
    (tmp_path / "key.txt").write_text(secret)
    monkeypatch.delenv("PERSON_SEARCH_API_KEY", raising=False)
    url = ("--url", str(closed.http.base_url))
    monkeypatch.setenv("PERSON_SEARCH_API_KEY", "psk_is_wrong")  # and restored afterwards: the option sets it
    assert run("checkpoint", "list", *url)[0] == 1
    status, said = run("--api-key-file", str(tmp_path / "key.txt"), "checkpoint", "list", *url)
    assert status == 0 and closed.encoder.checkpoint_id in said
    status, said = run("api-key", "list")
    assert "upgrades" in said and secret.strip() not in said
    (id,) = re.findall(r"([0-9a-f-]{36}).*upgrades", said)
    assert run("api-key", "revoke", id)[0] == 0
    assert run("checkpoint", "list", *url)[0] == 1
