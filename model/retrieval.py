"""Retrieval protocols as plain functions of embeddings: who searches, and which images a search does not see.

Training validates with exactly what is reported later. Texts (Q, D) are the captions of all samples in order, images
(G, D) one for each sample; all rows are unit. Embedding belongs to the encoder, ranking to model.metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.datasets import Sample
from model.metrics import Drop, QueryOutcomes, query_outcomes, rank1_interval, summarize

Array = NDArray[Any]


def text_to_image(texts: Array, images: Array, samples: Sequence[Sample]) -> dict[str, Any]:
    """The standard protocol: every caption is a query, every image is in the gallery once, its own image included."""
    queries, gallery = pids_of(samples)
    return search(texts, images, queries, gallery)


def text_to_image_of(similarity: Array, samples: Sequence[Sample]) -> dict[str, Any]:
    """The standard protocol for a similarity (Q, G) that is at hand."""
    return ranked(similarity, *pids_of(samples))


def image_to_image(images: Array, samples: Sequence[Sample]) -> dict[str, Any]:
    """Every image searches all others; with cameras known, its own person is only sought in other cameras."""
    return _from_images(images, images, np.arange(len(samples)), samples)


def fused(texts: Array, images: Array, samples: Sequence[Sample]) -> dict[str, Any]:
    """Every image searches together with each of its captions; it does not see what it would not see alone."""
    origin = origin_of(samples)
    return _from_images(fuse(texts, images[origin]), images, origin, samples)


def pair_to_image(pairs: Array, images: Array, samples: Sequence[Sample]) -> dict[str, Any]:
    """Every image, read together with each of its captions, searches; it does not see what it would not see alone."""
    return _from_images(pairs, images, origin_of(samples), samples)


def among_captions(rows: Array, samples: Sequence[Sample]) -> dict[str, Any]:
    """Every caption's row (Q, D), of the text alone or read with its image, searches those of all other images.

    The rule for cameras is that of `image_to_image`, so that the branches of a net can be held side by side.
    """
    origin = origin_of(samples)
    return _from_images(rows, rows, origin, samples, origin)


def cross_view(texts: Array, images: Array, samples: Sequence[Sample]) -> dict[str, Any] | None:
    """As `text_to_image`, but a caption's gallery holds no image from its own camera and none from its own view.

    After the spirit of CrossRe-ID. None unless every sample names its camera and view.
    """
    return _across_views(texts, images, origin_of(samples), samples)


def cross_view_image(images: Array, samples: Sequence[Sample]) -> dict[str, Any] | None:
    """As `cross_view`, with the image itself as the query."""
    return _across_views(images, images, np.arange(len(samples)), samples)


def cross_view_fused(texts: Array, images: Array, samples: Sequence[Sample]) -> dict[str, Any] | None:
    """As `cross_view`, with the image and its caption together as the query."""
    origin = origin_of(samples)
    return _across_views(fuse(texts, images[origin]), images, origin, samples)


# --- parts of protocols -----------------------------------------------------------------------------------------


def fuse(one: Array, other: Array) -> Array:
    """(N, D) unit rows halfway between those of ``one`` and ``other``."""
    both = one + other
    unit: Array = both / np.linalg.norm(both, axis=1, keepdims=True)
    return unit


def pids_of(samples: Sequence[Sample]) -> tuple[Array, Array]:
    """(Q,) the person of every caption, (G,) the person of every image."""
    gallery = np.array([sample.pid for sample in samples])
    return np.repeat(gallery, [len(sample.captions) for sample in samples]), gallery


def origin_of(samples: Sequence[Sample]) -> Array:
    """(Q,) the position of the sample that every caption was written for."""
    return np.repeat(np.arange(len(samples)), [len(sample.captions) for sample in samples])


def search(
    queries: Array, images: Array, query_pids: Array, gallery_pids: Array, drop: Drop | None = None
) -> dict[str, Any]:
    """What queries (Q, D) find among images (G, D) of the people given; ``drop`` as for `query_outcomes`."""
    outcomes = query_outcomes(lambda rows: queries[rows] @ images.T, query_pids, gallery_pids, drop=drop)
    return flat_results(outcomes, query_pids)


def ranked(similarity: Array, query_pids: Array, gallery_pids: Array) -> dict[str, Any]:
    """As `search`, for a similarity (Q, G) that is at hand."""
    return flat_results(query_outcomes(lambda rows: similarity[rows], query_pids, gallery_pids), query_pids)


def flat_results(outcomes: QueryOutcomes, query_pids: Array) -> dict[str, Any]:
    """Flat numbers in percent, as tables and JSON show them, with the 95 % interval of Rank-1 over identities."""
    metrics = summarize(outcomes)
    low, high = rank1_interval(outcomes, query_pids)
    return {
        **{f"rank{k}": value for k, value in metrics.rank.items()},
        "mean_ap": metrics.mean_ap,
        "mean_inp": metrics.mean_inp,
        "rank1_low": low,
        "rank1_high": high,
        "queries": metrics.queries,
        "skipped": metrics.skipped,
    }


def _from_images(
    queries: Array, gallery: Array, origin: Array, samples: Sequence[Sample], shown: Array | None = None
) -> dict[str, Any]:
    """Queries (Q, D) that know the image ``origin`` (Q,): they see neither it nor their person in its camera.

    shown: (G,) the image that each row of the gallery is of; None where there is one for each image, in order.
    """
    pids = pids_of(samples)[1]
    cameras = _codes([sample.camera for sample in samples])
    shown = np.arange(len(samples)) if shown is None else shown

    def drop(rows: slice) -> Array:
        asked = origin[rows]
        own: Array = asked[:, None] == shown
        here: Array = (cameras[asked, None] == cameras[shown]) & (cameras[asked, None] >= 0)
        hidden: Array = own | (here & (pids[asked, None] == pids[shown]))
        return hidden

    return search(queries, gallery, pids[origin], pids[shown], drop)


def _across_views(queries: Array, images: Array, origin: Array, samples: Sequence[Sample]) -> dict[str, Any] | None:
    """Queries (Q, D) about the image ``origin`` (Q,), which see no image of its camera and none of its view."""
    if any(sample.camera is None or sample.view is None for sample in samples):
        return None
    pids = pids_of(samples)[1]
    cameras, views = _codes([s.camera for s in samples]), _codes([s.view for s in samples])

    def drop(rows: slice) -> Array:
        own = origin[rows]
        shared: Array = (cameras[own, None] == cameras) | (views[own, None] == views)
        return shared

    return search(queries, images, pids[origin], pids, drop)


def _codes(values: Sequence[str | None]) -> Array:
    """(N,) one number for each distinct value, -1 for an unknown one, which equals nothing."""
    numbers = {value: n for n, value in enumerate(dict.fromkeys(values)) if value is not None}
    return np.array([-1 if value is None else numbers[value] for value in values])
