"""The vector index: the most similar rows by inner product, exactly, over FAISS. It knows no images, only rows.

Vectors lie in blocks that never change once made. Adding makes a small block and merges it with its neighbours of like
size, as a log-structured store does, so that there are few blocks and each vector is copied a logarithmic number of
times; removing marks rows in a new copy of a block's marks, and `compact` copies marked blocks without what was
removed. Each ends with the assignment of a new tuple of blocks. So a search takes no lock: it works on the tuple it
found, however long it takes, and writers wait only for each other.

FAISS finds the candidates in float32, where the sum depends on its order: the same vector may come out differently in
the last bits. What decides is the product in float64, rounded once, and every row that FAISS's error could have kept
out is looked at. So the answer is exact, and equal vectors are equally similar, whatever block or batch they are in.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.errors import InvalidSettings

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]
Mask = NDArray[np.bool_]
Answer = TypeVar("Answer")

FAISS_VERSION: str = faiss.__version__
MAX_BLOCK = 65_536  # rows; bounds what one merge copies, and gives the threads of a search something to share
SPARE = 16  # candidates beyond k that FAISS is asked for, so that it seldom has to be asked twice
PARALLEL_WORK = 20_000_000  # multiplications from which on a search is spread over threads


class VectorIndex:
    """Rows, which are numbers chosen by the caller, and their vectors. Any number of threads may use it at once."""

    exact = True

    def __init__(self, dim: int, spec: str = "flat") -> None:
        if spec != "flat":
            raise InvalidSettings(f"There is no vector index {spec!r}; set PERSON_SEARCH_INDEX to flat.")
        self.dim = dim
        self._blocks: tuple[Block, ...] = ()
        self._writing = threading.Lock()
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="index")

    def __len__(self) -> int:
        return sum(block.count for block in self._blocks)

    def __contains__(self, row: int) -> bool:
        return any(block.find(np.array([row], np.int64))[1].size for block in self._blocks)

    def add(self, rows: Rows, vectors: Vectors) -> None:
        """Add vectors, float32 (N, dim), under their rows, int64 (N,). A row that is there gets its new vector.

        Raises `ValueError` for other shapes, for a row given twice and for numbers that are not finite.
        """
        rows, vectors = np.asarray(rows, np.int64), np.asarray(vectors, np.float32)
        if vectors.shape != (len(rows), self.dim):
            raise ValueError(f"expected {len(rows)} vectors of {self.dim} numbers, got {vectors.shape}")
        if not np.isfinite(vectors).all():
            raise ValueError("a vector is not finite")
        if (np.diff(rows) <= 0).any():
            order = np.argsort(rows)
            rows, vectors = rows[order], vectors[order]
        if (np.diff(rows) == 0).any():
            raise ValueError("a row is given twice")
        with self._writing:
            blocks = _without(self._blocks, rows)
            for start in range(0, len(rows), MAX_BLOCK):
                part = slice(start, start + MAX_BLOCK)
                blocks = _merged([*blocks, Block.of(rows[part].copy(), vectors[part])])
            self._blocks = tuple(blocks)

    def remove(self, rows: Rows) -> int:
        """Forget rows; returns how many of them were there."""
        with self._writing:
            before = len(self)
            self._blocks = tuple(_without(self._blocks, np.asarray(rows, np.int64)))
            return before - len(self)

    def compact(self) -> None:
        """Let go of the memory that still holds vectors of removed rows.

        Block by block, so that whoever adds meanwhile waits for the copy of one block, not of all.
        """
        while True:
            with self._writing:
                blocks = list(self._blocks)
                marked = next((n for n, block in enumerate(blocks) if block.alive is not None), None)
                if marked is None:
                    return
                first = marked
                if marked > 0 and len(blocks[marked - 1].rows) + blocks[marked].count <= MAX_BLOCK // 2:
                    first = marked - 1  # else ever more removals would leave ever smaller blocks, ever more of them
                blocks[first : marked + 1] = [_union(blocks[first : marked + 1])]
                self._blocks = tuple(blocks)

    @property
    def rows(self) -> Rows:
        """All rows (N,), in no order."""
        return np.concatenate([np.empty(0, np.int64), *(block.kept()[0] for block in self._blocks)])

    @property
    def blocks(self) -> tuple[Block, ...]:
        """What the index consists of at this moment, for those who write it to disk. Blocks never change."""
        return self._blocks

    def reconstruct(self, rows: Rows) -> Vectors:
        """The vectors (N, dim) of rows (N,). Raises `KeyError` if one of them is not there."""
        rows = np.asarray(rows, np.int64)
        vectors = np.empty((len(rows), self.dim), np.float32)
        found = np.zeros(len(rows), bool)
        for block in self._blocks:
            inside, positions = block.find(rows)
            vectors[inside] = block.vectors[positions]
            found[inside] = True
        if not found.all():
            raise KeyError(f"row {rows[~found][0]} is not in the index")
        return vectors

    def search(self, queries: Vectors, k: int, allowed: Rows | None = None) -> tuple[Vectors, Rows]:
        """The `k` rows of largest inner product with each query, float32 (Q, dim): best first, of equals the lower row.

        Only rows among `allowed` if it is given. Returns similarities (Q, k) and rows (Q, k); where there are fewer
        than `k`, -inf and row -1. Raises `ValueError` for queries of another shape or not finite, or a `k` below 1.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.dim or not np.isfinite(queries).all():
            raise ValueError(f"expected finite queries (Q, {self.dim}), got {queries.shape}")
        if k < 1:
            raise ValueError("k must be at least 1")
        if allowed is not None:
            allowed = np.unique(np.asarray(allowed, np.int64))
        views = [view for block in self._blocks if (view := block.view(allowed)).count]
        similarities = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        if not views or not len(queries):
            return similarities, rows

        nearest = self._map(views, lambda view: view.nearest(queries, k + SPARE), len(queries))
        which = np.repeat(np.arange(len(views)), [found.shape[1] for _, found in nearest])  # (C,) number of the view
        positions = np.concatenate([found for _, found in nearest], axis=1)  # (Q, C)
        approximate = np.concatenate([similarity for similarity, _ in nearest], axis=1)  # (Q, C)
        total = sum(view.count for view in views)
        for q, query in enumerate(queries):
            best = np.argsort(-approximate[q])[: k + SPARE]
            exact, found = _ranked(views, which[best], positions[q, best], query, k)
            if len(best) < total:
                # Left out is what FAISS found less similar than the last of these. Could it belong to the first k?
                least = float(exact[-1]) - self._error(views, query)
                if approximate[q, best[-1]] >= least:
                    exact, found = self._ranked_within(views, query, least, k)
            similarities[q, : len(found)], rows[q, : len(found)] = exact, found
        return similarities, rows

    def _ranked_within(self, views: Sequence[_View], query: Vectors, least: float, k: int) -> tuple[Vectors, Rows]:
        """The first `k` of all rows that FAISS finds at least this similar."""
        within = self._map(views, lambda view: view.within(query, least), 1)
        which = np.repeat(np.arange(len(views)), [len(positions) for positions in within])
        return _ranked(views, which, np.concatenate(within), query, k)

    def _error(self, views: Sequence[_View], query: Vectors) -> float:
        """The most by which a product that FAISS computes can differ from the true one (Higham 2002, section 3.1)."""
        longest = max(view.block.longest for view in views)
        return (self.dim + 4) * 2.0**-24 * float(np.linalg.norm(query)) * longest

    def _map(self, views: Sequence[_View], ask: Callable[[_View], Answer], queries: int) -> list[Answer]:
        """Ask every view, in several threads if it is much: FAISS itself uses only one for a single query."""
        work = queries * self.dim * sum(len(view.block.rows) for view in views)
        if len(views) == 1 or work < PARALLEL_WORK:
            return [ask(view) for view in views]
        return list(self._threads.map(ask, views))


