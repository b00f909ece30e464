"""How a delivery of images arrives: an archive, a form, a manifest by reference, or metadata alone.

The body is written to a spool as it comes, in pieces, and its directory is left for later. The OpenAPI entries of these
bodies are here too, because they are read by hand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool

from indexer.archives import read_zip
from indexer.errors import ArchiveError, StorageFull
from indexer.items import Entries, Piece, check_name, duplicate_name, key, too_many_entries
from indexer.manifests import locate, read_parts, read_reference, read_updates
from indexer.metadata import printable
from indexer.tars import looks_like_tar, read_tar
from service.errors import Refusal
from service.intake_queue import Delivery
from service.routes.bodies import DRAIN, FILE, expect, json_content, limited, read_json
from service.schemas import ReferenceRequest
from service.settings import ServiceSettings
from service.spool import Spool

BUFFER = 1024 * 1024
FORM_OVERHEAD = 1024  # bytes of headers and boundary, for each part
ZIP, TARS, LINES = "application/zip", ("application/x-tar", "application/gzip"), "application/x-ndjson"
FORM, JSON = "multipart/form-data", "application/json"


async def receive(request: Request, spool: Spool, settings: ServiceSettings) -> Delivery:
    """Read the body into the spool. Raises Refusal, ArchiveError or StorageFull for what shows by then."""
    kind = expect(request, ZIP, *TARS, FORM, LINES, JSON)
    if kind == JSON:
        return await receive_reference(request, settings)
    if kind == FORM:
        return await receive_form(request, spool, settings)
    digest = hashlib.sha256(kind.encode())
    into = spool.write_archive if kind in TARS else spool.write

    def write(data: bytes) -> None:
        digest.update(data)
        into(data)

    await pump(request, write, settings.max_ingestion_bytes)
    await run_in_threadpool(spool.finish)
    if kind == ZIP:
        return Delivery("zip over HTTP", lambda file: read_zip(file, settings), digest.hexdigest())
    if kind == LINES:
        return Delivery("metadata over HTTP", lambda file: read_updates(file, settings), digest.hexdigest())
    return Delivery("tar over HTTP", lambda file: read_tar(file, settings), digest.hexdigest())


async def receive_reference(request: Request, settings: ServiceSettings) -> Delivery:
    body = await read_json(request, ReferenceRequest)
    folder, path = await run_in_threadpool(locate, body.manifest, settings.intake_roots, settings)
    fingerprint = hashlib.sha256(body.model_dump_json().encode()).hexdigest()
    source = f"manifest {printable(body.manifest)}"
    return Delivery(source, lambda file: read_reference(file, folder, path, settings), fingerprint)


async def receive_form(request: Request, spool: Spool, settings: ServiceSettings) -> Delivery:
    form = FormReader(request.headers.get("content-type", ""), spool, settings)
    overhead = FORM_OVERHEAD * (settings.archive_max_entries + 8)
    await pump(request, form.write, settings.max_ingestion_bytes + overhead)
    form.finish()
    await run_in_threadpool(spool.finish)
    if "archive" in form.parts:
        if form.parts.keys() != {"archive"} or form.files:
            raise Refusal("invalid_request", "Send either an archive, or a manifest with its files.", "/archive")

        def read_archive(file: BinaryIO) -> Entries:
            return read_tar(file, settings) if looks_like_tar(file) else read_zip(file, settings)

        return Delivery("archive over HTTP", read_archive, form.fingerprint)
    if "manifest" not in form.parts:
        sentence = "Send the part 'archive', or the part 'manifest' and its files as parts 'files'."
        raise Refusal("invalid_request", sentence, "/manifest")
    manifest = form.parts["manifest"]
    return Delivery("form over HTTP", lambda file: read_parts(file, manifest, form.files, settings), form.fingerprint)


async def pump(request: Request, write: Callable[[bytes], object], limit: int) -> None:
    """Hand the body to `write`, which may block, in large pieces.

    What `write` raises ends it, but not before the client was heard out for a while: one that is still sending does not
    read the answer. Raises Refusal (413) beyond `limit` bytes.
    """
    buffer = bytearray()
    async with aclosing(limited(request, limit)) as body:
        try:
            async for chunk in body:
                buffer += chunk
                if len(buffer) >= BUFFER:
                    await run_in_threadpool(write, bytes(buffer))
                    buffer.clear()
            await run_in_threadpool(write, bytes(buffer))
        except (ArchiveError, StorageFull, Refusal, OSError):
            drained = 0
            async for chunk in body:
                drained += len(chunk)
                if drained > DRAIN:
                    break
            raise


# --- forms -------------------------------------------------------------------------------------------------------


@dataclass
class _Part:
    """The part that is arriving."""

    header: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    name: str = ""
    filename: str | None = None
    start: int = 0


class FormReader:
    """A multipart form whose parts are all written to one spool: `parts` by name, the files of `files` by key.

    Starlette's own reader opens a temporary file for each part, and a delivery has many.
    """

    def __init__(self, content_type: str, spool: Spool, settings: ServiceSettings) -> None:
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise Refusal("malformed", "The multipart form cannot be read: its Content-Type names no boundary.")
        self.spool, self.settings = spool, settings
        self.parts: dict[str, Piece] = {}
        self.files: dict[str, Piece] = {}
        self._digest = hashlib.sha256(FORM.encode())
        self._part = _Part()
        self._complete = False
        callbacks: Any = {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._all,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError as error:
            raise _malformed(error) from error

    @property
    def fingerprint(self) -> str:
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Raises Refusal and ArchiveError for what is wrong with a part, as soon as that shows."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _malformed(error) from error

    def finish(self) -> None:
        if not self._complete:
            raise Refusal("malformed", "The multipart form cannot be read: it ends before its last boundary.")

    def _begin(self) -> None:
        self._part = _Part()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.value += data[start:end]

    def _header_end(self) -> None:
        part = self._part
        if bytes(part.header).lower() == b"content-disposition":
            options = parse_options_header(bytes(part.value))[1]
            part.name = options.get(b"name", b"").decode("utf-8", "replace")
            if b"filename" in options:
                part.filename = _filename(options[b"filename"])
        part.header, part.value = bytearray(), bytearray()

    def _headers_finished(self) -> None:
        part = self._part
        part.start = self.spool.size
        if part.name not in ("archive", "manifest", "files"):
            sentence = f"There is no part {part.name!r} here; send archive, or manifest and files."
            raise Refusal("invalid_request", sentence, f"/{part.name}")
        if part.name in self.parts:
            raise Refusal("invalid_request", f"The part {part.name!r} was sent more than once.", f"/{part.name}")
        if part.name == "archive" and (self.parts or self.files):
            raise Refusal("invalid_request", "Send either an archive, or a manifest with its files.", "/archive")
        if part.name == "files":
            if not part.filename:
                sentence = "Each part 'files' needs a filename: the one by which the manifest names it."
                raise Refusal("invalid_request", sentence, "/files")
            check_name(part.filename, self.settings)
            if key(part.filename) in self.files:
                raise duplicate_name(part.filename)
            if len(self.files) >= self.settings.archive_max_entries:
                raise too_many_entries(self.settings)
        self._digest.update(repr((part.name, part.filename)).encode("utf-8", "surrogateescape"))

    def _data(self, data: bytes, start: int, end: int) -> None:
        piece = data[start:end]
        self._digest.update(piece)
        if self._part.name == "archive":
            self.spool.write_archive(piece)
        else:
            self.spool.write(piece)

    def _end(self) -> None:
        part = self._part
        piece = Piece(part.start, self.spool.size - part.start)
        self._digest.update(f"/{piece.size}/".encode())
        if part.name == "files":
            self.files[key(part.filename or "")] = piece
        else:
            self.parts[part.name] = piece

    def _all(self) -> None:
        self._complete = True


def _filename(raw: bytes) -> str:
    """Forms write quotes and line ends of a filename in percent, and nothing else."""
    for escaped, plain in ((b"%22", b'"'), (b"%0D", b"\r"), (b"%0A", b"\n")):
        raw = raw.replace(escaped, plain)
    return raw.decode("utf-8", "surrogateescape")


def _malformed(error: FormParserError) -> Refusal:
    return Refusal("malformed", f"The multipart form cannot be read: {error}.")


# --- documentation -----------------------------------------------------------------------------------------------

EXAMPLE_LINE = '{"external_id": "north-000123", "camera_id": "station-north", "tags": ["platform", "checked"]}\n'
EXAMPLE_REFERENCE = {"manifest": "/srv/deliveries/2026-09-01/metadata.jsonl"}

_PARTS = {"archive": FILE, "manifest": FILE, "files": {"type": "array", "items": FILE}}
CONTENTS: tuple[dict[str, Any], ...] = (
    {ZIP: {"schema": FILE}},
    *({kind: {"schema": FILE}} for kind in TARS),
    {
        FORM: {
            "schema": {
                "type": "object",
                "additionalProperties": False,
                "properties": _PARTS,
                "oneOf": [{"required": ["archive"]}, {"required": ["manifest"]}],
            },
            "encoding": {name: {"contentType": "application/octet-stream"} for name in _PARTS},
            "example": {"archive": "(the zip)"},
        }
    },
    {LINES: {"schema": {"type": "string"}, "example": EXAMPLE_LINE}},
    json_content(ReferenceRequest, {"a manifest by reference": EXAMPLE_REFERENCE}),
)
