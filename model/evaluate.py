"""How well a checkpoint finds people: protocols over embeddings, with chance, simple baselines and ceiling beside them.

The protocols themselves are functions of embeddings, in model.retrieval and model.probing. Training and model selection
happen elsewhere: a test split is only ever read here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from model.baselines import chance, color_histogram, color_similarity
from model.checkpoint import CheckpointError, write_atomically
from model.datasets import (
    Sample,
    fingerprint,
    limit_cameras,
    limit_identities,
    open_image,
    read_cuhk_pedes,
    read_icfg_pedes,
    read_rstpreid,
)
from model.datasets_infrared import read_regdb, read_synth_infrared, read_sysu_mm01, regdb_split
from model.encoder import Encoder
from model.probing import Embed, attribute_probe, has_twins, named_attributes, probe_pairs, twin_accuracy
from model.retrieval import (
    among_captions,
    cross_view_fused,
    cross_view_image,
    fuse,
    fused,
    origin_of,
    pair_to_image,
    pids_of,
    ranked,
    search,
)
from model.retrieval import cross_view as cross_view
from model.retrieval import image_to_image as image_to_image
from model.retrieval import text_to_image as text_to_image
from model.retrieval import text_to_image_of as text_to_image_of
from model.retrieval_infrared import TITLES as INFRARED_TITLES
from model.retrieval_infrared import measure, search_across
from model.sheets import RESULTS, result_sheet, save_png, some
from model.splits import CrossViewSplit, read_split

if TYPE_CHECKING:
    from model.synth.attributes import Attributes

Array = NDArray[Any]
_CHUNK = 256  # images decoded and held at a time
_LOW = 64  # pixels: the height of a person some twenty metres from an ordinary camera

# Readers by name; "synth" is for the rendered sets of model.synth, and for labelled images of one's own.
DATASETS: dict[str, Callable[[Path | str, str], list[Sample]]] = {
    "cuhk-pedes": read_cuhk_pedes,
    "icfg-pedes": read_icfg_pedes,
    "rstpreid": read_rstpreid,
    "synth": read_cuhk_pedes,
    "synth-infrared": read_synth_infrared,
    "sysu-mm01": read_sysu_mm01,
    "regdb": read_regdb,
}
_INFRARED = ("synth-infrared", "sysu-mm01", "regdb")


def evaluate(
    checkpoint: Path | str,
    dataset: str,
    root: Path | str,
    split: str = "test",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    json_out: Path | str | None = None,
    sheet: Path | str | None = None,
    sheet_queries: int = 12,
    query_list: Path | str | None = None,
    shifts: int = 0,
    rerank: bool = False,
    cameras: Collection[str] = (),
    limit_ids: int | None = None,
) -> dict[str, Any]:
    """Measure a checkpoint on one split, through the same encoder that serves; all values in percent.

    Returns the protocols "text_to_image", "image_to_image" and "fused" (text and image together), the same three as
    "cross_view", "cross_view_image" and "cross_view_fused", and "low_resolution", the first with all images shrunk to a
    height of 64 pixels; of a net that reads image and text together "text_to_text", "pair_to_pair" and "pair_to_image",
    which with "image_to_image" hold its branches side by side; with rank1/5/10, mean_ap, mean_inp, the 95 % interval of
    Rank-1 over identities, and the number of valid and skipped queries; beside them "chance", "color_histogram" and
    "oracle"; the protocols of `further_protocols`, each with an oracle of its own; and of rendered sets "attributes",
    see `named_attributes`. On a set of twins "twins" adds the share of captions that tell the person from all their
    twins; of a probe set only "attribute_probe" is measured. What the net or the dataset does not allow is None.
    ``json_out`` gets the same; ``sheet`` gets a PNG of ``sheet_queries`` captions with the first ten images that each
    finds.

    query_list: a list that model.splits wrote, of images below ``root``: its queries search its gallery, and of the
    protocols only the first three are measured. shifts: see `Encoder.embed_texts`. rerank: add MSER re-ranking to the
    protocols between visible and infrared images, which datasets of both have: see `model.retrieval_infrared.measure`.
    cameras: measure only on images that these saw, all where none is named. limit_ids: only on the first so many
    people.

    Raises:
        ValueError: unknown dataset or device. DatasetError, CheckpointError: with a sentence that says what to do.
    """
    if dataset not in DATASETS:
        raise ValueError(f"There is no dataset {dataset!r}; choose one of {', '.join(DATASETS)}.")
    listed = None if query_list is None else read_split(query_list, root)
    if listed is not None:
        queries, gallery, split = listed.query, listed.gallery, listed.style
    else:
        reader = partial(read_cuhk_pedes, wordless=True) if dataset == "synth" else DATASETS[dataset]
        chosen = limit_cameras(reader(root, split), cameras)
        queries = gallery = tuple(chosen if limit_ids is None else limit_identities(chosen, limit_ids))
    encoder = Encoder(checkpoint, device)
    if rerank and (dataset not in _INFRARED or listed is not None):
        raise ValueError(f"MSER re-ranks between visible and infrared images: of {', '.join(_INFRARED)} only.")
    if dataset == "regdb":
        _refuse_other_trial(encoder, split)
    if sheet is not None and not encoder.has_text:
        raise CheckpointError(
            f"{checkpoint} reads no descriptions, so there are no queries to draw; leave out --sheet."
        )
    embed = partial(encoder.embed_texts, shifts=shifts) if encoder.has_text else None
    captions = [caption for sample in queries for caption in sample.captions]
    texts = embed(captions) if embed is not None and captions else None
    images, histograms = _embed_gallery(encoder, gallery)
    result = {
        "checkpoint": encoder.checkpoint_id,
        "net": encoder.info["net"],
        "dataset": dataset,
        "split": split,
        "shifts": shifts,
    }
    if listed is not None:
        result |= _measure_list(listed, texts, _embed_gallery(encoder, queries)[0], images)
    else:
        result |= _measure_split(queries, embed, texts, images, histograms)
        if texts is not None and result["text_to_image"] is not None:
            small, _ = _embed_gallery(encoder, gallery, _LOW)
            result["low_resolution"] = text_to_image(texts, small, queries)
            if encoder.has_pairs:
                pairs = _embed_pairs(encoder, queries)
                result["text_to_text"] = among_captions(texts, queries)
                result["pair_to_pair"] = among_captions(pairs, queries)
                result["pair_to_image"] = pair_to_image(pairs, images, queries)
    if dataset in _INFRARED and listed is None and len({sample.modality for sample in gallery}) > 1:
        versions = _embed_channels(encoder, gallery, images) if rerank else None
        result |= measure(dataset, root, images, gallery, versions) | _infrared_baselines(gallery, histograms)
    if json_out is not None:
        write_atomically(Path(json_out), (json.dumps(result, indent=2) + "\n").encode())
    if sheet is not None and texts is not None:
        save_png(result_sheet(_first_results(texts, queries, images, gallery, sheet_queries)), sheet)
    return result


def _measure_split(
    samples: Sequence[Sample], embed: Embed | None, texts: Array | None, images: Array, histograms: Array
) -> dict[str, Any]:
    """All protocols that the net and the samples allow; the others are None."""
    result: dict[str, Any] = {"data": fingerprint(samples), **dict.fromkeys(_TITLES)}
    result["attribute_probe"] = None if texts is None else attribute_probe(texts, images, samples)
    result["attributes"] = None if embed is None else named_attributes(embed, images, samples)
    if probe_pairs(samples):
        return result  # its captions say one thing each: nobody could find a person by them
    if any(sample.camera is not None for sample in samples):
        result["image_to_image"] = image_to_image(images, samples)
        result["cross_view_image"] = cross_view_image(images, samples)
    captions = [caption for sample in samples for caption in sample.captions]
    if not captions:
        return result
    queries, gallery = pids_of(samples)
    result["chance"] = chance(gallery, queries)
    result["color_histogram"] = text_to_image_of(color_similarity(captions, histograms), samples)
    result["oracle"] = oracle(samples)
    if texts is not None:
        result["text_to_image"] = text_to_image(texts, images, samples)
        result["fused"] = fused(texts, images, samples)
        result["cross_view"] = cross_view(texts, images, samples)
        result["cross_view_fused"] = cross_view_fused(texts, images, samples)
    known = {} if texts is None else dict(zip(captions, texts, strict=True))
    result |= further_protocols(embed, samples, images, known)
    if has_twins(samples):
        result |= _twins(texts, images, samples, result)
    return result


def _measure_list(split: CrossViewSplit, texts: Array | None, queries: Array, gallery: Array) -> dict[str, Any]:
    """Text, image, and both to image, as in Table 3 of the AXM-Net paper; queries, gallery: (N, D) of the two lists.

    The captions and images of the query list search the gallery list, nothing of which is left out.
    """
    gallery_pids = pids_of(split.gallery)[1]
    caption_pids, query_pids = pids_of(split.query)
    result: dict[str, Any] = {"data": fingerprint([*split.query, *split.gallery]), **dict.fromkeys(_TITLES)}
    result["image_to_image"] = search(queries, gallery, query_pids, gallery_pids)
    result["chance"] = chance(gallery_pids, caption_pids)
    if texts is not None:
        result["text_to_image"] = search(texts, gallery, caption_pids, gallery_pids)
        both = fuse(texts, queries[origin_of(split.query)])
        result["fused"] = search(both, gallery, caption_pids, gallery_pids)
    return result


def report(result: dict[str, Any], console: Console | None = None) -> None:
    """Print the result of `evaluate` as tables that fit 80 columns."""
    data = result["data"]
    title = (
        f"{result['net']} {result['checkpoint']} on {result['dataset']} {result['split']}\n"
        f"{data['identities']} people, {data['images']} images, {data['captions']} captions"
    )
    table = Table(title=title)
    table.add_column("percent", no_wrap=True)
    for name in ("Rank-1", "95 %", "Rank-5", "Rank-10", "mAP", "mINP"):
        table.add_column(name, justify="right", no_wrap=True)
    notes = []
    for key, title in (_TITLES | INFRARED_TITLES).items():
        row = result.get(key)
        if row is None:
            continue
        spread = f"{row['rank1_low']:.1f}-{row['rank1_high']:.1f}" if "rank1_low" in row else ""
        others = (f"{row[name]:.1f}" for name in ("rank5", "rank10", "mean_ap", "mean_inp"))
        table.add_row(title, f"{row['rank1']:.1f}", spread, *others)
        if row.get("skipped"):
            notes.append(f"{title}: {row['skipped']} queries without a positive were left out.")
        if "twin_accuracy" in row:
            notes.append(f"{title}: {row['twin_accuracy']:.1f} % are told from all of their twins.")
    attributes = result.get("attributes") or {}
    probe = result.get("attribute_probe") or {}
    console = console or Console()
    tables = [*([table] if table.rows else []), *([_attribute_table(attributes, probe)] if attributes or probe else [])]
    console.print(*tables, *notes, sep="\n", highlight=False)


def _attribute_table(attributes: Mapping[str, Mapping[str, float]], probe: Mapping[str, Any]) -> Table:
    table = Table(title="attributes: asked of images by prompts, and in pairs of images (chance 50)")
    table.add_column("percent", no_wrap=True)
    for name in ("named right", "commonest", "images", "right of pair", "pairs"):
        table.add_column(name, justify="right", no_wrap=True)
    pairs = probe.get("attributes", {})
    for name in dict.fromkeys([*attributes, *pairs]):
        asked, pair = attributes.get(name), pairs.get(name)
        left = [f"{asked['accuracy']:.1f}", f"{asked['majority']:.1f}", str(asked["count"])] if asked else [""] * 3
        table.add_row(name, *left, *([f"{pair['accuracy']:.1f}", str(pair["count"])] if pair else []))
    if probe:
        table.add_row("mean of pairs", "", "", "", f"{probe['mean']:.1f}", str(probe["count"]))
    return table


_TITLES = {
    "text_to_image": "text to image",
    "image_to_image": "image to image",
    "fused": "both to image",
    "pair_to_image": "pair to image",
    "pair_to_pair": "pair to pair",
    "text_to_text": "text to text",
    "cross_view": "text, cross view",
    "cross_view_image": "image, cross view",
    "cross_view_fused": "both, cross view",
    "low_resolution": "64 pixels high",
    "chance": "chance",
    "color_histogram": "colour histogram",
    "oracle": "oracle ceiling",
    "wording": "other wording",
    "wording_oracle": "- its ceiling",
    "phrasing": "other phrasing",
    "phrasing_oracle": "- its ceiling",
    "compositions": "unseen outfits",
    "compositions_oracle": "- its ceiling",
    "occluded": "partly hidden",
    "occluded_oracle": "- its ceiling",
    "short": "short queries",
    "short_oracle": "- its ceiling",
    "twins": "among twins",
    "twins_oracle": "- its ceiling",
}
"""Keys of results that are rows of the table, in its order."""


# --- protocols that need a perfect reader beside them -----------------------------------------------------------


def oracle(samples: Sequence[Sample]) -> dict[str, float] | None:
    """What a perfect reader of each caption's facts could reach; None where the dataset does not list them."""
    if any(sample.facts is None for sample in samples):
        return None
    facts = [fact for sample in samples for fact in sample.facts or ()]
    return _ceiling(facts, pids_of(samples)[0], samples)


