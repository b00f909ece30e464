"""Rank-k, mAP and mINP of a ranked gallery, in blocks of queries: the whole Q x G matrix is never held.

Numpy only, so that the numbers depend on no network. Ties go to the earlier gallery position; public code leaves them
arbitrary. A query without a positive is skipped and counted, never NaN. Definitions: Zheng et al. 2015 (mAP, Market
rule), Ye et al. 2021 (mINP). This file does not load data or embed anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
AveragePrecision = Literal["plain", "trapezoid"]
# Which gallery images a block of queries must not see: slice of queries -> (B, G) bool, True where dropped.
Drop = Callable[[slice], Array]


@dataclass(frozen=True)
class RankingMetrics:
    """All values in percent. ``queries`` counts the valid ones; ``skipped`` those left without a positive."""

    rank: dict[int, float]
    mean_ap: float
    mean_inp: float
    queries: int
    skipped: int


@dataclass(frozen=True)
class QueryOutcomes:
    """What each query found, in query order; the entries of skipped queries are 0 and mean nothing.

    first: (Q,) int64 rank of the first positive, from 1. average_precision, inp: (Q,) float64 in 0..1.
    valid: (Q,) bool, True where the gallery held a positive.
    """

    first: Array
    average_precision: Array
    inp: Array
    valid: Array


def ranking_metrics(
    queries: Array,
    gallery: Array,
    query_pids: Sequence[int] | Array,
    gallery_pids: Sequence[int] | Array,
    *,
    query_cams: Sequence[Any] | Array | None = None,
    gallery_cams: Sequence[Any] | Array | None = None,
    average_precision: AveragePrecision = "plain",
    ranks: Sequence[int] = (1, 5, 10),
    block: int = 1024,
) -> RankingMetrics:
    """Metrics of the inner product of ``queries`` (Q, D) with ``gallery`` (G, D), both of unit rows.

    With cameras given the Market-1501 rule applies: a query does not see its own identity from its own camera.
    """
    _check_embeddings(queries, gallery)
    outcomes = query_outcomes(
        lambda rows: queries[rows] @ gallery.T,
        query_pids,
        gallery_pids,
        drop=_market_rule(query_pids, gallery_pids, query_cams, gallery_cams),
        average_precision=average_precision,
        block=block,
    )
    return summarize(outcomes, ranks)


def ranking_metrics_from_similarity(
    similarity: Array,
    query_pids: Sequence[int] | Array,
    gallery_pids: Sequence[int] | Array,
    *,
    query_cams: Sequence[Any] | Array | None = None,
    gallery_cams: Sequence[Any] | Array | None = None,
    average_precision: AveragePrecision = "plain",
    ranks: Sequence[int] = (1, 5, 10),
    block: int = 1024,
) -> RankingMetrics:
    """As `ranking_metrics`, for a similarity (Q, G) that is at hand. Higher means more alike."""
    if similarity.shape != (len(query_pids), len(gallery_pids)):
        raise ValueError(
            f"The similarity has shape {similarity.shape}, but there are {len(query_pids)} queries and "
            f"{len(gallery_pids)} gallery images."
        )
    outcomes = query_outcomes(
        lambda rows: similarity[rows],
        query_pids,
        gallery_pids,
        drop=_market_rule(query_pids, gallery_pids, query_cams, gallery_cams),
        average_precision=average_precision,
        block=block,
    )
    return summarize(outcomes, ranks)


def query_outcomes(
    similarity_of: Callable[[slice], Array],
    query_pids: Sequence[int] | Array,
    gallery_pids: Sequence[int] | Array,
    *,
    drop: Drop | None = None,
    average_precision: AveragePrecision = "plain",
    block: int = 1024,
) -> QueryOutcomes:
    """The outcome of every query; ``similarity_of(rows)`` gives the (B, G) similarity of a slice of queries."""
    if average_precision not in ("plain", "trapezoid"):
        raise ValueError(f'average_precision is "plain" or "trapezoid", not {average_precision!r}.')
    query_pids, gallery_pids = np.asarray(query_pids), np.asarray(gallery_pids)
    count = len(query_pids)
    if not count or not len(gallery_pids):
        raise ValueError("Ranking needs at least one query and one gallery image.")
    first = np.zeros(count, np.int64)
    ap, inp = np.zeros(count), np.zeros(count)
    valid = np.zeros(count, bool)
    for start in range(0, count, block):
        rows = slice(start, min(start + block, count))
        similarity = np.asarray(similarity_of(rows))
        if not np.isfinite(similarity).all():
            raise ValueError("The similarity holds a value that is not finite; the embeddings are damaged.")
        order = np.argsort(-similarity, axis=1, kind="stable")  # (B, G)
        positive = gallery_pids[order] == query_pids[rows, None]
        seen_rank = None
        if drop is not None:
            seen = ~np.take_along_axis(drop(rows), order, axis=1)
            positive &= seen
            seen_rank = np.cumsum(seen, axis=1, dtype=np.int32)  # (B, G) ranks from 1, over what the query sees
        hit_row, hit_column = np.nonzero(positive)  # both (H,): every positive of the block, best first in each row
        rank = hit_column + 1 if seen_rank is None else seen_rank[hit_row, hit_column].astype(np.int64)
        total = np.bincount(hit_row, minlength=len(order))  # (B,)
        top = np.cumsum(total) - total  # where a row's first hit stands among the H
        nth = np.arange(len(hit_row)) - top[hit_row] + 1  # 1 for a row's first positive, 2 for its second, ...
        precision = nth / rank
        if average_precision == "trapezoid":
            # Mean of the precision just before and at each hit; it starts from 1 at the very top.
            before = np.where(rank == 1, 1.0, (nth - 1) / np.maximum(rank - 1, 1))
            precision = (precision + before) / 2
        some = total > 0
        valid[rows] = some
        ap[rows] = np.bincount(hit_row, weights=precision, minlength=len(order)) / np.maximum(total, 1)
        first[rows][some] = rank[top[some]]  # a slice is a view, so this writes through
        inp[rows][some] = total[some] / rank[top[some] + total[some] - 1]
    return QueryOutcomes(first, ap, inp, valid)


def summarize(outcomes: QueryOutcomes, ranks: Sequence[int] = (1, 5, 10)) -> RankingMetrics:
    """Means over the valid queries, in percent; all 0 where no query is valid."""
    valid = outcomes.valid
    queries = int(valid.sum())
    if not queries:
        return RankingMetrics(dict.fromkeys(ranks, 0.0), 0.0, 0.0, 0, len(valid))
    return RankingMetrics(
        rank={k: 100.0 * float((outcomes.first[valid] <= k).mean()) for k in ranks},
        mean_ap=100.0 * float(outcomes.average_precision[valid].mean()),
        mean_inp=100.0 * float(outcomes.inp[valid].mean()),
        queries=queries,
        skipped=len(valid) - queries,
    )


def rank1_interval(
    outcomes: QueryOutcomes, query_pids: Sequence[int] | Array, *, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of Rank-1 in percent, drawn over identities.

    The queries of one person stand or fall together, so people are drawn with replacement, not queries.
    """
    valid = outcomes.valid
    if not valid.any():
        return (0.0, 0.0)
    _, person = np.unique(np.asarray(query_pids)[valid], return_inverse=True)
    people = int(person.max()) + 1
    asked = np.bincount(person, minlength=people)
    hits = np.bincount(person, weights=outcomes.first[valid] == 1, minlength=people)
    drawn = np.random.default_rng(seed).integers(0, people, (draws, people))
    rank1 = 100.0 * hits[drawn].sum(axis=1) / asked[drawn].sum(axis=1)  # (draws,)
    low, high = np.percentile(rank1, (2.5, 97.5))
    return float(low), float(high)


def _market_rule(
    query_pids: Sequence[int] | Array,
    gallery_pids: Sequence[int] | Array,
    query_cams: Sequence[Any] | Array | None,
    gallery_cams: Sequence[Any] | Array | None,
) -> Drop | None:
    if query_cams is None and gallery_cams is None:
        return None
    if query_cams is None or gallery_cams is None:
        raise ValueError("The Market rule needs the cameras of both the queries and the gallery.")
    if len(query_cams) != len(query_pids) or len(gallery_cams) != len(gallery_pids):
        raise ValueError("There must be one camera for each pid.")
    q_pids, g_pids = np.asarray(query_pids), np.asarray(gallery_pids)
    q_cams, g_cams = np.asarray(query_cams), np.asarray(gallery_cams)
    return lambda rows: (q_pids[rows, None] == g_pids) & (q_cams[rows, None] == g_cams)


def _check_embeddings(queries: Array, gallery: Array) -> None:
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"Queries and gallery must be (N, D) with one D; their shapes are {queries.shape} and {gallery.shape}."
        )
