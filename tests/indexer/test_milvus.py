"""The index in Milvus: the answers of the flat index, whatever is written, removed, filtered, restarted or away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indexer import deadlines
from indexer import milvus as milvus_module
from indexer.errors import DeadlinePassed, IndexUnavailable, InvalidSettings
from indexer.index import VectorIndex
from indexer.milvus import Milvus, MilvusIndex, connect
from indexer.settings import GallerySettings
from tests.indexer.live_gallery import eventually
from tests.milvus_fixtures import MilvusServer, milvus, needs_milvus, open_milvus, server

__all__ = ["milvus"]

pytestmark = [needs_milvus, pytest.mark.xdist_group("milvus")]  # one server for all

DIM = 8


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def both(milvus: Milvus, vectors: np.ndarray, rows: np.ndarray | None = None) -> tuple[MilvusIndex, VectorIndex]:
    """The same vectors in Milvus and in the flat index, which other tests compare with brute force."""
    rows = np.arange(len(vectors)) if rows is None else rows
    dim = vectors.shape[1]
    indexes = milvus.index("checkpoint", dim), VectorIndex(dim)
    for index in indexes:
        index.add(rows, vectors)
    return indexes


def assert_same(
    index: MilvusIndex, flat: VectorIndex, queries: np.ndarray, k: int, allowed: np.ndarray | None = None
) -> None:
    expected_similarities, expected = flat.search(queries, k, allowed)
    similarities, rows = index.search(queries, k, allowed)
    assert rows.tolist() == expected.tolist()
    assert similarities.tolist() == expected_similarities.tolist()


def test_same_first_ten_of_10_000_embeddings_under_200_random_filters(milvus: Milvus) -> None:
    """Embeddings near some centres, and filters that keep from nothing to nearly all."""
    n, filters, dim = 10_000, 200, 512
    random = np.random.default_rng(11)
    centres = random.normal(size=(n // 20, dim))
    vectors = unit(centres[random.integers(0, len(centres), n)] + 0.5 * random.normal(size=(n, dim)))
    rows = random.permutation(3 * n)[:n]  # as after many deletions, and in no order
    index, flat = both(milvus, vectors, rows)
    assert len(index) == len(flat) == n
    milvus.client.flush(index.name)
    shares = np.concatenate([[0.0, 1.0], random.random(filters - 2) ** 3])
    for share in shares:
        allowed = np.sort(rows[random.random(n) < share])
        query = unit(vectors[random.integers(n)] + random.normal(size=dim) / 4)
        assert_same(index, flat, query[None], 10, allowed)


@pytest.mark.parametrize("k", [1, 7, 40, 300])
def test_ties_come_by_row_as_in_the_flat_index(milvus: Milvus, k: int) -> None:
    """Vectors of few values, and many copies: more of them equally similar than are asked for at first."""
    random = np.random.default_rng(3)
    vectors = unit(random.integers(-1, 2, (200, DIM)) + 0.01)[random.integers(0, 40, 200)]
    index, flat = both(milvus, vectors, random.permutation(1000)[:200])
    queries = np.stack([vectors[0], vectors[1], *unit(random.normal(size=(2, DIM)))])
    assert_same(index, flat, queries, k)
    assert_same(index, flat, queries, k, np.arange(0, 1000, 3))
    assert_same(index, flat, queries, k, np.empty(0, np.int64))


def test_more_than_milvus_gives_at_once_or_an_expression_lists(milvus: Milvus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus_module, "MOST", 64)
    monkeypatch.setattr(milvus_module, "LISTED", 50)
    monkeypatch.setattr(milvus_module, "AT_ONCE", 70)
    random = np.random.default_rng(4)
    vectors = unit(random.normal(size=(300, DIM)))
    index, flat = both(milvus, vectors)
    queries = unit(random.normal(size=(2, DIM)))
    for k in (5, 60, 200, 400):
        assert_same(index, flat, queries, k)
        for allowed in (np.arange(0, 300, 2), np.arange(290), np.arange(40, 60)):
            assert_same(index, flat, queries, k, allowed)
    assert index.rows.tolist() == list(range(300))
    np.testing.assert_array_equal(index.reconstruct(np.array([250, 3, 3])), vectors[[250, 3, 3]])


def test_places_that_are_not_decided_by_the_vectors_follow_in_order(
    milvus: Milvus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_module, "EXACT_PLACES", 10)
    random = np.random.default_rng(5)
    index, flat = both(milvus, unit(random.normal(size=(200, DIM))))
    query = unit(random.normal(size=(1, DIM)))
    expected_similarities, expected = flat.search(query, 100)
    similarities, rows = index.search(query, 100)
    assert rows.tolist() == expected.tolist()
    assert similarities[0, :10].tolist() == expected_similarities[0, :10].tolist()
    np.testing.assert_allclose(similarities, expected_similarities, atol=1e-6)
    assert (np.diff(similarities[0]) <= 0).all()


def test_what_was_added_is_found_and_what_was_removed_is_not(milvus: Milvus) -> None:
    vectors = unit(np.random.default_rng(6).normal(size=(20, DIM)))
    index = milvus.index("checkpoint", DIM)
    other = open_milvus_again(milvus).index("checkpoint", DIM)  # as another replica sees it
    for row, vector in enumerate(vectors):
        index.add(np.array([row]), vector[None])
        assert other.search(vector[None], 1)[1].tolist() == [[row]] and row in other and len(other) == row + 1
    for row, vector in enumerate(vectors):
        assert index.remove(np.array([row, 10**6])) == 1
        assert row not in other and row not in other.search(vector[None], 30)[1] and len(other) == 19 - row
        assert row not in other.search(vector[None], 30, np.arange(20))[1]
    index.compact()
    assert index.rows.tolist() == [] and index.present(np.arange(20)).tolist() == []


def open_milvus_again(milvus: Milvus) -> Milvus:
    return Milvus(server().uri, prefix=milvus.prefix, kind=milvus.kind)


def test_a_row_gets_its_new_vector_and_the_same_vector_is_not_sent_again(
    milvus: Milvus, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = unit(np.random.default_rng(7).normal(size=(5, DIM)))
    index = milvus.index("checkpoint", DIM)
    index.add(np.arange(5), vectors)
    sent: list[int] = []
    real = milvus.client.upsert
    monkeypatch.setattr(
        milvus.client, "upsert", lambda name, data, **more: (sent.extend(row["row"] for row in data), real(name, data))
    )
    changed = vectors.copy()
    changed[3] = -changed[3]
    index.add(np.arange(5), changed)
    assert sent == [3]
    np.testing.assert_array_equal(index.reconstruct(np.arange(5)), changed)
    with pytest.raises(KeyError, match="row 9"):
        index.reconstruct(np.array([1, 9]))
    for rows, wrong in [([9], np.ones((1, 3))), ([9, 9], np.ones((2, DIM))), ([9], np.full((1, DIM), np.nan))]:
        with pytest.raises(ValueError):
            index.add(np.array(rows), wrong.astype(np.float32))
    with pytest.raises(ValueError):
        index.search(vectors, 0)


def test_collections_are_one_a_checkpoint_and_one_set_a_gallery(milvus: Milvus) -> None:
    vectors = unit(np.random.default_rng(8).normal(size=(3, DIM)))
    one, two = milvus.index("3f2a9c51", DIM), milvus.index("net-v1.2_b", 4)
    one.add(np.arange(3), vectors)
    two.add(np.arange(2), vectors[:2, :4])
    foreign = Milvus(server().uri, prefix=f"{milvus.prefix}_b").index("3f2a9c51", DIM)
    foreign.add(np.arange(3), vectors)
    assert sorted(milvus.checkpoints()) == ["3f2a9c51", "net-v1.2_b"]
    assert milvus.forget(np.array([1, 7]))
    assert one.rows.tolist() == [0, 2] and two.rows.tolist() == [0] and foreign.rows.tolist() == [0, 1, 2]
    milvus.drop("3f2a9c51")
    assert milvus.checkpoints() == ["net-v1.2_b"] and not one.there
    with pytest.raises(IndexUnavailable, match="lost the index"):
        one.search(vectors[:1], 1)


def test_a_collection_of_other_vectors_is_refused_with_what_to_do(milvus: Milvus) -> None:
    milvus.index("checkpoint", DIM)
    with pytest.raises(InvalidSettings, match="over vectors of 8 numbers, not FLAT over 16"):
        milvus.index("checkpoint", 16)
    milvus.kind = "hnsw"
    with pytest.raises(InvalidSettings, match="PERSON_SEARCH_MILVUS_INDEX"):
        milvus.index("checkpoint", DIM)


def test_an_approximate_index_says_so_and_never_breaks_a_filter(milvus: Milvus) -> None:
    milvus.kind = "hnsw"
    random = np.random.default_rng(9)
    vectors = unit(random.normal(size=(500, DIM)))
    index, flat = both(milvus, vectors)
    assert not index.exact_among(None) and not index.exact_among(np.arange(3))
    allowed = np.arange(0, 500, 7)
    _, rows = index.search(vectors[:5], 10, allowed)
    assert np.isin(rows, allowed).all() and (rows[:, 0] == flat.search(vectors[:5], 1, allowed)[1][:, 0]).mean() > 0.5


# ------------------------------------------------------------------------------------------------------- away and back


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[MilvusServer]:
    server = MilvusServer(tmp_path)
    server.start()
    yield server
    server.kill()


def answers(index: MilvusIndex) -> bool:
    try:
        return len(index) >= 0
    except IndexUnavailable:
        return False


def test_killed_and_started_again_it_has_everything(own_server: MilvusServer) -> None:
    milvus = open_milvus(own_server)
    random = np.random.default_rng(10)
    vectors = unit(random.normal(size=(300, DIM)))
    index, flat = both(milvus, vectors)
    for removed in (index, flat):
        removed.remove(np.arange(0, 300, 3))
    own_server.kill()
    attempts = (lambda: len(index), lambda: index.search(vectors[:1], 3), lambda: index.remove(np.arange(3)))
    for attempt in attempts:
        with pytest.raises(IndexUnavailable, match="start it, or correct PERSON_SEARCH_MILVUS_URI"):
            attempt()
    own_server.start()
    eventually(lambda: answers(index))
    again = milvus.index("checkpoint", DIM)
    assert len(again) == 200
    assert_same(again, flat, unit(random.normal(size=(5, DIM))), 20)
    assert_same(index, flat, unit(random.normal(size=(5, DIM))), 20)  # who had it open goes on
    milvus.close()


def test_settings_that_cannot_work_are_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSettings, match="PERSON_SEARCH_MILVUS_URI"):
        connect(GallerySettings(index="milvus"))
    with pytest.raises(InvalidSettings, match="flat or hnsw"):
        Milvus("http://127.0.0.1:1", kind="quantum")
    with pytest.raises(ValueError, match="milvus_prefix"):
        GallerySettings(milvus_prefix="no__good")
    monkeypatch.setattr(milvus_module, "CALL_SECONDS", 0.5)
    with pytest.raises(IndexUnavailable, match="does not answer"):
        connect(GallerySettings(index="milvus", milvus_uri="http://127.0.0.1:1"))
    monkeypatch.setattr(milvus_module, "pymilvus", None)
    with pytest.raises(InvalidSettings, match="pip install"):
        connect(GallerySettings(index="milvus", milvus_uri="http://127.0.0.1:1"))


def test_a_deadline_that_has_passed_is_said_before_milvus_is_asked(milvus: Milvus) -> None:
    index = milvus.index("checkpoint", DIM)
    with deadlines.deadline(0), pytest.raises(DeadlinePassed):
        index.search(np.ones((1, DIM), np.float32), 1)
