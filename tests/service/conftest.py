"""A real service for tests: uvicorn in a thread on a free loopback port, a real PostgreSQL, a real FAISS index.

Only the network is replaced, by a cheap deterministic encoder. `service` is shared by the tests of one file; a test
that needs settings of its own starts one with `running_service`.
"""

from __future__ import annotations

import contextlib
import io
import json
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image

from indexer import worker
from indexer.database import Database
from service.app import create_app
from service.context import Context, QueryEncoder
from service.encoders import EncoderFiles
from service.settings import ServiceSettings
from tests.fake_encoder import GridEncoder
from tests.postgres_fixtures import fresh_database

Json = dict[str, Any]
DEADLINE = 30.0  # seconds until a condition that must come true counts as a failure


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.01)


@dataclass
class Service:
    """A running service and a client for it."""

    app: FastAPI
    settings: ServiceSettings
    http: httpx.Client

    @property
    def context(self) -> Context:
        context: Context = self.app.state.context
        return context

    @property
    def database(self) -> Database:
        return self.context.database

    @property
    def encoder(self) -> QueryEncoder:
        return self.context.replica.state.encoder

    def add(self, image: bytes, metadata: Mapping[str, Any] | None = None) -> httpx.Response:
        files: dict[str, Any] = {"image": ("image.png", image, "image/png")}
        if metadata is not None:
            files["metadata"] = (None, json.dumps(metadata), "application/json")
        return self.http.post("/api/v1/images", files=files)

    def added(self, image: bytes, **metadata: Any) -> str:
        response = self.add(image, metadata)
        assert response.status_code in (200, 201), response.text
        return str(response.json()["id"])

    def camera(self, *ids: str) -> None:
        for id in ids:
            assert self.http.post("/api/v1/cameras", json={"id": id}).status_code in (201, 409)

    def embed(self) -> None:
        """What the worker process does, until nothing is left."""
        worker.run(self.database, self.context.store, self.encoder, self.settings, threading.Event(), once=True)

    def search(self, body: Any, image: bytes | None = None) -> httpx.Response:
        if image is None:
            return self.http.post("/api/v1/searches", json=body)
        files: dict[str, Any] = {"request": (None, json.dumps(body)), "image": ("query.png", image)}
        return self.http.post("/api/v1/searches", files=files)

    def found(self, body: Any, image: bytes | None = None) -> Json:
        response = self.search(body, image)
        assert response.status_code == 201, response.text
        answer: Json = response.json()
        return answer

    def ingest(self, archive: bytes, **parameters: Any) -> Json:
        """Send an archive and wait until its intake is over; the worker then has its turn too."""
        headers = {"Content-Type": "application/zip"}
        response = self.http.post("/api/v1/ingestions", content=archive, headers=headers, params=parameters)
        assert response.status_code == 202, response.text
        path = response.headers["Location"]
        wait_until(lambda: self.http.get(path).json()["state"] in ("done", "failed"), "the archive is taken in")
        self.embed()
        answer: Json = self.http.get(path).json()
        return answer

    def items(self, ingestion: Json, **parameters: Any) -> list[Json]:
        page = self.http.get(f"/api/v1/ingestions/{ingestion['id']}/items", params=parameters)
        assert page.status_code == 200, page.text
        items: list[Json] = page.json()["items"]
        return items


@contextlib.contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Serve an application on a free port; yields its address. It is up when its lifespan has begun."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False, lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), "the server listens")
        assert server.started, "the application refused to start"
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(DEADLINE)
        assert not thread.is_alive()


@contextlib.contextmanager
def running_service(
    folder: Path,
    *,
    encoder: QueryEncoder | None = None,
    database: Database | None = None,
    files: EncoderFiles | None = None,
    embedded: bool = False,
    **changes: Any,
) -> Iterator[Service]:
    """A service of its own: on `database`, on a fresh one, or with `embedded` on the one it starts in its folder.

    With the setting `checkpoint` it loads that one, else it has `encoder` or the cheap one.
    """
    limits = {"max_image_bytes": 2**20, "max_upload_bytes": 2**21, "max_ingestion_bytes": 2**22, "min_free_bytes": 0}
    # Who may come in is a matter of test_access.py alone.
    usual = {**limits, "auth": "open", "poll_seconds": 0.05, "readiness_seconds": 0}
    settings = ServiceSettings(data_dir=folder, **{**usual, **changes})
    with contextlib.ExitStack() as stack:
        if database is None and not embedded:
            database = stack.enter_context(fresh_database())
        if encoder is None and settings.checkpoint is None:
            encoder = GridEncoder()
        app = create_app(settings, encoder=encoder, database=database, files=files)
        url = stack.enter_context(serving(app))
        http = stack.enter_context(httpx.Client(base_url=url, timeout=DEADLINE, trust_env=False))
        yield Service(app, settings, http)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("service")) as running:
        yield running


# ------------------------------------------------------------------------------------------------------ test data


def pixels(seed: int, height: int = 48, width: int = 20) -> Image.Image:
    """Coloured blocks that differ from seed to seed."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 3, 3), np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def picture(seed: int) -> bytes:
    return encoded(pixels(seed))


def zipped(files: Mapping[str, bytes], lines: Sequence[Any] | bytes | None = None) -> bytes:
    """A zip of these files; `lines` become metadata.jsonl, one JSON object each."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        if lines is not None:
            text = lines if isinstance(lines, bytes) else "\n".join(json.dumps(line) for line in lines).encode()
            archive.writestr("metadata.jsonl", text)
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def problem(response: httpx.Response) -> Json:
    """The body of an error, checked for what every error has."""
    assert response.headers["Content-Type"] == "application/problem+json", response.text
    body: Json = response.json()
    assert body["status"] == response.status_code
    assert body["request_id"] == response.headers["X-Request-Id"]
    assert body["detail"].endswith((".", "!", ")")) and body["title"] and body["instance"].startswith("/")
    return body
