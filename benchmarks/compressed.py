"""A million vectors in the compressed index against FAISS's flat one: time, recall and memory of both kinds of data.

People are vectors in groups within few dimensions, as embeddings of images are; clusters are groups in all dimensions,
beyond which nothing is more similar than chance: the hardest that can happen to codes. Needs 6 GB of memory and 3 of
disk, some minutes, and a machine that does nothing else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.timing import medians
from indexer import index as index_module
from indexer.index import VectorIndex

ROWS = int(os.environ.get("BENCHMARK_ROWS", "1000000"))
DIM, AT_A_TIME, QUERIES = 512, 65_536, 16
Vectors = NDArray[np.float32]


def people(rng: np.random.Generator) -> Callable[[int], Vectors]:
    """30 images of each person, who differ in 32 dimensions of falling variance; text-like noise in all of them."""
    axes = rng.standard_normal((32, DIM), dtype=np.float32) * (0.9 ** np.arange(32, dtype=np.float32))[:, None]
    persons = rng.standard_normal((ROWS // 30 + 1, 32), dtype=np.float32)

    def some(n: int) -> Vectors:
        seen = persons[rng.integers(0, len(persons), n)] + 0.35 * rng.standard_normal((n, 32), dtype=np.float32)
        noisy: Vectors = seen @ axes + 0.6 * rng.standard_normal((n, DIM), dtype=np.float32)
        return noisy

    return some


def clusters(rng: np.random.Generator) -> Callable[[int], Vectors]:
    centres = rng.standard_normal((ROWS // 50 + 1, DIM), dtype=np.float32)
    return lambda n: centres[rng.integers(0, len(centres), n)] + 0.7 * rng.standard_normal((n, DIM), dtype=np.float32)


def unit(vectors: Vectors) -> Vectors:
    scaled: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def parts() -> Iterator[tuple[int, int]]:
    for start in range(0, ROWS, AT_A_TIME):
        yield start, min(AT_A_TIME, ROWS - start)


def memory() -> int:
    """Bytes of this process that no file backs."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines["RssAnon"].split()[0])


def table() -> Table:
    out = Table("search", "reference ms", "ours ms", "ratio", "recall", title=f"{ROWS:,} x {DIM}, one query")
    for kind in (people, clusters):
        measure(kind, out)
    return out


def measure(kind: Callable[[np.random.Generator], Callable[[int], Vectors]], out: Table) -> None:
    rng = np.random.default_rng(0)
    some = kind(rng)
    flat, index = faiss.IndexFlatIP(DIM), VectorIndex(DIM, "compressed")
    for _, n in parts():
        flat.add(unit(some(n)))
    queries = unit(some(QUERIES))
    before = memory()
    for start, n in parts():
        index.add(np.arange(start, start + n), flat.reconstruct_n(start, n))
    resident = (memory() - before) / (ROWS * DIM * 4)
    out.add_row(f"{kind.__name__}: memory, share of the reference", "", "", f"{resident:.1%}", "")

    def timed(
        name: str, k: int, allowed: NDArray[np.int64] | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        selected = None
        if allowed is not None:
            mask = np.zeros(ROWS, bool)
            mask[allowed] = True
            bitmap = np.packbits(mask, bitorder="little")
            # FAISS's type stubs describe its C++ constructors; Python's take an array, and the fields by name.
            selected = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bitmap))  # type: ignore[call-arg, arg-type]
        truth = flat.search(queries, k, params=selected)[1]
        found = index.search(queries, k, allowed)[1]
        recall = np.mean([len(np.intersect1d(*pair)) / k for pair in zip(truth, found, strict=True)])
        turn = iter(range(10**9))

        def next_query() -> Vectors:
            q = next(turn) // 2 % QUERIES  # each of the two sides has it once
            return queries[q : q + 1]

        seconds = medians(
            {
                "flat": lambda: flat.search(next_query(), k, params=selected),
                "ours": lambda: index.search(next_query(), k, allowed),
            },
            runs=QUERIES,
            clock=clock,
        )
        reference, ours = seconds["flat"], seconds["ours"]
        name = f"{kind.__name__}: {name}, k={k}"
        out.add_row(name, f"{1e3 * reference:.1f}", f"{1e3 * ours:.1f}", f"{reference / ours:.1f}", f"{recall:.4f}")

    for k in (10, 100):
        timed("no filter", k)
    parallel, index_module.PARALLEL_WORK = index_module.PARALLEL_WORK, 2**62
    for k in (10, 100):
        timed("no filter, one thread, its time", k, clock=time.thread_time)
    index_module.PARALLEL_WORK = parallel
    for share in (1.0, 0.1, 0.01, 0.001):
        timed(f"filter keeps {share:.1%}", 100, np.sort(rng.choice(ROWS, int(ROWS * share), replace=False)))
