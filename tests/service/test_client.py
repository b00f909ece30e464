"""The client against the contract: every operation of the OpenAPI document has a method, which asks and reads what is
written there. Errors, repetitions, cut streams and redirects are played by a transport without a network."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from pydantic import BaseModel

from service.access_schemas import A_KEY_REQUEST, A_PASSWORD, A_SETUP, A_SIGN_IN, A_USER_REQUEST
from service.case_schemas import A_CASE, A_CHANGE, A_MEMBER, A_NOTE, A_VERDICT, AN_ITEM
from service.client import Client, ServiceError
from service.filter_schemas import Filter, NameFilter
from service.governance_schemas import A_HOLD, A_POLICY, BY_IDENTITY
from service.routes.ingestions import EXAMPLE_INGESTION
from service.schemas import EXAMPLE_ID, CameraRequest
from service.search_schemas import BY_TEXT, Query, SearchRequest

ROOT = Path(__file__).parents[2]
DOCUMENT = json.loads((ROOT / "docs" / "openapi.json").read_text("utf-8"))
ID = EXAMPLE_ID
PNG = b"\x89PNG"
Use = Callable[[Client], Any]
Answer = Callable[[httpx.Request], httpx.Response]

# Operation -> how it is reached. An operation that is missing here, or in the document, fails the first test.
USES: dict[str, Use] = {
    "POST /api/v1/searches": lambda c: c.search(BY_TEXT),
    "GET /api/v1/searches/{search_id}": lambda c: c.get_search(ID),
    "GET /api/v1/searches/{search_id}/results": lambda c: list(c.results(c.search(BY_TEXT), limit=2)),
    "POST /api/v1/searches/{search_id}/refinements": lambda c: c.refine(ID, {"positive": [UUID(ID)]}),
    "GET /api/v1/searches/{search_id}/results/{image_id}/explanation": lambda c: c.explain(ID, ID),
    "POST /api/v1/searches/{search_id}/results/{image_id}/verdicts": lambda c: c.judge_result(ID, ID, A_VERDICT),
    "POST /api/v1/images/facets": lambda c: c.facets({"filter": {"camera_id": {"eq": "north"}}}),
    "GET /api/v1/saved-searches": lambda c: c.saved_searches(),
    "POST /api/v1/saved-searches": lambda c: c.save_search("red", BY_TEXT),
    "GET /api/v1/saved-searches/{saved_search_id}": lambda c: c.saved_search(ID),
    "PATCH /api/v1/saved-searches/{saved_search_id}": lambda c: c.change_saved_search(ID, {"name": "red"}),
    "DELETE /api/v1/saved-searches/{saved_search_id}": lambda c: c.delete_saved_search(ID),
    "POST /api/v1/saved-searches/{saved_search_id}/run": lambda c: c.run_saved_search(ID, {"reason": "again"}),
    "POST /api/v1/images": lambda c: c.add_image(PNG, {"camera_id": "north"}),
    "GET /api/v1/images/{image_id}": lambda c: c.image(ID),
    "PATCH /api/v1/images/{image_id}": lambda c: c.change_image(ID, {"identity": None}, if_match="*"),
    "DELETE /api/v1/images/{image_id}": lambda c: c.delete_image(ID),
    "GET /api/v1/images/{image_id}/content": lambda c: c.content(ID, "thumb"),
    "GET /api/v1/images/{image_id}/neighbours": lambda c: c.neighbours(ID, seconds=10, limit=5),
    "PUT /api/v1/images/by-external-id/{external_id}": lambda c: c.put_image("north-9", PNG, only_add=True),
    "GET /api/v1/cameras": lambda c: c.cameras(),
    "POST /api/v1/cameras": lambda c: c.add_camera(CameraRequest(id="north")),
    "GET /api/v1/cameras/{camera_id}": lambda c: c.camera("north"),
    "PATCH /api/v1/cameras/{camera_id}": lambda c: c.change_camera("north", {"site": None}),
    "DELETE /api/v1/cameras/{camera_id}": lambda c: c.delete_camera("north"),
    "POST /api/v1/ingestions": lambda c: c.ingest([b"PK"], "application/zip", True, "delivery-17"),
    "GET /api/v1/ingestions/{ingestion_id}": lambda c: c.ingestion(ID),
    "GET /api/v1/ingestions/{ingestion_id}/events": lambda c: c.follow(ID),
    "GET /api/v1/ingestions/{ingestion_id}/items": lambda c: list(c.items(ID, "rejected", limit=9)),
    "POST /api/v1/ingestions/{ingestion_id}/retry": lambda c: c.retry(ID),
    "POST /api/v1/ingestions/{ingestion_id}/cancel": lambda c: c.cancel(ID),
    "GET /api/v1/checkpoints": lambda c: c.checkpoints(),
    "POST /api/v1/checkpoints": lambda c: c.register_checkpoint(io.BytesIO(b"bytes")),
    "GET /api/v1/checkpoints/{checkpoint_id}": lambda c: c.checkpoint("3f2a9c51d07be846"),
    "POST /api/v1/checkpoints/{checkpoint_id}/gate": lambda c: c.judge_checkpoint("3f2a9c51d07be846"),
    "POST /api/v1/checkpoints/{checkpoint_id}/activate": lambda c: c.activate_checkpoint("3f2a9c51d07be846"),
    "POST /api/v1/checkpoints/{checkpoint_id}/rollback": lambda c: c.roll_back_checkpoint("3f2a9c51d07be846"),
    "POST /api/v1/checkpoints/{checkpoint_id}/retire": lambda c: c.retire_checkpoint("3f2a9c51d07be846"),
    "POST /api/v1/erasures": lambda c: c.erase(BY_IDENTITY),
    "GET /api/v1/erasures": lambda c: list(c.erasures()),
    "GET /api/v1/erasures/{erasure_id}": lambda c: c.erasure(ID),
    "GET /api/v1/legal-holds": lambda c: c.holds(),
    "POST /api/v1/legal-holds": lambda c: c.place_hold(A_HOLD),
    "DELETE /api/v1/legal-holds/{hold_id}": lambda c: c.lift_hold(ID),
    "GET /api/v1/retention-policies": lambda c: c.retention_policies(),
    "PUT /api/v1/retention-policies": lambda c: c.set_retention(A_POLICY),
    "DELETE /api/v1/retention-policies": lambda c: c.remove_retention("north"),
    "POST /api/v1/cases": lambda c: c.create_case(A_CASE),
    "GET /api/v1/cases": lambda c: list(c.cases("open", limit=9)),
    "GET /api/v1/cases/{case_id}": lambda c: c.case(ID),
    "PATCH /api/v1/cases/{case_id}": lambda c: c.change_case(ID, A_CHANGE),
    "POST /api/v1/cases/{case_id}/members": lambda c: c.add_member(ID, A_MEMBER),
    "DELETE /api/v1/cases/{case_id}/members/{person_id}": lambda c: c.remove_member(ID, ID),
    "POST /api/v1/cases/{case_id}/items": lambda c: c.add_item(ID, AN_ITEM),
    "GET /api/v1/cases/{case_id}/items": lambda c: list(c.case_items(ID)),
    "GET /api/v1/cases/{case_id}/items/{item_id}": lambda c: c.case_item(ID, ID),
    "PATCH /api/v1/cases/{case_id}/items/{item_id}": lambda c: c.change_item(ID, ID, {"note": None}),
    "DELETE /api/v1/cases/{case_id}/items/{item_id}": lambda c: c.remove_item(ID, ID),
    "POST /api/v1/cases/{case_id}/items/{item_id}/verdicts": lambda c: c.judge_item(ID, ID, A_VERDICT),
    "POST /api/v1/cases/{case_id}/notes": lambda c: c.add_note(ID, A_NOTE),
    "GET /api/v1/cases/{case_id}/notes": lambda c: c.notes(ID),
    "POST /api/v1/cases/{case_id}/exports": lambda c: c.export_case(ID),
    "GET /api/v1/cases/{case_id}/exports": lambda c: c.exports(ID),
    "GET /api/v1/cases/{case_id}/exports/{export_id}": lambda c: c.export(ID, ID),
    "GET /api/v1/cases/{case_id}/exports/{export_id}/content": lambda c: c.download_export(ID, ID, io.BytesIO()),
    "GET /api/v1/audit-events": lambda c: list(c.audit_events(actor="kim", since=datetime(2026, 9, 1, tzinfo=UTC))),
    "GET /api/v1/audit-events/verification": lambda c: c.verify_audit(),
    "GET /api/v1/audit-events/export": lambda c: c.download_audit(io.BytesIO()),
    "GET /api/v1/session": lambda c: c.session(),
    "POST /api/v1/session": lambda c: c.sign_in(A_SIGN_IN),
    "DELETE /api/v1/session": lambda c: c.sign_out(),
    "PUT /api/v1/session/password": lambda c: c.change_password(A_PASSWORD),
    "GET /api/v1/users": lambda c: c.users(),
    "POST /api/v1/users": lambda c: c.create_user(A_USER_REQUEST),
    "GET /api/v1/users/{user_id}": lambda c: c.user(ID),
    "PATCH /api/v1/users/{user_id}": lambda c: c.change_user(ID, {"disabled": True}),
    "GET /api/v1/api-keys": lambda c: c.api_keys(),
    "POST /api/v1/api-keys": lambda c: c.create_api_key(A_KEY_REQUEST),
    "DELETE /api/v1/api-keys/{key_id}": lambda c: c.revoke_api_key(ID),
    "POST /api/v1/setup": lambda c: c.set_up(A_SETUP),
    "GET /livez": lambda c: c.alive(),
    "GET /readyz": lambda c: c.ready(),
    "GET /version": lambda c: c.version(),
}
LISTS = {  # one page is an answer of its own; the other lists are in one piece
    "GET /api/v1/searches/{search_id}/results": "results",
    "GET /api/v1/cases": "cases",
    "GET /api/v1/cases/{case_id}/items": "items",
    "GET /api/v1/ingestions/{ingestion_id}/items": "items",
    "GET /api/v1/erasures": "erasures",
    "GET /api/v1/audit-events": "events",
}


def operations() -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    }


def test_every_operation_has_a_method_of_the_client() -> None:
    assert set(USES) == set(operations())


class Documented:
    """A transport that answers each call with the example of the OpenAPI document, and keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, httpx.Request]] = []
        self.answered: dict[str, Any] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        (name,) = (name for name in operations() if matches(name, request))
        again = any(name == before for before, _ in self.asked)
        self.asked.append((name, request))
        status, response = min(operations()[name]["responses"].items())
        if "content" not in response:
            return httpx.Response(int(status))
        media_type, content = next(iter(response["content"].items()))
        if media_type == "application/json":
            body = content["example"]
            if again:  # the next page is the last one
                body = {key: None if key.startswith("next_") else value for key, value in body.items()}
            self.answered[name] = body
            return httpx.Response(int(status), json=body, headers={"ETag": '"7"'})
        data = sse(progress(done=True)) if media_type == "text/event-stream" else b"bytes"
        return httpx.Response(int(status), content=data, headers={"Content-Type": media_type})


