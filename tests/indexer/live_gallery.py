"""What the tests of the live index share: a small gallery in the database, and the truth to compare an index with."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sqlalchemy import text

from indexer import gallery
from indexer.database import Database, transaction
from indexer.gallery import NewImage
from indexer.replica import Live

DIM = 4


@dataclass(frozen=True)
class Encoder:
    """As much of an encoder as the replica asks for."""

    checkpoint_id: str = "checkpoint"
    dim: int = DIM


def register(database: Database, checkpoint: str = "checkpoint", dim: int = DIM) -> None:
    with transaction(database.engine) as session:
        gallery.ensure_checkpoint(session, checkpoint, "axm_net", dim, {}, f"/{checkpoint}")


def add(database: Database, *names: str, seed: int = 0) -> list[int]:
    """Add embedded images; returns their rows. With another seed they have other vectors."""
    with transaction(database.engine) as session:
        for name in names:
            gallery.add_image(session, NewImage(name.rjust(64, "0"), 1, 1, "png", 1))
        claimed = gallery.claim_unembedded(session, "checkpoint", len(names), 60, 4)
        rows = [item.row for item in claimed.items]
        vectors = np.random.default_rng([rows[0], seed]).normal(size=(len(rows), DIM)).astype(np.float32)
        assert gallery.record_embeddings(session, "checkpoint", claimed.token, rows, vectors) == len(names)
    return rows


def delete(database: Database, row: int) -> None:
    with transaction(database.engine) as session:
        gallery.delete_image(session, gallery.images_by_row(session, [row])[row].id)


def vectors_in(database: Database, checkpoint: str = "checkpoint") -> dict[int, np.ndarray]:
    """What there is to find: row -> vector (dim,)."""
    with database.engine.connect() as connection:
        found = connection.execute(
            text("SELECT image_row, vector FROM embedding WHERE checkpoint_id = :id AND state = 'ready'"),
            {"id": checkpoint},
        )
        return {row: np.frombuffer(vector, "<f4") for row, vector in found}


def assert_same(database: Database, live: Live[Encoder]) -> None:
    """The index holds what the database does, vector by vector, and ranks it as brute force does."""
    truth = vectors_in(database, live.checkpoint_id)
    assert len(live.index) == len(truth) > 0
    assert sorted(live.index.rows.tolist()) == sorted(truth)
    for row, vector in truth.items():
        np.testing.assert_array_equal(live.index.reconstruct(np.array([row]))[0], vector)
    dim = live.encoder.dim
    for query in np.random.default_rng(0).normal(size=(3, dim)).astype(np.float32):
        products = {
            row: np.float32(math.fsum(float(a) * float(b) for a, b in zip(vector, query, strict=True)))
            for row, vector in truth.items()
        }
        ranked = sorted(truth, key=lambda row: (-products[row], row))[:10]
        similarities, rows = live.index.search(query[None], 10)
        assert rows[0, : len(ranked)].tolist() == ranked
        assert similarities[0, : len(ranked)].tolist() == [products[row] for row in ranked]


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
