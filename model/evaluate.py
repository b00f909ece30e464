"""How well a checkpoint finds people: retrieval protocols over embeddings, with chance, simple baselines and ceiling.

The protocols are plain functions of embeddings, so that training validates with exactly what is reported later.
Training and model selection happen elsewhere: a test split is only ever read here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from model.baselines import chance, color_histogram, color_similarity
from model.checkpoint import CheckpointError, write_atomically
from model.datasets import Sample, fingerprint, open_image, read_cuhk_pedes, read_icfg_pedes, read_rstpreid
from model.encoder import Encoder
from model.metrics import QueryOutcomes, query_outcomes, rank1_interval, summarize
from model.sheets import RESULTS, result_sheet, save_png, some

Array = NDArray[Any]
_CHUNK = 256  # images decoded and held at a time

# Readers by name; "synth" is for the rendered sets of model.synth, and for labelled images of one's own.
DATASETS: dict[str, Callable[[Path | str, str], list[Sample]]] = {
    "cuhk-pedes": read_cuhk_pedes,
    "icfg-pedes": read_icfg_pedes,
    "rstpreid": read_rstpreid,
    "synth": read_cuhk_pedes,
}


def evaluate(
    checkpoint: Path | str,
    dataset: str,
    root: Path | str,
    split: str = "test",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    json_out: Path | str | None = None,
    sheet: Path | str | None = None,
    sheet_queries: int = 12,
) -> dict[str, Any]:
    """Measure a checkpoint on one split, through the same encoder that serves; all values in percent.

    Returns the protocols "text_to_image", "image_to_image" and "cross_view" with rank1/5/10, mean_ap, mean_inp, the
    95 % interval of Rank-1 over identities, and the number of valid and skipped queries; beside them "chance",
    "color_histogram" and "oracle"; and the protocols of `further_protocols`, each with an oracle of its own. What the
    net or the dataset does not allow is None. ``json_out`` gets the same; ``sheet`` gets a PNG of ``sheet_queries``
    captions with the first ten images that each finds.

    Raises:
        ValueError: unknown dataset or device. DatasetError, CheckpointError: with a sentence that says what to do.
    """
    if dataset not in DATASETS:
        raise ValueError(f"There is no dataset {dataset!r}; choose one of {', '.join(DATASETS)}.")
    samples = DATASETS[dataset](root, split)
    encoder = Encoder(checkpoint, device)
    if sheet is not None and not encoder.has_text:
        raise CheckpointError(
            f"{checkpoint} reads no descriptions, so there are no queries to draw; leave out --sheet."
        )
    captions = [caption for sample in samples for caption in sample.captions]
    images, histograms = _embed_gallery(encoder, samples)
    texts = encoder.embed_texts(captions) if encoder.has_text else None
    result = {
        "checkpoint": encoder.checkpoint_id,
        "net": encoder.info["net"],
        "dataset": dataset,
        "split": split,
        "data": fingerprint(samples),
        "text_to_image": None if texts is None else text_to_image(texts, images, samples),
        "cross_view": None if texts is None else cross_view(texts, images, samples),
        "image_to_image": image_to_image(images, samples) if any(s.camera is not None for s in samples) else None,
        "chance": chance([s.pid for s in samples], [s.pid for s in samples for _ in s.captions]),
        "color_histogram": text_to_image_of(color_similarity(captions, histograms), samples),
        "oracle": oracle(samples),
        **further_protocols(encoder, samples, images, {} if texts is None else dict(zip(captions, texts, strict=True))),
    }
    if json_out is not None:
        write_atomically(Path(json_out), (json.dumps(result, indent=2) + "\n").encode())
    if sheet is not None and texts is not None:
        save_png(result_sheet(_first_results(texts, images, samples, sheet_queries)), sheet)
    return result


def report(result: dict[str, Any], console: Console | None = None) -> None:
    """Print the result of `evaluate` as a table that fits 80 columns."""
    data = result["data"]
    table = Table(
        title=f"{result['net']} {result['checkpoint']} on {result['dataset']} {result['split']}\n"
        f"{data['identities']} people, {data['images']} images, {data['captions']} captions"
    )
    table.add_column("percent", no_wrap=True)
    for name in ("Rank-1", "95 %", "Rank-5", "Rank-10", "mAP", "mINP"):
        table.add_column(name, justify="right", no_wrap=True)
    skipped = []
    for key, title in _TITLES.items():
        row = result[key]
        if row is None:
            continue
        spread = f"{row['rank1_low']:.1f}-{row['rank1_high']:.1f}" if "rank1_low" in row else ""
        others = (f"{row[name]:.1f}" for name in ("rank5", "rank10", "mean_ap", "mean_inp"))
        table.add_row(title, f"{row['rank1']:.1f}", spread, *others)
        if row.get("skipped"):
            skipped.append(f"{title}: {row['skipped']} queries without a positive were left out.")
    console = console or Console()
    console.print(table, *skipped, sep="\n", highlight=False)


_TITLES = {
    "text_to_image": "text to image",
    "cross_view": "text, cross view",
    "image_to_image": "image to image",
    "chance": "chance",
    "color_histogram": "colour histogram",
    "oracle": "oracle ceiling",
    "wording": "other wording",
    "wording_oracle": "- its ceiling",
    "compositions": "unseen outfits",
    "compositions_oracle": "- its ceiling",
    "occluded": "partly hidden",
    "occluded_oracle": "- its ceiling",
    "short": "short queries",
    "short_oracle": "- its ceiling",
}


# --- protocols --------------------------------------------------------------------------------------------------


def text_to_image(texts: Array, images: Array, samples: Sequence[Sample]) -> dict[str, Any]:
    """The standard protocol: every caption is a query, every image is in the gallery once, its own image included.

    texts: (Q, D) unit rows, the captions of all samples in order. images: (G, D) unit rows, one for each sample.
    """
    queries, gallery = _pids(samples)
    return _result(query_outcomes(lambda rows: texts[rows] @ images.T, queries, gallery), queries)


def text_to_image_of(similarity: Array, samples: Sequence[Sample]) -> dict[str, Any]:
    """The standard protocol for a similarity (Q, G) that is at hand."""
    return _ranked(similarity, *_pids(samples))


def cross_view(texts: Array, images: Array, samples: Sequence[Sample]) -> dict[str, Any] | None:
    """As `text_to_image`, but a caption's gallery holds no image from its own camera and none from its own view.

    After the spirit of CrossRe-ID. None unless every sample names its camera and view.
    """
    if any(sample.camera is None or sample.view is None for sample in samples):
        return None
    queries, gallery = _pids(samples)
    origin = np.repeat(np.arange(len(samples)), [len(sample.captions) for sample in samples])  # (Q,) sample written for
    cameras, views = _codes([s.camera for s in samples]), _codes([s.view for s in samples])

    def drop(rows: slice) -> Array:
        own = origin[rows]
        shared: Array = (cameras[own, None] == cameras) | (views[own, None] == views)
        return shared

    return _result(query_outcomes(lambda rows: texts[rows] @ images.T, queries, gallery, drop=drop), queries)


def image_to_image(images: Array, samples: Sequence[Sample]) -> dict[str, Any]:
    """Every image searches all others; with cameras known, its own person is only sought in other cameras."""
    pids = np.array([sample.pid for sample in samples])
    cameras = _codes([sample.camera for sample in samples])
    everyone = np.arange(len(samples))

    def drop(rows: slice) -> Array:
        own: Array = everyone[rows, None] == everyone
        here: Array = (cameras[rows, None] == cameras) & (cameras[rows, None] >= 0)
        hidden: Array = own | (here & (pids[rows, None] == pids))
        return hidden

    return _result(query_outcomes(lambda rows: images[rows] @ images.T, pids, pids, drop=drop), pids)


def oracle(samples: Sequence[Sample]) -> dict[str, float] | None:
    """What a perfect reader of each caption's facts could reach; None where the dataset does not list them."""
    if any(sample.facts is None for sample in samples):
        return None
    facts = [fact for sample in samples for fact in sample.facts or ()]
    return _ceiling(facts, _pids(samples)[0], samples)


