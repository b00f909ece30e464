"""Bands: what a similarity was worth on validation people, so that a result can be called strong, possible or weak.

Every validation query is searched and its first results are judged; from (similarity, right person or not) the chance
of being right is fitted as a function that never falls with similarity. It holds for galleries like the validation set:
in a larger one more strangers look alike, and the same similarity is worth less.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.datasets import Sample

Array = NDArray[Any]

CHANCES = {"strong": 0.5, "possible": 0.1}  # least share of right results at a similarity
JUDGED = 10  # results of each query
UNREACHABLE = 2.0  # above any cosine: a band that the validation set never earned


def monotone_fit(similarity: Array, right: Array) -> tuple[Array, Array]:
    """Least-squares fit of ``right`` that never falls with ``similarity``, by pooling adjacent violators.

    similarity, right: (N,). Returns the distinct similarities in rising order and the fitted chance at each, (M,) both.
    """
    values, where = np.unique(similarity, return_inverse=True)
    weights = np.bincount(where).astype(np.float64)
    means = np.bincount(where, weights=right) / weights
    blocks: list[list[float]] = []  # [mean, weight, how many values]
    for mean, weight in zip(means, weights, strict=True):
        blocks.append([mean, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (m1, w1, n1), (m2, w2, n2) = blocks[-2:]
            blocks[-2:] = [[(m1 * w1 + m2 * w2) / (w1 + w2), w1 + w2, n1 + n2]]
    fitted = np.repeat([b[0] for b in blocks], [int(b[2]) for b in blocks])
    return values, fitted


def thresholds(similarity: Array, right: Array) -> dict[str, float]:
    """The least similarity of each band, from judged results (N,)."""
    values, fitted = monotone_fit(similarity, right)
    found = {}
    for name, chance in CHANCES.items():
        reached = np.flatnonzero(fitted >= chance)
        found[name] = float(values[reached[0]]) if reached.size else UNREACHABLE
    return found


def bands(texts: Array | None, images: Array, samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Thresholds for each kind of query: "text", "image" and "text+image", the latter with equal weights.

    texts: (Q, D) unit rows, the captions of all samples in order, or None. images: (G, D) unit rows, one a sample. A
    query with an image never sees that image, nor others of the same person and camera, as in `image_to_image`.
    """
    pids = np.array([sample.pid for sample in samples])
    cameras = [sample.camera for sample in samples]
    known = {camera: n for n, camera in enumerate(dict.fromkeys(cameras))}
    codes = np.array([known[camera] for camera in cameras])
    own = np.arange(len(samples))
    near = (own[:, None] == own) | ((pids[:, None] == pids) & (codes[:, None] == codes))  # (G, G)
    found = {"image": thresholds(*_judged(images, images, pids, pids, near))}
    if texts is not None:
        origin = np.repeat(own, [len(sample.captions) for sample in samples])  # (Q,)
        found["text"] = thresholds(*_judged(texts, images, pids[origin], pids))
        both = texts + images[origin]
        both /= np.linalg.norm(both, axis=1, keepdims=True)
        found["text+image"] = thresholds(*_judged(both, images, pids[origin], pids, near[origin]))
    return found


def _judged(
    queries: Array, gallery: Array, query_pids: Array, gallery_pids: Array, hidden: Array | None = None
) -> tuple[Array, Array]:
    """Similarity and rightness of the first results of every query, both (Q * JUDGED,)."""
    similarity = queries @ gallery.T  # (Q, G); a validation split is small
    if hidden is not None:
        similarity = np.where(hidden, -np.inf, similarity)
    top = np.argsort(-similarity, axis=1, kind="stable")[:, :JUDGED]
    values = np.take_along_axis(similarity, top, axis=1)
    right = gallery_pids[top] == query_pids[:, None]
    seen = np.isfinite(values)
    return values[seen], right[seen].astype(np.float64)
