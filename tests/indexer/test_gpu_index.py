"""The index on the GPU: the answers of the flat one, no filter ever on the GPU, one thread at a time, and its end.

Without a GPU a stand-in for FAISS's GPU index shows which searches go there; the last tests want a real one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest

from indexer import index as index_module
from indexer.errors import InvalidSettings
from indexer.index import OnGpu, VectorIndex
from model.errors import DeviceLost

DIM = 16


class StandIn:
    """As much of `faiss.GpuIndexFlatIP` as is used. Like that it knows no selector, and is not for several threads."""

    searched: list[int] = []  # how many neighbours each search asked for  # noqa: RUF012
    broken: str | None = None
    alive = 0

    def __init__(self, resources: object, index: faiss.IndexFlatIP) -> None:
        self._alone = threading.Lock()
        self._index = faiss.clone_index(index)
        type(self).alive += 1

    def __del__(self) -> None:
        type(self).alive -= 1

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        assert self._alone.acquire(blocking=False), "two threads at a time"
        try:
            if self.broken is not None:
                raise RuntimeError(self.broken)
            self.searched.append(k)
            found: tuple[np.ndarray, np.ndarray] = self._index.search(queries, k)
            return found
        finally:
            self._alone.release()


class Resources:
    def setTempMemory(self, size: int) -> None:  # noqa: N802 - FAISS's name
        assert size == index_module.GPU_SCRATCH


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[StandIn]]:
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", Resources, raising=False)
    monkeypatch.setattr(faiss, "GpuIndexFlatIP", StandIn, raising=False)
    monkeypatch.setattr(index_module, "GPU_FROM", 64)
    monkeypatch.setattr(index_module, "MAX_BLOCK", 512)
    monkeypatch.setattr(StandIn, "broken", None)
    StandIn.searched.clear()
    index_module._gpu_resources.cache_clear()
    yield StandIn
    index_module._gpu_resources.cache_clear()


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def both(n: int, copies: int | None = None) -> tuple[VectorIndex, VectorIndex, np.ndarray]:
    """The same in a GPU index and a flat one, and the vectors; with `copies` so many vectors again and again."""
    random = np.random.default_rng(1)
    vectors = unit(random.normal(size=(copies or n, DIM)))
    vectors = vectors if copies is None else vectors[random.integers(0, copies, n)]
    indexes = VectorIndex(DIM, "gpu"), VectorIndex(DIM)
    for index in indexes:
        index.add(np.arange(n), vectors)
    return *indexes, vectors


def assert_same(
    index: VectorIndex, flat: VectorIndex, queries: np.ndarray, k: int, allowed: np.ndarray | None = None
) -> None:
    similarities, rows = index.search(queries, k, allowed)
    expected_similarities, expected = flat.search(queries, k, allowed)
    assert rows.tolist() == expected.tolist()
    assert similarities.tolist() == expected_similarities.tolist()


@pytest.mark.parametrize("copies", [None, 7])
@pytest.mark.parametrize("k", [1, 10, 200, 2000])
def test_answers_are_those_of_the_flat_index(gpu: type[StandIn], k: int, copies: int | None) -> None:
    index, flat, vectors = both(1500, copies)
    assert_same(index, flat, np.stack([*vectors[:2], *unit(np.random.default_rng(2).normal(size=(3, DIM)))]), k)
    assert gpu.searched and index.exact


def test_more_than_a_gpu_finds_at_once_is_looked_up_in_memory(
    gpu: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "GPU_MOST", 20)
    index, flat, vectors = both(1500)
    for k in (10, 100, 1400):
        assert_same(index, flat, vectors[:3], k)
    assert max(gpu.searched) == 20


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_a_filter_never_goes_through_the_gpu(gpu: type[StandIn], share: float) -> None:
    """There it would be ignored, and images be found that nobody may see."""
    index, flat, vectors = both(1500)
    allowed = np.flatnonzero(np.random.default_rng(3).random(1500) < share)
    assert_same(index, flat, vectors[:5], 50, allowed)
    assert gpu.searched == []


def test_what_was_removed_is_not_found_and_its_copy_is_made_anew(gpu: type[StandIn]) -> None:
    index, flat, vectors = both(1500)
    for one in (index, flat):
        one.remove(np.arange(0, 1500, 5))
    assert_same(index, flat, vectors[:5], 50)
    assert gpu.searched == [], "every block has lost some rows"
    index.compact()
    assert_same(index, flat, vectors[:5], 50)
    assert gpu.searched
    copies = sum(isinstance(block.held, OnGpu) for block in index.blocks)
    assert gpu.alive == copies > 0, "those of old blocks are gone"


def test_any_number_of_threads_search_one_after_the_other(gpu: type[StandIn]) -> None:
    index, flat, vectors = both(1500)
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(assert_same, index, flat, vectors[n : n + 1], 10) for n in range(100)]:
            done.result(60)
    assert len(gpu.searched) >= 100


def test_a_gpu_that_fails_is_said_to_be_lost(gpu: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    index, _, vectors = both(1500)
    monkeypatch.setattr(gpu, "broken", "Error in virtual void faiss::gpu\nCUDA error 719 unspecified launch failure")
    with pytest.raises(DeviceLost, match="CUDA error 719 unspecified launch failure"):
        index.search(vectors[:1], 3)
    assert index.search(vectors[:1], 1, np.arange(9))[1].tolist() == [[0]], "filtered searches never needed it"


def test_without_a_gpu_it_is_refused_instead_of_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "gpus", lambda: 0)
    with pytest.raises(InvalidSettings, match="needs faiss-gpu and a GPU"):
        VectorIndex(DIM, "gpu")


# ------------------------------------------------------------------------------------------------------- a real GPU


@pytest.mark.requires_cuda
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.99, None])  # filters first
def test_on_a_real_gpu_the_filter_holds_and_answers_are_those_of_the_flat_index(share: float | None) -> None:
    random = np.random.default_rng(4)
    vectors = unit(random.normal(size=(100_000, 512)))
    index, flat = VectorIndex(512, "gpu"), VectorIndex(512)
    for one in (index, flat):
        one.add(np.arange(len(vectors)), vectors)
        one.remove(np.arange(0, 70_000, 9))
    allowed = None if share is None else np.flatnonzero(random.random(len(vectors)) < share)
    for k in (10, 3000):
        assert_same(index, flat, vectors[:20], k, allowed)
    index.compact()
    for k in (10, 3000):
        assert_same(index, flat, vectors[:20], k, allowed)