def further_protocols(
    encoder: Encoder, samples: Sequence[Sample], images: Array, known: Mapping[str, Array]
) -> dict[str, Any]:
    """The protocols of model.synth.protocols by name, and "<name>_oracle" for each: whole gallery, other queries.

    images: (G, D) unit rows, one for each sample. known: (D,) unit rows of texts that need not be embedded again.
    """
    from model.synth.protocols import PROTOCOLS  # loads no renderer

    gallery = _pids(samples)[1]
    result: dict[str, Any] = {}
    for name, queries_of in PROTOCOLS.items():
        queries = queries_of(samples)
        result[name] = result[f"{name}_oracle"] = None
        if queries is None:
            continue
        pids = np.array(queries.pids)
        if encoder.has_text:
            new = [text for text in dict.fromkeys(queries.texts) if text not in known]
            rows = {**known, **dict(zip(new, encoder.embed_texts(new), strict=True))} if new else known
            similarity = np.stack([rows[text] for text in queries.texts]) @ images.T  # (Q, G)
            result[name] = _ranked(similarity, pids, gallery)
        if queries.facts is not None:
            result[f"{name}_oracle"] = _ceiling(queries.facts, pids, samples)
    return result


# --- parts ------------------------------------------------------------------------------------------------------


def _ceiling(
    facts: Sequence[Mapping[str, Collection[str]]], queries: Array, samples: Sequence[Sample]
) -> dict[str, float] | None:
    """The perfect reader of ``facts``, one entry for each person in ``queries``, over the whole gallery."""
    if any(sample.attributes is None or sample.visible is None for sample in samples):
        return None
    from model.synth.attributes import Attributes  # rendered sets only; nothing else needs the optional package
    from model.synth.oracle import oracle_ceiling

    attributes = [Attributes(**(sample.attributes or {})) for sample in samples]
    visible = [sample.visible or () for sample in samples]
    return oracle_ceiling(facts, queries, attributes, visible, _pids(samples)[1])


