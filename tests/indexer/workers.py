"""What the tests of the worker share: images of one colour each, encoders that know them, and a worker in a thread."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import text

from indexer import gallery, worker
from indexer.database import Database, transaction
from indexer.images import ImageStore
from indexer.intake import ingest_one
from indexer.metadata import ItemMetadata
from indexer.settings import GallerySettings
from indexer.worker import run
from tests.fake_encoder import GridEncoder

DEADLINE = 30.0
Vectors = NDArray[np.float32]


def colour(number: int) -> tuple[int, int, int]:
    """Every picture is of one colour, by which an encoder can recognize it."""
    return (number, 255 - number, 7)


def number_of(image: Image.Image) -> int:
    pixel = image.getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return int(pixel[0])


def picture(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 24), colour(number)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def settings(**changes: Any) -> GallerySettings:
    return GallerySettings(**{"batch_size": 8, "poll_seconds": 0.02, "lease_seconds": 30, **changes})


def register(database: Database, encoder: GridEncoder) -> None:
    with transaction(database.engine) as session:
        gallery.ensure_checkpoint(session, encoder.checkpoint_id, "grid", encoder.dim, encoder.info, "")


def add(database: Database, store: ImageStore, count: int) -> list[UUID]:
    metadata = [ItemMetadata(external_id=str(number)) for number in range(count)]
    return [ingest_one(database, store, picture(i), known).image_id for i, known in enumerate(metadata)]


def embed_all(database: Database, store: ImageStore, encoder: worker.EncoderLike, **changes: Any) -> None:
    run(database, store, encoder, settings(**changes), threading.Event(), once=True)


def records(database: Database, ids: Sequence[UUID]) -> list[gallery.ImageRecord]:
    with transaction(database.engine) as session:
        found = [gallery.image_by_id(session, id) for id in ids]
    return [record for record in found if record is not None]


def states(database: Database, ids: Sequence[UUID]) -> list[str]:
    return [record.state for record in records(database, ids)]


def column(database: Database, expression: str) -> list[Any]:
    """One value for each embedding, in the order of the images."""
    with transaction(database.engine) as session:
        return list(session.scalars(text(f"SELECT {expression} FROM embedding ORDER BY image_row")))


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@contextmanager
def running(
    database: Database,
    store: ImageStore,
    encoder: worker.EncoderLike | None,
    load: Callable[[str], worker.EncoderLike] | None = None,
    **changes: Any,
) -> Iterator[threading.Event]:
    """A worker in a thread, stopped at the end; what it raised is raised here."""
    stop, raised = threading.Event(), []

    def work() -> None:
        try:
            run(database, store, encoder, settings(**changes), stop, load=load)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(DEADLINE)
        assert not thread.is_alive()
    if raised:
        raise raised[0]


class Gate(GridEncoder):
    """Waits inside `embed_images` until it is opened; tells which pictures came in which call."""

    def __init__(self, dim: int = 48) -> None:
        super().__init__(dim)
        self.entered, self.opened = threading.Event(), threading.Event()
        self.calls: list[list[int]] = []

    def embed_images(self, images: Sequence[Image.Image]) -> Vectors:
        self.calls.append([number_of(image) for image in images])
        self.entered.set()
        assert self.opened.wait(DEADLINE)
        return super().embed_images(images)


class Allergic(GridEncoder):
    """Cannot take certain pictures."""

    def __init__(self, *numbers: int) -> None:
        super().__init__()
        self.numbers = set(numbers)

    def embed_images(self, images: Sequence[Image.Image]) -> Vectors:
        if self.numbers & {number_of(image) for image in images}:
            raise RuntimeError("this one is not to my taste")
        return super().embed_images(images)
