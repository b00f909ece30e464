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
from uuid import UUID

import httpx
import pytest
from fastapi.routing import APIRoute
from sqlalchemy import text

from indexer import cases
from indexer.audit import Actor
from indexer.database import transaction
from service.access import of_key
from service.app import ROUTES
from service.openapi import openapi_document
from service.principals import needs
from tests.fake_encoder import GridFiles
from tests.service.accounts import EVERY_ROLE, PASSWORD, key, sign_in, user, visitor
from tests.service.conftest import Service, picture, problem, running_service, wait_until, zipped

ROLES = ("operator", "investigator", "ingest", "auditor", "admin")
OUTSIDERS = ("anonymous", "expired", "revoked", "disabled")

# `own` is an image of camera north, or what the ingest key sent; `foreign` one of camera south, or sent by another key;
# for what belongs to nobody in particular, `own` is one that exists. Searches and cases are their owner's or members':
# `own` with an image of camera north, `foreign` those of another key, `absent` none at all. Within one's own search or
# case, `hidden` is an image of camera south, `others` what belongs to another case or search, `missing` nothing at all.
TABLE = """
                                                                           operator investigator ingest auditor admin
GET    /api/v1/cameras                                             -       200      200          200    403     200
POST   /api/v1/cameras                                             -       403      403          403    403     201
POST   /api/v1/images                                              own     403      403          201    403     403
POST   /api/v1/images                                              foreign 403      403          422    403     403
POST   /api/v1/images                                              absent  403      403          422    403     403
GET    /api/v1/images/{image_id}                                   own     200      200          403    403     403
GET    /api/v1/images/{image_id}                                   foreign 404      200          403    403     403
GET    /api/v1/images/{image_id}                                   absent  404      404          403    403     403
GET    /api/v1/images/{image_id}/content                           own     200      200          403    403     403
GET    /api/v1/images/{image_id}/content                           foreign 404      200          403    403     403
GET    /api/v1/images/{image_id}/content                           absent  404      404          403    403     403
DELETE /api/v1/images/{image_id}                                   own     403      403          403    403     204
DELETE /api/v1/images/{image_id}                                   foreign 403      403          403    403     204
DELETE /api/v1/images/{image_id}                                   absent  403      403          403    403     404
PATCH  /api/v1/images/{image_id}                                   own     403      403          200    403     403
PATCH  /api/v1/images/{image_id}                                   foreign 403      403          404    403     403
PATCH  /api/v1/images/{image_id}                                   absent  403      403          404    403     403
GET    /api/v1/images/{image_id}/neighbours                        own     200      200          403    403     403
GET    /api/v1/images/{image_id}/neighbours                        foreign 404      200          403    403     403
GET    /api/v1/images/{image_id}/neighbours                        absent  404      404          403    403     403
PUT    /api/v1/images/by-external-id/{external_id}                 own     403      403          403    403     403
PUT    /api/v1/images/by-external-id/{external_id}                 foreign 403      403          409    403     403
PUT    /api/v1/images/by-external-id/{external_id}                 absent  403      403          201    403     403
GET    /api/v1/cameras/{camera_id}                                 own     200      200          200    403     200
GET    /api/v1/cameras/{camera_id}                                 foreign 404      200          404    403     200
GET    /api/v1/cameras/{camera_id}                                 absent  404      404          404    403     404
PATCH  /api/v1/cameras/{camera_id}                                 own     403      403          403    403     200
PATCH  /api/v1/cameras/{camera_id}                                 foreign 403      403          403    403     200
PATCH  /api/v1/cameras/{camera_id}                                 absent  403      403          403    403     404
DELETE /api/v1/cameras/{camera_id}                                 own     403      403          403    403     204
DELETE /api/v1/cameras/{camera_id}                                 foreign 403      403          403    403     409
DELETE /api/v1/cameras/{camera_id}                                 absent  403      403          403    403     404
POST   /api/v1/searches                                            own     201      201          403    403     403
POST   /api/v1/searches                                            foreign 422      201          403    403     403
POST   /api/v1/searches                                            absent  422      422          403    403     403
GET    /api/v1/searches/{search_id}                                own     200      200          403    403     403
GET    /api/v1/searches/{search_id}                                foreign 404      404          403    403     403
GET    /api/v1/searches/{search_id}                                absent  404      404          403    403     403
GET    /api/v1/searches/{search_id}/results                        own     200      200          403    403     403
GET    /api/v1/searches/{search_id}/results                        foreign 404      404          403    403     403
GET    /api/v1/searches/{search_id}/results                        absent  404      404          403    403     403
POST   /api/v1/searches/{search_id}/refinements                    own     201      201          403    403     403
POST   /api/v1/searches/{search_id}/refinements                    foreign 404      404          403    403     403
POST   /api/v1/searches/{search_id}/refinements                    absent  404      404          403    403     403
POST   /api/v1/searches/{search_id}/refinements                    hidden  422      201          403    403     403
POST   /api/v1/searches/{search_id}/refinements                    missing 422      422          403    403     403
GET    /api/v1/searches/{search_id}/results/{image_id}/explanation own     501      501          403    403     403
GET    /api/v1/searches/{search_id}/results/{image_id}/explanation foreign 404      404          403    403     403
GET    /api/v1/searches/{search_id}/results/{image_id}/explanation absent  404      404          403    403     403
GET    /api/v1/searches/{search_id}/results/{image_id}/explanation hidden  404      501          403    403     403
GET    /api/v1/searches/{search_id}/results/{image_id}/explanation missing 404      404          403    403     403
POST   /api/v1/searches/{search_id}/results/{image_id}/verdicts    own     201      201          403    403     403
POST   /api/v1/searches/{search_id}/results/{image_id}/verdicts    foreign 404      404          403    403     403
POST   /api/v1/searches/{search_id}/results/{image_id}/verdicts    absent  404      404          403    403     403
POST   /api/v1/searches/{search_id}/results/{image_id}/verdicts    hidden  404      201          403    403     403
POST   /api/v1/searches/{search_id}/results/{image_id}/verdicts    missing 404      404          403    403     403
GET    /api/v1/saved-searches                                      -       200      200          403    403     403
POST   /api/v1/saved-searches                                      -       201      201          403    403     403
GET    /api/v1/saved-searches/{saved_search_id}                    own     200      200          403    403     403
GET    /api/v1/saved-searches/{saved_search_id}                    foreign 404      404          403    403     403
GET    /api/v1/saved-searches/{saved_search_id}                    absent  404      404          403    403     403
PATCH  /api/v1/saved-searches/{saved_search_id}                    own     200      200          403    403     403
PATCH  /api/v1/saved-searches/{saved_search_id}                    foreign 404      404          403    403     403
PATCH  /api/v1/saved-searches/{saved_search_id}                    absent  404      404          403    403     403
DELETE /api/v1/saved-searches/{saved_search_id}                    own     204      204          403    403     403
DELETE /api/v1/saved-searches/{saved_search_id}                    foreign 404      404          403    403     403
DELETE /api/v1/saved-searches/{saved_search_id}                    absent  404      404          403    403     403
POST   /api/v1/saved-searches/{saved_search_id}/run                own     201      201          403    403     403
POST   /api/v1/saved-searches/{saved_search_id}/run                foreign 404      404          403    403     403
POST   /api/v1/saved-searches/{saved_search_id}/run                absent  404      404          403    403     403
POST   /api/v1/images/facets                                       own     200      200          403    403     403
POST   /api/v1/images/facets                                       foreign 422      200          403    403     403
POST   /api/v1/images/facets                                       absent  422      422          403    403     403
GET    /api/v1/cases                                               -       403      200          403    403     403
POST   /api/v1/cases                                               -       403      201          403    403     403
GET    /api/v1/cases/{case_id}                                     own     403      200          403    403     403
GET    /api/v1/cases/{case_id}                                     foreign 403      404          403    403     403
GET    /api/v1/cases/{case_id}                                     absent  403      404          403    403     403
PATCH  /api/v1/cases/{case_id}                                     own     403      200          403    403     403
PATCH  /api/v1/cases/{case_id}                                     foreign 403      404          403    403     403
PATCH  /api/v1/cases/{case_id}                                     absent  403      404          403    403     403
POST   /api/v1/cases/{case_id}/members                             own     403      200          403    403     403
POST   /api/v1/cases/{case_id}/members                             foreign 403      404          403    403     403
POST   /api/v1/cases/{case_id}/members                             absent  403      404          403    403     403
POST   /api/v1/cases/{case_id}/members                             missing 403      404          403    403     403
DELETE /api/v1/cases/{case_id}/members/{person_id}                 own     403      204          403    403     403
DELETE /api/v1/cases/{case_id}/members/{person_id}                 foreign 403      404          403    403     403
DELETE /api/v1/cases/{case_id}/members/{person_id}                 absent  403      404          403    403     403
DELETE /api/v1/cases/{case_id}/members/{person_id}                 missing 403      404          403    403     403
GET    /api/v1/cases/{case_id}/items                               own     403      200          403    403     403
GET    /api/v1/cases/{case_id}/items                               foreign 403      404          403    403     403
GET    /api/v1/cases/{case_id}/items                               absent  403      404          403    403     403
POST   /api/v1/cases/{case_id}/items                               own     403      201          403    403     403
POST   /api/v1/cases/{case_id}/items                               foreign 403      404          403    403     403
POST   /api/v1/cases/{case_id}/items                               absent  403      404          403    403     403
POST   /api/v1/cases/{case_id}/items                               others  403      404          403    403     403
POST   /api/v1/cases/{case_id}/items                               missing 403      404          403    403     403
GET    /api/v1/cases/{case_id}/items/{item_id}                     own     403      200          403    403     403
GET    /api/v1/cases/{case_id}/items/{item_id}                     foreign 403      404          403    403     403
GET    /api/v1/cases/{case_id}/items/{item_id}                     absent  403      404          403    403     403
GET    /api/v1/cases/{case_id}/items/{item_id}                     others  403      404          403    403     403
GET    /api/v1/cases/{case_id}/items/{item_id}                     missing 403      404          403    403     403
PATCH  /api/v1/cases/{case_id}/items/{item_id}                     own     403      200          403    403     403
PATCH  /api/v1/cases/{case_id}/items/{item_id}                     foreign 403      404          403    403     403
PATCH  /api/v1/cases/{case_id}/items/{item_id}                     absent  403      404          403    403     403
PATCH  /api/v1/cases/{case_id}/items/{item_id}                     others  403      404          403    403     403
PATCH  /api/v1/cases/{case_id}/items/{item_id}                     missing 403      404          403    403     403
DELETE /api/v1/cases/{case_id}/items/{item_id}                     own     403      204          403    403     403
DELETE /api/v1/cases/{case_id}/items/{item_id}                     foreign 403      404          403    403     403
DELETE /api/v1/cases/{case_id}/items/{item_id}                     absent  403      404          403    403     403
DELETE /api/v1/cases/{case_id}/items/{item_id}                     others  403      404          403    403     403
DELETE /api/v1/cases/{case_id}/items/{item_id}                     missing 403      404          403    403     403
POST   /api/v1/cases/{case_id}/items/{item_id}/verdicts            own     201      201          403    403     403
POST   /api/v1/cases/{case_id}/items/{item_id}/verdicts            foreign 404      404          403    403     403
POST   /api/v1/cases/{case_id}/items/{item_id}/verdicts            absent  404      404          403    403     403
POST   /api/v1/cases/{case_id}/items/{item_id}/verdicts            hidden  404      201          403    403     403
POST   /api/v1/cases/{case_id}/items/{item_id}/verdicts            others  404      404          403    403     403
POST   /api/v1/cases/{case_id}/items/{item_id}/verdicts            missing 404      404          403    403     403
GET    /api/v1/cases/{case_id}/notes                               own     403      200          403    403     403
GET    /api/v1/cases/{case_id}/notes                               foreign 403      404          403    403     403
GET    /api/v1/cases/{case_id}/notes                               absent  403      404          403    403     403
POST   /api/v1/cases/{case_id}/notes                               own     403      201          403    403     403
POST   /api/v1/cases/{case_id}/notes                               foreign 403      404          403    403     403
POST   /api/v1/cases/{case_id}/notes                               absent  403      404          403    403     403
GET    /api/v1/cases/{case_id}/exports                             own     403      200          403    403     403
GET    /api/v1/cases/{case_id}/exports                             foreign 403      404          403    403     403
GET    /api/v1/cases/{case_id}/exports                             absent  403      404          403    403     403
POST   /api/v1/cases/{case_id}/exports                             own     403      201          403    403     403
POST   /api/v1/cases/{case_id}/exports                             foreign 403      404          403    403     403
POST   /api/v1/cases/{case_id}/exports                             absent  403      404          403    403     403
GET    /api/v1/cases/{case_id}/exports/{export_id}                 own     403      200          403    403     403
GET    /api/v1/cases/{case_id}/exports/{export_id}                 foreign 403      404          403    403     403
GET    /api/v1/cases/{case_id}/exports/{export_id}                 absent  403      404          403    403     403
GET    /api/v1/cases/{case_id}/exports/{export_id}                 others  403      404          403    403     403
GET    /api/v1/cases/{case_id}/exports/{export_id}                 missing 403      404          403    403     403
GET    /api/v1/cases/{case_id}/exports/{export_id}/content         own     403      200          403    403     403
GET    /api/v1/cases/{case_id}/exports/{export_id}/content         foreign 403      404          403    403     403
GET    /api/v1/cases/{case_id}/exports/{export_id}/content         absent  403      404          403    403     403
GET    /api/v1/cases/{case_id}/exports/{export_id}/content         others  403      404          403    403     403
GET    /api/v1/cases/{case_id}/exports/{export_id}/content         missing 403      404          403    403     403
POST   /api/v1/ingestions                                          -       403      403          202    403     403
GET    /api/v1/ingestions/{ingestion_id}                           own     403      403          200    403     200
GET    /api/v1/ingestions/{ingestion_id}                           foreign 403      403          404    403     200
GET    /api/v1/ingestions/{ingestion_id}                           absent  403      403          404    403     404
GET    /api/v1/ingestions/{ingestion_id}/items                     own     403      403          200    403     200
GET    /api/v1/ingestions/{ingestion_id}/items                     foreign 403      403          404    403     200
GET    /api/v1/ingestions/{ingestion_id}/items                     absent  403      403          404    403     404
GET    /api/v1/ingestions/{ingestion_id}/events                    own     403      403          200    403     200
GET    /api/v1/ingestions/{ingestion_id}/events                    foreign 403      403          404    403     200
GET    /api/v1/ingestions/{ingestion_id}/events                    absent  403      403          404    403     404
POST   /api/v1/ingestions/{ingestion_id}/retry                     own     403      403          409    403     409
POST   /api/v1/ingestions/{ingestion_id}/retry                     foreign 403      403          404    403     409
POST   /api/v1/ingestions/{ingestion_id}/retry                     absent  403      403          404    403     404
POST   /api/v1/ingestions/{ingestion_id}/cancel                    own     403      403          409    403     409
POST   /api/v1/ingestions/{ingestion_id}/cancel                    foreign 403      403          404    403     409
POST   /api/v1/ingestions/{ingestion_id}/cancel                    absent  403      403          404    403     404
GET    /api/v1/erasures                                            -       403      403          403    403     200
POST   /api/v1/erasures                                            own     403      403          403    403     201
POST   /api/v1/erasures                                            foreign 403      403          403    403     201
POST   /api/v1/erasures                                            absent  403      403          403    403     201
GET    /api/v1/erasures/{erasure_id}                               own     403      403          403    403     200
GET    /api/v1/erasures/{erasure_id}                               absent  403      403          403    403     404
GET    /api/v1/legal-holds                                         -       403      403          403    403     200
POST   /api/v1/legal-holds                                         own     403      403          403    403     201
POST   /api/v1/legal-holds                                         foreign 403      403          403    403     201
POST   /api/v1/legal-holds                                         absent  403      403          403    403     404
DELETE /api/v1/legal-holds/{hold_id}                               own     403      403          403    403     204
DELETE /api/v1/legal-holds/{hold_id}                               absent  403      403          403    403     404
GET    /api/v1/retention-policies                                  -       403      403          403    403     200
PUT    /api/v1/retention-policies                                  -       403      403          403    403     200
DELETE /api/v1/retention-policies                                  own     403      403          403    403     204
DELETE /api/v1/retention-policies                                  absent  403      403          403    403     404
GET    /api/v1/checkpoints                                         -       403      403          403    403     200
POST   /api/v1/checkpoints                                         -       403      403          403    403     422
GET    /api/v1/checkpoints/{checkpoint_id}                         own     403      403          403    403     200
GET    /api/v1/checkpoints/{checkpoint_id}                         absent  403      403          403    403     404
POST   /api/v1/checkpoints/{checkpoint_id}/gate                    own     403      403          403    403     409
POST   /api/v1/checkpoints/{checkpoint_id}/gate                    absent  403      403          403    403     404
POST   /api/v1/checkpoints/{checkpoint_id}/activate                own     403      403          403    403     409
POST   /api/v1/checkpoints/{checkpoint_id}/activate                absent  403      403          403    403     404
POST   /api/v1/checkpoints/{checkpoint_id}/rollback                own     403      403          403    403     409
POST   /api/v1/checkpoints/{checkpoint_id}/rollback                absent  403      403          403    403     404
POST   /api/v1/checkpoints/{checkpoint_id}/retire                  own     403      403          403    403     409
POST   /api/v1/checkpoints/{checkpoint_id}/retire                  absent  403      403          403    403     404
GET    /api/v1/audit-events                                        -       403      403          403    200     403
GET    /api/v1/audit-events/verification                           -       403      403          403    200     403
GET    /api/v1/audit-events/export                                 -       403      403          403    200     403
GET    /api/v1/session                                             -       200      200          200    200     200
DELETE /api/v1/session                                             -       403      403          403    403     403
PUT    /api/v1/session/password                                    -       403      403          403    403     403
GET    /api/v1/users                                               -       403      403          403    403     200
POST   /api/v1/users                                               -       403      403          403    403     201
GET    /api/v1/users/{user_id}                                     own     403      403          403    403     200
GET    /api/v1/users/{user_id}                                     absent  403      403          403    403     404
PATCH  /api/v1/users/{user_id}                                     own     403      403          403    403     200
PATCH  /api/v1/users/{user_id}                                     absent  403      403          403    403     404
GET    /api/v1/api-keys                                            -       403      403          403    403     200
POST   /api/v1/api-keys                                            -       403      403          403    403     201
DELETE /api/v1/api-keys/{key_id}                                   own     403      403          403    403     204
DELETE /api/v1/api-keys/{key_id}                                   absent  403      403          403    403     404
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
    return {
        (method, route.path_format): route for route in found if isinstance(route, APIRoute) for method in route.methods
    }


def test_every_route_is_in_the_table() -> None:
    listed = {(row.method, row.path) for row in rows()}
    assert listed | PUBLIC.keys() == routes().keys()
    assert not listed & PUBLIC.keys()


def test_every_route_asks_who_is_calling_but_the_public_ones() -> None:
    assert {call for call, route in routes().items() if needs(route) is None} == PUBLIC.keys()


OWNED = {"image_id", "ingestion_id", "search_id", "saved_search_id", "case_id"}


def test_every_object_is_tried() -> None:
    tried: dict[tuple[str, str], set[str]] = {(row.method, row.path): set() for row in rows()}
    for row in rows():
        tried[row.method, row.path].add(row.object)
    for (_, path), objects in tried.items():
        names = re.findall(r"\{(\w+)\}", path)
        if names:
            assert {"own", "absent"} <= objects, path
        if OWNED & set(names):
            assert "foreign" in objects, path
        if len(names) > 1:
            assert "missing" in objects, path


# ------------------------------------------------------------------------------------------------------------ the world


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


A_SEARCH = {"query": {"text": "a man"}}
SAVED = {"name": "men", "request": A_SEARCH}
NEW_ITEM = ("POST", "/api/v1/cases/{case_id}/items")


def new_key() -> dict[str, Any]:
    end = datetime.now(UTC) + timedelta(days=1)
    return {"name": "a key", "roles": ["ingest"], "cameras": None, "expires_at": end.isoformat()}


USERS = {"somebody": "operator", "boss": "admin", "inspector": "investigator"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("idor")
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


LIKE = {"foreign": "absent", "hidden": "missing", "others": "missing"}
WITHHELD = [row for row in rows() if row.object in LIKE]


@pytest.mark.parametrize("row", WITHHELD, ids=str)
def test_what_is_withheld_looks_as_if_it_were_not_there(world: World, row: Row) -> None:
    """To those whom it is refused as not there, in the same words."""

    def words(object: str, caller: str) -> dict[str, str]:
        body = problem(world.call(caller, Row(row.method, row.path, object, row.expected)))
        ids = r"[0-9a-f]{8}-[0-9a-f-]{27}|south|atlantis"
        return {name: re.sub(ids, "ID", str(body[name])) for name in body if name != "request_id"}

    for caller in (role for role in ROLES if row.expected[role] in (404, 422)):
        assert words(row.object, caller) == words(LIKE[row.object], caller)


def test_lists_have_what_is_ones_own(world: World) -> None:
    investigator, other = world.clients["investigator"], world.service.http
    for path, name, body in (
        ("/api/v1/saved-searches", "saved_searches", SAVED),
        ("/api/v1/cases", "cases", {"title": "a case"}),
    ):
        mine, theirs = (world.made("own", path, body, by) for by in (investigator, other))
        for by, shown, not_shown in ((investigator, mine, theirs), (other, theirs, mine)):
            listed = {one["id"] for one in by.get(path).json()[name]}
            assert shown in listed and not_shown not in listed


def test_facets_count_what_one_may_see(world: World) -> None:
    for caller, expected in (("operator", {"north"}), ("investigator", {"north", "south"})):
        counted = world.clients[caller].post("/api/v1/images/facets", json={}).json()
        assert {camera["value"] for camera in counted["cameras"]} == expected
        assert counted["images"] == sum(camera["count"] for camera in counted["cameras"])


@pytest.mark.parametrize("caller", ["operator", "investigator"])
def test_the_purpose_is_a_case_of_ones_own(world: World, caller: str) -> None:
    def search(object: str) -> httpx.Response:
        body = {**A_SEARCH, "purpose": {"case_id": world.case(object, caller)}}
        return world.clients[caller].post("/api/v1/searches", json=body)

    assert search("own").status_code == 201
    told = []
    for object in ("foreign", "absent"):
        refused = problem(search(object))
        assert refused["code"] == "not_found" and refused["errors"][0]["pointer"] == "/purpose/case_id"
        told.append(re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", refused["detail"]))
    assert told[0] == told[1]


def test_members_are_users_under_their_own_names(world: World) -> None:
    investigator = world.clients["investigator"]
    case = f"/api/v1/cases/{world.case('own', 'investigator')}"
    with sign_in(world.service, "inspector") as inspector:
        assert problem(inspector.get(case))["code"] == "not_found"
        for id in (str(uuid.uuid4()), world.users["disabled"], str(world.operator.id)):
            refused = problem(investigator.post(f"{case}/members", json={"person_id": id, "name": "inspector"}))
            assert (refused["code"], refused["errors"][0]["pointer"]) == ("not_found", "/person_id")
        body = {"person_id": world.users["inspector"], "name": "somebody else"}
        members = investigator.post(f"{case}/members", json=body).json()["members"]
        assert [(one["person_id"], one["name"]) for one in members[1:]] == [(world.users["inspector"], "inspector")]
        assert [one["name"] for one in inspector.get(case).json()["members"]] == ["a key", "inspector"]


_documents: list[dict[str, Any]] = []


def openapi_document_once() -> dict[str, Any]:
    if not _documents:
        _documents.append(openapi_document())
    return _documents[0]