def matches(name: str, request: httpx.Request) -> bool:
    method, path = name.split(" ")
    fixed = request.url.path in DOCUMENT["paths"]  # /images/facets is no image
    pattern = re.sub(r"\{[a-z_]+\}", "[^/]+", path)
    return request.method == method and (
        request.url.path == path if fixed else bool(re.fullmatch(pattern, request.url.path))
    )


@pytest.mark.parametrize("name", USES)
def test_a_method_asks_for_and_reads_what_is_documented(name: str) -> None:
    documented = Documented()
    with Client(transport=httpx.MockTransport(documented)) as client:
        answer = USES[name](client)
    asked = [request for called, request in documented.asked if called == name]
    assert asked, f"it asked for {[called for called, _ in documented.asked]}"
    allowed = {parameter["name"].lower() for parameter in operations()[name].get("parameters", [])}
    for request in asked:
        assert {key.lower() for key in request.url.params} <= allowed
        bodies = operations()[name].get("requestBody", {}).get("content", {})
        sent = request.headers.get("Content-Type", "").partition(";")[0]
        assert sent in bodies if bodies else not request.content
    expected = documented.answered.get(name)
    if isinstance(answer, BaseModel):
        said = json.loads(answer.model_dump_json(exclude={"etag"}))
        if expected is not None:  # what an example leaves out has a default
            assert {key: said[key] for key in expected if key != "counts"} == {
                key: value for key, value in expected.items() if key != "counts"
            }
    elif name in LISTS:
        assert expected is not None
        assert len(answer) >= len(expected[LISTS[name]]) and all(isinstance(one, BaseModel) for one in answer)
    elif expected is not None and name != "GET /livez":
        (listed,) = expected.values()
        assert len(answer) == len(listed) and all(isinstance(one, BaseModel) for one in answer)


