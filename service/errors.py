"""Every error as an RFC 9457 problem. The only place that knows which HTTP status an error of the domain has.

One table names all problems; the OpenAPI document takes its statuses and examples from the same table, so that they
cannot drift. Sentences come from whoever raised the error; internals of unexpected errors go to the log alone.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from indexer.errors import ArchiveError, GalleryError
from indexer.metadata import pointer_of
from service.schemas import EXAMPLE_ID, Problem, ProblemError

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = {
    "audit_unavailable": 2,
    "busy": 2,
    "checkpoint_replaced": 2,
    "database_unavailable": 2,
    "deadline": 5,
    "index_unavailable": 5,
    "not_ready": 2,
    "queue_full": 10,
    "rate_limited": 1,  # unless it is known better
}

log = structlog.get_logger()


@dataclass(frozen=True)
class Kind:
    """One kind of problem: its status, its title, and an example sentence for the documentation."""

    status: int
    title: str
    example: str


KINDS: dict[str, Kind] = {
    "malformed": Kind(400, "Malformed request", "The body is not valid JSON: EOF while parsing a value at line 1."),
    "key_in_url": Kind(400, "Key in the address", "A key never goes into the address, where logs keep it."),
    "unauthenticated": Kind(401, "Not signed in", "Sign in, or send an API key as `Authorization: Bearer ...`."),
    "forbidden": Kind(403, "Not permitted", "Your roles do not include the permission to export."),
    "csrf": Kind(403, "CSRF token missing", "Send the CSRF token of GET /api/v1/session as X-CSRF-Token."),
    "setup_refused": Kind(403, "Set-up link not valid", "This set-up link was used or has expired."),
    "cross_origin": Kind(403, "Request from another site", "This request came from a page of another site."),
    "not_found": Kind(404, "Not found", f"There is no image {EXAMPLE_ID}."),
    "no_such_route": Kind(404, "No such address", "There is nothing at /api/v1/serches."),
    "method_not_allowed": Kind(405, "Method not allowed", "PUT is not possible at /api/v1/cameras."),
    "external_id_conflict": Kind(409, "External id in use", "The external id north-17 belongs to another image."),
    "camera_exists": Kind(409, "Camera exists", "There is already a camera station-north."),
    "user_exists": Kind(409, "User exists", "There is a user 'kim' already. Choose another name."),
    "last_admin": Kind(409, "Last admin", "Nobody could manage accounts any more. Make somebody else an admin first."),
    "camera_in_use": Kind(409, "Camera in use", "12 images are from the camera 'station-north'. Erase them first."),
    "duplicate_content": Kind(
        409, "The same image twice", "Another image has the file of 'north-17' from this camera at this time."
    ),
    "ingestion_finished": Kind(409, "Ingestion is over", "This ingestion is over; nothing more comes in from it."),
    "nothing_to_retry": Kind(409, "Nothing to retry", "No image of this ingestion failed to be embedded."),
    "no_text_branch": Kind(409, "No text search", "The active checkpoint has no text branch; search by image."),
    "checkpoint_conflict": Kind(409, "Not possible now", "Checkpoint 3f2a9c51d07be846 answers searches."),
    "gate_refused": Kind(409, "Refused by the gate", "12 images that are found now would not be found."),
    "not_indexed": Kind(409, "Not searchable yet", "This image is not embedded yet; try again in a moment."),
    "case_closed": Kind(409, "Case closed", f"Case {EXAMPLE_ID} is closed. Open it again to change it."),
    "case_conflict": Kind(409, "Not possible in this case", "A case needs somebody who works on it."),
    "expired": Kind(410, "Search expired", "This search expired 24 hours after it was made; run it again."),
    "precondition_failed": Kind(412, "Changed meanwhile", "The image is not as you saw it any more. Fetch it again."),
    "body_too_large": Kind(413, "Too large", "The body has more than 262,144 bytes, the limit of this call."),
    "image_too_large": Kind(
        413, "Image too large", "The image has 60000 x 60000 pixels; at most 40 million are accepted."
    ),
    "unsupported_media_type": Kind(415, "Unsupported media type", "Send application/json or multipart/form-data."),
    "unsupported_image": Kind(415, "Unsupported image", "HEIC or AVIF files are not accepted. Send JPEG or PNG."),
    "wrong_host": Kind(421, "Wrong host", "This service does not answer for the host evil.example."),
    "invalid_request": Kind(422, "Invalid request", "limit: Input should be less than or equal to 200."),
    "unreadable_image": Kind(422, "Unreadable image", "The file cannot be read as an image: it is damaged."),
    "image_too_small": Kind(422, "Image too small", "The image has 1 x 1 pixels; each side needs at least 8."),
    "invalid_crop": Kind(
        422, "Invalid crop", "The crop reaches to 80 x 200, but the upright image has 64 x 160 pixels."
    ),
    "invalid_cursor": Kind(422, "Invalid cursor", "This cursor does not belong to this search."),
    "invalid_filter": Kind(422, "Invalid filter", "captured_at has no operator 'in'; use one of lt, lte, gt, gte."),
    "invalid_metadata": Kind(422, "Invalid metadata", "track_id must be a string."),
    "time_without_zone": Kind(422, "Time without zone", "captured_at has no zone. Write 2026-09-01T18:00:00Z."),
    "unknown_camera": Kind(422, "Unknown camera", "There is no camera 'nroth'. Create it first or correct its name."),
    "unknown_image": Kind(422, "Unknown image", f"There is no image {EXAMPLE_ID} to search with."),
    "idempotency_conflict": Kind(
        422, "Key used before", "This Idempotency-Key was sent with another request within 24 hours."
    ),
    "invalid_checkpoint": Kind(422, "Invalid checkpoint", "The file sent is not a whole safetensors file."),
    "invalid_archive": Kind(422, "Invalid archive", "The archive is not a zip file."),
    "reason_names_person": Kind(
        422, "Reason names the person", "The reason is kept in the receipt. Write it without 'north-000123'."
    ),
    "purpose_required": Kind(
        422, "Purpose missing", "Say why you search: name a case, give a reason, or both, in `purpose`."
    ),
    "legal_hold": Kind(423, "Under legal hold", f"The image is under legal hold {EXAMPLE_ID}. Lift the hold first."),
    "rate_limited": Kind(429, "Too many requests", "Too many requests in a short time. Try again in 3 seconds."),
    "precondition_required": Kind(
        428, "Say what you saw", "Send If-Match with the ETag of the image you want to change, or `If-Match: *`."
    ),
    "internal": Kind(500, "Internal error", "Something went wrong. The log has the details under this request id."),
    "audit_unavailable": Kind(
        503, "Audit unavailable", "This could not be written to the audit, so it was not done. Try again in a moment."
    ),
    "no_explanation": Kind(501, "No explanation", "The search has no text, so there are no words to explain."),
    "database_unavailable": Kind(503, "Database unavailable", "The database does not answer. Try again in a moment."),
    "checkpoint_missing": Kind(503, "Checkpoint missing", "The file of checkpoint 3f2a9c51d07be846 is not there."),
    "checkpoint_replaced": Kind(
        503, "Checkpoint retired", "Another checkpoint is being loaded. Try again in a moment."
    ),
    "index_unavailable": Kind(
        503, "Index unavailable", "Milvus, which holds the index, does not answer. Try again in a moment."
    ),
    "not_ready": Kind(503, "Starting", "The service is starting. Try again in a moment."),
    "busy": Kind(503, "Too many searches waiting", "64 searches are waiting already. Try again in a moment."),
    "deadline": Kind(
        503, "Took too long", "The search took longer than this service allows. Narrow it, or try again in a moment."
    ),
    "queue_full": Kind(503, "Too many archives waiting", "8 archives are waiting already. Try again later."),
    "storage_full": Kind(507, "Disk full", "The disk is full. Free some space, then send it again."),
}


class Refusal(Exception):  # noqa: N818
    """The service says no: a code of KINDS, a sentence for the user, and where in the request the reason lies."""

    def __init__(
        self,
        code: str,
        detail: str,
        pointer: str | None = None,
        errors: Iterable[ProblemError] = (),
        *,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self.errors = list(errors)
        if pointer is not None:
            self.errors.append(ProblemError(pointer=pointer, code=code, detail=detail))


def problem(
    request: Request,
    code: str,
    detail: str,
    errors: Iterable[ProblemError] = (),
    headers: Mapping[str, str] | None = None,
    kind: Kind | None = None,
) -> JSONResponse:
    """The response for one problem; `kind` where the code is more precise than the table."""
    kind = kind or KINDS[code]
    body = Problem(
        type=f"urn:person-search:problem:{code}",
        title=kind.title,
        status=kind.status,
        detail=detail,
        instance=request.url.path,
        code=code,
        request_id=request.state.request_id,
        errors=list(errors),
    )
    extra = {"Retry-After": str(RETRY_AFTER_SECONDS[code])} if code in RETRY_AFTER_SECONDS else {}
    if kind.status == 401:
        extra["WWW-Authenticate"] = 'Bearer realm="person-search"'
    return JSONResponse(
        body.model_dump(mode="json"), kind.status, media_type=MEDIA_TYPE, headers={**extra, **(headers or {})}
    )


def invalid(details: Iterable[Mapping[str, Any]]) -> Refusal:
    """What pydantic found wrong, as one refusal. A location ("filter", "any", 0) becomes the pointer /filter/any/0."""
    errors = [
        ProblemError(pointer=_pointer(error["loc"]), code=_code(error["type"]), detail=_sentence(error))
        for error in details
    ]
    if errors[0].code == "malformed":
        return Refusal("malformed", errors[0].detail, errors=errors)
    if len(errors) == 1:
        return Refusal("invalid_request", f"{errors[0].pointer}: {errors[0].detail}", errors=errors)
    fields = ", ".join(error.pointer for error in errors)
    return Refusal("invalid_request", f"{len(errors)} things in the request need correcting: {fields}.", errors=errors)


def _pointer(location: tuple[str | int, ...]) -> str:
    if location and location[0] in ("query", "path", "header"):
        return str(location[-1])
    steps = location[1:] if location and location[0] == "body" else location
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in steps) or "/"


def _code(kind: str) -> str:
    named = {"extra_forbidden": "unknown_field", "timezone_aware": "time_without_zone", "json_invalid": "malformed"}
    return named.get(kind, kind)


def _sentence(error: Mapping[str, Any]) -> str:
    field = error["loc"][-1] if error["loc"] else "body"
    match error["type"]:
        case "extra_forbidden":
            return f"There is no field {field!r} here. Remove it or correct its name."
        case "missing":
            return f"The field {field!r} is required."
        case "timezone_aware":
            return "The time has no zone. Write it as 2026-09-01T18:00:00Z or 2026-09-01T20:00:00+02:00."
        case "json_invalid":
            return f"The body is not valid JSON: {error['ctx']['error']}."
        case "value_error":
            return str(error["ctx"]["error"])
    return f"{error['msg']}."


def methods_at(request: Request, routers: Sequence[APIRouter]) -> list[str]:
    """What is possible at an address: all its routes together, where the router names only the first it meets."""
    path = request.scope["path"]  # `request.url` has lost the tabs and line breaks that were in it
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    named = [route for route in routes if route.path == path]  # /images/facets is no /images/{image_id}
    matching = named or [route for route in routes if route.path_regex.match(path)]
    return sorted({method for route in matching for method in route.methods or ()})


def install_error_handlers(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Turn everything a handler can raise into a problem. What is left is caught in `service.edge`."""

    def refusal(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Refusal)
        return problem(request, error.code, error.detail, error.errors, error.headers)

    def gallery_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, GalleryError)
        pointer = pointer_of(error)
        errors = [ProblemError(pointer=pointer, code=error.code, detail=str(error))] if pointer else []
        kind = KINDS["invalid_archive"] if isinstance(error, ArchiveError) else KINDS[error.code]
        return problem(request, error.code, str(error), errors, kind=kind)

    def validation_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        if request.method not in methods_at(request, routers):  # GET /images/facets: not an id that is wrong
            return http_exception(request, HTTPException(405))
        return refusal(request, invalid(error.errors()))

    def http_exception(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        match error.status_code:
            case 404:
                return problem(request, "no_such_route", f"There is nothing at {request.url.path}.")
            case 405:
                allowed = ", ".join(methods_at(request, routers)) or (error.headers or {}).get("Allow", "")
                sentence = f"{request.method} is not possible at {request.url.path}; {allowed} is."
                return problem(request, "method_not_allowed", sentence, headers={"Allow": allowed})
            case 400 | 413 | 415 as status:
                code = {400: "malformed", 413: "body_too_large", 415: "unsupported_media_type"}[status]
                return problem(request, code, error.detail)
        raise error

    def no_space(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, OSError)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise error
        return problem(request, "storage_full", KINDS["storage_full"].example)

    app.add_exception_handler(Refusal, refusal)
    app.add_exception_handler(GalleryError, gallery_error)
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(HTTPException, http_exception)
    app.add_exception_handler(OSError, no_space)


def documented(*codes: str, public: bool = False) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route: one entry a status, with an example of every problem that can occur there.

    `public`: the route answers also those who are not signed in.
    """
    responses: dict[int | str, dict[str, Any]] = {}
    changing = ("csrf",) if "cross_origin" in codes and not public else ()
    if "database_unavailable" in codes:
        codes = (*codes, "audit_unavailable")  # what is done in the database is written to the audit there
    for code in dict.fromkeys((*codes, *ALWAYS, *changing, *(() if public else SIGNED_IN))):
        kind = KINDS[code]
        entry = responses.setdefault(
            kind.status,
            {
                "description": HTTPStatus(kind.status).phrase,
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}},
            },
        )
        entry["content"][MEDIA_TYPE]["examples"][code] = {"summary": kind.title, "value": _example(code, kind)}
        if code in RETRY_AFTER_SECONDS:
            entry["headers"] = {"Retry-After": {"description": "Seconds", "schema": {"type": "string"}}}
    return responses


# What any call can answer, and what any call that asks who is calling.
ALWAYS = ("malformed", "key_in_url", "wrong_host", "invalid_request", "internal", "not_ready")
SIGNED_IN = ("unauthenticated", "forbidden", "rate_limited", "database_unavailable")


def _example(code: str, kind: Kind) -> dict[str, Any]:
    return Problem(
        type=f"urn:person-search:problem:{code}",
        title=kind.title,
        status=kind.status,
        detail=kind.example,
        instance="/api/v1/…",
        code=code,
        request_id="8f14e45fceea467f9b2d1c1a7f0e6a52",
    ).model_dump(mode="json")
