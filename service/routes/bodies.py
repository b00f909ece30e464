"""Reading request bodies: JSON, multipart forms and long streams, each with its limit and its refusals.

FastAPI declares one content type a route, but a search is JSON or a form, an archive a raw stream or a form. So those
bodies are read here, by hand, and their part of the OpenAPI document is made here too.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from service.errors import Refusal, invalid

JSON_LIMIT = 256 * 1024
DRAIN = 8 * 1024 * 1024  # read on this far after a refusal: a client that is still sending does not see the answer

Body = TypeVar("Body", bound=BaseModel)


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def expect(request: Request, *accepted: str) -> str:
    """The request's media type. Raises Refusal (415) when it is not one of those."""
    given = media_type(request)
    if given not in accepted:
        sentence = f"The body is {given or 'of no stated type'}; send {' or '.join(accepted)}."
        raise Refusal("unsupported_media_type", sentence)
    return given


async def limited(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """The body in chunks. Raises Refusal (413) as soon as it has more than `limit` bytes, stated or sent."""
    stated = request.headers.get("content-length", "")
    size = 0
    async with aclosing(_stream(request)) as stream:
        async for chunk in stream:
            size += len(chunk)
            if size > limit or (stated.isdigit() and int(stated) > limit):
                await _drain(stream)
                raise Refusal("body_too_large", f"The body has more than {limit:,} bytes, the limit of this call.")
            yield chunk


async def _stream(request: Request) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect as error:
        raise Refusal("malformed", "The body ended before it was complete.") from error


async def _drain(stream: AsyncIterator[bytes]) -> None:
    size = 0
    async for chunk in stream:
        size += len(chunk)
        if size > DRAIN:
            return


async def read_json(request: Request, model: type[Body]) -> Body:
    """A JSON body as its model. Raises Refusal."""
    expect(request, "application/json")
    return parse(model, b"".join([chunk async for chunk in limited(request, JSON_LIMIT)]))


def parse(model: type[Body], data: bytes | str) -> Body:
    """JSON text as its model. Raises Refusal naming every field that is wrong."""
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise invalid({**one, "loc": ("body", *one["loc"])} for one in error.errors()) from error


@asynccontextmanager
async def read_form(
    request: Request, limit: int, files: Collection[str], texts: Collection[str]
) -> AsyncIterator[FormData]:
    """A multipart form that has at most one part of each of these names and no other; closed afterwards.

    Raises Refusal: 400 when it is no form, 413 beyond `limit` bytes, 422 for unknown, repeated or wrongly typed parts.
    """
    try:
        parser = MultiPartParser(request.headers, limited(request, limit), max_part_size=JSON_LIMIT)
        form = await parser.parse()
    except MultiPartException as error:
        raise Refusal("malformed", f"The multipart form cannot be read: {error.message}") from error
    try:
        seen = set()
        for name, value in form.multi_items():
            if name not in files and name not in texts:
                accepted = ", ".join((*files, *texts))
                raise Refusal("invalid_request", f"There is no part {name!r} here; send {accepted}.", f"/{name}")
            if name in seen:
                raise Refusal("invalid_request", f"The part {name!r} was sent more than once.", f"/{name}")
            if name in files and not isinstance(value, UploadFile):
                raise Refusal("invalid_request", f"The part {name!r} must be a file, with a filename.", f"/{name}")
            seen.add(name)
        yield form
    finally:
        await form.close()


async def text_part(form: FormData, name: str) -> str | None:
    """A part as text, whether it was sent as a field or as a file. Raises Refusal when it is too long or not UTF-8."""
    value = form.get(name)
    if not isinstance(value, UploadFile):
        return value
    if (value.size or 0) > JSON_LIMIT:
        raise Refusal("body_too_large", f"The part {name!r} has more than {JSON_LIMIT:,} bytes.")
    try:
        return (await value.read()).decode()
    except UnicodeDecodeError as error:
        raise Refusal("malformed", f"The part {name!r} is not UTF-8 text.") from error


async def file_part(form: FormData, name: str) -> bytes | None:
    value = form.get(name)
    return await value.read() if isinstance(value, UploadFile) else None


# ------------------------------------------------------------------------------------------------- documentation


def schema_of(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def json_content(model: type[BaseModel], examples: dict[str, Any]) -> dict[str, Any]:
    named = {name: {"summary": name, "value": value} for name, value in examples.items()}
    return {"application/json": {"schema": schema_of(model), "examples": named}}


def form_content(required: Collection[str], example: dict[str, Any], **parts: dict[str, Any]) -> dict[str, Any]:
    """A multipart body; a part whose schema is a reference travels as JSON."""
    return {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "additionalProperties": False,
                "properties": parts,
                "required": sorted(required),
            },
            "encoding": {
                name: {"contentType": "application/json" if "$ref" in schema else "application/octet-stream"}
                for name, schema in parts.items()
            },
            "example": example,
        }
    }


FILE = {"type": "string", "format": "binary"}


def request_body(*contents: dict[str, Any]) -> dict[str, Any]:
    """`openapi_extra=` of a route that reads its body by hand."""
    merged = {kind: entry for content in contents for kind, entry in content.items()}
    return {"requestBody": {"required": True, "content": merged}}
