"""Images in bulk: send a delivery, follow it, see what became of each item."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import BinaryIO

import httpx

from service.client.connection import PAUSE, Connection, Id, at, given
from service.schemas import IngestionItem, IngestionItems, IngestionProgress, IngestionResponse, ItemState

CHUNK = 1 << 20


def chunks_of(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.read(CHUNK), b"")


class Ingesting(Connection):
    def ingest(
        self,
        chunks: Iterable[bytes],
        media_type: str,
        register_cameras: bool = False,
        idempotency_key: str | None = None,
    ) -> IngestionResponse:
        """Stream one delivery, a zip, a tar or lines of metadata. Gives the ingestion as accepted; `follow` it.

        With an `idempotency_key` it can be sent again after a lost answer, and is taken in once.
        """
        headers = given(**{"Content-Type": media_type, "Idempotency-Key": idempotency_key})
        parameters = {"register_cameras": register_cameras}
        response = self.request(
            "POST", at("ingestions"), params=parameters, content=chunks, headers=headers, timeout=None
        )
        return self._read(IngestionResponse, response)

    def ingest_zip(
        self, archive: BinaryIO, register_cameras: bool = False, idempotency_key: str | None = None
    ) -> IngestionResponse:
        """Stream one zip with metadata.jsonl."""
        return self.ingest(chunks_of(archive), "application/zip", register_cameras, idempotency_key)

    def ingest_reference(
        self, manifest: str, register_cameras: bool = False, idempotency_key: str | None = None
    ) -> IngestionResponse:
        """Have the service read a manifest by itself: a path or URL below one of its PERSON_SEARCH_INTAKE_ROOTS."""
        parameters = {"register_cameras": register_cameras}
        headers = given(**{"Idempotency-Key": idempotency_key})
        arguments = {"params": parameters, "headers": headers, "timeout": None}
        return self._ask(IngestionResponse, "POST", at("ingestions"), {"manifest": manifest}, **arguments)

    def ingestion(self, ingestion_id: Id) -> IngestionResponse:
        return self._ask(IngestionResponse, "GET", at("ingestions", ingestion_id))

    def events(self, ingestion_id: Id) -> Iterator[IngestionProgress]:
        """Each change of an ingestion as it happens, until nothing is pending. A stream that is cut is opened again."""
        while True:
            path = at("ingestions", ingestion_id, "events")
            # Where the stream is cut, the delivery goes on without it.
            with self._stream(path) as response, suppress(httpx.TransportError):
                for line in response.iter_lines():
                    if line.startswith("data:"):
                        with self._understood():
                            progress = IngestionProgress.model_validate_json(line.removeprefix("data:"))
                        yield progress
                        if progress.done:
                            return
            time.sleep(PAUSE)

    def follow(self, ingestion_id: Id, show: Callable[[IngestionProgress], None] | None = None) -> IngestionProgress:
        """Wait until every item has come to rest, showing each change. Gives the last state."""
        for progress in self.events(ingestion_id):
            if show is not None:
                show(progress)
        return progress

    def retry(self, ingestion_id: Id) -> IngestionResponse:
        """Have the images that failed to be embedded embedded again."""
        return self._ask(IngestionResponse, "POST", at("ingestions", ingestion_id, "retry"))

    def cancel(self, ingestion_id: Id) -> IngestionResponse:
        """Let nothing more in; what is in stays."""
        return self._ask(IngestionResponse, "POST", at("ingestions", ingestion_id, "cancel"))

    def items(
        self, ingestion_id: Id, state: ItemState | None = None, limit: int | None = None
    ) -> Iterator[IngestionItem]:
        """What became of each item, or of those in one state; `limit` a page."""
        path = at("ingestions", ingestion_id, "items")
        for page in self._pages(IngestionItems, path, "after", state=state, limit=limit):
            yield from page.items
