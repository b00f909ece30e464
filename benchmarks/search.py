"""One query against 100,000 vectors: our index against FAISS itself, and filters against brute force."""

from __future__ import annotations

import faiss
import numpy as np
from rich.table import Table

from benchmarks.timing import medians
from indexer.index import VectorIndex

ROWS, DIM, K = 100_000, 512, 100


def table() -> Table:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((ROWS, DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query = vectors[:1] + 0.1 * rng.standard_normal((1, DIM), dtype=np.float32)
    rows = np.arange(ROWS, dtype=np.int64)
    index = VectorIndex(DIM)
    index.add(rows, vectors)
    flat = faiss.IndexFlatIP(DIM)
    flat.add(vectors)

    out = Table("search", "reference ms", "ours ms", "ratio", title=f"{ROWS:,} x {DIM}, k={K}, one query")

    def row(name: str, reference: float, ours: float) -> None:
        out.add_row(name, f"{1e3 * reference:.2f}", f"{1e3 * ours:.2f}", f"{reference / ours:.2f}")

    seconds = medians({"faiss": lambda: flat.search(query, K), "ours": lambda: index.search(query, K)})
    row("no filter, against IndexFlatIP", seconds["faiss"], seconds["ours"])
    for share in (1.0, 0.1, 0.01, 0.001):
        allowed = np.sort(rng.choice(rows, int(ROWS * share), replace=False))

        def brute(kept: np.ndarray = allowed) -> np.ndarray:
            similarity = vectors[kept] @ query[0]
            best: np.ndarray = kept[np.argsort(-similarity, kind="stable")[:K]]
            return best

        def ours(kept: np.ndarray = allowed) -> np.ndarray:
            found: np.ndarray = index.search(query, K, allowed=kept)[1][0]
            return found

        assert np.array_equal(ours()[: len(allowed)], brute()), "a benchmark of a wrong answer measures nothing"
        seconds = medians({"brute": brute, "ours": ours})
        row(f"filter keeps {share:.1%}, against brute force over the kept rows", seconds["brute"], seconds["ours"])
    return out
