"""The vector index past one machine: the calls of `VectorIndex`, answered by Milvus, which all replicas share.

A collection a checkpoint holds each row with its vector and the digest the database has of it. The database decides
what there is, as ever: a collection is filled from it, compared with it, and made anew when it is lost. What a filter
allows comes as rows, decided in the database, and goes to Milvus as an expression on them; every call asks for strong
consistency, so that what one replica wrote the next search finds, and what it deleted none does. Which replica may
write is not decided here, see replica.py. docs/decisions/0014-milvus.md has the reasons and the limits.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer import deadlines
from indexer.embeddings import Digests, digests
from indexer.errors import IndexUnavailable, InvalidSettings
from indexer.index import Mask, Rows, Vectors, checked, checked_search, sum_errors
from indexer.settings import GallerySettings

try:
    import pymilvus
except ModuleNotFoundError:  # an extra, which `connect` asks for
    pymilvus = None  # type: ignore[assignment, unused-ignore]

CALL_SECONDS = 10.0  # for one call; a deadline may leave less
LOAD_SECONDS = 600.0  # for Milvus to load a collection that it has on disk
AT_ONCE = 2048  # vectors of one write: 4 MiB of 512 numbers, of the 64 that Milvus takes
LISTED = 8192  # rows of one expression, or of one page of a listing
MOST = 16_384  # hits Milvus gives at once
SPARE = 16  # candidates beyond k, so that it seldom has to be asked twice
EXACT_PLACES = 512  # places that are decided by the vectors themselves; later ones by Milvus's sums in float32
LOST, RELEASED = 100, 101  # Milvus's codes for a collection that is not there, and one that is not in memory

INDEXES: dict[str, dict[str, Any]] = {
    "flat": {"index_type": "FLAT"},
    "hnsw": {"index_type": "HNSW", "params": {"M": 32, "efConstruction": 256}},
}


def connect(settings: GallerySettings) -> Milvus:
    """The Milvus of the settings. Raises `InvalidSettings`, `IndexUnavailable`."""
    if pymilvus is None:
        raise InvalidSettings("PERSON_SEARCH_INDEX=milvus needs a client: pip install 'person-search[milvus]'.")
    if settings.milvus_uri is None:
        raise InvalidSettings("PERSON_SEARCH_INDEX=milvus needs PERSON_SEARCH_MILVUS_URI, as http://milvus:19530.")
    token = settings.milvus_token.get_secret_value() if settings.milvus_token else ""
    return Milvus(settings.milvus_uri, token, settings.milvus_prefix, settings.milvus_index)


class Milvus:
    """A Milvus server or cluster, and which of its collections are of this gallery: those of its prefix."""

    def __init__(self, uri: str, token: str = "", prefix: str = "person_search", kind: str = "flat") -> None:
        """`uri` is http://host:port, or a file for Milvus Lite. Raises `InvalidSettings`, `IndexUnavailable`."""
        if kind not in INDEXES:
            raise InvalidSettings(f"There is no index {kind!r}; set PERSON_SEARCH_MILVUS_INDEX to {_either()}.")
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it prints each failure with its stack; so do we not
        self.prefix, self.kind = prefix, kind
        with milvus_errors():
            self.client = pymilvus.MilvusClient(uri=uri, token=token, timeout=CALL_SECONDS)

    def close(self) -> None:
        self.client.close()

    def index(self, checkpoint_id: str, dim: int) -> MilvusIndex:
        """The collection of a checkpoint, made if it is not there, and loaded so that it can be searched.

        Raises `IndexUnavailable`, and `InvalidSettings` for one that holds other vectors or was indexed otherwise.
        """
        name = self._name(checkpoint_id)
        with milvus_errors():
            if not self.client.has_collection(name, timeout=CALL_SECONDS):
                self._create(name, dim)
            self._refuse_other(name, dim)
            self.client.load_collection(name, timeout=LOAD_SECONDS)
        return MilvusIndex(self.client, name, dim, exact=self.kind == "flat")

    def _create(self, name: str, dim: int) -> None:
        schema = self.client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("row", pymilvus.DataType.INT64, is_primary=True)
        schema.add_field("digest", pymilvus.DataType.INT64)
        schema.add_field("vector", pymilvus.DataType.FLOAT_VECTOR, dim=dim)
        chosen = self.client.prepare_index_params()
        chosen.add_index("vector", metric_type="IP", **INDEXES[self.kind])
        options = {"schema": schema, "index_params": chosen, "consistency_level": "Strong", "timeout": CALL_SECONDS}
        try:
            self.client.create_collection(name, **options)
        except pymilvus.MilvusException:  # another replica may have been first
            if not self.client.has_collection(name, timeout=CALL_SECONDS):
                raise

    def _refuse_other(self, name: str, dim: int) -> None:
        described = self.client.describe_collection(name, timeout=CALL_SECONDS)
        dims = [field["params"]["dim"] for field in described["fields"] if field["name"] == "vector"]
        index = self.client.describe_index(name, "vector", timeout=CALL_SECONDS) or {}
        found = int(dims[0] if dims else 0), index.get("index_type")
        if found != (dim, INDEXES[self.kind]["index_type"]):
            raise InvalidSettings(
                f"The collection {name} has {found[1]} over vectors of {found[0]} numbers, not "
                f"{INDEXES[self.kind]['index_type']} over {dim}. Set PERSON_SEARCH_MILVUS_INDEX or "
                "PERSON_SEARCH_MILVUS_PREFIX as it was, or drop the collection: it is filled again from the database."
            )

    def checkpoints(self) -> list[str]:
        """The checkpoints that have a collection here. Raises `IndexUnavailable`."""
        with milvus_errors():
            names = self.client.list_collections(timeout=CALL_SECONDS)
        ours = [rest for prefix, found, rest in (name.partition("__") for name in names) if prefix == self.prefix]
        return [re.sub(r"_([0-9a-f]{2})", lambda escaped: chr(int(escaped[1], 16)), name) for name in ours]

    def drop(self, checkpoint_id: str) -> None:
        """Remove the collection of a checkpoint. Raises `IndexUnavailable`."""
        with milvus_errors():
            self.client.drop_collection(self._name(checkpoint_id), timeout=CALL_SECONDS)

    def forget(self, rows: Rows) -> bool:
        """Delete rows (N,) from the collection of every checkpoint; False if one is still found in one of them.

        Raises `IndexUnavailable`.
        """
        kept = False
        for checkpoint_id in self.checkpoints():
            index = MilvusIndex(self.client, self._name(checkpoint_id), 0, exact=False)
            index.remove(rows)
            index.compact()
            kept |= len(index.present(rows)) > 0
        return not kept

    def _name(self, checkpoint_id: str) -> str:
        """Of letters, digits and underscores, as Milvus wants it. The prefix holds no two underscores in a row."""
        escaped = re.sub(r"[^A-Za-z0-9]", lambda other: f"_{ord(other[0]):02x}", checkpoint_id)
        return f"{self.prefix}__{escaped}"