# ------------------------------------------------------------------------------------------------------- what is played


def played(*answers: httpx.Response | Exception) -> tuple[Client, list[httpx.Request]]:
    """A client whose service gives these answers in turn, and what it was asked."""
    asked: list[httpx.Request] = []
    left: Iterator[httpx.Response | Exception] = iter(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        given = next(left)
        if isinstance(given, Exception):
            raise given
        return given

    return Client(transport=httpx.MockTransport(answer)), asked


def refusal(status: int, code: str, retry_after: str | None = None, **more: Any) -> httpx.Response:
    body = {
        "type": f"urn:person-search:problem:{code}",
        "title": "Title",
        "status": status,
        "detail": "One thing.",
        "instance": "/x",
        "code": code,
        "request_id": "1",
        **more,
    }
    return httpx.Response(status, json=body, headers={} if retry_after is None else {"Retry-After": retry_after})


def progress(**changes: Any) -> dict[str, Any]:
    return {**EXAMPLE_INGESTION, "rate": None, "seconds_left": None, **changes}


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(b"event: x\ndata: " + json.dumps(one).encode() + b"\n\n" for one in events)


VERSION = {"name": "x", "version": "1", "api": "v1", "checkpoint_id": "c", "net": None, "has_text": True}


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would have been slept; the clock goes on by that."""
    pauses: list[float] = []
    began = time.monotonic()
    monkeypatch.setattr("service.client.connection.time.sleep", pauses.append)
    monkeypatch.setattr("service.client.connection.time.monotonic", lambda: began + sum(pauses))
    return pauses


def test_an_error_says_everything() -> None:
    errors = [{"pointer": "/a", "code": "x", "detail": "One thing."}, {"pointer": "/b", "code": "y", "detail": "Two."}]
    client, _ = played(refusal(422, "invalid_request", errors=errors))
    with pytest.raises(ServiceError) as caught:
        client.search({})
    error = caught.value
    assert (error.status, error.code, error.sentence, str(error)) == (
        422,
        "invalid_request",
        "One thing. Two.",
        "One thing. Two.",
    )
    assert error.problem is not None and [one.pointer for one in error.problem.errors] == ["/a", "/b"]


@pytest.mark.parametrize(
    ("answer", "status", "sentence"),
    [
        (httpx.ConnectError("no"), None, "person-search serve"),
        (httpx.Response(502, text="<html>Bad gateway"), 502, "answered 502"),
        (httpx.Response(200, text="<html>Welcome"), None, "another version"),
        (httpx.Response(200, json={"name": "other"}), None, "another version"),
        (httpx.Response(302, headers={"Location": "http://elsewhere.example/version"}), 302, "not followed"),
    ],
)
def test_what_is_no_answer_of_the_service_is_an_error(
    answer: httpx.Response | Exception, status: int | None, sentence: str
) -> None:
    client, asked = played(answer)
    with pytest.raises(ServiceError, match=sentence) as caught:
        client.version()
    assert caught.value.status == status and caught.value.problem is None and len(asked) == 1


def test_the_key_is_shown_until_somebody_signs_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSON_SEARCH_API_KEY", "psk_of_the_environment")
    assert Client()._http.headers["Authorization"] == "Bearer psk_of_the_environment"
    session = operations()["POST /api/v1/session"]["responses"]["201"]["content"]["application/json"]["example"]
    answers = [httpx.Response(200, json=VERSION), httpx.Response(201, json=session), httpx.Response(204)]
    client, asked = played(*answers, httpx.Response(200, json=VERSION))
    client.version()
    client.sign_in(A_SIGN_IN)
    client.sign_out()
    client.version()
    shown = [(request.headers.get("Authorization"), request.headers.get("X-CSRF-Token")) for request in asked]
    key = "Bearer psk_of_the_environment"
    assert shown == [(key, None), (key, None), (None, session["csrf_token"]), (None, None)]


def test_calls_that_are_safe_to_repeat_are_repeated_as_told(slept: list[float]) -> None:
    client, asked = played(
        refusal(503, "busy", "2"), refusal(429, "rate_limited", "1"), httpx.Response(200, json=VERSION)
    )
    assert client.version().api == "v1"
    assert slept == [2, 1] and len(asked) == 3


@pytest.mark.parametrize(
    ("answers", "pauses"),
    [
        (["9"], []),  # more than there is patience for
        (["3", "3"], [3]),  # so is this, together
        ([None] * 6, [1] * 5),  # no word of how long
        (["Wed, 21 Oct 2026 07:28:00 GMT"] * 6, [1] * 5),
    ],
)
def test_repeating_ends(slept: list[float], answers: list[str | None], pauses: list[float]) -> None:
    client, asked = played(*(refusal(503, "busy", after) for after in answers))
    with pytest.raises(ServiceError) as caught:
        client.version()
    assert (slept, len(asked), caught.value.code) == (pauses, len(answers), "busy")


@pytest.mark.parametrize("use", [lambda c: c.search(BY_TEXT), lambda c: c.change_camera("a", {"site": None})])
def test_what_is_not_safe_to_repeat_is_not(slept: list[float], use: Use) -> None:
    client, asked = played(refusal(503, "busy", "1"))
    with pytest.raises(ServiceError):
        use(client)
    assert slept == [] and len(asked) == 1


def test_not_ready_is_told_at_once(slept: list[float]) -> None:
    checks = [
        {"name": "index", "ok": False, "required": True, "detail": "The index lacks 20 vectors."},
        {"name": "worker", "ok": False, "required": False, "detail": "No worker."},
    ]
    client, _ = played(httpx.Response(503, json={"ready": False, "checks": checks}, headers={"Retry-After": "1"}))
    with pytest.raises(ServiceError, match=r"^The index lacks 20 vectors\.$"):
        client.ready()
    assert slept == []


class Cut(httpx.SyncByteStream):
    """A body that ends in the middle."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __iter__(self) -> Iterator[bytes]:
        yield self.data
        raise httpx.RemoteProtocolError("peer closed connection")


def test_a_stream_of_events_that_is_cut_is_opened_again(slept: list[float]) -> None:
    first, second, last = progress(total=2), progress(total=3), progress(done=True, state="done")
    beating = b": still here\n\n" + sse(second)
    client, asked = played(
        httpx.Response(200, stream=Cut(sse(first))),
        httpx.Response(200, content=beating),
        httpx.Response(200, content=sse(last)),
    )
    shown: list[int | None] = []
    end = client.follow(ID, lambda told: shown.append(told.total))
    assert shown == [2, 3, 300] and end.done and len(asked) == 3


def test_a_download_that_is_cut_is_an_error() -> None:
    client, _ = played(httpx.Response(200, stream=Cut(b"half")))
    file = io.BytesIO()
    with pytest.raises(ServiceError, match="cut off"):
        client.download_audit(file)


def test_requests_are_models_or_dicts_with_models_in_them() -> None:
    cameras = NameFilter.model_validate({"in": ["north"]})
    body = {"query": {"text": "a man"}, "filter": {"camera_id": {"in": ["north"]}, "identity": {"eq": None}}}
    identity = NameFilter.model_validate({"eq": None})
    as_model = SearchRequest(query=Query(text="a man"), filter=Filter(camera_id=cameras, identity=identity))
    as_dict = {"query": Query(text="a man"), "filter": {"camera_id": cameras, "identity": {"eq": None}}}
    for request in (as_model, as_dict, body):
        documented = Documented()
        Client(transport=httpx.MockTransport(documented)).search(request)
        assert json.loads(documented.asked[0][1].content) == body


@pytest.mark.parametrize("id", ["..", ".", "a/b", "a?b=c", "a#b", "ä b", "100%"])
def test_an_id_is_one_part_of_a_path_whatever_is_in_it(id: str) -> None:
    client, asked = played(httpx.Response(204))
    client.delete_camera(id)
    raw = asked[0].url.raw_path.decode()
    assert raw.startswith("/api/v1/cameras/") and raw.count("/") == 4 and "?" not in raw
    assert asked[0].url.path.removeprefix("/api/v1/cameras/") == id
