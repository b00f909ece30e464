"""Every call, by everybody, about what is theirs, what is not, and what does not exist: exactly the documented status.

A route that is not in the table fails it. Roles are those of API keys, of which the operator's and the ingest key are
for camera north alone; without a good key or session every call but the public ones is a 401.
"""

from __future__ import annotations

import itertools
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from sqlalchemy import text

from indexer.database import transaction
from service.app import ROUTES
from service.openapi import openapi_document
from service.principals import needs
from tests.fake_encoder import GridFiles
from tests.service.accounts import EVERY_ROLE, PASSWORD, key, sign_in, user, visitor
from tests.service.conftest import Service, picture, problem, running_service, wait_until, zipped

ROLES = ("operator", "investigator", "ingest", "auditor", "admin")
OUTSIDERS = ("anonymous", "expired", "revoked", "disabled")

# `own` is an image of camera north, or what the ingest key sent; `foreign` one of camera south, or sent by another key;
# for what belongs to nobody in particular, `own` is one that exists.
TABLE = """
                                                            operator investigator ingest auditor admin
GET    /api/v1/cameras                              -       200      200          200    403     200
POST   /api/v1/cameras                              -       403      403          403    403     201
POST   /api/v1/images                               own     403      403          201    403     403
POST   /api/v1/images                               foreign 403      403          422    403     403
POST   /api/v1/images                               absent  403      403          422    403     403
GET    /api/v1/images/{image_id}                    own     200      200          403    403     403
GET    /api/v1/images/{image_id}                    foreign 404      200          403    403     403
GET    /api/v1/images/{image_id}                    absent  404      404          403    403     403
GET    /api/v1/images/{image_id}/content            own     200      200          403    403     403
GET    /api/v1/images/{image_id}/content            foreign 404      200          403    403     403
GET    /api/v1/images/{image_id}/content            absent  404      404          403    403     403
DELETE /api/v1/images/{image_id}                    own     403      403          403    403     204
DELETE /api/v1/images/{image_id}                    foreign 403      403          403    403     204
DELETE /api/v1/images/{image_id}                    absent  403      403          403    403     404
POST   /api/v1/searches                             own     201      201          403    403     403
POST   /api/v1/searches                             foreign 422      201          403    403     403
POST   /api/v1/searches                             absent  422      422          403    403     403
GET    /api/v1/searches/{search_id}                 own     200      200          403    403     403
GET    /api/v1/searches/{search_id}                 absent  404      404          403    403     403
POST   /api/v1/ingestions                           -       403      403          202    403     403
GET    /api/v1/ingestions/{ingestion_id}            own     403      403          200    403     200
GET    /api/v1/ingestions/{ingestion_id}            foreign 403      403          404    403     200
GET    /api/v1/ingestions/{ingestion_id}            absent  403      403          404    403     404
GET    /api/v1/ingestions/{ingestion_id}/items      own     403      403          200    403     200
GET    /api/v1/ingestions/{ingestion_id}/items      foreign 403      403          404    403     200
GET    /api/v1/ingestions/{ingestion_id}/items      absent  403      403          404    403     404
GET    /api/v1/ingestions/{ingestion_id}/events     own     403      403          200    403     200
GET    /api/v1/ingestions/{ingestion_id}/events     foreign 403      403          404    403     200
GET    /api/v1/ingestions/{ingestion_id}/events     absent  403      403          404    403     404
POST   /api/v1/ingestions/{ingestion_id}/retry      own     403      403          409    403     409
POST   /api/v1/ingestions/{ingestion_id}/retry      foreign 403      403          404    403     409
POST   /api/v1/ingestions/{ingestion_id}/retry      absent  403      403          404    403     404
POST   /api/v1/ingestions/{ingestion_id}/cancel     own     403      403          409    403     409
POST   /api/v1/ingestions/{ingestion_id}/cancel     foreign 403      403          404    403     409
POST   /api/v1/ingestions/{ingestion_id}/cancel     absent  403      403          404    403     404
GET    /api/v1/erasures                             -       403      403          403    403     200
POST   /api/v1/erasures                             own     403      403          403    403     201
POST   /api/v1/erasures                             foreign 403      403          403    403     201
POST   /api/v1/erasures                             absent  403      403          403    403     201
GET    /api/v1/erasures/{erasure_id}                own     403      403          403    403     200
GET    /api/v1/erasures/{erasure_id}                absent  403      403          403    403     404
GET    /api/v1/legal-holds                          -       403      403          403    403     200
POST   /api/v1/legal-holds                          own     403      403          403    403     201
POST   /api/v1/legal-holds                          foreign 403      403          403    403     201
POST   /api/v1/legal-holds                          absent  403      403          403    403     404
DELETE /api/v1/legal-holds/{hold_id}                own     403      403          403    403     204
DELETE /api/v1/legal-holds/{hold_id}                absent  403      403          403    403     404
GET    /api/v1/retention-policies                   -       403      403          403    403     200
PUT    /api/v1/retention-policies                   -       403      403          403    403     200
DELETE /api/v1/retention-policies                   own     403      403          403    403     204
DELETE /api/v1/retention-policies                   absent  403      403          403    403     404
GET    /api/v1/checkpoints                          -       403      403          403    403     200
POST   /api/v1/checkpoints                          -       403      403          403    403     422
GET    /api/v1/checkpoints/{checkpoint_id}          own     403      403          403    403     200
GET    /api/v1/checkpoints/{checkpoint_id}          absent  403      403          403    403     404
POST   /api/v1/checkpoints/{checkpoint_id}/gate     own     403      403          403    403     409
POST   /api/v1/checkpoints/{checkpoint_id}/gate     absent  403      403          403    403     404
POST   /api/v1/checkpoints/{checkpoint_id}/activate own     403      403          403    403     409
POST   /api/v1/checkpoints/{checkpoint_id}/activate absent  403      403          403    403     404
POST   /api/v1/checkpoints/{checkpoint_id}/rollback own     403      403          403    403     409
POST   /api/v1/checkpoints/{checkpoint_id}/rollback absent  403      403          403    403     404
POST   /api/v1/checkpoints/{checkpoint_id}/retire   own     403      403          403    403     409
POST   /api/v1/checkpoints/{checkpoint_id}/retire   absent  403      403          403    403     404
GET    /api/v1/session                              -       200      200          200    200     200
DELETE /api/v1/session                              -       403      403          403    403     403
PUT    /api/v1/session/password                     -       403      403          403    403     403
GET    /api/v1/users                                -       403      403          403    403     200
POST   /api/v1/users                                -       403      403          403    403     201
GET    /api/v1/users/{user_id}                      own     403      403          403    403     200
GET    /api/v1/users/{user_id}                      absent  403      403          403    403     404
PATCH  /api/v1/users/{user_id}                      own     403      403          403    403     200
PATCH  /api/v1/users/{user_id}                      absent  403      403          403    403     404
GET    /api/v1/api-keys                             -       403      403          403    403     200
POST   /api/v1/api-keys                             -       403      403          403    403     201
DELETE /api/v1/api-keys/{key_id}                    own     403      403          403    403     204
DELETE /api/v1/api-keys/{key_id}                    absent  403      403          403    403     404
"""