def _embed_gallery(encoder: Encoder, samples: Sequence[Sample]) -> tuple[Array, Array]:
    """Embeddings (G, D) and colour histograms of all images, decoded a chunk at a time."""
    embeddings, histograms = [], []
    with ThreadPoolExecutor(4) as pool:
        for start in range(0, len(samples), _CHUNK):
            images = list(pool.map(open_image, [sample.path for sample in samples[start : start + _CHUNK]]))
            embeddings.append(encoder.embed_images(images))
            histograms += [color_histogram(image) for image in images]
    return np.concatenate(embeddings), np.stack(histograms)


def _first_results(
    texts: Array, images: Array, samples: Sequence[Sample], count: int
) -> list[tuple[str, list[tuple[Path, bool]]]]:
    """Some captions, each with the images it ranks first and whether they show the person it was written for."""
    queries = [(caption, sample.pid) for sample in samples for caption in sample.captions]
    found = []
    for q in some(range(len(queries)), count):
        caption, pid = queries[q]
        best = np.argsort(-(images @ texts[q]), kind="stable")[:RESULTS]
        found.append((caption, [(samples[g].path, samples[g].pid == pid) for g in best]))
    return found


def _pids(samples: Sequence[Sample]) -> tuple[Array, Array]:
    """(Q,) the person of every caption, (G,) the person of every image."""
    gallery = np.array([sample.pid for sample in samples])
    return np.repeat(gallery, [len(sample.captions) for sample in samples]), gallery


def _ranked(similarity: Array, queries: Array, gallery: Array) -> dict[str, Any]:
    """The whole gallery (G,) persons, searched for (Q,) persons by a similarity (Q, G)."""
    return _result(query_outcomes(lambda rows: similarity[rows], queries, gallery), queries)


def _result(outcomes: QueryOutcomes, query_pids: Array) -> dict[str, Any]:
    """Flat numbers in percent, as tables and JSON show them."""
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


def _codes(values: Sequence[str | None]) -> Array:
    """(N,) one number for each distinct value, -1 for an unknown one, which equals nothing."""
    numbers = {value: n for n, value in enumerate(dict.fromkeys(values)) if value is not None}
    return np.array([-1 if value is None else numbers[value] for value in values])
