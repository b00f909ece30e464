"""From samples to training batches: caches, samplers, augmentation, and a window of batches prepared ahead.

All randomness of a step comes from one generator made of (seed, stage, epoch, step): see `generator`. A resumed run
therefore draws exactly what an uninterrupted one would have drawn, with no generator state to store, and batches may be
prepared by several threads in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from model.datasets import DatasetError, Sample, open_image
from model.interface import Tokens
from model.preprocess import Preprocessing, to_pixels
from model.spectrum import Spectrum, augment_spectrum

Array = NDArray[Any]

# Fields of rendered people with an attribute head each, in this order.
ATTRIBUTES = (
    "gender", "upper", "upper_color", "sleeve", "pattern", "lower", "lower_color", "dress", "dress_color", "outer",
    "outer_color", "shoe", "shoe_color", "bag", "bag_color", "hair", "hair_color", "hat", "eyewear", "prop",
)  # fmt: skip


def generator(seed: int, *position: int) -> np.random.Generator:
    """The generator of one place in a run, such as (stage, epoch, step). Independent of every other place."""
    return np.random.default_rng((seed, *position))


# --- images -----------------------------------------------------------------------------------------------------


class Images:
    """Training images at network size: ``images[indices]`` is (B, 3, H, W) uint8.

    Kept as one tensor where ``cache`` (12,000 images of 192 x 64 take 0.44 GB), else decoded when asked for.
    """

    def __init__(self, samples: Sequence[Sample], preprocessing: Preprocessing, *, cache: bool, threads: int) -> None:
        self.paths = [sample.path for sample in samples]
        self.preprocessing = preprocessing
        self.cached: Tensor | None = None
        if cache:
            height, width = preprocessing.height, preprocessing.width
            self.cached = torch.empty((len(samples), 3, height, width), dtype=torch.uint8)
            with ThreadPoolExecutor(threads) as pool:
                for n, pixels in enumerate(pool.map(self._decode, range(len(samples)))):
                    self.cached[n] = pixels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: Array | Sequence[int]) -> Tensor:
        if self.cached is not None:
            return self.cached[torch.as_tensor(indices)]
        return torch.stack([self._decode(int(n)) for n in indices])

    def _decode(self, index: int) -> Tensor:
        return to_pixels(open_image(self.paths[index]), self.preprocessing)


# --- captions ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CaptionCache:
    """Tokens of many captions end to end, without their padding; frozen states in half precision.

    ids: (W,) int32. starts: (N + 1,) int64, caption n is starts[n]..starts[n+1]. states: (W, C) float16 or None.
    """

    ids: Array
    starts: Array
    states: Array | None
    length: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    def tokens(self, captions: Array | Sequence[int]) -> Tokens:
        """The named captions padded to ``length`` again, states as float32."""
        ids = np.zeros((len(captions), self.length), np.int64)
        mask = np.zeros((len(captions), self.length), bool)
        states = None
        if self.states is not None:
            states = np.zeros((len(captions), self.length, self.states.shape[1]), np.float32)
        for row, n in enumerate(captions):
            piece = slice(int(self.starts[n]), int(self.starts[n + 1]))
            words = piece.stop - piece.start
            ids[row, :words] = self.ids[piece]
            mask[row, :words] = True
            if states is not None and self.states is not None:
                states[row, :words] = self.states[piece]
        padded = None if states is None else torch.from_numpy(states)
        return Tokens(torch.from_numpy(ids), torch.from_numpy(mask), padded)


def cache_captions(
    texts: Sequence[str],
    tokenize: Callable[[Sequence[str]], Tokens],
    *,
    batch: int = 64,
    advance: Callable[[int], None] = lambda done: None,
) -> CaptionCache:
    """Run the frozen text encoder once over every caption. ``advance`` hears how many each batch finished."""
    by_length = sorted(range(len(texts)), key=lambda n: len(texts[n]))  # a batch is padded to its longest text
    pieces: dict[int, tuple[Array, Array | None]] = {}
    length = 0
    for start in range(0, len(texts), batch):
        chunk = by_length[start : start + batch]
        tokens = tokenize([texts[n] for n in chunk]).to("cpu")
        length = tokens.ids.shape[1]
        for row, n in enumerate(chunk):
            kept = tokens.mask[row]
            states = None if tokens.states is None else tokens.states[row][kept].half().numpy()
            pieces[n] = (tokens.ids[row][kept].to(torch.int32).numpy(), states)
        advance(len(chunk))
    ids = [pieces[n][0] for n in range(len(texts))]
    all_states = [states for n in range(len(texts)) if (states := pieces[n][1]) is not None]
    starts = np.concatenate([[0], np.cumsum([len(one) for one in ids])]).astype(np.int64)
    return CaptionCache(np.concatenate(ids), starts, np.concatenate(all_states) if all_states else None, length)


# --- attribute labels -------------------------------------------------------------------------------------------


def attribute_classes(samples: Sequence[Sample]) -> dict[str, tuple[str, ...]]:
    """The classes of every attribute head, from training samples; empty where no sample has attributes.

    Where some images are infrared, colours have no head: what both lights have in common is to be learned.
    """
    known = [sample.attributes for sample in samples if sample.attributes is not None]
    if not known:
        return {}
    dark = any(sample.modality not in (None, "visible") for sample in samples)
    names = [name for name in ATTRIBUTES if not (dark and name.endswith("color"))]
    return {name: tuple(sorted({_class(attributes, name) for attributes in known})) for name in names}


def attribute_labels(samples: Sequence[Sample], classes: dict[str, tuple[str, ...]]) -> Tensor:
    """(N, A) int64: the class of each head; -1 where the image does not show it or training never saw the value."""
    labels = torch.full((len(samples), len(classes)), -1, dtype=torch.int64)
    position = {name: {value: n for n, value in enumerate(values)} for name, values in classes.items()}
    for row, sample in enumerate(samples):
        if sample.attributes is None:
            continue
        for column, name in enumerate(classes):
            if sample.visible is None or name in sample.visible:
                labels[row, column] = position[name].get(_class(sample.attributes, name), -1)
    return labels


def _class(attributes: dict[str, Any], name: str) -> str:
    value = attributes.get(name)
    return "none" if value is None else str(value)


def modality_labels(samples: Sequence[Sample]) -> Tensor | None:
    """(N,) int64, 0 visible and 1 infrared or thermal; None unless every sample says what it is."""
    if any(sample.modality is None for sample in samples):
        return None
    return torch.tensor([int(sample.modality != "visible") for sample in samples])


# --- samplers: each gives an epoch as (steps, B) sample numbers and (steps, B) caption numbers within the sample ----

Draws = tuple[Array, Array]


def draw_images(captions: Sequence[int] | Array, batch: int, rng: np.random.Generator) -> Draws:
    """Every image once in random order, each with one of its captions; a last partial batch is dropped."""
    order = rng.permutation(len(captions))
    return _batches(order, _any_caption(order, captions, rng), batch)


def draw_pairs(captions: Sequence[int] | Array, batch: int, rng: np.random.Generator) -> Draws:
    """Every image-caption pair once in random order; a last partial batch is dropped."""
    counts = np.asarray(captions)
    samples = np.repeat(np.arange(len(counts)), counts)
    which = np.concatenate([np.arange(count) for count in counts])
    order = rng.permutation(len(samples))
    return _batches(samples[order], which[order], batch)


def draw_identities(
    captions: Sequence[int] | Array, pids: Sequence[int], p: int, k: int, rng: np.random.Generator
) -> Draws:
    """P identities x K images in a batch, one random caption each; every identity once an epoch.

    An identity with fewer than K images repeats some of them. A last group of fewer than P identities is dropped.
    """
    images: dict[int, list[int]] = {}
    for n, pid in enumerate(pids):
        images.setdefault(pid, []).append(n)
    people = list(images)
    chosen: list[Array] = []
    for person in rng.permutation(len(people)):
        own = images[people[person]]
        turns = np.concatenate([rng.permutation(len(own)) for _ in range(-(-k // len(own)))])[:k]
        chosen.append(np.asarray(own)[turns])
    order = np.concatenate(chosen)  # (people * K,)
    return _batches(order, _any_caption(order, captions, rng), p * k)


def draw_groups(
    captions: Sequence[int] | Array, pids: Sequence[int], p: int, k: int, rng: np.random.Generator
) -> Draws:
    """P identities x K images in a batch, an identity as often as it has K images; one random caption each.

    The images of each identity are shuffled and cut into groups of K, a last smaller group being left out; one with
    fewer than K images in all has a single group, drawn with replacement. P identities at a time then give a group
    each, until fewer than P have one left.
    """
    images: dict[int, list[int]] = {}
    for n, pid in enumerate(pids):
        images.setdefault(pid, []).append(n)
    groups: dict[int, list[Array]] = {}
    for pid, own in images.items():
        if len(own) < k:
            groups[pid] = [rng.choice(own, k)]
        else:
            groups[pid] = list(rng.permutation(own)[: len(own) // k * k].reshape(-1, k))
    chosen: list[Array] = []
    while len(groups) >= p:
        for pid in rng.choice(list(groups), p, replace=False).tolist():
            chosen.append(groups[pid].pop())
            if not groups[pid]:
                del groups[pid]
    order = np.concatenate(chosen) if chosen else np.zeros(0, np.int64)
    return _batches(order, _any_caption(order, captions, rng), p * k)


def draw_twins(
    captions: Sequence[int] | Array, attributes: Array, batch: int, k: int, rng: np.random.Generator, pool: int = 512
) -> Draws:
    """Every image once, in groups of ``k`` that look alike: only their few differences can tell them apart.

    The images come in random order, ``pool`` at a time. Within a pool, one after another takes the k - 1 images left
    that share most known attributes with it. The groups are then shuffled.

    Args:
        attributes: (N, A) class of each attribute, -1 where unknown; unknown ones never agree.
    """
    groups: list[Array] = []
    order = rng.permutation(len(captions))
    for start in range(0, len(order), pool):
        left = order[start : start + pool]
        while len(left) >= k:
            anchor, others = attributes[left[0]], attributes[left[1:]]
            alike = ((others == anchor) & (anchor >= 0)).sum(axis=1)  # (len(left) - 1,)
            nearest = 1 + np.argsort(-alike, kind="stable")[: k - 1]
            chosen = np.concatenate([[0], nearest])
            groups.append(left[chosen])
            left = np.delete(left, chosen)
    rng.shuffle(groups)
    samples = np.concatenate(groups)
    return _batches(samples, _any_caption(samples, captions, rng), batch)


def swap_captions(samples: Array, pids: Sequence[int], share: float, rng: np.random.Generator) -> Array:
    """(steps, B) sample numbers -> the samples whose captions are read: for ``share`` of them another image of the
    same person, where there is one; else the sample itself."""
    images: dict[int, list[int]] = {}
    for n, pid in enumerate(pids):
        images.setdefault(pid, []).append(n)
    donors = samples.copy()
    for place in np.argwhere(rng.random(samples.shape) < share):
        sample = int(samples[tuple(place)])
        others = [n for n in images[pids[sample]] if n != sample]
        if others:
            donors[tuple(place)] = others[int(rng.integers(len(others)))]
    return donors


def draw_weak(samples: Array, captions: Sequence[int] | Array, pids: Sequence[int], rng: np.random.Generator) -> Draws:
    """(steps, B) sample numbers -> for each another image of the same person, and one of that image's captions; the
    image itself where the person has no other."""
    donors = swap_captions(samples, pids, 1.0, rng)
    return donors, _any_caption(donors, captions, rng)


def _any_caption(order: Array, captions: Sequence[int] | Array, rng: np.random.Generator) -> Array:
    chosen: Array = rng.integers(0, np.asarray(captions)[order])
    return chosen


def _batches(samples: Array, captions: Array, batch: int) -> Draws:
    steps = len(samples) // batch
    if not steps:
        raise DatasetError(f"There are {len(samples)} draws an epoch, fewer than one batch of {batch}.")
    return samples[: steps * batch].reshape(steps, batch), captions[: steps * batch].reshape(steps, batch)


# --- augmentation -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Augmentation:
    """What training does to its inputs; probabilities and shares in 0..1. Serving does none of it.

    translate: largest shift as a share of height and width. erase: probability of random erasing of a rectangle whose
    area is within erase_area. brightness: largest relative change of exposure. shift_text: circular shift of captions.
    crop: pixels of gray around the image before it is cut back to its size at a random place. erase_color: what is
    erased becomes this; None for the batch's mean gray. spectrum: what happens to the colours of visible images.
    resized_crop: smallest share of the area that a random crop keeps before it fills the image again; 1 for no crop.
    """

    flip: float = 0.5
    translate: float = 0.0
    erase: float = 0.5
    erase_area: tuple[float, float] = (0.02, 0.4)
    brightness: float = 0.0
    shift_text: bool = True
    crop: int = 0
    erase_color: tuple[int, int, int] | None = None
    spectrum: Spectrum | None = None
    resized_crop: float = 1.0


def augment_images(
    pixels: Tensor, a: Augmentation, rng: np.random.Generator, modalities: Tensor | None = None
) -> Tensor:
    """(B, 3, H, W) uint8 -> the same. What is shifted in, and what is erased unless ``erase_color`` says otherwise,
    becomes the batch's mean gray. modalities: (B,) as in a batch, needed where ``a.spectrum`` is set."""
    batch, _, height, width = pixels.shape
    out = pixels.clone()
    gray = int(pixels.float().mean())
    if a.spectrum is not None:
        assert modalities is not None  # the training loop refuses such a stage
        out = augment_spectrum(out, modalities == 0, a.spectrum, rng)
    flips = torch.from_numpy(rng.random(batch) < a.flip)
    out[flips] = out[flips].flip(3)
    if a.resized_crop < 1:
        for n in range(batch):
            top, left, tall, wide = _rectangle(height, width, (a.resized_crop, 1.0), rng, 4 / 3)
            cut = out[n : n + 1, :, top : top + tall, left : left + wide].float()
            full = F.interpolate(cut, (height, width), mode="bicubic", align_corners=False)
            out[n] = full[0].round_().clamp_(0, 255).to(torch.uint8)
    if a.translate:
        most = (round(a.translate * height), round(a.translate * width))
        moves = np.stack([rng.integers(-m, m + 1, batch) for m in most], axis=1)  # (B, 2): down, right
        for n, (down, right) in enumerate(moves):
            out[n] = _translate(out[n], int(down), int(right), gray)
    if a.crop:
        for n, (down, right) in enumerate(rng.integers(-a.crop, a.crop + 1, (batch, 2))):
            out[n] = _translate(out[n], int(down), int(right), 127)
    if a.brightness:
        gain = torch.from_numpy(rng.uniform(1 - a.brightness, 1 + a.brightness, (batch, 1, 1, 1)).astype(np.float32))
        out = (out.float() * gain).round_().clamp_(0, 255).to(torch.uint8)
    for n in np.flatnonzero(rng.random(batch) < a.erase).tolist():
        top, left, tall, wide = _rectangle(height, width, a.erase_area, rng)
        color = torch.tensor([gray] * 3 if a.erase_color is None else a.erase_color, dtype=torch.uint8)
        out[n, :, top : top + tall, left : left + wide] = color[:, None, None]
    return out