# Calls that ask for nobody: the same for all, also with a key that is not good any more.
PUBLIC = {
    ("POST", "/api/v1/session"): 201,
    ("POST", "/api/v1/setup"): 403,  # there is a user already
    ("GET", "/livez"): 200,
    ("GET", "/readyz"): 200,
    ("GET", "/version"): 200,
}


@dataclass(frozen=True)
class Row:
    method: str
    path: str
    object: str
    expected: dict[str, int]

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.object}"


def rows() -> Iterator[Row]:
    for line in TABLE.strip().splitlines()[1:]:
        method, path, object, *statuses = line.split()
        yield Row(method, path, object, dict(zip(ROLES, map(int, statuses), strict=True)))


def routes() -> dict[tuple[str, str], APIRoute]:
    found = [route for module in ROUTES for route in module.router.routes]
    assert all(isinstance(route, APIRoute) for route in found)
    return {(method, route.path): route for route in found if isinstance(route, APIRoute) for method in route.methods}


def test_every_route_is_in_the_table() -> None:
    listed = {(row.method, row.path) for row in rows()}
    assert listed | PUBLIC.keys() == routes().keys()
    assert not listed & PUBLIC.keys()


def test_every_route_asks_who_is_calling_but_the_public_ones() -> None:
    assert {call for call, route in routes().items() if needs(route) is None} == PUBLIC.keys()


def test_every_object_is_tried() -> None:
    tried = {(row.method, row.path): set() for row in rows()}
    for row in rows():
        tried[row.method, row.path].add(row.object)
    for (_, path), objects in tried.items():
        if "{" in path:
            assert {"own", "absent"} <= objects, path


# ------------------------------------------------------------------------------------------------------------ the world


