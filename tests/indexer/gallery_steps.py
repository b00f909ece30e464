"""What the tests of the gallery's functions share: images, claims and vectors in few words, and the wait for a lock."""

from __future__ import annotations

import hashlib
import time
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import text
from sqlalchemy.orm import Session

from indexer import gallery
from indexer.database import Database
from indexer.gallery import NewImage

DIM = 4
CHECKPOINT = "c" * 16


def new_image(name: str = "a", **known: Any) -> NewImage:
    return NewImage(hashlib.sha256(name.encode()).hexdigest(), 48, 128, "png", 1000, **known)


def register(session: Session, id: str = CHECKPOINT) -> None:
    gallery.ensure_checkpoint(session, id, "axm_net", DIM, {"a": 1}, f"/checkpoints/{id}")


def add(session: Session, *names: str) -> list[UUID]:
    return [gallery.add_image(session, new_image(name)).image_id for name in names]


def claim(session: Session, n: int = 10, lease_seconds: float = 60, max_attempts: int = 4) -> gallery.Claim:
    return gallery.claim_unembedded(session, CHECKPOINT, n, lease_seconds, max_attempts)


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)


def embed_all(session: Session, seed: int = 0) -> dict[int, np.ndarray]:
    """Record a vector for every fresh image; returns them by row."""
    claimed = claim(session, n=10_000)
    rows = [item.row for item in claimed.items]
    made = vectors(len(rows), seed)
    assert gallery.record_embeddings(session, CHECKPOINT, claimed.token, rows, made) == len(rows)
    return dict(zip(rows, made, strict=True))


def waits_for_lock(database: Database) -> None:
    """Returns once another connection waits for a lock; fails after ten seconds."""
    deadline = time.monotonic() + 10
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        while connection.scalar(waiting) == 0:
            assert time.monotonic() < deadline, "nobody waits for a lock"