@dataclass(frozen=True, eq=False)
class Block:
    """Some vectors, in the order of their rows, and which of them are still there (None: all)."""

    rows: Rows  # (N,) ascending
    flat: faiss.IndexFlatIP  # (N, dim)
    alive: Mask | None  # (N,)
    longest: float  # the greatest norm

    @classmethod
    def of(cls, rows: Rows, vectors: Vectors) -> Block:
        flat = faiss.IndexFlatIP(vectors.shape[1])
        flat.add(np.ascontiguousarray(vectors))
        squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
        return cls(rows, flat, None, float(np.sqrt(squares.max())))

    @property
    def vectors(self) -> Vectors:
        """(N, dim), without a copy: FAISS's own memory, which lives as long as this block does."""
        flat = faiss.rev_swig_ptr(self.flat.get_xb(), len(self.rows) * self.flat.d)
        return flat.reshape(len(self.rows), self.flat.d)

    @property
    def count(self) -> int:
        return len(self.rows) if self.alive is None else int(self.alive.sum())

    def kept(self) -> tuple[Rows, Vectors]:
        """The rows (N,) that are still there, ascending, and their vectors (N, dim); a copy only if some are gone."""
        if self.alive is None:
            return self.rows, self.vectors
        return self.rows[self.alive], self.vectors[self.alive]

    def find(self, rows: Rows) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Which of the rows are in here, as indices into `rows`, and at which positions."""
        positions = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        there = self.rows[positions] == rows
        if self.alive is not None:
            there &= self.alive[positions]
        return np.flatnonzero(there), positions[there]

    def view(self, allowed: Rows | None) -> _View:
        """What of the block a search may find; `allowed` is ascending."""
        if allowed is None:
            mask = self.alive
        else:
            low, high = np.searchsorted(allowed, [self.rows[0], self.rows[-1] + 1])
            mask = np.zeros(len(self.rows), bool)
            mask[self.find(allowed[low:high])[1]] = True
        return _View(self, mask, len(self.rows) if mask is None else int(mask.sum()))


@dataclass(frozen=True, eq=False)
class _View:
    """The part of a block that one search may find: `count` rows, those of the mask, or all."""

    block: Block
    mask: Mask | None  # (N,)
    count: int

    def nearest(self, queries: Vectors, k: int) -> tuple[Vectors, Rows]:
        """Up to `k` nearest by FAISS's arithmetic: similarities and positions, (Q, min(k, count)) each."""
        similarity, positions = self.block.flat.search(queries, min(k, self.count), params=self._parameters())
        return similarity, positions

    def within(self, query: Vectors, least: float) -> Rows:
        """All positions at least this similar by FAISS's arithmetic."""
        above = float(np.nextafter(np.float32(least), np.float32(-np.inf)))  # FAISS wants what is strictly more similar
        _, _, positions = self.block.flat.range_search(query[None], above, params=self._parameters())
        return positions

    def _parameters(self) -> faiss.SearchParameters | None:
        if self.mask is None:
            return None
        bitmap = np.packbits(self.mask, bitorder="little")
        # FAISS's type stubs describe its C++ constructors; Python's take an array, and the fields by name.
        return faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bitmap))  # type: ignore[call-arg, arg-type]