@dataclass
class World:
    """A running service, a client for each kind of caller, and fresh objects to ask about."""

    service: Service
    clients: dict[str, httpx.Client]
    numbers: Iterator[int] = field(default_factory=partial(itertools.count, 1000))
    kept: dict[tuple[str, ...], str] = field(default_factory=dict)

    def image(self, object: str) -> str:
        if object == "absent":
            return str(uuid.uuid4())
        camera = {"own": "north", "foreign": "south"}[object]
        return self.service.added(picture(next(self.numbers)), camera_id=camera)

    def ingestion(self, object: str) -> str:
        if object == "absent":
            return str(uuid.uuid4())
        sender = self.clients["ingest"] if object == "own" else self.service.http
        archive = zipped({"a.png": picture(next(self.numbers))}, [{"file": "a.png", "camera_id": "north"}])
        path = sender.post("/api/v1/ingestions", content=archive, headers={"Content-Type": "application/zip"}).headers[
            "Location"
        ]
        wait_until(lambda: sender.get(path).json()["state"] == "done", "the delivery is taken in")
        self.service.embed()
        return path.rsplit("/", 1)[-1]

    def made(self, object: str, path: str, body: Any) -> str:
        """The id of something an admin makes over the API."""
        if object == "absent":
            return str(uuid.uuid4())
        answer = self.service.http.post(path, json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def id(self, name: str, object: str, caller: str, *, fresh: bool) -> str:
        """What stands for {name}; kept from call to call, unless the call takes it away."""
        kept = (name, object, caller if name == "search_id" else "")  # searches are their maker's
        if fresh or kept not in self.kept:
            found = self._id(name, object, caller)
            if fresh:
                return found
            self.kept[kept] = found
        return self.kept[kept]

    def _id(self, name: str, object: str, caller: str) -> str:
        match name:
            case "search_id" if object == "own" and caller in ("operator", "investigator"):
                answer = self.clients[caller].post("/api/v1/searches", json={"query": {"text": "a man"}})
                return str(answer.json()["id"])
            case "search_id":
                return self.made(object, "/api/v1/searches", {"query": {"text": "a man"}})
            case "image_id":
                return self.image(object)
            case "ingestion_id":
                return self.ingestion(object)
            case "erasure_id":
                return self.made(object, "/api/v1/erasures", {"identity": "nobody", "reason": "to have one"})
            case "hold_id":
                return self.made(object, "/api/v1/legal-holds", {"identity": "nobody", "reason": "to have one"})
            case "user_id":
                return self.made(object, "/api/v1/users", self.new_user())
            case "key_id":
                return self.made(object, "/api/v1/api-keys", new_key())
            case "checkpoint_id":
                return self.service.encoder.checkpoint_id if object == "own" else "grid000000000600"
        raise AssertionError(f"Say here what stands for {{{name}}}, and add it to the table.")

    def new_user(self) -> dict[str, Any]:
        return {"name": f"user {next(self.numbers)}", "password": PASSWORD, "roles": ["operator"], "cameras": None}

    def body(self, row: Row) -> dict[str, Any]:
        """Arguments of the request: a body that would do, if the caller may."""
        camera = {"own": "north", "foreign": "south", "absent": "atlantis"}.get(row.object)
        json_bodies: dict[tuple[str, str], Any] = {
            ("POST", "/api/v1/cameras"): lambda: {"id": f"camera-{next(self.numbers)}"},
            ("POST", "/api/v1/erasures"): lambda: {"image_ids": [self.image(row.object)], "reason": "asked for"},
            ("POST", "/api/v1/legal-holds"): lambda: {"image_ids": [self.image(row.object)], "reason": "asked for"},
            ("PUT", "/api/v1/retention-policies"): lambda: {"camera_id": "north", "days": 3650},
            ("POST", "/api/v1/checkpoints/{checkpoint_id}/gate"): dict,
            ("POST", "/api/v1/checkpoints/{checkpoint_id}/activate"): dict,
            ("POST", "/api/v1/checkpoints/{checkpoint_id}/rollback"): dict,
            ("PUT", "/api/v1/session/password"): lambda: {"current_password": PASSWORD, "new_password": PASSWORD + "x"},
            ("POST", "/api/v1/users"): self.new_user,
            ("PATCH", "/api/v1/users/{user_id}"): lambda: {"roles": ["operator", "auditor"]},
            ("POST", "/api/v1/api-keys"): new_key,
            ("POST", "/api/v1/session"): lambda: {"name": "somebody", "password": PASSWORD},
            ("POST", "/api/v1/setup"): lambda: {"token": "x", "name": "mallory", "password": PASSWORD},
            ("POST", "/api/v1/searches"): lambda: {
                "query": {"text": "a man"},
                "filter": {"camera_id": {"eq": camera}},
            },
        }
        match row.method, row.path:
            case call if call in json_bodies:
                return {"json": json_bodies[call]()}
            case "POST", "/api/v1/images":
                metadata = json.dumps({"camera_id": camera})
                return {"files": {"image": ("a.png", picture(next(self.numbers))), "metadata": (None, metadata)}}
            case "POST", "/api/v1/ingestions":
                archive = zipped({"a.png": picture(next(self.numbers))}, [{"file": "a.png", "camera_id": "north"}])
                return {"content": archive, "headers": {"Content-Type": "application/zip"}}
            case "POST", "/api/v1/checkpoints":
                return {"content": b"no checkpoint", "headers": {"Content-Type": "application/octet-stream"}}
            case "DELETE", "/api/v1/retention-policies":
                self.service.http.put("/api/v1/retention-policies", json={"camera_id": "north", "days": 3650})
                return {"params": {"camera_id": camera}}
        return {}

    def call(self, caller: str, row: Row) -> httpx.Response:
        fresh = row.method == "DELETE" and row.expected.get(caller) == 204
        ids = {name: self.id(name, row.object, caller, fresh=fresh) for name in re.findall(r"\{(\w+)\}", row.path)}
        return self.clients[caller].request(row.method, row.path.format(**ids), **self.body(row))


def new_key() -> dict[str, Any]:
    end = datetime.now(UTC) + timedelta(days=1)
    return {"name": "a key", "roles": ["ingest"], "cameras": None, "expires_at": end.isoformat()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("idor")
    with running_service(folder, files=GridFiles(folder / "files"), auth="required", rate_limit=0) as service:
        service.http.headers["Authorization"] = f"Bearer {key(service, *EVERY_ROLE)[0]}"
        service.camera("north", "south")
        user(service, "somebody", "operator")
        user(service, "boss", "admin")
        disabled = user(service, "disabled", *EVERY_ROLE)
        scopes = {"operator": ["north"], "ingest": ["north"]}
        clients = {role: visitor(service, key(service, role, cameras=scopes.get(role))[0]) for role in ROLES}
        clients["anonymous"] = visitor(service)
        clients["disabled"] = sign_in(service, "disabled")
        assert service.http.patch(f"/api/v1/users/{disabled.id}", json={"disabled": True}).status_code == 200
        for name, change in (("expired", "expires_at"), ("revoked", "revoked_at")):
            secret, stored = key(service, *EVERY_ROLE)
            clients[name] = visitor(service, secret)
            assert clients[name].get("/api/v1/session").status_code == 200  # so that its secret is remembered
            with transaction(service.database.engine) as session:
                session.execute(text(f"UPDATE api_key SET {change} = now() WHERE id = :id"), {"id": stored.id})
        yield World(service, clients)
        for client in clients.values():
            client.close()


# ------------------------------------------------------------------------------------------------------------ the tests


@pytest.mark.parametrize("row", list(rows()), ids=str)
def test_the_status_is_the_documented_one(world: World, row: Row) -> None:
    for caller in (*OUTSIDERS, *ROLES):
        expected = row.expected.get(caller, 401)
        answer = world.call(caller, row)
        assert answer.status_code == expected, f"{caller}: {answer.text}"
        documented = openapi_document_once()["paths"][row.path][row.method.lower()]["responses"]
        assert str(answer.status_code) in documented
        if expected in (401, 403):
            assert problem(answer)["code"] in ("unauthenticated", "forbidden")


@pytest.mark.parametrize("call", PUBLIC, ids=" ".join)
def test_public_calls_answer_everybody(world: World, call: tuple[str, str]) -> None:
    for caller in (*OUTSIDERS, *ROLES):
        answer = world.call(caller, Row(*call, "-", {}))
        assert answer.status_code == PUBLIC[call], f"{caller}: {answer.text}"
        world.clients["anonymous"].cookies.clear()  # it was signed in


FOREIGN = [row for row in rows() if row.object == "foreign"]


@pytest.mark.parametrize("row", FOREIGN, ids=str)
def test_what_is_foreign_looks_as_if_absent(world: World, row: Row) -> None:
    """To those whom it is refused as not there, in the same words."""

    def words(object: str, caller: str) -> dict[str, str]:
        body = problem(world.call(caller, Row(row.method, row.path, object, row.expected)))
        ids = r"[0-9a-f]{8}-[0-9a-f-]{27}|south|atlantis"
        return {name: re.sub(ids, "ID", str(body[name])) for name in body if name != "request_id"}

    for caller in (role for role in ROLES if row.expected[role] in (404, 422)):
        assert words("foreign", caller) == words("absent", caller)


_documents: list[dict[str, Any]] = []


def openapi_document_once() -> dict[str, Any]:
    if not _documents:
        _documents.append(openapi_document())
    return _documents[0]
