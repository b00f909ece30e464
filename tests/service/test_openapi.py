"""The OpenAPI document: committed, complete, and kept by the service against generated requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from pydantic import BaseModel
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import ignored_auth, negative_data_rejection, positive_data_acceptance

from service.access_schemas import A_USER_REQUEST
from service.audit_schemas import AuditEvents, AuditVerification
from service.case_schemas import (
    CaseChange,
    CaseDetail,
    CaseList,
    CaseRequest,
    CaseResponse,
    ExportList,
    ExportRequest,
    ExportResponse,
    ItemList,
    ItemRequest,
    ItemResponse,
    MemberList,
    MemberRequest,
    NoteChange,
    NoteList,
    NoteRequest,
    VerdictRequest,
    VerdictResponse,
)
from service.checkpoint_schemas import ActivationRequest, CheckpointDetail, CheckpointList, GateReport, GateRequest
from service.errors import KINDS
from service.governance_schemas import (
    ErasureList,
    ErasureRequest,
    ErasureResponse,
    HoldList,
    HoldRequest,
    HoldResponse,
    PolicyList,
    PolicyRequest,
)
from service.openapi import openapi_document
from service.schemas import (
    CameraChanges,
    CameraList,
    CameraRequest,
    CameraResponse,
    ImageChanges,
    ImageResponse,
    IngestionItems,
    IngestionResponse,
    Neighbours,
    Problem,
    ReferenceRequest,
)
from service.search_schemas import (
    ExplanationResponse,
    FacetRequest,
    FacetResponse,
    RefinementRequest,
    RunRequest,
    SavedSearchChange,
    SavedSearchList,
    SavedSearchRequest,
    SavedSearchResponse,
    SearchPage,
    SearchRequest,
    SearchResponse,
)
from tests.fake_encoder import GridFiles
from tests.service.conftest import Service, picture, running_service, zipped

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"


def test_the_committed_document_is_current() -> None:
    committed = json.loads(COMMITTED.read_text("utf-8"))
    assert committed == openapi_document(), "python -m service.openapi > docs/openapi.json, and say so in the changelog"


def test_every_call_documents_its_errors_with_examples() -> None:
    seen = set()
    for path, operations in openapi_document()["paths"].items():
        for method, operation in operations.items():
            assert operation.get("description"), f"{method} {path} says nothing"
            for status, response in operation["responses"].items():
                assert "X-Request-Id" in response["headers"]
                examples = response.get("content", {}).get("application/problem+json", {}).get("examples", {})
                for code, example in examples.items():
                    seen.add(code)
                    body = Problem.model_validate(example["value"])
                    assert (body.code, str(body.status)) == (code, status)
    of_no_call = {"no_such_route", "method_not_allowed"}
    assert seen == set(KINDS) - of_no_call


def test_every_call_and_every_answer_has_an_example() -> None:
    bytes_alone = {"type": "string", "format": "binary"}
    for path, operations in openapi_document()["paths"].items():
        for method, operation in operations.items():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    assert "example" in parameter or "examples" in parameter["schema"], (method, path)
            for body in (operation.get("requestBody", {}), *operation["responses"].values()):
                for media_type, content in body.get("content", {}).items():
                    if content["schema"] != bytes_alone:
                        assert content.get("example") or content.get("examples"), (method, path, media_type)


def test_the_documentation_names_every_error() -> None:
    text = (COMMITTED.parent / "api.md").read_text("utf-8")
    assert [code for code in KINDS if f"`{code}`" not in text] == []


@pytest.mark.parametrize(
    ("method", "path", "model"),
    [
        ("post", "/api/v1/searches", SearchResponse),
        ("get", "/api/v1/searches/{search_id}", SearchResponse),
        ("get", "/api/v1/searches/{search_id}/results", SearchPage),
        ("post", "/api/v1/searches/{search_id}/refinements", SearchResponse),
        ("get", "/api/v1/searches/{search_id}/results/{image_id}/explanation", ExplanationResponse),
        ("post", "/api/v1/images/facets", FacetResponse),
        ("post", "/api/v1/saved-searches", SavedSearchResponse),
        ("get", "/api/v1/saved-searches", SavedSearchList),
        ("post", "/api/v1/saved-searches/{saved_search_id}/run", SearchResponse),
        ("post", "/api/v1/images", ImageResponse),
        ("get", "/api/v1/images/{image_id}", ImageResponse),
        ("patch", "/api/v1/images/{image_id}", ImageResponse),
        ("put", "/api/v1/images/by-external-id/{external_id}", ImageResponse),
        ("get", "/api/v1/images/{image_id}/neighbours", Neighbours),
        ("get", "/api/v1/cameras", CameraList),
        ("get", "/api/v1/cameras/{camera_id}", CameraResponse),
        ("patch", "/api/v1/cameras/{camera_id}", CameraResponse),
        ("post", "/api/v1/ingestions", IngestionResponse),
        ("get", "/api/v1/ingestions/{ingestion_id}/items", IngestionItems),
        ("post", "/api/v1/erasures", ErasureResponse),
        ("get", "/api/v1/erasures", ErasureList),
        ("get", "/api/v1/legal-holds", HoldList),
        ("post", "/api/v1/legal-holds", HoldResponse),
        ("get", "/api/v1/retention-policies", PolicyList),
        ("get", "/api/v1/checkpoints", CheckpointList),
        ("get", "/api/v1/checkpoints/{checkpoint_id}", CheckpointDetail),
        ("post", "/api/v1/checkpoints/{checkpoint_id}/gate", GateReport),
        ("post", "/api/v1/cases", CaseResponse),
        ("get", "/api/v1/cases", CaseList),
        ("get", "/api/v1/cases/{case_id}", CaseDetail),
        ("post", "/api/v1/cases/{case_id}/members", MemberList),
        ("post", "/api/v1/cases/{case_id}/items", ItemResponse),
        ("get", "/api/v1/cases/{case_id}/items", ItemList),
        ("get", "/api/v1/cases/{case_id}/notes", NoteList),
        ("post", "/api/v1/cases/{case_id}/exports", ExportResponse),
        ("get", "/api/v1/cases/{case_id}/exports", ExportList),
        ("post", "/api/v1/searches/{search_id}/results/{image_id}/verdicts", VerdictResponse),
        ("get", "/api/v1/audit-events", AuditEvents),
        ("get", "/api/v1/audit-events/verification", AuditVerification),
    ],
)
def test_examples_of_answers_are_answers(method: str, path: str, model: type[BaseModel]) -> None:
    responses = openapi_document()["paths"][path][method]["responses"]
    examples = [
        response["content"]["application/json"]["example"] for status, response in responses.items() if status < "300"
    ]
    assert examples
    for example in examples:
        assert set(example) == set(model.model_validate(example).model_dump())


@pytest.mark.parametrize(
    ("method", "path", "model"),
    [
        ("post", "/api/v1/searches", SearchRequest),
        ("post", "/api/v1/searches/{search_id}/refinements", RefinementRequest),
        ("post", "/api/v1/images/facets", FacetRequest),
        ("post", "/api/v1/saved-searches", SavedSearchRequest),
        ("patch", "/api/v1/saved-searches/{saved_search_id}", SavedSearchChange),
        ("post", "/api/v1/saved-searches/{saved_search_id}/run", RunRequest),
        ("patch", "/api/v1/images/{image_id}", ImageChanges),
        ("post", "/api/v1/cameras", CameraRequest),
        ("patch", "/api/v1/cameras/{camera_id}", CameraChanges),
        ("post", "/api/v1/ingestions", ReferenceRequest),
        ("post", "/api/v1/erasures", ErasureRequest),
        ("post", "/api/v1/legal-holds", HoldRequest),
        ("put", "/api/v1/retention-policies", PolicyRequest),
        ("post", "/api/v1/checkpoints/{checkpoint_id}/gate", GateRequest),
        ("post", "/api/v1/checkpoints/{checkpoint_id}/activate", ActivationRequest),
        ("post", "/api/v1/cases", CaseRequest),
        ("patch", "/api/v1/cases/{case_id}", CaseChange),
        ("post", "/api/v1/cases/{case_id}/members", MemberRequest),
        ("post", "/api/v1/cases/{case_id}/items", ItemRequest),
        ("patch", "/api/v1/cases/{case_id}/items/{item_id}", NoteChange),
        ("post", "/api/v1/cases/{case_id}/notes", NoteRequest),
        ("post", "/api/v1/cases/{case_id}/items/{item_id}/verdicts", VerdictRequest),
        ("post", "/api/v1/cases/{case_id}/exports", ExportRequest),
    ],
)
def test_examples_of_requests_are_requests(method: str, path: str, model: type[BaseModel]) -> None:
    examples = openapi_document()["paths"][path][method]["requestBody"]["content"]["application/json"]["examples"]
    for example in examples.values():
        model.model_validate_json(json.dumps(example["value"]))


# --------------------------------------------------------------------------------------------------- generated requests


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("fuzzed")
    with running_service(folder, files=GridFiles(folder / "files"), max_ingestion_bytes=2**16) as running:
        running.camera("north")
        for seed in range(5):
            running.added(picture(seed), camera_id="north")
        running.embed()
        yield running


@pytest.fixture(scope="module")
def existing(fuzzed: Service) -> dict[str, str]:
    ingestion = fuzzed.ingest(zipped({"a.png": picture(9)}, [{"file": "a.png"}, {"file": "b.png"}]))
    search = fuzzed.found({"query": {"text": "a man"}})
    image = search["results"][0]["image_id"]
    user = fuzzed.http.post("/api/v1/users", json={**A_USER_REQUEST, "name": "a user", "cameras": None}).json()
    erasure = fuzzed.http.post("/api/v1/erasures", json={"identity": "nobody", "reason": "to have one"}).json()
    checkpoint = search["checkpoint_id"]
    case = fuzzed.http.post("/api/v1/cases", json={"title": "a case"}).json()
    here = f"/api/v1/cases/{case['id']}"
    item = fuzzed.http.post(f"{here}/items", json={"search_id": search["id"], "image_id": image}).json()
    export = fuzzed.http.post(f"{here}/exports", json={}).json()
    saved = {"name": "a man", "request": {"query": {"text": "a man"}}}
    saved_search = fuzzed.http.post("/api/v1/saved-searches", json=saved).json()
    return {
        "saved_search_id": saved_search["id"],
        "case_id": case["id"],
        "item_id": item["id"],
        "export_id": export["id"],
        "image_id": image,
        "camera_id": "north",
        "external_id": "north-9",
        "search_id": search["id"],
        "ingestion_id": ingestion["id"],
        "erasure_id": erasure["id"],
        "checkpoint_id": checkpoint,
        "user_id": user["id"],
    }


@schemathesis.serializer(
    "application/zip", "application/x-tar", "application/gzip", "application/x-ndjson", "application/octet-stream"
)
def send_as_it_is(context: schemathesis.SerializationContext, value: Any) -> Any:
    return value if isinstance(value, bytes) else str(value).encode()


schema = schemathesis.openapi.from_dict(openapi_document())


def test_the_served_document_is_the_tested_one(fuzzed: Service) -> None:
    assert fuzzed.http.get("/api/v1/openapi.json").json() == openapi_document()


@schema.parametrize()
@settings(
    max_examples=12,  # thousands, by every role, in test_roles.py
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_generated_requests_get_documented_answers(case: schemathesis.Case[Any], fuzzed: Service) -> None:
    # What a schema cannot say (these bytes are no zip, this camera is unknown) may still be refused, as documented.
    # And this service is open to everybody; test_roles.py is about one that is not.
    excluded = [positive_data_acceptance, ignored_auth]
    if case.media_type == "application/x-ndjson":  # whatever type a body was generated as, it is sent as text
        excluded.append(negative_data_rejection)
    case.call_and_validate(base_url=str(fuzzed.http.base_url), timeout=30, excluded_checks=excluded)


@schema.include(path_regex=r"\{").exclude(method="DELETE").parametrize()
@settings(max_examples=8, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate])
def test_generated_requests_about_what_exists(
    case: schemathesis.Case[Any], fuzzed: Service, existing: dict[str, str]
) -> None:
    case.path_parameters = {name: existing[name] for name in case.path_parameters}
    # The wrong ids were just replaced, and the service is open.
    excluded = [positive_data_acceptance, negative_data_rejection, ignored_auth]
    if case.operation.path.endswith("/explanation"):  # a 501 is what a network that sees no strips has to say
        excluded.append(not_a_server_error)
    case.call_and_validate(base_url=str(fuzzed.http.base_url), timeout=30, excluded_checks=excluded)
