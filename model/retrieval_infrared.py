"""Protocols between visible and infrared images, as plain functions of embeddings; and MSER re-ranking.

SYSU-MM01 is searched as its authors lay down: ten drawn galleries, by all cameras or indoors, with one or ten images of
each person and camera. RegDB and rendered sets are searched whole, both ways. Images (N, D) are unit rows, one for each
sample. Embedding belongs to the encoder.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from model.datasets import DatasetError, Sample
from model.metrics import QueryOutcomes, query_outcomes, summarize
from model.retrieval import flat_results

Array = NDArray[Any]
# Positions of queries (Q,) and of gallery images (G,) among the samples -> their similarity (Q, G).
Similarity = Callable[[Array, Array], Array]
# Camera -> person -> one row of image numbers for each trial, in the order in which a gallery takes them.
Permutations = Mapping[int, Mapping[int, Array]]
SearchMode = Literal["all", "indoor"]

TRIALS = 10
GALLERY_CAMERAS: dict[SearchMode, tuple[int, ...]] = {"all": (1, 2, 4, 5), "indoor": (1, 2)}
SHOTS = {"single": 1, "multi": 10}  # images of a person from each camera in a gallery
SAME_PLACE = {"3": "2"}  # infrared camera 3 stands where camera 2 does

_PROTOCOLS = {
    "infrared_to_visible": "infrared to visible",
    "visible_to_infrared": "visible to infrared",
    **{f"sysu_{mode}_{shots}": f"{mode} search, {shots}-shot" for mode in GALLERY_CAMERAS for shots in SHOTS},
}
TITLES = {
    **{
        key: row
        for name, title in _PROTOCOLS.items()
        for key, row in ((name, title), (f"{name}_reranked", "- re-ranked"))
    },
    "infrared_chance": "chance",
    "infrared_histogram": "colour histogram",
}
"""Keys of results that are rows of the table, in its order."""


def inner_products(images: Array) -> Similarity:
    """The similarity of unit rows (N, D)."""
    return lambda queries, gallery: images[queries] @ images[gallery].T


# --- both ways, whole gallery -------------------------------------------------------------------------------------


def search_across(
    images: Array, samples: Sequence[Sample], similarity: Similarity | None = None
) -> dict[str, dict[str, Any]]:
    """Every image of one modality searches all images of the other: "infrared_to_visible" and "visible_to_infrared".

    Empty unless all samples know their modality and there are both. No camera is left out: none sees in both lights.
    similarity: another than the inner product of ``images``.
    """
    similarity = similarity or inner_products(images)
    modalities = [sample.modality for sample in samples]
    pids = np.array([sample.pid for sample in samples])
    visible = np.array([n for n, modality in enumerate(modalities) if modality == "visible"])
    infrared = np.array([n for n, modality in enumerate(modalities) if modality not in ("visible", None)])
    if None in modalities or not len(visible) or not len(infrared):
        return {}
    found = {}
    for name, queries, gallery in (
        ("infrared_to_visible", infrared, visible),
        ("visible_to_infrared", visible, infrared),
    ):
        outcomes = query_outcomes(_blocks(similarity, queries, gallery), pids[queries], pids[gallery])
        found[name] = flat_results(outcomes, pids[queries])
    return found


def _blocks(similarity: Similarity, queries: Array, gallery: Array) -> Callable[[slice], Array]:
    """All at once, since re-ranking looks at all queries together; these sets are small."""
    whole = similarity(queries, gallery)  # (Q, G)
    return lambda rows: whole[rows]


# --- SYSU-MM01 ----------------------------------------------------------------------------------------------------


def search_sysu(
    images: Array,
    samples: Sequence[Sample],
    mode: SearchMode,
    shots: int,
    *,
    permutations: Permutations | None = None,
    similarity: Similarity | None = None,
    trials: int = TRIALS,
) -> dict[str, Any]:
    """Every infrared image searches a gallery drawn from the visible cameras; means over the trials, in percent.

    A query of camera 3 does not see images of camera 2, which stands in the same place. For Rank-k every person counts
    once in the ranking, by their first image; mAP and mINP are of the whole ranking.
    """
    similarity = similarity or inner_products(images)
    pids = np.array([sample.pid for sample in samples])
    places = np.array([SAME_PLACE.get(str(sample.camera), str(sample.camera)) for sample in samples])
    queries = np.array([n for n, sample in enumerate(samples) if sample.modality == "infrared"])
    results = []
    for trial in range(trials):
        gallery = sysu_gallery(samples, GALLERY_CAMERAS[mode], shots, trial, permutations)

        def drop(rows: slice, gallery: Array = gallery) -> Array:
            hidden: Array = places[queries[rows], None] == places[gallery]
            return hidden

        blocks = _blocks(similarity, queries, gallery)
        outcomes = query_outcomes(blocks, pids[queries], pids[gallery], drop=drop)
        first = first_among_people(blocks, pids[queries], pids[gallery], drop)
        outcomes = QueryOutcomes(first, outcomes.average_precision, outcomes.inp, outcomes.valid)
        metrics = summarize(outcomes)
        ranks = {f"rank{k}": value for k, value in metrics.rank.items()}
        results.append({**ranks, "mean_ap": metrics.mean_ap, "mean_inp": metrics.mean_inp})
    return {
        **{name: sum(result[name] for result in results) / trials for name in results[0]},
        "queries": metrics.queries,
        "skipped": metrics.skipped,
        "trials": trials,
        "gallery": "drawn with random.Random(trial)" if permutations is None else "rand_perm_cam.mat",
    }


def sysu_gallery(
    samples: Sequence[Sample],
    cameras: Sequence[int],
    shots: int,
    trial: int,
    permutations: Permutations | None = None,
) -> Array:
    """Positions of the gallery images of one trial: of each person, up to ``shots`` from each of the cameras.

    Drawn with ``random.Random(trial)``, for person after person and within each for camera after camera, as code in
    wide use does; or as the official ``permutations`` have it, with the first of the trial's row.
    """
    seen: dict[tuple[int, int], list[int]] = {}
    for n, sample in enumerate(samples):
        seen.setdefault((sample.pid, int(sample.camera or 0)), []).append(n)
    rng = random.Random(trial)
    chosen: list[int] = []
    for pid in sorted({sample.pid for sample in samples}):
        for camera in cameras:
            own = sorted(seen.get((pid, camera), []), key=lambda n: samples[n].path.name)
            if not own:
                continue
            if permutations is not None:
                by_number = {int(samples[n].path.stem): n for n in own}
                try:
                    chosen += [by_number[int(number)] for number in permutations[camera][pid][trial][:shots]]
                except (KeyError, IndexError) as error:
                    raise DatasetError(
                        f"rand_perm_cam.mat does not fit the images of person {pid:04d} in camera {camera}. Copy exp "
                        f"and the cameras from one and the same archive."
                    ) from error
            else:
                chosen += [rng.choice(own)] if shots == 1 else rng.sample(own, min(shots, len(own)))
    return np.array(chosen)


def first_among_people(
    similarity_of: Callable[[slice], Array],
    query_pids: Array,
    gallery_pids: Array,
    drop: Callable[[slice], Array],
    block: int = 1024,
) -> Array:
    """(Q,) the rank, from 1, of each query's person among the people of the gallery, each by their best image.

    0 where the query's person is not seen. Ties go to the person who comes first in the gallery.
    """
    people, index = np.unique(gallery_pids, return_inverse=True)
    first = np.zeros(len(query_pids), np.int64)
    for start in range(0, len(query_pids), block):
        rows = slice(start, min(start + block, len(query_pids)))
        similarity = np.asarray(similarity_of(rows))
        order = np.argsort(-similarity, axis=1, kind="stable")  # (B, G)
        places = np.empty_like(order)
        np.put_along_axis(places, order, np.arange(len(index))[None], axis=1)
        places[drop(rows)] = len(index)  # behind everybody
        # (B, people) the place of each person's best image
        best = np.stack([places[:, index == n].min(axis=1) for n in range(len(people))], axis=1)
        known = np.searchsorted(people, query_pids[rows]).clip(max=len(people) - 1)
        own = np.take_along_axis(best, known[:, None], axis=1)  # (B, 1)
        found = (people[known] == query_pids[rows]) & (own[:, 0] < len(index))
        first[rows] = np.where(found, (best < own).sum(axis=1) + 1, 0)
    return first


def measure(
    dataset: str, root: Path | str, images: Array, samples: Sequence[Sample], versions: Array | None = None
) -> dict[str, Any]:
    """The protocols of a dataset of two modalities by name, and "<name>_reranked" where ``versions`` are given.

    versions: (4, N, D), see `mser_similarity`; its settings are those published for SYSU-MM01 and, else, for RegDB.
    """
    sysu = dataset == "sysu-mm01"
    ways: dict[str, Similarity | None] = {"": None}
    if versions is not None:
        ways["_reranked"] = mser_similarity(versions, samples, MSER_SYSU if sysu else MSER_REGDB)
    found: dict[str, Any] = {}
    permutations = read_permutations(root) if sysu else None
    for suffix, similarity in ways.items():
        if not sysu:
            across = search_across(images, samples, similarity)
            found |= {f"{name}{suffix}": result for name, result in across.items()}
            continue
        for mode in GALLERY_CAMERAS:
            for name, shots in SHOTS.items():
                result = search_sysu(images, samples, mode, shots, permutations=permutations, similarity=similarity)
                found[f"sysu_{mode}_{name}{suffix}"] = result
    return found


def read_permutations(root: Path | str) -> Permutations | None:
    """The official trials of SYSU-MM01, from ``exp/rand_perm_cam.mat``; None where the file is not there.

    Raises `DatasetError`: reading it takes scipy, which the [synth] extra brings; or the file is damaged.
    """
    path = Path(root) / "exp" / "rand_perm_cam.mat"
    if not path.is_file():
        return None
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise DatasetError(
            f"{path} lists the official galleries, and reading it takes scipy: install scipy, or move the file away "
            f"to draw the galleries with fixed seeds."
        ) from error
    try:
        cells = loadmat(path)["rand_perm_cam"].ravel()  # one cell for each camera, of one matrix for each person
        return {
            camera: {pid: rows for pid, rows in enumerate(cell.ravel(), 1) if rows.size}
            for camera, cell in enumerate(cells, 1)
        }
    except Exception as error:  # the reader raises many types for a damaged file
        raise DatasetError(f"{path} cannot be read ({error}). Copy it from the published archive again.") from error


# --- MSER: multi-spectral re-ranking ------------------------------------------------------------------------------


@dataclass(frozen=True)
class MSER:
    """Settings of `reranked_distance`."""

    k1: int
    k2: int
    blend: float
    queries_only: bool


MSER_SYSU = MSER(40, 20, 0.3, queries_only=True)
MSER_REGDB = MSER(50, 10, 0.2, queries_only=False)


def mser_similarity(versions: Array, samples: Sequence[Sample], settings: MSER) -> Similarity:
    """Similarity by MSER: visible images stand four times, as they are and as each of their channels alone.

    versions: (4, N, D) unit rows of all samples, of which those after the first count for visible images alone.
    """
    visible = np.array([sample.modality == "visible" for sample in samples])

    def similarity(queries: Array, gallery: Array) -> Array:
        sides = [versions[:, side] if visible[side].all() else versions[:1, side] for side in (queries, gallery)]
        return -reranked_distance(sides[0], sides[1], settings)

    return similarity


def reranked_distance(queries: Array, gallery: Array, settings: MSER) -> Array:
    """(V, Q, D), (W, G, D) unit rows of V and W versions of the images -> (Q, G) distance, mean over the versions.

    k-reciprocal re-ranking (Zhong et al. 2017) of all versions together, without its step of expansion: an item is
    described by its mutual ``k1`` nearest neighbours, with weights exp(-d); the description becomes the mean over its
    ``k2`` nearest; two items differ by the Jaccard distance of their descriptions, ``blend`` of it being the plain
    distance, divided by the largest of the query. With ``queries_only`` neighbours are only sought among queries.
    It looks at all queries together, so its results are not those of a search.
    """
    (V, Q, D), (W, G, _) = queries.shape, gallery.shape
    k1, k2, blend = settings.k1, settings.k2, settings.blend
    items = np.concatenate([queries.reshape(V * Q, D), gallery.reshape(W * G, D)]).astype(np.float32)
    distance = np.maximum(2 - 2 * items @ items.T, 0)  # (N, N) squared, of unit rows
    distance /= distance.max(axis=1, keepdims=True).clip(min=1e-12)
    order = np.argsort(distance, axis=1, kind="stable")[:, : max(k1 + 1, k2)]
    near = np.zeros(distance.shape, bool)
    np.put_along_axis(near, order[:, : k1 + 1], values=True, axis=1)
    mutual = near & near.T
    if settings.queries_only:
        mutual[:, V * Q :] = False
    described = np.where(mutual, np.exp(-distance), 0)
    described /= described.sum(axis=1, keepdims=True).clip(min=1e-12)
    if k2 > 1:
        described = np.stack([described[own[:k2]].mean(axis=0) for own in order])
    jaccard = np.empty((V * Q, W * G), np.float32)
    others = described[V * Q :]
    total = others.sum(axis=1)  # 1, or 0 for an item without neighbours
    for q, own in enumerate(described[: V * Q]):
        some = np.flatnonzero(own)
        shared = np.minimum(own[some], others[:, some]).sum(axis=1)  # (W * G,)
        jaccard[q] = 1 - shared / (own.sum() + total - shared).clip(min=1e-12)
    final = (1 - blend) * jaccard + blend * distance[: V * Q, V * Q :]
    mean: Array = final.reshape(V, Q, W, G).mean(axis=(0, 2))
    return mean
