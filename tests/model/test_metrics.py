"""Metrics against the hand-worked golden case and a naive loop that shares no code with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.metrics import (
    query_outcomes,
    rank1_interval,
    ranking_metrics,
    ranking_metrics_from_similarity,
    summarize,
)

GALLERY_PIDS = [1, 2, 1, 3, 2, 1, 4, 3]
QUERY_PIDS = [1, 2, 3, 4]
SIMILARITY = np.array(
    [
        [0.9, 0.8, 0.7, 0.1, 0.2, 0.3, 0.4, 0.5],
        [0.5, 0.6, 0.9, 0.4, 0.7, 0.1, 0.2, 0.3],
        [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2],
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
    ]
)
GALLERY_CAMS = [0, 1, 1, 0, 2, 2, 0, 1]
QUERY_CAMS = [0, 1, 0, 0]


def test_golden_case_plain() -> None:
    found = ranking_metrics_from_similarity(SIMILARITY, QUERY_PIDS, GALLERY_PIDS)
    outcomes = query_outcomes(lambda rows: SIMILARITY[rows], QUERY_PIDS, GALLERY_PIDS)
    np.testing.assert_allclose(outcomes.average_precision, [0.722222, 0.583333, 0.25, 0.5], atol=1e-6)
    np.testing.assert_allclose(outcomes.inp, [0.5, 0.666667, 0.25, 0.5], atol=1e-6)
    assert found.rank[1] == 25
    assert found.rank[5] == 100
    assert found.mean_ap == pytest.approx(51.3889, abs=1e-4)
    assert found.mean_inp == pytest.approx(47.9167, abs=1e-4)
    assert (found.queries, found.skipped) == (4, 0)


def test_golden_case_trapezoid() -> None:
    found = ranking_metrics_from_similarity(SIMILARITY, QUERY_PIDS, GALLERY_PIDS, average_precision="trapezoid")
    outcomes = query_outcomes(lambda rows: SIMILARITY[rows], QUERY_PIDS, GALLERY_PIDS, average_precision="trapezoid")
    np.testing.assert_allclose(outcomes.average_precision, [0.677778, 0.416667, 0.160714, 0.25], atol=1e-6)
    assert found.mean_ap == pytest.approx(37.6290, abs=1e-4)


def test_golden_case_market_rule() -> None:
    found = ranking_metrics_from_similarity(
        SIMILARITY, QUERY_PIDS, GALLERY_PIDS, query_cams=QUERY_CAMS, gallery_cams=GALLERY_CAMS
    )
    assert (found.queries, found.skipped) == (3, 1)
    assert found.mean_ap == pytest.approx(36.4286, abs=1e-4)
    assert found.rank[1] == 0
    assert found.rank[5] == pytest.approx(66.667, abs=1e-3)
    q, g = np.array(QUERY_PIDS), np.array(GALLERY_PIDS)
    qc, gc = np.array(QUERY_CAMS), np.array(GALLERY_CAMS)
    outcomes = query_outcomes(
        lambda rows: SIMILARITY[rows], q, g, drop=lambda rows: (q[rows, None] == g) & (qc[rows, None] == gc)
    )
    assert outcomes.valid.tolist() == [True, True, True, False]
    np.testing.assert_allclose(outcomes.average_precision[:3], [0.45, 0.5, 0.142857], atol=1e-6)


@dataclass
class Case:
    similarity: np.ndarray
    query_pids: list[int]
    gallery_pids: list[int]
    query_cams: list[int] | None
    gallery_cams: list[int] | None


@st.composite
def cases(draw: st.DrawFn) -> Case:
    queries, gallery = draw(st.integers(1, 7)), draw(st.integers(1, 12))
    pid = st.integers(0, 3)
    value = st.integers(-2, 2)  # few values, many ties; small integers are exact in floating point
    cams = draw(st.booleans())
    return Case(
        np.array(draw(st.lists(value, min_size=queries * gallery, max_size=queries * gallery)), float).reshape(
            queries, gallery
        ),
        draw(st.lists(pid, min_size=queries, max_size=queries)),
        draw(st.lists(pid, min_size=gallery, max_size=gallery)),
        draw(st.lists(st.integers(0, 1), min_size=queries, max_size=queries)) if cams else None,
        draw(st.lists(st.integers(0, 1), min_size=gallery, max_size=gallery)) if cams else None,
    )


def naive(case: Case, trapezoid: bool) -> tuple[dict[int, float], float, float, int, int]:
    """One query and one gallery image at a time, from the definitions."""
    firsts, aps, inps, skipped = [], [], [], 0
    for i, pid in enumerate(case.query_pids):
        row = []
        for j, other in enumerate(case.gallery_pids):
            if case.query_cams and case.gallery_cams and pid == other and case.query_cams[i] == case.gallery_cams[j]:
                continue
            row.append((-case.similarity[i, j], j, other == pid))
        hits = [position for position, (_, _, hit) in enumerate(sorted(row)) if hit]  # 0-based
        if not hits:
            skipped += 1
            continue
        terms = []
        for n, r in enumerate(hits):
            at = (n + 1) / (r + 1)
            before = 1.0 if r == 0 else n / r
            terms.append((at + before) / 2 if trapezoid else at)
        firsts.append(hits[0] + 1)
        aps.append(sum(terms) / len(hits))
        inps.append(len(hits) / (hits[-1] + 1))
    n = len(firsts)
    if n == 0:
        return {1: 0.0, 5: 0.0, 10: 0.0}, 0.0, 0.0, 0, skipped
    rank = {k: 100 * sum(f <= k for f in firsts) / n for k in (1, 5, 10)}
    return rank, 100 * sum(aps) / n, 100 * sum(inps) / n, n, skipped


@settings(max_examples=300, deadline=None)
@given(cases(), st.booleans(), st.integers(1, 5))
def test_equals_a_naive_loop_with_ties(case: Case, trapezoid: bool, block: int) -> None:
    found = ranking_metrics_from_similarity(
        case.similarity,
        case.query_pids,
        case.gallery_pids,
        query_cams=case.query_cams,
        gallery_cams=case.gallery_cams,
        average_precision="trapezoid" if trapezoid else "plain",
        block=block,
    )
    rank, mean_ap, mean_inp, queries, skipped = naive(case, trapezoid)
    assert (found.queries, found.skipped) == (queries, skipped)
    assert found.rank == pytest.approx(rank)
    assert found.mean_ap == pytest.approx(mean_ap)
    assert found.mean_inp == pytest.approx(mean_inp)


def test_embeddings_and_similarity_agree_whatever_the_block() -> None:
    rng = np.random.default_rng(3)
    queries, gallery = rng.integers(-2, 3, (23, 4)).astype(float), rng.integers(-2, 3, (31, 4)).astype(float)
    q, g = rng.integers(0, 5, 23), rng.integers(0, 5, 31)
    expected = ranking_metrics_from_similarity(queries @ gallery.T, q, g)
    for block in (1, 7, 23, 1024):
        assert ranking_metrics(queries, gallery, q, g, block=block) == expected


def test_ties_go_to_the_earlier_gallery_position() -> None:
    tied = np.zeros((1, 3))
    assert ranking_metrics_from_similarity(tied, [7], [7, 1, 2]).rank[1] == 100
    assert ranking_metrics_from_similarity(tied, [7], [1, 2, 7], ranks=(1, 2, 3)).rank == {1: 0, 2: 0, 3: 100}


def test_no_valid_query_is_counted_and_not_nan() -> None:
    found = ranking_metrics_from_similarity(np.ones((2, 2)), [8, 9], [1, 2])
    assert (found.queries, found.skipped, found.mean_ap, found.mean_inp) == (0, 2, 0.0, 0.0)


@pytest.mark.parametrize(
    ("similarity", "cams", "message"),
    [
        (np.zeros((1, 3)), {}, "shape"),
        (np.full((1, 2), np.nan), {}, "not finite"),
        (np.zeros((1, 2)), {"query_cams": [1]}, "cameras of both"),
        (np.zeros((1, 2)), {"query_cams": [1], "gallery_cams": [1]}, "one camera for each pid"),
    ],
)
def test_bad_input_is_refused(similarity: np.ndarray, cams: dict[str, list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ranking_metrics_from_similarity(similarity, [1], [1, 2], **cams)


def test_interval_resamples_people_and_not_queries() -> None:
    # Two people: one always found, one never. Drawing people gives 0, 50 or 100 %, so the interval spans all of it;
    # drawing the 200 queries one by one would stay close to 50 %.
    pids = np.repeat([1, 2], 100)
    similarity = np.tile([1.0, 0.0], (200, 1))
    outcomes = query_outcomes(lambda rows: similarity[rows], pids, [1, 2])
    assert summarize(outcomes).rank[1] == 50
    assert rank1_interval(outcomes, pids) == (0.0, 100.0)


def test_interval_of_a_certain_result_is_a_point() -> None:
    outcomes = query_outcomes(lambda rows: np.eye(3)[rows], [1, 2, 3], [1, 2, 3])
    assert rank1_interval(outcomes, [1, 2, 3]) == (100.0, 100.0)
