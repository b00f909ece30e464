"""What test_idor.py asks about: a service, callers of every kind, and objects of theirs, of others, and of nobody."""

from __future__ import annotations

import itertools
import json
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import text

from indexer import cases
from indexer.audit import Actor
from indexer.database import transaction
from service.access import of_key
from tests.fake_encoder import GridFiles
from tests.service.accounts import EVERY_ROLE, PASSWORD, key, sign_in, user, visitor
from tests.service.conftest import Service, picture, running_service, wait_until, zipped

ROLES = ("operator", "investigator", "ingest", "auditor", "admin")
USERS = {"somebody": "operator", "boss": "admin", "inspector": "investigator"}
OWNED = {"image_id", "ingestion_id", "search_id", "saved_search_id", "case_id"}
A_SEARCH = {"query": {"text": "a man"}}
SAVED = {"name": "men", "request": A_SEARCH}
NEW_ITEM = ("POST", "/api/v1/cases/{case_id}/items")


@dataclass(frozen=True)
class Row:
    method: str
    path: str
    object: str
    expected: dict[str, int]

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.object}"


def new_key() -> dict[str, Any]:
    end = datetime.now(UTC) + timedelta(days=1)
    return {"name": "a key", "roles": ["ingest"], "cameras": None, "expires_at": end.isoformat()}


@dataclass
class World:
    """A running service, a client for each kind of caller, and objects to ask about.

    images: one of each camera, which stay; users: some who are there; operator: who the operator's key is.
    """

    service: Service
    clients: dict[str, httpx.Client]
    images: dict[str, str]
    users: dict[str, str]
    operator: Actor
    numbers: Iterator[int] = field(default_factory=partial(itertools.count, 1000))
    kept: dict[tuple[str, ...], str] = field(default_factory=dict)

    def image(self, object: str) -> str:
        if object == "absent":
            return str(uuid.uuid4())
        camera = {"own": "north", "foreign": "south"}[object]
        return self.service.added(picture(next(self.numbers)), camera_id=camera)

    def named(self, object: str) -> str:
        """The external id of an image, which lies where `object` says."""
        name, n = f"named {next(self.numbers)}", next(self.numbers)
        if object != "absent":
            camera = {"own": "north", "foreign": "south"}[object]
            self.service.added(picture(n), camera_id=camera, external_id=name)
        return name

    def camera(self, object: str, *, fresh: bool) -> str:
        if fresh:
            self.service.camera(name := f"camera-{next(self.numbers)}")
            return name
        return {"own": "north", "foreign": "south", "absent": "atlantis"}[object]

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

    def made(self, object: str, path: str, body: Any, by: httpx.Client | None = None) -> str:
        """The id of something that is made over the API, by a key with all roles if nobody is named."""
        if object == "absent":
            return str(uuid.uuid4())
        answer = (by or self.service.http).post(path, json=body)
        assert answer.status_code in (200, 201), answer.text
        return str(answer.json()["id"])

    def owner(self, object: str, caller: str, *searchers: str) -> httpx.Client:
        """Who made it: the caller if it is their own and they are one of these, else the key with all roles."""
        return self.clients[caller] if object != "foreign" and caller in searchers else self.service.http

    def searcher(self, object: str, caller: str) -> httpx.Client:
        return self.owner(object, caller, "operator", "investigator")

    def case(self, object: str, caller: str) -> str:
        """A case of the caller's, but for `foreign`. Nobody else can add a key: that is for users alone."""
        case = self.made(object, "/api/v1/cases", {"title": "a case"}, self.owner(object, caller, "investigator"))
        if caller == "operator" and object not in ("foreign", "absent"):
            with transaction(self.service.database.engine) as session:
                cases.add_member(session, UUID(case), cases.person_of(self.operator), self.operator.name)
        return case

    def item(self, case: str, camera: str, by: httpx.Client) -> str:
        search = self.made("own", "/api/v1/searches", A_SEARCH, by)
        body = {"search_id": search, "image_id": self.images[camera]}
        return self.made("own", f"/api/v1/cases/{case}/items", body, by)

    def id(self, name: str, object: str, caller: str, *, fresh: bool) -> str:
        """What stands for {name}; kept from call to call, unless the call takes it away."""
        kept = (name, object, caller if name in OWNED else "")
        if fresh or kept not in self.kept:
            found = self._id(name, object, caller, fresh)
            if fresh:
                return found
            self.kept[kept] = found
        return self.kept[kept]

    def _id(self, name: str, object: str, caller: str, fresh: bool) -> str:
        match name:
            case "search_id":
                return self.made(object, "/api/v1/searches", A_SEARCH, self.searcher(object, caller))
            case "saved_search_id":
                return self.made(object, "/api/v1/saved-searches", SAVED, self.searcher(object, caller))
            case "case_id":
                return self.case(object, caller)
            case "image_id":
                return self.image(object)
            case "external_id":
                return self.named(object)
            case "camera_id":
                return self.camera(object, fresh=fresh)
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

    def id_within(self, name: str, container: str, object: str, caller: str) -> str:
        """What stands for {name} in this search or case, or is not in it."""
        if object in ("absent", "missing"):
            return str(uuid.uuid4())
        camera = "south" if object == "hidden" else "north"
        if name == "image_id":
            return self.images[camera]
        if object == "others":
            container, by = self.made("own", "/api/v1/cases", {"title": "another case"}), self.service.http
        else:
            by = self.owner(object, caller, "investigator")
        match name:
            case "person_id":
                body = {"person_id": self.users["somebody"]}
                assert by.post(f"/api/v1/cases/{container}/members", json=body).status_code == 200
                return body["person_id"]
            case "item_id":
                return self.item(container, camera, by)
            case "export_id":
                return self.made("own", f"/api/v1/cases/{container}/exports", {}, by)
        raise AssertionError(f"Say here what stands for {{{name}}} within something, and add it to the table.")

    def new_user(self) -> dict[str, Any]:
        return {"name": f"user {next(self.numbers)}", "password": PASSWORD, "roles": ["operator"], "cameras": None}

    def new_item(self, object: str, caller: str) -> dict[str, Any]:
        """A result of a search of the caller's, of somebody else's (`others`), or of none (`missing`)."""
        by = self.service.http if object == "others" else self.owner(object, caller, "investigator")
        search = self.made("absent" if object == "missing" else "own", "/api/v1/searches", A_SEARCH, by)
        return {"search_id": search, "image_id": self.images["north"]}

    def body(self, row: Row, caller: str) -> dict[str, Any]:
        """Arguments of the request: a body that would do, if the caller may."""
        camera = {"own": "north", "foreign": "south", "absent": "atlantis"}.get(row.object)
        nobody, seen = str(uuid.uuid4()), {"hidden": "south"}.get(row.object, "north")
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
            ("POST", "/api/v1/searches/{search_id}/refinements"): lambda: {
                "positive": [nobody if row.object == "missing" else self.images[seen]]
            },
            ("POST", "/api/v1/searches/{search_id}/results/{image_id}/verdicts"): lambda: {"verdict": "unsure"},
            ("POST", "/api/v1/saved-searches"): lambda: SAVED,
            ("PATCH", "/api/v1/saved-searches/{saved_search_id}"): lambda: {"name": "another name"},
            ("POST", "/api/v1/saved-searches/{saved_search_id}/run"): dict,
            ("PATCH", "/api/v1/cameras/{camera_id}"): lambda: {"name": "an entrance"},
            ("POST", "/api/v1/images/facets"): lambda: {"filter": {"camera_id": {"eq": camera}}},
            ("POST", "/api/v1/cases"): lambda: {"title": "a case"},
            ("PATCH", "/api/v1/cases/{case_id}"): lambda: {"title": "another title"},
            ("POST", "/api/v1/cases/{case_id}/members"): lambda: {
                "person_id": nobody if row.object == "missing" else self.users["somebody"]
            },
            NEW_ITEM: lambda: self.new_item(row.object, caller),
            ("PATCH", "/api/v1/cases/{case_id}/items/{item_id}"): lambda: {"note": "the same bag"},
            ("POST", "/api/v1/cases/{case_id}/items/{item_id}/verdicts"): lambda: {"verdict": "match"},
            ("POST", "/api/v1/cases/{case_id}/notes"): lambda: {"note": "nothing yet"},
            ("POST", "/api/v1/cases/{case_id}/exports"): dict,
        }
        match row.method, row.path:
            case call if call in json_bodies:
                return {"json": json_bodies[call]()}
            case "POST", "/api/v1/images":
                metadata = json.dumps({"camera_id": camera})
                return {"files": {"image": ("a.png", picture(next(self.numbers))), "metadata": (None, metadata)}}
            case "PUT", "/api/v1/images/by-external-id/{external_id}":
                metadata = json.dumps({"camera_id": "north"})
                return {"files": {"image": ("a.png", picture(next(self.numbers))), "metadata": (None, metadata)}}
            case "PATCH", "/api/v1/images/{image_id}":
                return {"json": {"tags": ["platform"]}, "headers": {"If-Match": "*"}}
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
        # What is deleted is gone, and a case has an image once.
        fresh = (row.method == "DELETE" and row.expected.get(caller) == 204) or (row.method, row.path) == NEW_ITEM
        ids: dict[str, str] = {}
        for name in re.findall(r"\{(\w+)\}", row.path):
            if ids:
                ids[name] = self.id_within(name, next(iter(ids.values())), row.object, caller)
            else:
                ids[name] = self.id(name, row.object, caller, fresh=fresh)
        return self.clients[caller].request(row.method, row.path.format(**ids), **self.body(row, caller))


