"""What every vector index has in common: its calls, what they accept, and how wrong a sum in float32 can be."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]
Mask = NDArray[np.bool_]


class Index(Protocol):
    """What holds vectors and ranks them: a `VectorIndex` in this process, or milvus.py's beside it."""

    @property
    def dim(self) -> int: ...
    @property
    def rows(self) -> Rows: ...
    def __len__(self) -> int: ...
    def __contains__(self, row: int) -> bool: ...
    def exact_among(self, allowed: Rows | None) -> bool: ...
    def add(self, rows: Rows, vectors: Vectors) -> None: ...
    def remove(self, rows: Rows) -> int: ...
    def compact(self) -> None: ...
    def present(self, rows: Rows) -> Rows: ...
    def reconstruct(self, rows: Rows) -> Vectors: ...
    def search(self, queries: Vectors, k: int, allowed: Rows | None = None) -> tuple[Vectors, Rows]: ...


def checked(rows: Rows, vectors: Vectors, dim: int) -> tuple[Rows, Vectors]:
    """Rows (N,), ascending, and vectors (N, dim) that an index can take. Raises `ValueError` for others."""
    rows, vectors = np.asarray(rows, np.int64), np.asarray(vectors, np.float32)
    if vectors.shape != (len(rows), dim):
        raise ValueError(f"expected {len(rows)} vectors of {dim} numbers, got {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise ValueError("a vector is not finite")
    if (np.diff(rows) <= 0).any():
        order = np.argsort(rows)
        rows, vectors = rows[order], vectors[order]
    if (np.diff(rows) == 0).any():
        raise ValueError("a row is given twice")
    return rows, vectors


def checked_search(queries: Vectors, k: int, dim: int, allowed: Rows | None) -> tuple[Vectors, Rows | None]:
    """Queries (Q, dim), and the allowed rows (M,), ascending. Raises `ValueError` for what cannot be searched for."""
    queries = np.ascontiguousarray(queries, np.float32)
    if queries.ndim != 2 or queries.shape[1] != dim or not np.isfinite(queries).all():
        raise ValueError(f"expected finite queries (Q, {dim}), got {queries.shape}")
    if k < 1:
        raise ValueError("k must be at least 1")
    if allowed is not None:
        allowed = np.asarray(allowed, np.int64)
        if (np.diff(allowed) <= 0).any():
            allowed = np.unique(allowed)
    return queries, allowed


def sum_errors(queries: Vectors, longest: float) -> Vectors:
    """The most by which a product summed in float32 can differ from the true one (Higham 2002, section 3.1): (Q,)."""
    norms = np.linalg.norm(queries.astype(np.float64), axis=1)
    errors = ((queries.shape[1] + 4) * 2.0**-24 * longest * norms).astype(np.float32)
    above: Vectors = np.nextafter(errors, np.float32(np.inf))
    return above
