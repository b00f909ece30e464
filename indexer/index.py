"""The vector index: the most similar rows by inner product, over FAISS. It knows no images, only rows.

Vectors lie in blocks that never change once made. Adding makes a small block and merges it with its neighbours of like
size, as a log-structured store does, so that there are few blocks and each vector is copied a logarithmic number of
times; removing marks rows in a new copy of a block's marks, and `compact` copies marked blocks without what was
removed. Each ends with the assignment of a new tuple of blocks. So a search takes no lock: it works on the tuple it
found, however long it takes, and writers wait only for each other.

A search asks each block for candidates by a fast approximation, which is wrong by at most some error. What decides is
the product of the vectors themselves in float64, rounded once; so equal vectors are equally similar, whatever block or
batch they are in. Every row that the error could have kept out is looked at. With `flat` the approximation is FAISS's
sum in float32, whose error has a bound: the answer is exact. With `compressed`, larger blocks keep codes in memory and
their vectors in a file, and how wrong codes are is known only statistically: of the last places one may be missing,
unless few rows are allowed. docs/decisions/0013-compressed-index.md has the numbers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.errors import InvalidSettings
from indexer.mapped import mapped

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]
Mask = NDArray[np.bool_]
Answer = TypeVar("Answer")
Codes = TypeVar("Codes", bound=faiss.Index)

FAISS_VERSION: str = faiss.__version__
MAX_BLOCK = 65_536  # rows; bounds what one merge copies, and gives the threads of a search something to share
SPECS = ("flat", "compressed")
COMPRESSED_FROM = 8192  # rows of a block; smaller ones stay flat, for they need little memory
EXACT_ROWS = 4096  # a search among no more rows compares the vectors themselves, whatever the index
SPARE = 16  # candidates beyond k that are asked for, so that it seldom has to be asked twice
ROUGH_SPARE = 200  # candidates beyond 2 k that are chosen by one bit a number
MANY = 32  # when one in so many rows is a candidate by the bits, comparing the finer code of all is faster
FEW = 0.15  # share of a block that a filter keeps below which the finer code alone is faster than the bits
DEVIATIONS = 3.0  # how many standard deviations count as the most by which a code is wrong
CALIBRATION = 32, 1024  # queries and rows on which a block measures the error of its codes
SPARSE = 50  # when fewer than one in so many rows are allowed, looking for each is faster than going through all
PARALLEL_WORK = 20_000_000  # multiplications from which on a search is spread over threads


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


class VectorIndex:
    """Rows, which are numbers chosen by the caller, and their vectors. Any number of threads may use it at once."""

    def __init__(self, dim: int, spec: str = "flat", folder: Path | None = None) -> None:
        """`folder` is for the vectors of a compressed index, None for where temporary files are."""
        if spec not in SPECS:
            raise InvalidSettings(
                f"There is no vector index {spec!r}; set PERSON_SEARCH_INDEX to {' or '.join((*SPECS, 'milvus'))}."
            )
        self.dim = dim
        self._compressed, self._folder = spec == "compressed", folder
        self._blocks: tuple[Block, ...] = ()
        self._writing = threading.Lock()
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="index")

    def __len__(self) -> int:
        return sum(block.count for block in self._blocks)

    @property
    def exact(self) -> bool:
        """Whether every search compares the vectors of all rows."""
        return self.exact_among(None)

    def exact_among(self, allowed: Rows | None) -> bool:
        """Whether a search among these rows, None for all, compares the vectors of each of them."""
        few = (len(self) if allowed is None else len(allowed)) <= EXACT_ROWS
        return few or not any(isinstance(block.held, Coded) for block in self._blocks)

    def __contains__(self, row: int) -> bool:
        return any(block.find(np.array([row], np.int64))[1].size for block in self._blocks)

    def present(self, rows: Rows) -> Rows:
        """Those of the rows (N,) that are there, ascending."""
        rows = np.unique(np.asarray(rows, np.int64))
        there = np.zeros(len(rows), bool)
        for block in self._blocks:
            there[block.find(rows)[0]] = True
        return rows[there]

    def add(self, rows: Rows, vectors: Vectors) -> None:
        """Add vectors, float32 (N, dim), under their rows, int64 (N,). A row that is there gets its new vector.

        Raises `ValueError` for other shapes, for a row given twice and for numbers that are not finite.
        """
        rows, vectors = checked(rows, vectors, self.dim)
        with self._writing:
            blocks = self._without(self._blocks, rows)
            for start in range(0, len(rows), MAX_BLOCK):
                part = slice(start, start + MAX_BLOCK)
                blocks = self._with(blocks, rows[part].copy(), vectors[part])
            self._blocks = tuple(blocks)

    def remove(self, rows: Rows) -> int:
        """Forget rows; returns how many of them were there."""
        with self._writing:
            before = len(self)
            self._blocks = tuple(self._without(self._blocks, np.asarray(rows, np.int64)))
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
                blocks[first : marked + 1] = [self._union(blocks[first : marked + 1])]
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
        """The `k` rows of largest inner product with each query, float32 (Q, dim): best first, equals by row.

        Exact if `exact_among(allowed)`, else some row of the last places may be missing, never one be wrong.

        Only rows among `allowed` if it is given. Returns similarities (Q, k) and rows (Q, k); where there are fewer
        than `k`, -inf and row -1. Raises `ValueError` for queries of another shape or not finite, or a `k` below 1.
        """
        queries, allowed = checked_search(queries, k, self.dim, allowed)
        views = [view for block in self._blocks if (view := block.view(allowed)).count]
        similarities = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        if not views or not len(queries):
            return similarities, rows

        few = sum(view.count for view in views) <= EXACT_ROWS
        found = self._map(lambda view: view.nearest(queries, k, few), views, len(queries))
        for q, query in enumerate(queries):
            candidates = [of_view[q] for of_view in found]
            # At least k rows are this similar, for certain: what cannot be is no longer looked at.
            at_least = np.concatenate([one.similarity - one.error for one in candidates])  # (C,)
            least = float(np.partition(at_least, -k)[-k]) if len(at_least) >= k else -np.inf
            chosen = [one.positions[one.similarity + one.error >= least] for one in candidates]
            short = [n for n, one in enumerate(candidates) if one.left_out > least]
            for n, more in zip(short, self._within(views, candidates, short, query, least), strict=True):
                chosen[n] = np.concatenate([chosen[n], more])
            exact, best = _ranked(views, chosen, query, k)
            similarities[q, : len(best)], rows[q, : len(best)] = exact, best
        return similarities, rows

    def _within(
        self,
        views: Sequence[_View],
        candidates: Sequence[Candidates],
        short: Sequence[int],
        query: Vectors,
        least: float,
    ) -> list[Rows]:
        """Of views that are short of candidates, all other positions that may be at least this similar."""
        pairs = {views[n]: candidates[n] for n in short}
        return self._map(lambda view: view.within(query, least, pairs[view]), list(pairs), 1)

    def _map(self, ask: Callable[[_View], Answer], views: Sequence[_View], queries: int) -> list[Answer]:
        """Ask every view, in several threads if it is much: FAISS itself uses only one for a single query."""
        work = queries * self.dim * sum(len(view.block.rows) for view in views)
        if len(views) <= 1 or work < PARALLEL_WORK:
            return [ask(view) for view in views]
        return list(self._threads.map(ask, views))

    # --- blocks

    def _block(self, rows: Rows, vectors: Vectors) -> Block:
        """A block of vectors (N, dim) under their rows (N,), ascending, N > 0."""
        coded = self._compressed and len(rows) >= COMPRESSED_FROM
        return Block(rows, Coded.of(vectors, self._folder) if coded else Flat.of(vectors), None)

    def _union(self, blocks: Sequence[Block]) -> Block:
        kept = [block.kept() for block in blocks]
        rows = np.concatenate([rows for rows, _ in kept])
        vectors = np.concatenate([vectors for _, vectors in kept])
        if (np.diff(rows) < 0).any():
            order = np.argsort(rows)
            rows, vectors = rows[order], vectors[order]
        return self._block(rows, vectors)

    def _with(self, blocks: Sequence[Block], rows: Rows, vectors: Vectors) -> list[Block]:
        """The blocks with one more, merged with those at the end as long as they are not much larger."""
        first, size = len(blocks), len(rows)
        while first and len(blocks[first - 1].rows) <= min(2 * size, MAX_BLOCK - size):
            first -= 1
            size += len(blocks[first].rows)
        if first == len(blocks):
            return [*blocks, self._block(rows, vectors)]
        return [*blocks[:first], self._union([*blocks[first:], Block(rows, Flat.of(vectors), None)])]

    def _without(self, blocks: Sequence[Block], rows: Rows) -> list[Block]:
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
                kept.append(self._union([block]))
        return kept


@dataclass(frozen=True, eq=False)
class Block:
    """Some vectors, in the order of their rows, and which of them are still there (None: all)."""

    rows: Rows  # (N,) ascending
    held: Flat | Coded  # N vectors
    alive: Mask | None  # (N,)

    @property
    def vectors(self) -> Vectors:
        """(N, dim), without a copy; they live as long as this block does."""
        return self.held.vectors

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
            if SPARSE * (high - low) < len(self.rows):
                mask = np.zeros(len(self.rows), bool)
                mask[self.find(allowed[low:high])[1]] = True
            else:
                mask = np.isin(self.rows, allowed[low:high], assume_unique=True)
                mask = mask if self.alive is None else mask & self.alive
        return _View(self, mask, len(self.rows) if mask is None else int(mask.sum()))


@dataclass(frozen=True, eq=False)
class Candidates:
    """Some rows of one block for one query, C of them, and what the others can be at most."""

    positions: Rows  # (C,)
    similarity: Vectors  # (C,) by an approximation
    error: float  # the most by which it is wrong
    left_out: float  # no row of the block that is not among them is more similar; -inf if there is none
    rough: Rough | None = None  # what they were chosen from


@dataclass(frozen=True, eq=False)
class _View:
    """The part of a block that one search may find: `count` rows, those of the mask, or all."""

    block: Block
    mask: Mask | None  # (N,)
    count: int

    def nearest(self, queries: Vectors, k: int, few: bool) -> list[Candidates]:
        """For each query at least the `k` most similar by an approximation, or all there are; of `few` rows all."""
        if few and isinstance(self.block.held, Coded):
            return self._all(queries)
        return self.block.held.nearest(queries, k, self.mask, self.count)

    def _all(self, queries: Vectors) -> list[Candidates]:
        positions = np.arange(self.count) if self.mask is None else np.flatnonzero(self.mask)
        similarity = queries @ self.block.vectors[positions].T  # (Q, C)
        errors = sum_errors(queries, self.block.held.longest)
        return [Candidates(positions, *one, left_out=-np.inf) for one in zip(similarity, errors, strict=True)]

    def within(self, query: Vectors, least: float, candidates: Candidates) -> Rows:
        """All positions besides the candidates that may be at least this similar to the query (dim,)."""
        return self.block.held.within(query, least, candidates, self.mask, self.count)


@dataclass(frozen=True, eq=False)
class Flat:
    """Vectors in memory. FAISS finds the nearest by sums in float32, whose order depends on where a vector lies."""

    index: faiss.IndexFlatIP  # (N, dim)
    longest: float  # the greatest norm

    @classmethod
    def of(cls, vectors: Vectors) -> Flat:
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(np.ascontiguousarray(vectors))
        return cls(index, _longest(vectors))

    @property
    def vectors(self) -> Vectors:
        """(N, dim): FAISS's own memory, which lives as long as this does."""
        flat = faiss.rev_swig_ptr(self.index.get_xb(), self.index.ntotal * self.index.d)
        return flat.reshape(self.index.ntotal, self.index.d)

    def nearest(self, queries: Vectors, k: int, mask: Mask | None, count: int) -> list[Candidates]:
        wanted = min(k + SPARE, count)
        similarity, positions = self.index.search(queries, wanted, params=_among(mask))
        errors = sum_errors(queries, self.longest)
        left_out = similarity[:, -1] + errors if wanted < count else np.full(len(queries), -np.inf)
        return [Candidates(*one) for one in zip(positions, similarity, errors.tolist(), left_out.tolist(), strict=True)]

    def within(self, query: Vectors, least: float, candidates: Candidates, mask: Mask | None, count: int) -> Rows:
        # FAISS wants what is strictly more similar.
        above = float(np.nextafter(np.float32(least - candidates.error), np.float32(-np.inf)))
        _, _, positions = self.index.range_search(query[None], above, params=_among(mask))
        return _besides(positions, candidates)


