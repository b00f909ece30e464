"""Images straight into the database, embedded already: thousands in a second, where a test is not about intake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert, select, text

from indexer.database import Database, transaction
from indexer.embeddings import lock_changes
from indexer.tables import Embedding, Image, change_seq, new_id


def add_embedded(
    database: Database, checkpoint_id: str, images: Sequence[Mapping[str, Any]], vectors: NDArray[np.float32]
) -> list[UUID]:
    """Add images, described by columns of the table, with their vectors (N, dim). Their cameras must exist."""
    if not images:
        return []
    plain = {
        "sha256": "", "width": 48, "height": 96, "format": "PNG", "byte_size": 1, "camera_id": None,
        "captured_at": None, "track_id": None, "identity": None, "external_id": None, "tags": [], "attributes": {},
    }  # fmt: skip
    values = [{**plain, "id": new_id(), **image} for image in images]
    for one in values:
        one["sha256"] = one["sha256"] or one["id"].hex * 2
    with transaction(database.engine) as session:
        lock_changes(session)
        session.execute(insert(Image), values)
        rows = dict(
            session.execute(select(Image.id, Image.row).where(Image.id.in_([one["id"] for one in values]))).all()
        )
        seqs = session.scalars(
            select(change_seq.next_value()).select_from(text("generate_series(1, :n)").bindparams(n=len(values)))
        ).all()
        embedded = [
            {"image_row": rows[one["id"]], "checkpoint_id": checkpoint_id, "state": "ready", "seq": seq}
            | {"vector": vector.astype("<f4").tobytes()}
            for one, seq, vector in zip(values, seqs, vectors, strict=True)
        ]
        session.execute(insert(Embedding), embedded)
    return [one["id"] for one in values]


def unit_vectors(rng: np.random.Generator, n: int, dim: int) -> NDArray[np.float32]:
    """Random unit rows (n, dim)."""
    rows = rng.standard_normal((n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