def _ranked(views: Sequence[_View], which: Rows, positions: Rows, query: Vectors, k: int) -> tuple[Vectors, Rows]:
    """The first `k` of the candidates, numbers of views (C,) and positions (C,), by their exact similarity."""
    vectors = np.empty((len(which), len(query)), np.float64)  # (C, dim)
    rows = np.empty(len(which), np.int64)
    for n in np.unique(which):
        here = which == n
        vectors[here] = views[n].block.vectors[positions[here]]
        rows[here] = views[n].block.rows[positions[here]]
    # A sum along each row by itself: unlike a matrix product, it cannot depend on where in the matrix the row is.
    exact = (vectors * query.astype(np.float64)).sum(axis=1).astype(np.float32)
    order = np.lexsort((rows, -exact))[:k]
    return exact[order], rows[order]


def _without(blocks: Sequence[Block], rows: Rows) -> list[Block]:
    """The blocks with these rows marked as gone; a block is made anew when more is gone from it than left."""
    kept = []
    for block in blocks:
        _, positions = block.find(rows)
        if positions.size:
            alive = np.ones(len(block.rows), bool) if block.alive is None else block.alive.copy()
            alive[positions] = False
            block = replace(block, alive=alive)
        if 2 * block.count >= len(block.rows):
            kept.append(block)
        elif block.count:
            kept.append(_union([block]))
    return kept


def _merged(blocks: list[Block]) -> list[Block]:
    """Merge from the end while the last block is not much smaller than the one before it."""
    while len(blocks) > 1:
        *others, left, right = blocks
        if len(left.rows) > 2 * len(right.rows) or len(left.rows) + len(right.rows) > MAX_BLOCK:
            break
        blocks = [*others, _union([left, right])]
    return blocks


def _union(blocks: Sequence[Block]) -> Block:
    kept = [block.kept() for block in blocks]
    rows = np.concatenate([rows for rows, _ in kept])
    vectors = np.concatenate([vectors for _, vectors in kept])
    if (np.diff(rows) < 0).any():
        order = np.argsort(rows)
        rows, vectors = rows[order], vectors[order]
    return Block.of(rows, vectors)
