"""The index against brute force: the same rows in the same order, ties and filters included.

Of the compressed index here are the tests that the flat one passes too, among so few rows that both are exact.
"""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer import index as index_module
from indexer.errors import InvalidSettings
from indexer.index import SPECS, VectorIndex

DIM = 8


@pytest.fixture(autouse=True)
def codes_of_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small compressed index has codes, and files."""
    monkeypatch.setattr(index_module, "COMPRESSED_FROM", 16)


both = pytest.mark.parametrize("spec", SPECS)


def brute_force(
    gallery: dict[int, np.ndarray], query: np.ndarray, k: int, allowed: set[int] | None = None
) -> list[tuple[int, np.float32]]:
    """Rows and similarities, one product after the other, each summed without rounding."""
    found = [
        (-np.float32(math.fsum(float(a) * float(b) for a, b in zip(vector, query, strict=True))), row)
        for row, vector in gallery.items()
        if allowed is None or row in allowed
    ]
    return [(row, -negative) for negative, row in sorted(found)[:k]]


def check(
    index: VectorIndex, gallery: dict[int, np.ndarray], queries: np.ndarray, k: int, allowed: set[int] | None = None
) -> None:
    asked = None if allowed is None else np.array(sorted(allowed), np.int64)
    similarities, rows = index.search(queries, k, asked)
    assert similarities.shape == rows.shape == (len(queries), k)
    assert (similarities.dtype, rows.dtype) == (np.float32, np.int64)
    for q, query in enumerate(queries[:5]):  # the reference is slow
        expected = brute_force(gallery, query, k, allowed)
        n = len(expected)
        assert rows[q, :n].tolist() == [row for row, _ in expected]
        assert similarities[q, :n].tolist() == [similarity for _, similarity in expected]
        assert (rows[q, n:] == -1).all() and (similarities[q, n:] == -np.inf).all()


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def filled(n: int, dim: int = DIM, seed: int = 0, spec: str = "flat") -> tuple[VectorIndex, dict[int, np.ndarray]]:
    vectors = unit(np.random.default_rng(seed).normal(size=(n, dim)))
    index = VectorIndex(dim, spec)
    index.add(np.arange(n), vectors)
    return index, dict(enumerate(vectors))


@both
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), data=st.data())
def test_search_equals_brute_force(spec: str, seed: int, data: st.DataObject) -> None:
    """Random additions, replacements, removals; vectors of few values or copied from each other, so that many tie."""
    random = np.random.default_rng(seed)
    index, gallery = VectorIndex(DIM, spec), dict[int, np.ndarray]()
    for _ in range(data.draw(st.integers(0, 6), "changes")):
        n = int(random.integers(1, 40))
        rows = random.choice(200, n, replace=False)
        if random.random() < 0.3:
            assert index.remove(rows) == len(gallery.keys() & set(rows.tolist()))
            gallery = {row: vector for row, vector in gallery.items() if row not in set(rows.tolist())}
            continue
        if random.random() < 0.5:
            vectors = random.integers(-1, 2, (n, DIM)).astype(np.float32)
        else:
            vectors = unit(random.normal(size=(n, DIM)))[random.integers(0, n, n)]
        index.add(rows, vectors)
        gallery |= dict(zip(rows.tolist(), vectors, strict=True))
    assert len(index) == len(gallery)
    for row in range(200):
        assert (row in index) == (row in gallery)
    some = list(gallery.values())[:2]
    queries = np.stack([*some, *unit(random.normal(size=(2, DIM))), np.zeros(DIM)]).astype(np.float32)
    k = data.draw(st.sampled_from([1, 3, 10, 50, 300]), "k")
    share = data.draw(st.sampled_from([None, 0.0, 0.02, 0.3, 1.0]), "share allowed")
    allowed = None if share is None else set(np.flatnonzero(random.random(250) < share).tolist())
    check(index, gallery, queries, k, allowed)


@pytest.mark.parametrize("queries", [1, 40])  # FAISS computes few queries one by one and many with BLAS
@pytest.mark.parametrize("share", [None, 0.001, 0.1, 1.0])
def test_long_vectors_in_many_blocks(queries: int, share: float | None) -> None:
    random = np.random.default_rng(5)
    index, gallery = filled(1500, 256)
    for start in range(1500, 1800, 60):
        more = unit(random.normal(size=(60, 256)))
        index.add(np.arange(start, start + 60), more)
        gallery |= dict(zip(range(start, start + 60), more, strict=True))
    gone = random.choice(1800, 300, replace=False)
    index.remove(gone)
    gallery = {row: vector for row, vector in gallery.items() if row not in set(gone.tolist())}
    allowed = None if share is None else set(np.flatnonzero(random.random(1800) < share).tolist())
    check(index, gallery, unit(random.normal(size=(queries, 256))), 20, allowed)


def test_search_spread_over_threads_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "PARALLEL_WORK", 0)
    monkeypatch.setattr(index_module, "MAX_BLOCK", 64)
    index, gallery = filled(300, 32)
    check(index, gallery, unit(np.random.default_rng(1).normal(size=(2, 32))), 30)


def test_more_equals_than_candidates_are_ranked_by_row() -> None:
    """The same vector 500 times, in rows added in no order: FAISS, asked for k + 16, would return just any of them."""
    random = np.random.default_rng(3)
    same = unit(random.normal(size=(1, 64)))
    rows = random.permutation(1000)
    index = VectorIndex(64)
    index.add(rows[:500], np.repeat(same, 500, axis=0))
    index.add(rows[500:], unit(random.normal(size=(500, 64))))
    similarities, found = index.search(same, 40)
    assert found[0].tolist() == sorted(rows[:500].tolist())[:40]
    assert len(set(similarities[0].tolist())) == 1


def test_nearly_equal_vectors_are_ranked_exactly() -> None:
    """Differences far below the error of a float32 sum of this length still decide."""
    random = np.random.default_rng(4)
    base = unit(random.normal(size=512))
    near = (base + random.normal(size=(400, 512)) * 2e-8).astype(np.float32)
    index = VectorIndex(512)
    index.add(np.arange(400), near)
    check(index, dict(enumerate(near)), base[None], 10)


def test_vector_is_as_similar_in_every_batch_block_and_filter() -> None:
    index, gallery = filled(700, 128)
    queries = unit(np.random.default_rng(2).normal(size=(50, 128)))
    similarities, rows = index.search(queries, 5)
    for q in (0, 17, 49):
        alone = index.search(queries[q : q + 1], 5, rows[q])
        np.testing.assert_array_equal(alone[0][0], similarities[q])
        np.testing.assert_array_equal(alone[1][0], rows[q])
    one = VectorIndex(128)
    row = int(rows[0, 3])
    one.add(np.array([row]), gallery[row][None])
    assert one.search(queries[:1], 1)[0][0, 0] == similarities[0, 3]


@pytest.mark.parametrize("allowed", [None, np.array([], np.int64), np.array([5, 10**15])])
def test_nothing_to_find(allowed: np.ndarray | None) -> None:
    index, gallery = filled(0) if allowed is None else filled(5)
    check(index, gallery, np.ones((3, DIM), np.float32), 4, None if allowed is None else set(allowed.tolist()))
    similarities, rows = index.search(np.empty((0, DIM), np.float32), 4, allowed)
    assert similarities.shape == rows.shape == (0, 4)


@both
def test_removing_everything_and_adding_again(spec: str) -> None:
    index, gallery = filled(100, spec=spec)
    assert index.remove(np.arange(50)) == 50
    assert index.remove(np.arange(100)) == 50
    assert index.remove(np.arange(100)) == 0
    assert len(index) == 0
    index.add(np.array([7]), gallery[7][None])
    check(index, {7: gallery[7]}, gallery[7][None], 3)


@both
def test_reconstruct(spec: str) -> None:
    index, gallery = filled(100, spec=spec)
    rows = np.array([99, 3, 50, 3])
    np.testing.assert_array_equal(index.reconstruct(rows), np.stack([gallery[row] for row in rows]))
    index.remove(np.array([3]))
    with pytest.raises(KeyError, match="row 3"):
        index.reconstruct(rows)


def test_what_cannot_be_indexed_is_refused_and_changes_nothing() -> None:
    index, _ = filled(3)
    for rows, vectors in [
        ([9], np.ones((1, DIM + 1))),
        ([9, 9], np.ones((2, DIM))),
        ([9], np.full((1, DIM), np.nan)),
        ([9, 10], np.ones((1, DIM))),
    ]:
        with pytest.raises(ValueError):
            index.add(np.array(rows), vectors.astype(np.float32))
    for queries, k in [(np.ones((1, 3)), 1), (np.ones(DIM), 1), (np.full((1, DIM), np.inf), 1), (np.ones((1, DIM)), 0)]:
        with pytest.raises(ValueError):
            index.search(queries.astype(np.float32), k)
    with pytest.raises(InvalidSettings, match="'quantum'"):
        VectorIndex(DIM, "quantum")
    assert len(index) == 3 and 9 not in index


@both
def test_blocks_stay_few_however_vectors_arrive(spec: str) -> None:
    index = VectorIndex(2, spec)
    for row in range(1000):
        index.add(np.array([row]), np.ones((1, 2), np.float32))
        assert len(index._blocks) <= 11  # 1 + log2(1000)
    assert len(index) == 1000


@both
def test_search_while_others_write_sees_every_row_that_stays(spec: str) -> None:
    """Rows 0 to 99 are the most similar and never touched: whatever happens to the others, they are always found."""
    random = np.random.default_rng(6)
    query = unit(np.ones(DIM))
    index = VectorIndex(DIM, spec)
    index.add(np.arange(100), np.repeat(query[None], 100, axis=0))
    done = threading.Event()

    def write(first: int) -> None:
        for n in range(60):
            rows = np.arange(first + 50 * n, first + 50 * n + 50)
            index.add(rows, unit(random.normal(size=(50, DIM)) - 1))
            index.remove(rows[::2])

    def read() -> int:
        searches = 0
        while not done.is_set():
            assert index.search(query[None], 100)[1][0].tolist() == list(range(100))
            searches += 1
        return searches

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        writers = [pool.submit(write, first) for first in (1_000, 1_000_000)]
        try:
            for writer in writers:
                writer.result(60)
        finally:
            done.set()
        assert all(reader.result(60) > 0 for reader in readers)
    assert len(index) == 100 + 2 * 60 * 25


@both
def test_search_waits_for_no_writer(spec: str) -> None:
    """It is answered while somebody holds the lock of the writers, and writers do not need it to end."""
    index, gallery = filled(50, spec=spec)
    with index._writing, ThreadPoolExecutor(1) as pool:
        found = pool.submit(index.search, gallery[7][None], 1).result(60)
    assert found[1].tolist() == [[7]]


@both
def test_compacting_lets_go_of_removed_vectors_and_changes_no_answer(
    spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "MAX_BLOCK", 64)
    random = np.random.default_rng(8)
    index, gallery = filled(1000, spec=spec)
    queries = unit(random.normal(size=(3, DIM)))
    for _ in range(30):
        gone = random.choice(sorted(gallery), 30, replace=False)
        removed = index.reconstruct(gone)
        index.remove(gone)
        gallery = {row: vector for row, vector in gallery.items() if row not in set(gone.tolist())}
        index.compact()
        held = np.concatenate([block.vectors for block in index.blocks])
        assert len(held) == len(index) == len(gallery)
        assert not (held[:, None] == removed).all(axis=2).any()
        check(index, gallery, queries, 20)
        assert sorted(index.rows.tolist()) == sorted(gallery)
    assert len(index.blocks) <= 2 * math.ceil(len(gallery) / 32) + 1, "small blocks are merged"
    index.compact()
    index.remove(np.array(sorted(gallery)))
    index.compact()
    assert index.blocks == () and len(index.rows) == 0


@both
def test_rows_are_those_that_are_there(spec: str) -> None:
    index, _ = filled(10, spec=spec)
    index.remove(np.array([2, 3]))
    assert sorted(index.rows.tolist()) == [0, 1, 4, 5, 6, 7, 8, 9]
    assert VectorIndex(DIM).rows.tolist() == []
