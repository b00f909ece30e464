"""A zip over HTTP until all of it is searchable, against the same encoder fed with decoded pictures and nothing else.

Both sides have the whole machine, one after the other; the raw rate is measured before and after, and the better one
counts. The pictures are the demo gallery's, each copy with noise of its own, so that no two files are the same.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import time
import zipfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image
from rich.table import Table

from model import checkpoint
from model.encoder import Encoder
from service.client import Client
from service.demo import GALLERY, child, wait_until_ready
from service.settings import ServiceSettings

IMAGES = int(os.environ.get("INGEST_IMAGES", "3000"))
RAW = 512  # images of one measurement of the raw rate
BATCH = 32


def table() -> Table:
    pictures = [Image.open(path).convert("RGB") for path in sorted(GALLERY.rglob("*.jpg"))[:RAW]]
    first = raw_rate(pictures)
    sent, seconds = end_to_end(pictures)
    raw = max(first, raw_rate(pictures))
    out = Table("intake", "images/s", "ratio", title=f"{IMAGES:,} images of {_side(pictures)} in one zip")
    out.add_row("encoder alone, decoded pictures", f"{raw:.1f}", "1.00")
    out.add_row("zip over HTTP until searchable", f"{sent / seconds:.1f}", f"{sent / seconds / raw:.2f}")
    return out


def raw_rate(pictures: list[Image.Image]) -> float:
    """Images a second through ``Encoder.embed_images`` in the worker's batches."""
    encoder = Encoder(checkpoint.default_checkpoint(), device="cpu", batch_size=BATCH)
    encoder.embed_images(pictures[:BATCH])
    started = time.perf_counter()
    done = 0
    while done < RAW:
        batch = [pictures[(done + n) % len(pictures)] for n in range(BATCH)]
        done += len(encoder.embed_images(batch))
    return done / (time.perf_counter() - started)


def end_to_end(pictures: list[Image.Image]) -> tuple[int, float]:
    """Images sent, and the seconds from the first byte until none was pending any more."""
    from indexer.database import open_database

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        archive = folder / "images.zip"
        write_archive(archive, pictures)
        settings = {"DATA_DIR": str(folder / "data"), "PORT": str(_free_port()), "AUTH": "open"}
        os.environ.update({f"PERSON_SEARCH_{name}": value for name, value in settings.items()})
        stack.callback(lambda: [os.environ.pop(f"PERSON_SEARCH_{name}") for name in settings])
        stack.enter_context(open_database(ServiceSettings()))
        processes = [stack.enter_context(child(name, folder / f"{name}.log")) for name in ("serve", "worker")]
        client = stack.enter_context(Client(f"http://127.0.0.1:{settings['PORT']}"))
        wait_until_ready(client, processes, folder)
        started = time.perf_counter()
        with archive.open("rb") as file:
            ingestion = client.ingest(iter(lambda: file.read(1 << 20), b""), "application/zip", register_cameras=True)
        while not (told := client.ingestion(ingestion.id)).done:
            time.sleep(0.05)
        seconds = time.perf_counter() - started
        if told.counts.indexed != IMAGES:
            raise RuntimeError(f"only {told.counts} of {IMAGES} images were embedded")
    return IMAGES, seconds


def write_archive(path: Path, pictures: list[Image.Image]) -> None:
    noise = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for n in range(IMAGES):
            pixels = np.asarray(pictures[n % len(pictures)], np.int16)
            noisy = np.clip(pixels + noise.integers(-3, 4, pixels.shape), 0, 255).astype(np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(noisy).save(buffer, "JPEG", quality=90)
            archive.writestr(f"{n:06}.jpg", buffer.getvalue())
        lines = (json.dumps({"external_id": f"{n:06}", "file": f"{n:06}.jpg"}) for n in range(IMAGES))
        archive.writestr("metadata.jsonl", "\n".join(lines))


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _side(pictures: list[Image.Image]) -> str:
    return f"{pictures[0].width}x{pictures[0].height} pixels"