def further_protocols(
    embed: Embed | None, samples: Sequence[Sample], images: Array, known: Mapping[str, Array]
) -> dict[str, Any]:
    """The protocols of model.synth.protocols by name, and "<name>_oracle" for each: whole gallery, other queries.

    embed: None for a net that reads nothing. images: (G, D) unit rows, one for each sample. known: (D,) unit rows of
    texts that need not be embedded again.
    """
    from model.synth.protocols import PROTOCOLS  # loads no renderer

    gallery = pids_of(samples)[1]
    result: dict[str, Any] = {}
    for name, queries_of in PROTOCOLS.items():
        queries = queries_of(samples)
        result[name] = result[f"{name}_oracle"] = None
        if queries is None:
            continue
        pids = np.array(queries.pids)
        if embed is not None:
            new = [text for text in dict.fromkeys(queries.texts) if text not in known]
            rows = {**known, **dict(zip(new, embed(new), strict=True))} if new else known
            similarity = np.stack([rows[text] for text in queries.texts]) @ images.T  # (Q, G)
            result[name] = ranked(similarity, pids, gallery)
        if queries.facts is not None:
            result[f"{name}_oracle"] = _ceiling(queries.facts, pids, samples)
    return result


def _twins(
    texts: Array | None, images: Array, samples: Sequence[Sample], standard: Mapping[str, Any]
) -> dict[str, Any]:
    """The standard results again, with the share of captions that tell the right person from all of their twins."""
    found: dict[str, Any] = {"twins": None, "twins_oracle": None}
    if texts is not None:
        found["twins"] = {**standard["text_to_image"], "twin_accuracy": twin_accuracy(texts @ images.T, samples)}
    if standard["oracle"] is not None:
        from model.synth.oracle import readable, reading

        facts = [fact for sample in samples for fact in sample.facts or ()]
        shown = zip(*_looks(samples), _moments(samples), strict=True)
        seen = [readable(look, visible, *moment) for look, visible, moment in shown]
        told = twin_accuracy(-reading(facts, seen), samples)
        found["twins_oracle"] = {**standard["oracle"], "twin_accuracy": told}
    return found


