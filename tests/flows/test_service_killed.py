"""The service and its worker as real processes with a real checkpoint; the service is killed and comes back."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from service.client import Client, ServiceError
from tests.helpers import LOWER, UPPER, make_tiny_checkpoint

ROOT = Path(__file__).parents[2]


@contextmanager
def program(command: str, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", command],
            env={**os.environ, **environment},
            stdout=out,
            stderr=out,
            cwd=ROOT,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def until(condition: Callable[[], Any], log: Path, seconds: float = 90) -> Any:
    """The first true value of ``condition``; the log if none comes in time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if value := condition():
                return value
        except ServiceError:
            pass
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def outfits() -> bytes:
    """A zip with one flat-coloured figure for every outfit."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        lines = []
        for upper, above in UPPER.items():
            for lower, below in LOWER.items():
                pixels = np.zeros((96, 40, 3), np.uint8)
                pixels[:48], pixels[48:] = above, below
                name = f"{upper}-{lower}.png"
                picture = io.BytesIO()
                Image.fromarray(pixels).save(picture, "PNG")
                archive.writestr(name, picture.getvalue())
                lines.append(json.dumps({"external_id": name, "file": name, "camera_id": "door"}))
        archive.writestr("metadata.jsonl", "\n".join(lines))
    return buffer.getvalue()


def test_the_same_ranking_after_the_service_was_killed(tmp_path: Path) -> None:
    checkpoint, log = tmp_path / "tiny.safetensors", tmp_path / "log.jsonl"
    make_tiny_checkpoint(checkpoint)
    port = free_port()
    environment = {
        "PERSON_SEARCH_DATA_DIR": str(tmp_path / "data"),
        "PERSON_SEARCH_AUTH": "open",
        "PERSON_SEARCH_CHECKPOINT": str(checkpoint),
        "PERSON_SEARCH_PORT": str(port),
        "PERSON_SEARCH_POLL_SECONDS": "0.1",
    }
    query = {"query": {"text": "a man in a red shirt and black pants"}, "limit": 20}

    with ExitStack() as stack, Client(f"http://127.0.0.1:{port}") as client:
        first = stack.enter_context(program("serve", environment, log))
        until(client.ready, log)
        worker = stack.enter_context(program("worker", environment, log))
        accepted = client.ingest_zip(io.BytesIO(outfits()), register_cameras=True)
        state = until(lambda: (s := client.ingestion(accepted.id)).done and s, log)
        assert state.counts.indexed == len(UPPER) * len(LOWER)
        until(lambda: client.search(query).candidates == len(UPPER) * len(LOWER), log)
        before = client.search(query)

        first.kill()
        first.wait()
        stack.enter_context(program("serve", environment, log))
        until(client.ready, log)
        after = client.search(query)

        assert [r.image_id for r in after.results] == [r.image_id for r in before.results]
        assert [r.similarity for r in after.results] == [r.similarity for r in before.results]
        assert after.checkpoint_id == before.checkpoint_id

        # The worker lost its database with the service that owned it, and goes on with the new one.
        extra = client.add_image(_png((120, 10, 200)))
        until(lambda: client.search(query).candidates == len(UPPER) * len(LOWER) + 1, log)
        client.delete_image(extra.id)
        assert [r.image_id for r in client.search(query).results] == [r.image_id for r in before.results]
        assert worker.poll() is None


def _png(color: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 96), color).save(buffer, "PNG")
    return buffer.getvalue()
