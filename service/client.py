"""A thin HTTP client for the service: what the command line, the demo and the tests speak through.

Everything goes over the API, also on one machine, so that no use escapes the rules the API keeps.
"""

from __future__ import annotations

import json
import mimetypes
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import httpx

Json = dict[str, Any]

SHOW_A_KEY = "On the command line set PERSON_SEARCH_API_KEY or give --api-key-file FILE."


class ServiceError(Exception):
    """The service refused, or did not answer. ``str()`` is the sentence for the user; ``problem`` the RFC 9457 body."""

    def __init__(self, message: str, status: int | None = None, problem: Json | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.problem = problem or {}


class Client:
    """One connection pool to one service. Close it, or use it as a context manager.

    It shows `api_key`, or the one in PERSON_SEARCH_API_KEY. Every method returns the decoded JSON body and raises
    ServiceError otherwise.
    """

    def __init__(
        self, url: str = "http://127.0.0.1:8000", timeout: float = 60.0, *, api_key: str | None = None
    ) -> None:
        self.url = url.rstrip("/")
        api_key = api_key or os.environ.get("PERSON_SEARCH_API_KEY")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=self.url, timeout=timeout, headers=headers, trust_env=False)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send one request. Raises ServiceError when the service is unreachable or answers 4xx/5xx."""
        try:
            response = self._http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise ServiceError(
                f"No answer from {self.url} ({type(error).__name__}). "
                "Start the service with `person-search serve`, or give its address with --url."
            ) from error
        if response.is_error:
            try:
                problem = response.json()
            except json.JSONDecodeError:
                problem = {}
            if response.status_code == 401:
                problem["detail"] = f"{problem.get('detail', 'Not signed in.')} {SHOW_A_KEY}"
            sentence = problem.get("detail") or problem.get("title") or f"{self.url} answered {response.status_code}."
            more = [error["detail"] for error in problem.get("errors", [])[1:]]  # the first one is the sentence
            raise ServiceError(" ".join([sentence, *more]), response.status_code, problem)
        return response

    def version(self) -> Json:
        return self._json("GET", "/version")

    def ready(self) -> Json:
        return self._json("GET", "/readyz")

    def search(self, query: Json, image: Path | None = None) -> Json:
        """Run one search. ``query`` is the request body of POST /searches; ``image`` an image file to search by."""
        if image is None:
            return self._json("POST", "/api/v1/searches", json=query)
        files = {
            "request": (None, json.dumps(query), "application/json"),
            "image": (
                image.name,
                image.read_bytes(),
                mimetypes.guess_type(image.name)[0] or "application/octet-stream",
            ),
        }
        return self._json("POST", "/api/v1/searches", files=files)

    def results(self, search: Json) -> Iterator[Json]:
        """Every result of a search, page by page; ``search`` is its answer."""
        page = search
        while True:
            yield from page["results"]
            if page["next_cursor"] is None:
                return
            cursor = {"cursor": page["next_cursor"]}
            page = self._json("GET", f"/api/v1/searches/{search['id']}/results", params=cursor)

    def refine(self, search_id: str, refinement: Json) -> Json:
        """A new search: ``refinement`` names positive and negative images, another text, or some of these."""
        return self._json("POST", f"/api/v1/searches/{search_id}/refinements", json=refinement)

    def explain(self, search_id: str, image_id: str) -> Json:
        """Which phrases met which part of the body; takes seconds."""
        path = f"/api/v1/searches/{search_id}/results/{image_id}/explanation"
        return self._json("GET", path, timeout=None)

    def facets(self, asked: Json) -> Json:
        return self._json("POST", "/api/v1/images/facets", json=asked)

    def save_search(self, name: str, request: Json) -> Json:
        return self._json("POST", "/api/v1/saved-searches", json={"name": name, "request": request})

    def saved_searches(self) -> list[Json]:
        found: list[Json] = self._json("GET", "/api/v1/saved-searches")["saved_searches"]
        return found

    def run_saved_search(self, saved_search_id: str, purpose: Json | None = None) -> Json:
        body = {} if purpose is None else {"purpose": purpose}
        return self._json("POST", f"/api/v1/saved-searches/{saved_search_id}/run", json=body)

    def add_camera(self, camera: Json) -> Json:
        return self._json("POST", "/api/v1/cameras", json=camera)

    def ingest(
        self,
        chunks: Iterable[bytes],
        media_type: str,
        register_cameras: bool = False,
        idempotency_key: str | None = None,
    ) -> Json:
        """Stream one delivery. Returns the ingestion as accepted; follow it with ``follow``."""
        headers = {"Content-Type": media_type, **({"Idempotency-Key": idempotency_key} if idempotency_key else {})}
        parameters = {"register_cameras": register_cameras}
        path = "/api/v1/ingestions"
        return self._json("POST", path, params=parameters, content=chunks, headers=headers, timeout=None)

    def ingest_zip(self, archive: BinaryIO, register_cameras: bool = False) -> Json:
        """Stream one zip with metadata.jsonl."""
        return self.ingest(iter(lambda: archive.read(1 << 20), b""), "application/zip", register_cameras)

    def ingest_reference(self, manifest: str, register_cameras: bool = False) -> Json:
        """Have the service read a manifest by itself: a path or URL below one of its PERSON_SEARCH_INTAKE_ROOTS."""
        parameters = {"register_cameras": register_cameras}
        return self._json("POST", "/api/v1/ingestions", params=parameters, json={"manifest": manifest}, timeout=None)

    def retry(self, ingestion_id: str) -> Json:
        return self._json("POST", f"/api/v1/ingestions/{ingestion_id}/retry")

    def cancel(self, ingestion_id: str) -> Json:
        return self._json("POST", f"/api/v1/ingestions/{ingestion_id}/cancel")

    def ingestion(self, ingestion_id: str) -> Json:
        return self._json("GET", f"/api/v1/ingestions/{ingestion_id}")

    def follow(self, ingestion_id: str, show: Callable[[Json], None], every: float = 0.25) -> Json:
        """Poll an ingestion until every item has come to rest, showing each state. Returns the last one."""
        while True:
            state = self.ingestion(ingestion_id)
            show(state)
            if state["done"]:
                return state
            time.sleep(every)

    def items(self, ingestion_id: str, state: str | None = None) -> Iterator[Json]:
        """Every ledger row of an ingestion, page by page."""
        after: int | None = None
        while True:
            query = {k: v for k, v in {"state": state, "after": after}.items() if v is not None}
            page = self._json("GET", f"/api/v1/ingestions/{ingestion_id}/items", params=query)
            yield from page["items"]
            after = page.get("next_after")
            if after is None:
                return

    def checkpoints(self) -> list[Json]:
        found: list[Json] = self._json("GET", "/api/v1/checkpoints", timeout=None)["checkpoints"]
        return found

    def checkpoint(self, checkpoint_id: str) -> Json:
        return self._json("GET", f"/api/v1/checkpoints/{checkpoint_id}", timeout=None)

    def register_checkpoint(self, file: BinaryIO) -> Json:
        chunks = iter(lambda: file.read(1 << 20), b"")
        headers = {"Content-Type": "application/octet-stream"}
        return self._json("POST", "/api/v1/checkpoints", content=chunks, headers=headers, timeout=None)

    def judge_checkpoint(self, checkpoint_id: str, body: Json) -> Json:
        return self._json("POST", f"/api/v1/checkpoints/{checkpoint_id}/gate", json=body, timeout=None)

    def act_on_checkpoint(self, checkpoint_id: str, action: str, body: Json | None = None) -> Json:
        """``action`` is activate, rollback or retire; the last takes no body."""
        return self._json("POST", f"/api/v1/checkpoints/{checkpoint_id}/{action}", json=body, timeout=None)

    def content(self, image_id: str, variant: str = "full") -> bytes:
        return self.request("GET", f"/api/v1/images/{image_id}/content", params={"variant": variant}).content

    def _json(self, method: str, path: str, **arguments: Any) -> Json:
        body: Json = self.request(method, path, **arguments).json()
        return body