# --- parts ------------------------------------------------------------------------------------------------------


def _ceiling(
    facts: Sequence[Mapping[str, Collection[str]]], queries: Array, samples: Sequence[Sample]
) -> dict[str, float] | None:
    """The perfect reader of ``facts``, one entry for each person in ``queries``, over the whole gallery."""
    if any(sample.attributes is None or sample.visible is None for sample in samples):
        return None
    from model.synth.oracle import oracle_ceiling  # rendered sets only

    return oracle_ceiling(facts, queries, *_looks(samples), pids_of(samples)[1], gallery_moments=_moments(samples))


def _looks(samples: Sequence[Sample]) -> tuple[list[Attributes], list[Collection[str]]]:
    """Whom each image of a rendered set shows, and which fields can be read off it."""
    from model.synth.attributes import Attributes

    return [Attributes(**(s.attributes or {})) for s in samples], [s.visible or () for s in samples]


def _moments(samples: Sequence[Sample]) -> list[tuple[str | None, str | None]]:
    """The side that each image shows, and what the person does."""
    return [(sample.view, sample.activity) for sample in samples]


def _embed_gallery(encoder: Encoder, samples: Sequence[Sample], height: int | None = None) -> tuple[Array, Array]:
    """Embeddings (G, D) and colour histograms of all images, decoded a chunk at a time; none higher than ``height``."""

    def read(path: Path) -> Image.Image:
        image = open_image(path)
        if height is None or image.height <= height:
            return image
        return image.resize((max(1, round(image.width * height / image.height)), height), Image.Resampling.BOX)

    embeddings, histograms = [], []
    with ThreadPoolExecutor(4) as pool:
        for start in range(0, len(samples), _CHUNK):
            images = list(pool.map(read, [sample.path for sample in samples[start : start + _CHUNK]]))
            embeddings.append(encoder.embed_images(images))
            histograms += [color_histogram(image) for image in images]
    return np.concatenate(embeddings), np.stack(histograms)