@dataclass(frozen=True, eq=False)
class Rough:
    """What the bits of a block say about one query: more rows than are needed, the most similar first."""

    positions: Rows  # (C,)
    similarity: Vectors  # (C,)
    left_out: float  # no other row is more similar by its bits; -inf if there is none


@dataclass(frozen=True, eq=False)
class Coded:
    """Vectors in a file, and two codes of each in memory: 1 bit a number to choose by, and 6 bits to choose better.

    The bits are RaBitQ's (Gao and Long 2024, arXiv:2405.12497), which FAISS compares 32 vectors at a time, but never
    among some only: what a filter excludes is dropped afterwards. How wrong either code is was measured on some of the
    vectors; it is nearly normal, and scales with the query.
    """

    bits: faiss.IndexRaBitQFastScan
    fine: faiss.IndexScalarQuantizer
    bits_error: float  # for a query of norm 1
    fine_error: float
    vectors: Vectors  # (N, dim)
    longest: float  # the greatest norm

    @classmethod
    def of(cls, vectors: Vectors, folder: Path | None) -> Coded:
        """Raises `StorageFull`, OSError."""
        vectors, dim = np.ascontiguousarray(vectors), vectors.shape[1]
        bits, bits_error = _calibrated(lambda: faiss.IndexRaBitQFastScan(dim, faiss.METRIC_INNER_PRODUCT), vectors)
        six = faiss.ScalarQuantizer.QT_6bit
        fine, fine_error = _calibrated(
            lambda: faiss.IndexScalarQuantizer(dim, six, faiss.METRIC_INNER_PRODUCT), vectors
        )
        errors = DEVIATIONS * bits_error, DEVIATIONS * fine_error
        return cls(bits, fine, *errors, mapped(vectors, folder), _longest(vectors))

    def nearest(self, queries: Vectors, k: int, mask: Mask | None, count: int) -> list[Candidates]:
        wanted = min(2 * k + ROUGH_SPARE, count)
        if count < FEW * len(self.vectors):
            return [self._scanned(query, wanted, mask, count) for query in queries]
        found = []
        for query, rough in zip(queries, self._rough(queries, wanted, mask, count), strict=True):
            first, norm = rough.positions[: k + SPARE], float(np.linalg.norm(query))
            rest = rough.similarity[k + SPARE :]  # refined by `within`, as far as need be
            left_out = max(rough.left_out, float(rest[0]) if len(rest) else -np.inf) + self.bits_error * norm
            found.append(Candidates(first, self._refined(query, first), self.fine_error * norm, left_out, rough))
        return found

    def within(self, query: Vectors, least: float, candidates: Candidates, mask: Mask | None, count: int) -> Rows:
        rough, enough = candidates.rough, least - self.bits_error * float(np.linalg.norm(query))
        while rough is not None and rough.left_out > enough:
            wanted = 4 * max(len(rough.positions), ROUGH_SPARE)
            rough = self._rough(query[None], wanted, mask, count)[0] if MANY * wanted < count else None
        if rough is not None:
            chosen = _besides(rough.positions[rough.similarity >= enough], candidates)
            return chosen[self._refined(query, chosen) + candidates.error >= least]
        wanted, scanned = len(candidates.positions), candidates
        while scanned is candidates or scanned.left_out > least:
            wanted = min(8 * max(wanted, SPARE), count)
            scanned = self._scanned(query, wanted, mask, count)
        return _besides(scanned.positions[scanned.similarity + scanned.error >= least], candidates)

    def _rough(self, queries: Vectors, wanted: int, mask: Mask | None, count: int) -> list[Rough]:
        """About as many rows as wanted, by the bits: of what these say is most similar, those of the mask."""
        n = len(self.vectors)
        asked = min(-(-wanted * n // count), n)
        found = []
        for similarity, positions in zip(*self.bits.search(queries, asked), strict=True):
            left_out = float(similarity[-1]) if asked < n else -np.inf
            if positions[-1] < 0:  # FAISS leaves out what is its block's very mean
                left_out = np.inf
            kept = (positions >= 0) & (True if mask is None else mask[positions])
            found.append(Rough(positions[kept], similarity[kept], left_out))
        return found

    def _scanned(self, query: Vectors, wanted: int, mask: Mask | None, count: int) -> Candidates:
        """The most similar by the finer code, which compares those of the mask alone."""
        similarity, positions = self.fine.search(query[None], wanted, params=_among(mask))
        error = self.fine_error * float(np.linalg.norm(query))
        left_out = float(similarity[0, -1]) + error if wanted < count else -np.inf
        return Candidates(positions[0], similarity[0], error, left_out)

    def _refined(self, query: Vectors, positions: Rows) -> Vectors:
        """The similarity of these positions by the finer code."""
        if not len(positions):
            return np.empty(0, np.float32)
        codes = faiss.rev_swig_ptr(self.fine.codes.data(), self.fine.codes.size()).reshape(-1, self.fine.code_size)
        decoded: Vectors = self.fine.sa_decode(codes[positions])  # (C, dim)
        similarity: Vectors = decoded @ query
        return similarity


def _besides(positions: Rows, candidates: Candidates) -> Rows:
    return positions[~np.isin(positions, candidates.positions, assume_unique=True)]


def _calibrated(new: Callable[[], Codes], vectors: Vectors) -> tuple[Codes, float]:
    """An index of the codes of vectors (N, dim), and the standard deviation of their error for a query of norm 1."""
    last = len(vectors) - 1
    queries, rows = (vectors[np.linspace(0, last, min(n, last + 1)).astype(np.int64)] for n in CALIBRATION)
    index, sample = new(), new()
    for one, those in ((index, vectors), (sample, rows)):
        one.train(vectors)
        one.add(those)
    similarity, found = sample.search(queries, len(rows))
    wrong = similarity - np.take_along_axis(queries @ rows.T, np.maximum(found, 0), axis=1)  # (Q, N)
    norms = np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), np.float32(1e-30))
    return index, float(np.sqrt(np.mean(np.square(np.where(found < 0, 0, wrong / norms), dtype=np.float64))))


