"""A gallery for tests of what is kept and what is erased: filled without a service, and searched for traces."""

from __future__ import annotations

import hashlib
import io
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
from PIL import Image as PILImage
from sqlalchemy import text

from indexer import gallery, journal, searches
from indexer.database import Database, transaction
from indexer.erasure import Eraser
from indexer.images import ImageStore
from indexer.intake import ingest_entries
from indexer.items import Entry
from indexer.metadata import ItemMetadata
from indexer.replica import Replica
from indexer.settings import GallerySettings
from indexer.worker import run
from tests.fake_encoder import GridEncoder

ENCODER = GridEncoder()
OTHER = GridEncoder(24)
DAY = datetime(2026, 9, 1, 12, tzinfo=UTC)


def picture(seed: int) -> bytes:
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 2, 3), np.uint8)
    buffer = io.BytesIO()
    PILImage.fromarray(blocks).resize((16, 32), PILImage.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def sha256(seed: int) -> str:
    return hashlib.sha256(picture(seed)).hexdigest()


def entry(position: int, seed: int, metadata: ItemMetadata) -> Entry:
    return Entry(position, metadata.file, metadata.external_id, metadata, picture(seed))


class Gallery:
    """A gallery in a folder, filled and embedded for two checkpoints without a service."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder = database, folder
        self.store = ImageStore(folder / "images")
        self.journal = folder / journal.NAME
        with transaction(database.engine) as session:
            for encoder in (ENCODER, OTHER):
                gallery.ensure_checkpoint(session, encoder.checkpoint_id, "grid", encoder.dim, encoder.info, "")
        self.replica = Replica(database, ENCODER)
        self.eraser = Eraser(database, self.store, self.journal, self.replica)

    def add(self, *items: tuple[int, ItemMetadata]) -> list[UUID]:
        """One delivery; the ids of its images in order."""
        entries = [entry(n, seed, metadata) for n, (seed, metadata) in enumerate(items)]
        ingestion = ingest_entries(self.database, self.store, entries, "a test", register_cameras=True)
        self.embed()
        with transaction(self.database.engine) as session:
            lines = gallery.ingestion_items(session, ingestion)
        return [line.image_id for line in lines if line.image_id is not None]

    def embed(self) -> None:
        for encoder in (ENCODER, OTHER):
            settings = GallerySettings(poll_seconds=0.05)
            run(self.database, self.store, encoder, settings, threading.Event(), once=True)
        self.replica.refresh()

    def freeze(self, ids: list[UUID], request: dict[str, Any]) -> UUID:
        """A kept search with these images as its ranking."""
        search_id = uuid4()
        with transaction(self.database.engine) as session:
            rows = [image.row for id in ids if (image := gallery.image_by_id(session, id)) is not None]
            ranking = searches.Ranking(np.array(rows, np.int64), np.full(len(rows), 0.5, np.float32))
            searches.save(session, search_id, {"asked": request}, ENCODER.checkpoint_id, ranking)
        return search_id

    def kept(self, search_id: UUID) -> searches.SearchRecord:
        with transaction(self.database.engine) as session:
            found = searches.by_id(session, search_id)
        assert found is not None
        return found

    def ranked(self, search_id: UUID) -> list[int]:
        """The rows in a kept ranking."""
        with transaction(self.database.engine) as session:
            rows: list[int] = searches.ranking(session, search_id).rows.tolist()
        return rows

    def values(self, statement: str) -> list[Any]:
        with transaction(self.database.engine) as session:
            return list(session.scalars(text(statement)))

    def traces_of(self, *needles: str | bytes) -> list[str]:
        """Where in any table, or any file beside the database's own, one of these occurs, in whatever case."""
        wanted = [needle.encode().lower() if isinstance(needle, str) else needle.lower() for needle in needles]
        found = []
        with transaction(self.database.engine) as session:
            tables = session.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
            for table in tables:
                for row in session.scalars(text(f'SELECT t::text FROM "{table}" AS t')):
                    found += [f"{table}: {row[:200]}" for needle in wanted if needle in row.encode().lower()]
        for path in self.folder.rglob("*"):
            if path.is_file() and "postgres" not in path.parts:
                haystack = (str(path).encode() + path.read_bytes()).lower()
                found += [str(path) for needle in wanted if needle in haystack]
        return found


def metadata(name: str, identity: str | None = None, camera: str | None = "north", **more: Any) -> ItemMetadata:
    return ItemMetadata(
        external_id=name, identity=identity, camera_id=camera, captured_at=DAY, file=f"{name}.png", **more
    )