def _embed_pairs(encoder: Encoder, samples: Sequence[Sample]) -> Array:
    """(Q, D): every caption read together with its own image, a chunk of images at a time."""
    rows = []
    for start in range(0, len(samples), _CHUNK):
        chunk = samples[start : start + _CHUNK]
        images = [open_image(sample.path) for sample in chunk]
        said = [(image, caption) for image, s in zip(images, chunk, strict=True) for caption in s.captions]
        rows.append(encoder.embed_pairs([image for image, _ in said], [caption for _, caption in said]))
    return np.concatenate(rows)


def _embed_channels(encoder: Encoder, samples: Sequence[Sample], images: Array) -> Array:
    """(4, N, D) rows of all images as they are, and of visible ones with R, G or B alone in all three channels."""
    versions = np.stack([images] * 4)
    visible = [n for n, sample in enumerate(samples) if sample.modality == "visible"]
    for start in range(0, len(visible), _CHUNK):
        chunk = visible[start : start + _CHUNK]
        for band in range(3):
            alone = (open_image(samples[n].path).getchannel(band) for n in chunk)
            versions[1 + band, chunk] = encoder.embed_images([Image.merge("RGB", [one] * 3) for one in alone])
    return versions


def _infrared_baselines(samples: Sequence[Sample], histograms: Array) -> dict[str, Any]:
    """What luck and likeness of colours find, mean of both ways over whole galleries."""
    flat = histograms.reshape(len(samples), -1)
    rows = flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(min=1e-12)
    ways = list(search_across(rows, samples).values())
    pids = {
        visible: [sample.pid for sample in samples if (sample.modality == "visible") is visible]
        for visible in (True, False)
    }
    lucky = [chance(pids[way], pids[not way]) for way in (True, False)]
    return {
        "infrared_chance": {name: (lucky[0][name] + lucky[1][name]) / 2 for name in lucky[0]},
        "infrared_histogram": {name: (ways[0][name] + ways[1][name]) / 2 for name in lucky[0]},
    }


def _refuse_other_trial(encoder: Encoder, split: str) -> None:
    """People of a trial's test half are in the training half of other trials."""
    recipe = encoder.info.get("recipe") or {}
    side, trial = regdb_split(split)
    if recipe.get("dataset") != "regdb" or side != "test":
        return
    if (own := regdb_split(recipe["train_split"])[1]) != trial:
        raise CheckpointError(
            f"This checkpoint was trained on train_{own} of RegDB, where people of test_{trial} are: measure it on "
            f"test_{own}, and train one for each trial."
        )


def _first_results(
    texts: Array, queries: Sequence[Sample], images: Array, gallery: Sequence[Sample], count: int
) -> list[tuple[str, list[tuple[Path, bool]]]]:
    """Some captions, each with the images it ranks first and whether they show the person it was written for."""
    captions = [(caption, sample.pid) for sample in queries for caption in sample.captions]
    found = []
    for q in some(range(len(captions)), count):
        caption, pid = captions[q]
        best = np.argsort(-(images @ texts[q]), kind="stable")[:RESULTS]
        found.append((caption, [(gallery[g].path, gallery[g].pid == pid) for g in best]))
    return found
