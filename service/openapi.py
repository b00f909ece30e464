"""The OpenAPI document: `python -m service.openapi > docs/openapi.json`, guarded by a test.

FastAPI writes most of it. Added here are the schemas of bodies that are read by hand, and the header every answer has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.access import COOKIE
from service.access_schemas import KeyRequest, PasswordRequest, SetupRequest, SignInRequest, UserChange, UserRequest
from service.case_schemas import (
    CaseChange,
    CaseRequest,
    ExportRequest,
    ItemRequest,
    MemberRequest,
    NoteChange,
    NoteRequest,
    VerdictRequest,
)
from service.checkpoint_schemas import ActivationRequest, GateRequest, RollbackRequest
from service.governance_schemas import ErasureRequest, HoldRequest, PolicyRequest
from service.principals import needs
from service.schemas import (
    EXAMPLE_ID,
    CameraChanges,
    CameraRequest,
    ImageChanges,
    ImageMetadata,
    IngestionProgress,
    Problem,
    ReferenceRequest,
)
from service.search_schemas import (
    FacetRequest,
    RefinementRequest,
    RunRequest,
    SavedSearchChange,
    SavedSearchRequest,
    SearchRequest,
)

DESCRIPTION = """\
Find a person in camera images from a description, a photo, or both.

Requests refuse unknown fields and parameters. Times are RFC 3339 with a zone and answered in UTC. Errors are
`application/problem+json` (RFC 9457). Every answer carries `X-Request-Id`, which the log names too."""

IDS = {"camera_id": "station-north", "checkpoint_id": "3f2a9c51d07be846"}  # in paths; all others look alike

BY_HAND: list[type[BaseModel]] = [
    SearchRequest,
    ImageMetadata,
    ImageChanges,
    CameraRequest,
    CameraChanges,
    ReferenceRequest,
    IngestionProgress,
    ErasureRequest,
    HoldRequest,
    PolicyRequest,
    GateRequest,
    ActivationRequest,
    RollbackRequest,
    SignInRequest,
    PasswordRequest,
    SetupRequest,
    UserRequest,
    UserChange,
    KeyRequest,
    CaseRequest,
    CaseChange,
    MemberRequest,
    ItemRequest,
    NoteRequest,
    NoteChange,
    VerdictRequest,
    ExportRequest,
    RefinementRequest,
    SavedSearchRequest,
    SavedSearchChange,
    RunRequest,
    FacetRequest,
    Problem,
]
SECURITY = {
    "api_key": {"type": "http", "scheme": "bearer", "description": "An API key, psk_..."},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "From POST /api/v1/session; changes also need its CSRF token as X-CSRF-Token",
    },
}
REQUEST_ID = {"X-Request-Id": {"description": "Names this request in the log", "schema": {"type": "string"}}}


def describe(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Make the application serve the complete document of these routers."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            written = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
            app.openapi_schema = complete(written, routers)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def complete(document: dict[str, Any], routers: Sequence[APIRouter]) -> dict[str, Any]:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    _, by_hand = models_json_schema(
        [(model, "validation") for model in BY_HAND], ref_template="#/components/schemas/{model}"
    )
    schemas.update(by_hand["$defs"])
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path" and "examples" not in parameter["schema"]:
                    parameter["example"] = IDS.get(parameter["name"], EXAMPLE_ID)
            for response in operation["responses"].values():
                response["headers"] = {**REQUEST_ID, **response.get("headers", {})}
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute):
                for method in route.methods or ():
                    operation = document["paths"][route.path_format][method.lower()]
                    restore_examples(operation["responses"], route.responses)
                    say_who_may(operation, needs(route))
    document["components"]["securitySchemes"] = SECURITY
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    return document


def say_who_may(operation: dict[str, Any], permissions: Sequence[str] | None) -> None:
    """What a call needs: nothing (None), to be signed in (none of them), or one of these permissions."""
    if permissions is None:
        return
    operation["security"] = [{name: []} for name in SECURITY]
    if permissions:
        operation["x-permissions"] = list(permissions)
        operation["description"] += f"\n\nNeeds the permission to {' or '.join(permissions)}."


def restore_examples(written: dict[str, Any], declared: Mapping[int | str, dict[str, Any]]) -> None:
    """Examples as they were declared: FastAPI leaves out what is null in them."""
    for status, response in declared.items():
        for media_type, content in response.get("content", {}).items():
            for key in {"example", "examples"} & content.keys():
                written[str(status)]["content"][media_type][key] = content[key]


def openapi_document() -> dict[str, Any]:
    """The document of the service as it is in this source tree."""
    from service.app import create_app
    from service.settings import ServiceSettings

    return create_app(ServiceSettings()).openapi()


if __name__ == "__main__":
    print(json.dumps(openapi_document(), indent=2, ensure_ascii=False))
