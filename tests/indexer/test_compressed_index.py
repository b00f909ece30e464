"""The compressed index: codes choose, vectors decide. What a filter excludes never comes; of what is most similar it
misses next to nothing, and says that it may."""

from __future__ import annotations

import errno
import gc
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer import index as index_module
from indexer.errors import StorageFull
from indexer.index import Coded, VectorIndex
from indexer.mapped import mapped

DIM = 64


@pytest.fixture
def codes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small index has codes, and they choose however few rows are allowed."""
    monkeypatch.setattr(index_module, "COMPRESSED_FROM", 64)
    monkeypatch.setattr(index_module, "MAX_BLOCK", 512)
    monkeypatch.setattr(index_module, "EXACT_ROWS", 0)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def people(n: int, dim: int, seed: int, each: int = 20) -> np.ndarray:
    """Vectors (n, dim) in groups, as images of the same person are, of people who share most of what they look like."""
    random = np.random.default_rng(seed)
    looks = random.normal(size=(12, dim))
    persons = random.normal(size=(n // each + 1, 12)) @ looks
    return unit(persons[random.integers(0, len(persons), n)] + random.normal(size=(n, dim)) * 0.6)


def index_of(vectors: np.ndarray) -> VectorIndex:
    index = VectorIndex(vectors.shape[1], "compressed")
    index.add(np.arange(len(vectors)), vectors)
    return index


def brute_force(vectors: np.ndarray, query: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows, best first, and their similarities rounded once."""
    similarity = (vectors[rows].astype(np.float64) * query.astype(np.float64)).sum(axis=1).astype(np.float32)
    order = np.lexsort((rows, -similarity))
    return similarity[order], rows[order]


@pytest.mark.usefixtures("codes_alone")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(64, 1200),
    share=st.sampled_from([None, 0.0, 0.01, 0.15, 0.3, 0.9, 1.0]),
    removed=st.sampled_from([0.0, 0.1, 0.6]),
    k=st.sampled_from([1, 10, 100, 700]),
    shape=st.sampled_from(["people", "random", "copies", "one"]),
    few=st.booleans(),
)
def test_only_what_is_allowed_and_there_is_found_with_its_exact_similarity(
    seed: int, n: int, share: float | None, removed: float, k: int, shape: str, few: bool
) -> None:
    index_module.EXACT_ROWS = 2000 if few else 0  # the fixture puts it back
    random = np.random.default_rng(seed)
    vectors = {
        "people": lambda: people(n, DIM, seed),
        "random": lambda: random.normal(size=(n, DIM)).astype(np.float32),
        "copies": lambda: unit(random.normal(size=(5, DIM)))[random.integers(0, 5, n)],
        "one": lambda: np.repeat(unit(random.normal(size=(1, DIM))), n, axis=0),  # FAISS finds nothing by the bits
    }[shape]()
    index = index_of(vectors)
    assert any(isinstance(block.held, Coded) for block in index.blocks)
    gone = np.flatnonzero(random.random(n) < removed)
    index.remove(gone)
    may = np.setdiff1d(np.arange(n), gone)
    allowed = None
    if share is not None:
        allowed = np.flatnonzero(random.random(n + 50) < share)
        may = np.intersect1d(may, allowed)
    queries = np.stack([vectors[0], unit(random.normal(size=DIM)), np.zeros(DIM, np.float32)])
    similarities, rows = index.search(queries, k, allowed)
    for query, similarity, found in zip(queries, similarities, rows, strict=True):
        m = min(k, len(may))
        assert (found[m:] == -1).all() and (similarity[m:] == -np.inf).all()
        best, order = brute_force(vectors, query, found[:m])
        assert np.isin(found[:m], may).all() and len(np.unique(found[:m])) == m
        assert found[:m].tolist() == order.tolist() and similarity[:m].tolist() == best.tolist()
        if few:
            assert found[:m].tolist() == brute_force(vectors, query, may)[1][:m].tolist(), "of few, all are compared"


@pytest.mark.usefixtures("codes_alone")
@pytest.mark.parametrize("share", [None, 0.7, 0.1])
@pytest.mark.parametrize("shape", ["people", "random"])
def test_next_to_nothing_is_missed(shape: str, share: float | None) -> None:
    """Recall on a fixed set: also of vectors without any structure, where a bit a number says least."""
    n, dim, k = 6000, 128, 50
    random = np.random.default_rng(1)
    vectors = people(n, dim, seed=2) if shape == "people" else unit(random.normal(size=(n, dim)))
    index = index_of(vectors)
    near = unit(vectors[::300] + 0.03 * random.normal(size=(20, dim)))
    queries = np.concatenate([near, unit(random.normal(size=(20, dim)))])
    allowed = None if share is None else np.flatnonzero(random.random(n) < share)
    _, found = index.search(queries, k, allowed)
    may = np.arange(n) if allowed is None else allowed
    truth = np.stack([brute_force(vectors, query, may)[1][:k] for query in queries])
    assert found.shape == truth.shape
    recall = np.mean([len(np.intersect1d(*pair)) / k for pair in zip(found, truth, strict=True)])
    assert recall >= 0.999
    assert [row[:10].tolist() for row in found] == [row[:10].tolist() for row in truth]


