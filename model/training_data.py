"""What a run trains and validates on: samples as the recipe wants them, read once, and drawn into batches.

The samplers and the augmentation themselves are in model.batching, the readers in model.datasets; no weights here.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import batching, distributed
from model.batching import CaptionCache, Images
from model.checkpoint import load
from model.datasets import Sample, limit_cameras, limit_identities
from model.errors import TrainingError
from model.evaluate import DATASETS
from model.interface import Batch, Tokens
from model.noise import permute_captions
from model.recipe import Recipe, Stage
from model.runlog import Screen
from model.splits import hold_out_identities
from model.text import TextInput
from model.text import vocabulary as words_of

Array = NDArray[Any]


@dataclass(frozen=True)
class Data:
    """One split, ready to be drawn from. Sample n has captions first_caption[n] .. first_caption[n] + counts[n]."""

    samples: list[Sample]
    images: Images
    captions: CaptionCache | None  # None for a net without a text branch; counts are then 1
    first_caption: Array  # (N,)
    counts: Array  # (N,)
    labels: Tensor  # (N,) training classes 0..num_ids-1
    attributes: Tensor | None  # (N, A)
    modalities: Tensor | None  # (N,) 0 visible, 1 infrared or thermal


def read_splits(recipe: Recipe, root: Path | str, limit_ids: int | None = None) -> tuple[list[Sample], list[Sample]]:
    """Training and validation samples as the recipe wants them. Noise comes into training captions alone."""
    read = DATASETS[recipe.dataset]
    training = read(root, recipe.train_split)
    if recipe.hold_out:
        training, validation = hold_out_identities(training, recipe.hold_out)
    else:
        validation = read(root, "val")
    training = limit_cameras(training, recipe.cameras)
    images = Counter(sample.pid for sample in training)
    training = [sample for sample in training if images[sample.pid] >= recipe.min_images]
    if limit_ids is not None:
        training = limit_identities(training, limit_ids)
    if recipe.caption_noise:
        training, _ = permute_captions(training, recipe.caption_noise, recipe.seed)
    return training, validation


def prepare(
    samples: list[Sample],
    recipe: Recipe,
    text: TextInput | None,
    classes: dict[str, tuple[str, ...]],
    threads: int,
    keep: Path,
    screen: Screen,
    *,
    listed: bool = True,
) -> Data:
    """Decode the images and run the frozen text encoder once, so that a training step is only the net.

    Without ``listed`` the captions are left out: every epoch will bring its own.
    """
    screen.line(f"{len(samples)} images of {len({s.pid for s in samples})} people: preparing images and captions")
    counts = np.array([1 if text is None else len(sample.captions) for sample in samples])
    label_of = {pid: n for n, pid in enumerate(sorted({sample.pid for sample in samples}))}
    captions = None
    if text is not None:
        read = [caption for sample in samples for caption in sample.captions] if listed else []
        with distributed.main_first():
            captions = _captions(read, text, keep, screen)
    return Data(
        samples=samples,
        images=Images(samples, recipe.preprocessing, cache=recipe.cache_images, threads=threads),
        captions=captions,
        first_caption=np.cumsum(counts) - counts,
        counts=counts,
        labels=torch.tensor([label_of[sample.pid] for sample in samples]),
        attributes=batching.attribute_labels(samples, classes) if classes else None,
        modalities=batching.modality_labels(samples),
    )


def _captions(texts: Sequence[str], text: TextInput, keep: Path, screen: Screen) -> CaptionCache:
    """Tokens and states of all captions, from the file of an earlier run over the same captions where there is one."""
    if not texts:
        return CaptionCache(np.zeros(0, np.int32), np.zeros(1, np.int64), None, text.spec.length)
    key = hashlib.sha256(json.dumps([asdict(text.spec), texts]).encode()).hexdigest()[:16]
    path = keep / f"captions-{key}.npz"
    if path.exists():
        with np.load(path) as stored:
            return CaptionCache(stored["ids"], stored["starts"], stored["states"], int(stored["length"]))
    with screen.bar("captions", len(texts)) as advance:
        captions = batching.cache_captions(texts, text, advance=advance)
    if captions.states is not None:  # minutes of work; word pieces alone are quick
        keep.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            np.savez(file, ids=captions.ids, starts=captions.starts, states=captions.states, length=captions.length)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    return captions


def vocabulary(samples: Sequence[Sample], recipe: Recipe, init: Path | str | None = None) -> list[str]:
    """The words of the captions that training reads; of redrawn ones those of a first epoch stand for all.

    A net with a table of words that starts from a checkpoint of such a net keeps the numbers its words have there.
    """
    if recipe.text is None:
        return []
    if init is not None and recipe.text.kind == "words":
        start = load(init).info
        if (start["text"] or {}).get("kind") == "words":
            return list(start["vocabulary"])
    captions = [caption for sample in samples for caption in sample.captions]
    if any(stage.redraw for stage in recipe.stages):
        from model.synth.redraw import redraw

        captions += redraw(samples, recipe.seed, 0)
    return words_of(captions, recipe.text.min_count)


def redrawn(data: Data, text: TextInput | None, seed: int, epoch: int, screen: Screen) -> Data:
    """The same images with one new caption each, written for this epoch; the same ones again when it is resumed."""
    from model.synth.redraw import redraw

    assert text is not None  # a recipe without text has no such stage
    texts = redraw(data.samples, seed, epoch)
    with screen.bar("captions", len(texts)) as advance:
        captions = batching.cache_captions(texts, text, advance=advance)
    each = np.arange(len(texts))
    return replace(data, captions=captions, first_caption=each, counts=np.ones_like(each))


def draw_epoch(
    stage: Stage, counts: Array, people: Sequence[int], attributes: Tensor | None, rng: np.random.Generator
) -> batching.Draws:
    """Sample and caption numbers of every step of one epoch, (steps, B) each.

    counts: (N,) captions of each sample. people: (N,) whom it shows. attributes: (N, A), for twins.
    """
    if stage.sampler == "identities":
        return batching.draw_identities(counts, people, stage.p, stage.k, rng)
    if stage.sampler == "groups":
        return batching.draw_groups(counts, people, stage.p, stage.k, rng)
    if stage.sampler == "twins":
        if attributes is None:
            raise TrainingError('The sampler "twins" needs labelled attributes; choose images, pairs or identities.')
        return batching.draw_twins(counts, attributes.numpy(), stage.batch, stage.k, rng)
    draw = batching.draw_pairs if stage.sampler == "pairs" else batching.draw_images
    return draw(counts, stage.batch, rng)


def make_batch(
    data: Data,
    stage: Stage,
    samples: Array,
    donors: Array,
    captions: Array,
    rng: np.random.Generator,
    weak: tuple[Array, Array] | None = None,
) -> Batch:
    """The augmented batch of (B,) samples, each with a caption of its donor (usually itself), the ``captions``-th.

    weak: images of the same people and the numbers of their captions, (B,) each, for ``Batch.weak``.
    Images are still uint8; they are normalised on the device.
    """

    def read(images: Array, numbers: Array) -> Tokens | None:
        if data.captions is None:
            return None
        tokens = data.captions.tokens(data.first_caption[images] + numbers % data.counts[images])
        if not stage.augmentation.shift_text:
            return tokens
        return batching.shift_tokens(tokens, torch.from_numpy(rng.integers(0, data.captions.length, len(images))))

    tokens = read(donors, captions)
    rows = torch.from_numpy(samples)
    modalities = None if data.modalities is None else data.modalities[rows]
    return Batch(
        images=batching.augment_images(data.images[samples], stage.augmentation, rng, modalities),
        tokens=tokens,
        labels=data.labels[rows],
        attributes=None if data.attributes is None else data.attributes[rows],
        weak=None if weak is None else read(*weak),
        modalities=modalities,
    )