class MilvusIndex:
    """The vectors of one checkpoint in Milvus. Any number of threads, and of replicas, may use it at once.

    All methods raise `IndexUnavailable` when Milvus cannot be reached or does not have the collection.
    """

    def __init__(self, client: Any, name: str, dim: int, *, exact: bool) -> None:
        self.dim, self.name = dim, name
        self._client, self._exact = client, exact
        self._removed = False  # something, since the last compaction

    def __len__(self) -> int:
        (found,) = self._query(None, ["count(*)"])
        return int(found["count(*)"])

    def exact_among(self, allowed: Rows | None) -> bool:
        """Whether a search among these rows, None for all, compares the vectors of each of them."""
        return self._exact

    @property
    def there(self) -> bool:
        """Whether Milvus still has the collection."""
        return bool(self._call(self._client.has_collection))

    # --- writing

    def add(self, rows: Rows, vectors: Vectors) -> None:
        """As `VectorIndex.add`. A row that has this very vector is left alone, so that replicas share the work."""
        rows, vectors = checked(rows, vectors, self.dim)
        wanted = digests(vectors)
        held_rows, held = self._held(rows)
        same = np.isin(rows, held_rows)
        same[same] = held[np.searchsorted(held_rows, rows[same])] == wanted[same]
        new = np.flatnonzero(~same)
        for start in range(0, len(new), AT_ONCE):
            part = new[start : start + AT_ONCE]
            fields = zip(rows[part].tolist(), _signed(wanted[part]).tolist(), vectors[part], strict=True)
            data = [{"row": row, "digest": digest, "vector": vector} for row, digest, vector in fields]
            self._call(self._client.upsert, data=data)

    def remove(self, rows: Rows) -> int:
        """Forget rows; returns how many of them were there."""
        there = self.present(rows)
        for part in _parts(there):
            self._call(self._client.delete, filter=_among(part))
            self._removed = True
        return len(there)

    def compact(self) -> None:
        """Have Milvus let go of what was removed: it answers without it at once, and rewrites its files by and by."""
        if self._removed:
            self._call(self._client.compact)
            self._removed = False

    # --- reading

    @property
    def rows(self) -> Rows:
        """All rows (N,), in no order."""
        return self.listing()[0]

    def listing(self) -> tuple[Rows, Digests]:
        """All rows (N,), ascending, and the digests (N,) of their vectors."""
        found: list[dict[str, int]] = []
        asked = {"filter": "row >= 0", "output_fields": ["row", "digest"], "consistency_level": "Strong"}
        pages = self._call(self._client.query_iterator, batch_size=LISTED, **asked)
        with milvus_errors(), closing(pages):
            while page := pages.next():
                found += page
        return _listed(found)

    def present(self, rows: Rows) -> Rows:
        """Those of the rows (N,) that are there, ascending."""
        return self._held(np.unique(np.asarray(rows, np.int64)))[0]

    def __contains__(self, row: int) -> bool:
        return len(self.present(np.array([row]))) > 0

    def reconstruct(self, rows: Rows) -> Vectors:
        """The vectors (N, dim) of rows (N,). Raises `KeyError` if one of them is not there."""
        rows = np.asarray(rows, np.int64)
        found, vectors = self._vectors(np.unique(rows))
        if len(lacking := np.setdiff1d(rows, found)):
            raise KeyError(f"row {lacking[0]} is not in the index")
        return vectors[np.searchsorted(found, rows)]

    def search(self, queries: Vectors, k: int, allowed: Rows | None = None) -> tuple[Vectors, Rows]:
        """As `VectorIndex.search`. Beyond the 512th place the order is that of Milvus's sums, right to six digits."""
        queries, allowed = checked_search(queries, k, self.dim, allowed)
        similarities = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        for q, query in enumerate(queries):
            found, best = self._nearest(query, k, allowed)
            similarities[q, : len(best)], rows[q, : len(best)] = found, best
        return similarities, rows

    def _nearest(self, query: Vectors, k: int, allowed: Rows | None) -> tuple[Vectors, Rows]:
        """The first `k` for one query (dim,): candidates by Milvus's sums, put in order by the vectors themselves."""
        decided, wanted = min(k, EXACT_PLACES), k + SPARE
        while True:
            scores, rows, left_out = self._candidates(query, wanted, allowed)
            # Sums in float32 may be wrong by this; whoever could be among the first by it is looked at.
            error = float(sum_errors(query[None], 1.0)[0])
            least = scores[min(decided, len(scores)) - 1] - 2 * error if len(scores) else -np.inf
            head = scores >= least
            there, vectors = self._vectors(np.sort(rows[head]))  # without what was removed a moment ago
            exact = (vectors.astype(np.float64) * query.astype(np.float64)).sum(axis=1).astype(np.float32)
            order = np.lexsort((there, -exact))
            certain = len(there) >= decided and left_out + error < exact[order[decided - 1]]
            if certain or left_out == -np.inf:
                break
            wanted *= 4
        tail = np.lexsort((rows[~head], -scores[~head]))
        least_exact = exact[order[-1]] if len(order) else np.float32(np.inf)
        rest = np.minimum(scores[~head][tail], least_exact)  # a sum must not seem more similar than a better place
        ranked = np.concatenate([exact[order], rest])[:k], np.concatenate([there[order], rows[~head][tail]])[:k]
        return ranked

    def _candidates(self, query: Vectors, wanted: int, allowed: Rows | None) -> tuple[Vectors, Rows, float]:
        """About the first `wanted` of the allowed rows by Milvus's sums, best first, and what the others are at most.

        As expressions list them a part at a time, many allowed rows are found faster among the first of all.
        """
        if allowed is None:
            return self._top(query, wanted, None)
        if len(allowed) > LISTED:
            n = len(self)
            among = -(-wanted * 5 * n // (4 * len(allowed)))  # a quarter more than a like share of them would be
            if among <= MOST:
                scores, rows, left_out = self._top(query, among, None)
                kept = _inside(rows, allowed)
                if left_out == -np.inf or kept.sum() >= wanted:
                    return scores[kept], rows[kept], left_out
        found = [self._top(query, wanted, part) for part in _parts(allowed)]
        scores = np.concatenate([np.empty(0, np.float32), *(one for one, _, _ in found)])
        rows = np.concatenate([np.empty(0, np.int64), *(one for _, one, _ in found)])
        order = np.argsort(-scores, kind="stable")
        return scores[order], rows[order], max((one for _, _, one in found), default=-np.inf)

    def _top(self, query: Vectors, wanted: int, part: Rows | None) -> tuple[Vectors, Rows, float]:
        """The first `wanted` of all rows, or of a part of them, and the least score if there may be more."""
        scores, rows = np.empty(0, np.float32), np.empty(0, np.int64)
        while len(rows) < wanted:
            limit = min(wanted - len(rows), MOST)
            if part is not None:
                left = np.setdiff1d(part, rows)
                where = _among(left)
                if not len(left):
                    return scores, rows, -np.inf
            else:
                where = f"row not in {rows.tolist()}" if len(rows) else ""
            (hits,) = self._call(
                self._client.search,
                data=[query],
                anns_field="vector",
                limit=limit,
                filter=where,
                search_params={"metric_type": "IP", "params": {} if self._exact else {"ef": 2 * limit}},
                consistency_level="Strong",
            )
            scores = np.concatenate([scores, np.array([hit["distance"] for hit in hits], np.float32)])
            rows = np.concatenate([rows, np.array([hit["row"] for hit in hits], np.int64)])
            if len(hits) < limit:
                return scores, rows, -np.inf
        return scores, rows, float(scores.min())

    def _held(self, rows: Rows) -> tuple[Rows, Digests]:
        """Those of the rows (N,) that are there, ascending, and the digests of their vectors."""
        return _listed([row for part in _parts(rows) for row in self._query(part, ["row", "digest"])])

    def _vectors(self, rows: Rows) -> tuple[Rows, Vectors]:
        """Those of the rows (N,) that are there, ascending, and their vectors."""
        found = [row for part in _parts(rows, AT_ONCE) for row in self._query(part, ["row", "vector"])]
        found.sort(key=lambda row: int(row["row"]))
        vectors = np.array([row["vector"] for row in found], np.float32).reshape(len(found), self.dim)
        return np.array([row["row"] for row in found], np.int64), vectors

    def _query(self, rows: Rows | None, fields: list[str]) -> Sequence[dict[str, Any]]:
        where = "" if rows is None else _among(rows)
        asked = {"filter": where, "output_fields": fields, "consistency_level": "Strong"}
        found: Sequence[dict[str, Any]] = self._call(self._client.query, **asked)
        return found

    def _call(self, method: Callable[..., Any], **arguments: Any) -> Any:
        """Ask something of the collection; one that Milvus has, but not in memory, is loaded first."""
        with milvus_errors():
            try:
                return method(self.name, **arguments, timeout=_seconds())
            except pymilvus.MilvusException as error:
                if error.code != RELEASED:
                    raise
            self._client.load_collection(self.name, timeout=_seconds())
            return method(self.name, **arguments, timeout=_seconds())


@contextmanager
def milvus_errors() -> Iterator[None]:
    """What the client raises, as an error of the gallery."""
    try:
        yield
    except pymilvus.MilvusException as error:
        deadlines.check()
        if error.code == LOST:
            sentence = "Milvus has lost the index; it is filled again from the database."
        else:
            sentence = "Milvus, which holds the index, does not answer; start it, or correct PERSON_SEARCH_MILVUS_URI."
        raise IndexUnavailable(f"{sentence} Try again in a moment.") from error


def _seconds() -> float:
    """What one call of a search may take."""
    deadlines.check()
    left = deadlines.remaining()
    return CALL_SECONDS if left is None else min(max(left, 0.001), CALL_SECONDS)


def _either() -> str:
    return " or ".join(INDEXES)


def _among(rows: Rows) -> str:
    """Milvus's expression for these rows (N,); as text, since templates are not known to all of its servers."""
    return f"row in {rows.tolist()}"


def _parts(rows: Rows, size: int = LISTED) -> list[Rows]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _inside(rows: Rows, allowed: Rows) -> Mask:
    """Which of the rows (N,) are among the allowed ones (M,), ascending, M > 0."""
    nearest = allowed[np.minimum(np.searchsorted(allowed, rows), len(allowed) - 1)]
    return np.asarray(nearest == rows)


def _signed(unsigned: Digests) -> NDArray[np.int64]:
    """Milvus has no unsigned numbers."""
    return unsigned.view(np.int64)


def _listed(found: Sequence[dict[str, Any]]) -> tuple[Rows, Digests]:
    rows = np.array([row["row"] for row in found], np.int64)
    held = np.array([row["digest"] for row in found], np.int64).view(np.uint64)
    order = np.argsort(rows)
    return rows[order], held[order]
