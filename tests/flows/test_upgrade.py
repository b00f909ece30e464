"""An upgrade under load: two replicas and a worker as real processes, clients that search all the while.

No request fails, and every ranking is that of the one checkpoint it names: similarities and order are compared with
what both checkpoints give in this process. The scale is in the test's parameters.
"""

from __future__ import annotations

import io
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.encoder import Encoder
from service.client import Client
from service.search_schemas import SearchResponse
from tests.flows.test_service_killed import free_port, program, until
from tests.helpers import LOWER, UPPER, make_tiny_checkpoint

Vectors = NDArray[np.float32]

TEXTS = [f"a man in a {upper} shirt and {lower} pants" for upper in UPPER for lower in LOWER]
LIMIT = 20
TOLERANCE = 2e-3  # of a similarity: the kernels of two processes may sum in another order
PATIENCE = 1800.0  # seconds for the workers to embed everything


@pytest.mark.slow
@pytest.mark.parametrize(("clients", "images"), [(4, 200), (16, 5_000)])
def test_searches_go_on_while_the_gallery_is_upgraded_and_rolled_back(
    tmp_path: Path, clients: int, images: int
) -> None:
    files = [tmp_path / "old.safetensors", tmp_path / "new.safetensors"]
    old, new = (make_tiny_checkpoint(file, seed) for file, seed in zip(files, (7, 8), strict=True))
    pictures = [picture(number) for number in range(images)]
    expected = {id: Expected.of(file, pictures) for id, file in zip((old, new), files, strict=True)}
    ports, log = [free_port(), free_port()], tmp_path / "log.jsonl"
    shared = {
        "PERSON_SEARCH_DATA_DIR": str(tmp_path / "data"),
        "PERSON_SEARCH_AUTH": "open",
        "PERSON_SEARCH_POLL_SECONDS": "0.2",
        "PERSON_SEARCH_DEVICE": "cpu",
        "OMP_NUM_THREADS": "1",
    }
    with ExitStack() as stack:
        replicas = [stack.enter_context(Client(f"http://127.0.0.1:{port}")) for port in ports]
        for port, replica in zip(ports, replicas, strict=True):
            own = {"PERSON_SEARCH_PORT": str(port), "PERSON_SEARCH_CHECKPOINT": str(files[0])}
            stack.enter_context(program("serve", {**shared, **own}, log))
            until(replica.ready, log)
        stack.enter_context(program("worker", shared, tmp_path / "worker.jsonl"))
        first, second = replicas
        accepted = first.ingest_zip(io.BytesIO(zipped(pictures)))
        until(lambda: first.ingestion(accepted.id).counts.indexed == images, log, PATIENCE)
        until(lambda: all(found(replica).candidates == images for replica in replicas), log)
        before = found(first)

        with searching([replica.url for replica in replicas], clients) as seen:
            with files[1].open("rb") as file:
                assert first.register_checkpoint(file).id == new
            until(
                lambda: (how_far := first.checkpoint(new).coverage) is not None and how_far.pending == 0, log, PATIENCE
            )
            until(lambda: {a["request"]["query"]["text"] for a in seen.answers} == set(TEXTS), log)
            report = first.activate_checkpoint(new).gate
            assert report is not None and report.passed and report.overlap["text"].queries == len(TEXTS)
            until(lambda: all(found(replica).checkpoint_id == new for replica in replicas), log)
            seen.wait_for(new, per_client=3)
            page = second.get_search(before.id)
            assert page.checkpoint_id == old and page.results == before.results, "frozen"
            second.roll_back_checkpoint(new)
            until(lambda: all(found(replica).checkpoint_id == old for replica in replicas), log)
            seen.wait_for(old, per_client=3)

    assert not seen.failures, seen.failures[:3]
    assert {answer["checkpoint_id"] for answer in seen.answers} == {old, new}
    for answer in [before.model_dump(mode="json"), *seen.answers]:
        expected[answer["checkpoint_id"]].check(answer)