def _among(mask: Mask | None) -> faiss.SearchParameters | None:
    """FAISS's parameters for a search among the positions of a mask, None for all."""
    if mask is None:
        return None
    # FAISS's type stubs describe its C++ constructors; Python's take an array, and the fields by name.
    selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))  # type: ignore[call-arg, arg-type]
    return faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]


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


def _longest(vectors: Vectors) -> float:
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    return float(np.sqrt(squares.max()))


def sum_errors(queries: Vectors, longest: float) -> Vectors:
    """The most by which a product summed in float32 can differ from the true one (Higham 2002, section 3.1): (Q,)."""
    norms = np.linalg.norm(queries.astype(np.float64), axis=1)
    errors = ((queries.shape[1] + 4) * 2.0**-24 * longest * norms).astype(np.float32)
    above: Vectors = np.nextafter(errors, np.float32(np.inf))
    return above


def _ranked(views: Sequence[_View], positions: Sequence[Rows], query: Vectors, k: int) -> tuple[Vectors, Rows]:
    """The first `k` of the candidates, positions in each view, by their exact similarity."""
    found = [(view.block.rows[here], view.block.vectors[here]) for view, here in zip(views, positions, strict=True)]
    rows = np.concatenate([rows for rows, _ in found])  # (C,)
    vectors = np.concatenate([vectors for _, vectors in found]).astype(np.float64)  # (C, dim)
    # A sum along each row by itself: unlike a matrix product, it cannot depend on where in the matrix the row is.
    exact = (vectors * query.astype(np.float64)).sum(axis=1).astype(np.float32)
    order = np.lexsort((rows, -exact))[:k]
    return exact[order], rows[order]