def test_neighbours_that_all_lie_in_one_block_are_found(codes_alone: None) -> None:
    """As the images of one camera on one evening do: more of them than any block is first asked for."""
    random = np.random.default_rng(3)
    vectors = unit(random.normal(size=(2048, DIM)))
    vectors[512:1012] = unit(vectors[:1] + random.normal(size=(500, DIM)) * 0.01)
    _, found = index_of(vectors).search(vectors[:1], 400)
    _, truth = brute_force(vectors, vectors[0], np.arange(2048))
    assert len(np.intersect1d(found[0], truth[:400])) >= 399


def test_few_allowed_rows_are_compared_by_their_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Differences far below the error of any code decide, as soon as no more rows than EXACT_ROWS are allowed."""
    monkeypatch.setattr(index_module, "COMPRESSED_FROM", 64)
    monkeypatch.setattr(index_module, "EXACT_ROWS", 300)
    random = np.random.default_rng(4)
    base = unit(random.normal(size=(1, DIM)))
    vectors = (base + random.normal(size=(2000, DIM)) * 1e-7).astype(np.float32)
    index = index_of(vectors)
    allowed = np.sort(random.choice(2000, 300, replace=False))
    similarity, rows = index.search(base, 40, allowed)
    best, truth = brute_force(vectors, base[0], allowed)
    assert rows[0].tolist() == truth[:40].tolist() and similarity[0].tolist() == best[:40].tolist()
    assert index.exact_among(allowed) and not index.exact_among(np.arange(301)) and not index.exact_among(None)
    assert not index.exact


def test_a_small_compressed_index_is_exact_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    index = VectorIndex(2, "compressed")
    index.add(np.arange(100), np.ones((100, 2), np.float32))
    assert index.exact and VectorIndex(2).exact
    monkeypatch.setattr(index_module, "COMPRESSED_FROM", 100)
    monkeypatch.setattr(index_module, "EXACT_ROWS", 99)
    coded = VectorIndex(2, "compressed")
    coded.add(np.arange(100), np.ones((100, 2), np.float32))
    assert not coded.exact
    coded.remove(np.arange(1))
    assert coded.exact, "so few are left that they are all compared"


def open_files() -> list[str]:
    """What files are mapped into this process, unnamed ones under the name they were made with."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6]


def test_nothing_of_a_removed_vector_stays_in_memory_or_on_disk(codes_alone: None, tmp_path: Path) -> None:
    """Its codes go with its block, and the file with the last that refers to it: a search under way may still."""
    index = VectorIndex(DIM, "compressed", tmp_path)
    vectors = people(600, DIM, seed=5)
    index.add(np.arange(600), vectors)
    assert list(tmp_path.iterdir()) == [], "the files have no name"
    held = [path for path in open_files() if path.startswith(str(tmp_path))]
    assert held
    index.remove(np.array([7, 8]))
    index.compact()
    gc.collect()
    secret = [vectors[row].tobytes() for row in (7, 8)]
    assert not any(one in block.vectors.tobytes() for one in secret for block in index.blocks)
    now = [path for path in open_files() if path.startswith(str(tmp_path))]
    assert len(held) == 2 and len(set(held) - set(now)) == 1, "the file that had them is gone"
    index.remove(np.arange(600))
    gc.collect()
    assert not [path for path in open_files() if path.startswith(str(tmp_path))]


def test_a_full_disk_changes_nothing(codes_alone: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    index = VectorIndex(DIM, "compressed", tmp_path)
    vectors = people(600, DIM, seed=6)
    index.add(np.arange(100), vectors[:100])

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("indexer.mapped.tempfile.TemporaryFile", full)
        with pytest.raises(StorageFull, match="Free some space"):
            index.add(np.arange(100, 600), vectors[100:])
        assert len(index) == 100
        with pytest.raises(StorageFull):
            mapped(vectors)
    index.add(np.arange(100, 600), vectors[100:])
    assert len(index) == 600
    np.testing.assert_array_equal(index.reconstruct(np.array([3, 599])), vectors[[3, 599]])


def test_mapped_vectors_are_the_same_and_cannot_be_changed() -> None:
    vectors = people(70, 3, seed=7)
    copy = mapped(vectors)
    np.testing.assert_array_equal(copy, vectors)
    with pytest.raises(ValueError, match="read-only"):
        copy[0, 0] = 1


def test_codes_need_less_than_a_quarter_of_the_memory_of_the_vectors() -> None:
    vectors = people(9000, 512, seed=8)
    [block] = index_of(vectors).blocks
    assert isinstance(block.held, Coded)
    codes = block.held.bits.codes.size() + block.held.fine.codes.size()
    assert codes + block.rows.nbytes <= vectors.nbytes / 4