def picture(number: int) -> Image.Image:
    """A figure in an outfit of its own shades."""
    rng = np.random.default_rng(number)
    upper, lower = (rng.choice(list(colours.values())) for colours in (UPPER, LOWER))
    pixels = rng.normal(0, 25, (64, 32, 3))
    pixels[:32] += upper
    pixels[32:] += lower
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def zipped(pictures: list[Image.Image]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        lines = [{"file": f"{number}.png", "external_id": str(number)} for number in range(len(pictures))]
        archive.writestr("metadata.jsonl", "\n".join(map(json.dumps, lines)))
        for number, image in enumerate(pictures):
            encoded = io.BytesIO()
            image.save(encoded, "PNG", compress_level=1)
            archive.writestr(f"{number}.png", encoded.getvalue())
    return buffer.getvalue()


@dataclass(frozen=True, eq=False)
class Expected:
    """What one checkpoint makes of everything."""

    images: Vectors  # (N, D)
    texts: dict[str, Vectors]  # (D,) each

    @classmethod
    def of(cls, file: Path, pictures: list[Image.Image]) -> Expected:
        encoder = Encoder(file, "cpu")
        return cls(encoder.embed_images(pictures), dict(zip(TEXTS, encoder.embed_texts(TEXTS), strict=True)))

    def check(self, answer: dict[str, Any]) -> None:
        """The answer's similarities are this checkpoint's, and nothing more similar was left out."""
        similarities = self.images @ self.texts[answer["request"]["query"]["text"]]  # (N,)
        numbers = [int(result["image"]["external_id"]) for result in answer["results"]]
        given = np.array([result["similarity"] for result in answer["results"]])
        assert len(set(numbers)) == LIMIT == len(given) and answer["candidates"] == len(self.images)
        np.testing.assert_allclose(given, similarities[numbers], atol=TOLERANCE)
        np.testing.assert_allclose(given, np.sort(similarities)[::-1][:LIMIT], atol=TOLERANCE)


def found(client: Client) -> SearchResponse:
    return client.search({"query": {"text": TEXTS[0]}, "limit": LIMIT})


@dataclass
class Seen:
    """What the clients were answered."""

    clients: int
    answers: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def wait_for(self, checkpoint_id: str, per_client: int) -> None:
        """Until so many of the latest answers name this checkpoint."""
        start, wanted = len(self.answers), per_client * self.clients

        def enough() -> bool:
            return sum(a["checkpoint_id"] == checkpoint_id for a in self.answers[start:]) >= wanted

        waited = threading.Event()
        for _ in range(6000):
            if self.failures or enough():
                return
            waited.wait(0.05)
        raise AssertionError(f"too few answers of {checkpoint_id}")


@contextmanager
def searching(urls: list[str], clients: int) -> Iterator[Seen]:
    """So many clients, each searching one replica after the other without a pause."""
    seen, stop = Seen(clients), threading.Event()

    def search(number: int) -> None:
        with httpx.Client(timeout=120, trust_env=False) as http:
            for text in _cycle(number):
                if stop.is_set():
                    return
                began = time.monotonic()
                url = urls[(number + len(seen.answers)) % len(urls)]
                try:
                    response = http.post(
                        f"{url}/api/v1/searches", json={"query": {"text": text}, "filter": FILTER, "limit": LIMIT}
                    )
                except httpx.HTTPError as error:
                    seen.failures.append(f"{error!r} after {time.monotonic() - began:.1f} s")
                    continue
                if response.status_code == 201:
                    seen.answers.append(response.json())
                else:
                    seen.failures.append(response.text)

    threads = [threading.Thread(target=search, args=[number]) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join(150)


FILTER = {"identity": {"exists": False}}  # all of them, but by way of the database


def _cycle(start: int) -> Iterator[str]:
    while True:
        yield TEXTS[start % len(TEXTS)]
        start += 1