@contextmanager
def running_world(folder: Path) -> Iterator[World]:
    with running_service(folder, files=GridFiles(folder / "files"), auth="required", rate_limit=0) as service:
        service.http.headers["Authorization"] = f"Bearer {key(service, *EVERY_ROLE)[0]}"
        service.camera("north", "south")
        images = {camera: service.added(picture(n), camera_id=camera) for n, camera in enumerate(("north", "south"))}
        service.embed()
        users = {name: str(user(service, name, role).id) for name, role in USERS.items()}
        disabled = user(service, "disabled", *EVERY_ROLE)
        scopes = {"operator": ["north"], "ingest": ["north"]}
        keys = {role: key(service, role, cameras=scopes.get(role)) for role in ROLES}
        clients = {role: visitor(service, secret) for role, (secret, _) in keys.items()}
        clients["anonymous"] = visitor(service)
        clients["disabled"] = sign_in(service, "disabled")
        assert service.http.patch(f"/api/v1/users/{disabled.id}", json={"disabled": True}).status_code == 200
        for name, change in (("expired", "expires_at"), ("revoked", "revoked_at")):
            secret, stored = key(service, *EVERY_ROLE)
            clients[name] = visitor(service, secret)
            assert clients[name].get("/api/v1/session").status_code == 200  # so that its secret is remembered
            with transaction(service.database.engine) as session:
                session.execute(text(f"UPDATE api_key SET {change} = now() WHERE id = :id"), {"id": stored.id})
        yield World(
            service, clients, images, {**users, "disabled": str(disabled.id)}, of_key(keys["operator"][1]).actor
        )
        for client in clients.values():
            client.close()