def _translate(image: Tensor, down: int, right: int, fill: int) -> Tensor:
    """(3, H, W) moved by whole pixels; what comes in is ``fill``."""
    moved = torch.full_like(image, fill)
    height, width = image.shape[1:]
    rows, columns = height - abs(down), width - abs(right)
    from_row, from_column, to_row, to_column = max(-down, 0), max(-right, 0), max(down, 0), max(right, 0)
    source = image[:, from_row : from_row + rows, from_column : from_column + columns]
    moved[:, to_row : to_row + rows, to_column : to_column + columns] = source
    return moved


def _rectangle(
    height: int, width: int, area: tuple[float, float], rng: np.random.Generator, aspect: float | None = None
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random rectangle: area share within ``area``, height over width in 0.3..3.3, or
    at most ``aspect`` times more or less than that of the image."""
    lengthen = height / width if aspect else 1.0
    least, most = (1 / aspect, aspect) if aspect else (0.3, 3.3)
    share, ratio = rng.uniform(*area), lengthen * np.exp(rng.uniform(np.log(least), np.log(most)))
    tall = int(np.clip(round(np.sqrt(share * height * width * ratio)), 1, height))
    wide = int(np.clip(round(np.sqrt(share * height * width / ratio)), 1, width))
    return int(rng.integers(0, height - tall + 1)), int(rng.integers(0, width - wide + 1)), tall, wide


def circular_shift(x: Tensor, shifts: Tensor) -> Tensor:
    """Roll each row of x (B, T, ...) along T by its own shift (B,): position t moves to (t + shift) mod T."""
    length = x.shape[1]
    source = (torch.arange(length, device=x.device) - shifts.to(x.device)[:, None]) % length  # (B, T)
    return x[torch.arange(len(x), device=x.device)[:, None], source]


def shift_tokens(tokens: Tokens, shifts: Tensor) -> Tokens:
    """The circular shift of AXM-Net's text augmentation, the same for ids, mask and states."""
    states = None if tokens.states is None else circular_shift(tokens.states, shifts)
    return Tokens(circular_shift(tokens.ids, shifts), circular_shift(tokens.mask, shifts), states)


# --- preparing ahead --------------------------------------------------------------------------------------------


def prepared(make: Callable[[int], Any], steps: range, threads: int) -> Iterator[Any]:
    """``make(step)`` for every step in order, worked on by ``threads`` a little ahead of the consumer."""
    waiting: list[Future[Any]] = []
    upcoming = iter(steps)
    with ThreadPoolExecutor(threads, thread_name_prefix="batches") as pool:
        try:
            for step in upcoming:
                waiting.append(pool.submit(make, step))
                if len(waiting) > 2 * threads:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()
