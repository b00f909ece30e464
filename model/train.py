"""The training loop: recipe and data in, checkpoint out. One loop for every net; it never asks for a net's name.

A run folder holds best.safetensors (the weights that did best on validation identities, never on test), state.pt (all
that an exact resume needs), log.jsonl, TensorBoard events and the cached token states of captions. On a CPU a killed
and resumed run ends with the same bits as an uninterrupted one.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model import batching, distributed
from model.batching import CaptionCache, Images
from model.calibration import bands
from model.checkpoint import load, save, write_atomically
from model.datasets import Sample, fingerprint, limit_cameras, limit_identities
from model.encoder import pick_device
from model.errors import ModelError
from model.evaluate import DATASETS, image_to_image, text_to_image
from model.interface import Batch, Net, TextNet, Tokens
from model.nets import build
from model.noise import permute_captions
from model.preprocess import normalize
from model.recipes import Recipe, Stage, to_dict
from model.retrieval_infrared import search_across
from model.runlog import RunLog, Screen
from model.splits import hold_out_identities
from model.text import TextInput, load_text
from model.text import vocabulary as words_of

Array = NDArray[Any]
Precision = Literal["fp32", "bf16"]
BEST, STATE = "best.safetensors", "state.pt"
_EVAL_BATCH = 128


class TrainingError(ModelError):
    """Training cannot start or go on. The message says why and what to do."""


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


@dataclass
class Position:
    """Where a run stands: what it does next, and the best validation so far. ``stage`` counts within the recipe."""

    stage: int = 0
    epoch: int = 0
    step: int = 0
    global_step: int = 0
    best: float = -1.0


@dataclass(frozen=True)
class Saving:
    """How often the state is saved within an epoch, and after which global step the run stops, saved."""

    minutes: float
    steps: int | None
    stop_at: float


class Run:
    """All state of a run under way, on disk at any time as ``STATE``."""

    def __init__(
        self, recipe: Recipe, out: Path, net: Net, info: dict[str, Any], device: torch.device, precision: Precision
    ) -> None:
        assert isinstance(net, nn.Module)
        self.recipe, self.out, self.info, self.device, self.precision = recipe, out, info, device, precision
        self.net: Any = distributed.synchronize_batch_norm(net, device).to(device)
        self.parallel: Any = self.net  # what a step calls: with several processes, the net wrapped
        # The running mean of the weights is what is validated and kept; without one it is the net itself.
        self.average: Any = copy.deepcopy(self.net) if recipe.average else self.net
        self.position = Position()
        self.optimizer: torch.optim.Optimizer | None = None  # None between stages
        self.losses: dict[str, float] = {}  # of the last step, for the eye
        self.saved_at = time.monotonic()
        self._optimizer_state: dict[str, Any] | None = None

    def begin_stage(self, stage: Stage) -> None:
        self.net.begin_stage(stage.number)
        self.parallel = distributed.parallel(self.net)
        groups = self.net.param_groups(stage.lr)
        if stage.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(groups, stage.lr, stage.momentum, weight_decay=stage.weight_decay)
        elif stage.optimizer == "adam":  # its weight decay is that of SGD, part of the gradient
            self.optimizer = torch.optim.Adam(groups, stage.lr, stage.betas, stage.eps, stage.weight_decay)
        else:
            self.optimizer = torch.optim.AdamW(groups, stage.lr, stage.betas, stage.eps, stage.weight_decay)
        for group in self.optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        if self._optimizer_state is not None:
            self.optimizer.load_state_dict(self._optimizer_state)
            self._optimizer_state = None

    def save_state(self) -> None:
        if distributed.rank() > 0:
            return
        state = {
            "run": _identity(self.info),
            "position": asdict(self.position),
            "net": self.net.state_dict(),
            "average": self.average.state_dict() if self.average is not self.net else None,
            "optimizer": self.optimizer.state_dict() if self.optimizer is not None else None,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.out / STATE, buffer.getvalue())
        self.saved_at = time.monotonic()

    def load_state(self) -> None:
        path = self.out / STATE
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file
            raise TrainingError(f"{path} cannot be read ({error}). Start again in another folder.") from error
        if state["run"] != _identity(self.info):
            raise TrainingError(
                f"{self.out} holds a run of another recipe or other data. Resume it with what it was started with, or "
                f"give another folder."
            )
        self.net.load_state_dict(state["net"])
        if state["average"] is not None:
            self.average.load_state_dict(state["average"])
        self.position = Position(**state["position"])
        self._optimizer_state = state["optimizer"]


def train(
    recipe: Recipe,
    data_root: Path | str,
    out: Path | str,
    *,
    resume: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int | None = None,
    init: Path | str | None = None,
    limit_ids: int | None = None,
    progress: bool = True,
    stop_after_steps: int | None = None,
    precision: Precision | None = None,
    save_minutes: float = 5.0,
    save_steps: int | None = None,
    cache: Path | str | None = None,
) -> Path:
    """Train and return the path of the best checkpoint.

    Started in several processes (`accelerate launch`), they share every batch and make the steps of a single one.

    Args:
        data_root: a folder in the layout that ``recipe.dataset`` names.
        out: the run's folder. With ``resume`` a run found there goes on from its last saved state.
        threads: of torch and of decoding; None leaves torch's own setting alone. Another number, other last bits.
        init: a checkpoint whose tensors of the same name and shape are the starting point.
        limit_ids: use only so many training identities.
        stop_after_steps: save the state and stop after so many steps of this call, perhaps before any checkpoint.
        precision: float32 or bfloat16 autocast; None is bf16 on CUDA and fp32 elsewhere. On a CPU with bfloat16
            instructions bf16 is 1.6 times as fast (measured on AVX512_BF16); without them it is slower.
        save_minutes, save_steps: how often the state is saved within an epoch; it always is at the end of one.
        cache: folder where the token states of captions are kept for other runs; None is ``out``.

    Raises:
        TrainingError, DatasetError, CheckpointError, ValueError: with a sentence that says what to do.
    """
    place = distributed.join(pick_device(device))
    main = distributed.rank() == 0
    out, screen = Path(out), Screen(progress and main)
    _check_processes(recipe)
    if (out / STATE).exists() and not resume:
        raise TrainingError(f"{out} already holds a run. Resume it, or give another folder.")
    out.mkdir(parents=True, exist_ok=True)
    if threads is not None:
        torch.set_num_threads(threads)
    workers = threads or min(4, os.cpu_count() or 1)

    train_samples, val_samples = read_splits(recipe, data_root, limit_ids)
    known = vocabulary(train_samples, recipe, init)
    text = None if recipe.text is None else load_text(recipe.text, place, known)
    classes = batching.attribute_classes(train_samples)
    keep = Path(cache) if cache is not None else out
    listed = not all(stage.redraw for stage in recipe.stages)
    training = prepare(train_samples, recipe, text, classes, workers, keep, screen, listed=listed)
    validation = prepare(val_samples, recipe, text, {}, workers, keep, screen)

    if training.modalities is None and any(stage.augmentation.spectrum for stage in recipe.stages):
        raise TrainingError(
            f"Recipe {recipe.name} treats visible and infrared images differently, and these samples do not say which "
            f"they are: train on sysu-mm01, regdb or a rendered infrared set (dataset=synth-infrared)."
        )
    net, net_config = _start(recipe, training, classes, known, init)
    info = {
        "net": recipe.net,
        "net_config": net_config,
        "preprocessing": recipe.preprocessing,
        "text": recipe.text,
        "recipe": to_dict(recipe),
        "data": {"train": fingerprint(train_samples), "val": fingerprint(val_samples)},
        "vocabulary": known,
    }
    precision = precision or ("bf16" if place.type == "cuda" else "fp32")
    if precision == "bf16" and place.type == "cpu":
        # Some machines announce AMX tiles and crash on them. oneDNN reads this once, at its first bfloat16 kernel.
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    run = Run(recipe, out, net, info, place, precision)
    if (out / STATE).exists():
        run.load_state()
    stop_at = math.inf if stop_after_steps is None else run.position.global_step + stop_after_steps
    saving = Saving(save_minutes, save_steps, stop_at)

    with RunLog(out, run.position.global_step) if main else nullcontext() as log:
        while run.position.stage < len(recipe.stages) and run.position.global_step < stop_at:
            stage = recipe.stages[run.position.stage]
            run.begin_stage(stage)
            while run.position.epoch < stage.epochs and run.position.global_step < stop_at:
                data = redrawn(training, text, run, screen) if stage.redraw else training
                if train_epoch(run, stage, data, saving, workers, log, screen):
                    finish_epoch(run, stage, validation, log, screen)
            if run.position.epoch == stage.epochs:
                run.position.stage, run.position.epoch, run.optimizer = run.position.stage + 1, 0, None
                run.save_state()
    return out / BEST


def train_epoch(
    run: Run, stage: Stage, data: Data, saving: Saving, workers: int, log: RunLog | None, screen: Screen
) -> bool:
    """The rest of the current epoch. False when stopped before its end, with the state saved."""
    recipe, position = run.recipe, run.position
    rng = batching.generator(recipe.seed, position.stage, position.epoch)
    samples, captions = draw_epoch(stage, data, rng)
    donors = batching.swap_captions(samples, data.labels.tolist(), stage.weak_positives, rng)
    weak = batching.draw_weak(samples, data.counts, data.labels.tolist(), rng) if stage.weak_captions else None
    steps = len(samples)
    optimizer = run.optimizer
    assert optimizer is not None
    run.net.train()

    def make(step: int) -> tuple[Batch, float]:
        rng = batching.generator(recipe.seed, position.stage, position.epoch, step)
        others = None if weak is None else (weak[0][step], weak[1][step])
        return make_batch(data, stage, samples[step], donors[step], captions[step], rng, others), rng.random()

    batches = batching.prepared(make, range(position.step, steps), workers)
    with screen.bar(f"stage {stage.number}, epoch {position.epoch + 1}/{stage.epochs}", steps) as advance:
        advance(position.step)
        for batch, draw in batches:
            torch.manual_seed(int(draw * 2**53))  # for what is random inside a net
            rate = rate_factor(stage, position.epoch * steps + position.step, steps)
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate
            run.losses = train_step(run, optimizer, batch)
            position.step += 1
            position.global_step += 1
            if run.average is not run.net:
                update_average(run.average, run.net, recipe.average, position.global_step)
            here = {"stage": stage.number, "epoch": position.epoch + 1}
            if log is not None:
                log.write("step", position.global_step, **here, lr=stage.lr * rate, loss=run.losses)
            advance(1)
            if position.step == steps:
                break  # the end of an epoch is saved after its validation
            stopping = position.global_step >= saving.stop_at
            due = saving.steps is not None and position.global_step % saving.steps == 0
            if stopping or due or time.monotonic() - run.saved_at > 60 * saving.minutes:
                run.save_state()
            if stopping:
                return False
    return True


def train_step(run: Run, optimizer: torch.optim.Optimizer, batch: Batch) -> dict[str, float]:
    """One update of the weights; the losses as the net named and weighted them."""
    batch = distributed.own_rows(batch)
    images = normalize(batch.images.to(run.device), run.recipe.preprocessing).to(memory_format=torch.channels_last)
    batch = replace(
        batch,
        images=images,
        tokens=None if batch.tokens is None else batch.tokens.to(run.device),
        labels=batch.labels.to(run.device),
        attributes=None if batch.attributes is None else batch.attributes.to(run.device),
        weak=None if batch.weak is None else batch.weak.to(run.device),
        modalities=None if batch.modalities is None else batch.modalities.to(run.device),
    )
    with torch.autocast(run.device.type, torch.bfloat16, enabled=run.precision == "bf16"):
        losses = run.parallel(batch, run.position.epoch)
    total: Tensor = sum(losses.values(), torch.zeros((), device=run.device))
    optimizer.zero_grad()
    total.backward()  # type: ignore[no-untyped-call]
    if run.recipe.clip_norm:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], run.recipe.clip_norm)
    named = {name: float(loss.detach()) for name, loss in losses.items()}
    if not math.isfinite(sum(named.values())):
        raise TrainingError(
            f"The loss is no longer finite at step {run.position.global_step}: {named}. Lower the learning rate "
            f"(stages.{run.position.stage}.lr) and start again."
        )
    optimizer.step()
    return named


def finish_epoch(run: Run, stage: Stage, validation: Data, log: RunLog | None, screen: Screen) -> None:
    """Validate, keep the best weights, and save the state at the start of the next epoch."""
    position = run.position
    position.epoch, position.step = position.epoch + 1, 0
    due = position.epoch == stage.epochs or position.epoch % run.recipe.validate_every == 0
    if due and log is not None:
        images, texts = embed(run.average, validation, run.device)
        results = validate(images, texts, validation.samples)
        score = results["rank1"] + results["mean_ap"]
        log.write("validation", position.global_step, stage=stage.number, epoch=position.epoch, **results)
        losses = ", ".join(f"{name} {value:.2f}" for name, value in run.losses.items())
        shown = ", ".join(f"{name} {value:.1f}" for name, value in results.items())
        screen.line(f"stage {stage.number}, epoch {position.epoch}/{stage.epochs}: loss {losses}; validation {shown}")
        if score > position.best:
            position.best = score
            judged = bands(texts, images, validation.samples)
            kept = {"stage": stage.number, "epoch": position.epoch, **results, "bands": judged}
            save(run.out / BEST, run.average, {**run.info, "validation": kept}, half=True, heads=False)
    run.save_state()


def embed(net: Any, data: Data, device: torch.device) -> tuple[Array, Array | None]:
    """Unit rows of all images (G, D) and captions (Q, D), None for a net without text. Same precision as in serving."""
    net.eval()
    images, texts = [], []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        for chunk in _chunks(len(data.samples)):
            pixels = normalize(data.images[chunk].to(device), data.images.preprocessing)
            images.append(net.encode_image(pixels.to(memory_format=torch.channels_last)).float().cpu().numpy())
        if isinstance(net, TextNet) and data.captions is not None:
            texts = [
                net.encode_text(data.captions.tokens(chunk).to(device)).float().cpu().numpy()
                for chunk in _chunks(len(data.captions))
            ]
    return np.concatenate(images), np.concatenate(texts) if texts else None


def validate(images: Array, texts: Array | None, samples: Sequence[Sample]) -> dict[str, float]:
    """Retrieval on validation people, in percent: text to image, and image to image under image_*.

    A net without a text branch is judged by image to image alone; where images of two modalities are known, by the
    mean of what either finds in the other.
    """
    if texts is None and (across := search_across(images, samples)):
        ways = [_scores(way) for way in across.values()]
        return {name: sum(way[name] for way in ways) / len(ways) for name in ways[0]}
    from_image = image_to_image(images, samples)
    if texts is None:
        return _scores(from_image)
    from_text = text_to_image(texts, images, samples)
    return _scores(from_text) | {f"image_{name}": from_image[name] for name in ("rank1", "mean_ap")}


def _scores(results: dict[str, Any]) -> dict[str, float]:
    return {name: results[name] for name in ("rank1", "rank5", "rank10", "mean_ap", "mean_inp")}


def _chunks(count: int) -> Iterator[Array]:
    for start in range(0, count, _EVAL_BATCH):
        yield np.arange(start, min(start + _EVAL_BATCH, count))


# --- data -------------------------------------------------------------------------------------------------------


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


def redrawn(data: Data, text: TextInput | None, run: Run, screen: Screen) -> Data:
    """The same images with one new caption each, written for this epoch; the same ones again when it is resumed."""
    from model.synth.redraw import redraw

    assert text is not None  # a recipe without text has no such stage
    texts = redraw(data.samples, run.recipe.seed, run.position.epoch)
    # Read in the precision of the run: twice as fast in bfloat16, and the net never sees these captions again.
    half = torch.autocast(run.device.type, torch.bfloat16, enabled=run.precision == "bf16")
    with screen.bar("captions", len(texts)) as advance, half:
        captions = batching.cache_captions(texts, text, advance=advance)
    each = np.arange(len(texts))
    return replace(data, captions=captions, first_caption=each, counts=np.ones_like(each))


def draw_epoch(stage: Stage, data: Data, rng: np.random.Generator) -> batching.Draws:
    """Sample and caption numbers of every step of one epoch, (steps, B) each."""
    if stage.sampler == "identities":
        return batching.draw_identities(data.counts, data.labels.tolist(), stage.p, stage.k, rng)
    if stage.sampler == "groups":
        return batching.draw_groups(data.counts, data.labels.tolist(), stage.p, stage.k, rng)
    if stage.sampler == "twins":
        if data.attributes is None:
            raise TrainingError('The sampler "twins" needs labelled attributes; choose images, pairs or identities.')
        return batching.draw_twins(data.counts, data.attributes.numpy(), stage.batch, stage.k, rng)
    draw = batching.draw_pairs if stage.sampler == "pairs" else batching.draw_images
    return draw(data.counts, stage.batch, rng)


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


# --- weights ----------------------------------------------------------------------------------------------------


def rate_factor(stage: Stage, step: int, steps_per_epoch: int) -> float:
    """What the stage's learning rate is multiplied by at a step counted from the stage's start."""
    if stage.schedule == "one_cycle":
        total = stage.epochs * steps_per_epoch
        rising = max(1.0, stage.warmup * total)
        if step < rising:
            return 0.04 + 0.96 * (1 - math.cos(math.pi * step / rising)) / 2
        return (1 + math.cos(math.pi * (step - rising) / max(1.0, total - rising))) / 2
    warm = min(1.0, (step + 1) / (stage.warmup * steps_per_epoch)) if stage.warmup else 1.0
    if stage.schedule == "constant":
        return warm
    return warm * stage.gamma ** sum(step // steps_per_epoch >= epoch for epoch in stage.milestones)


@torch.no_grad()
def update_average(average: nn.Module, net: nn.Module, decay: float, step: int) -> None:
    """Move ``average`` a little towards ``net``, faster in the first steps; batch statistics move along."""
    decay = min(decay, (1 + step) / (10 + step))
    for mean, value in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def _check_processes(recipe: Recipe) -> None:
    for stage in recipe.stages:
        if stage.batch % distributed.world():
            raise TrainingError(
                f"A batch of {stage.batch} in stage {stage.number} does not divide among {distributed.world()} "
                f"processes; start another number of them, or change the batch."
            )


def _start(
    recipe: Recipe, data: Data, classes: dict[str, tuple[str, ...]], known: Sequence[str], init: Path | str | None
) -> tuple[Net, dict[str, Any]]:
    """The untrained net and its config, with heads for this data and the starting weights that are asked for."""
    config: Any = replace(
        recipe.net_config,
        num_ids=int(data.labels.max()) + 1,
        attributes=tuple((name, len(values)) for name, values in classes.items()),
    )
    if recipe.text is not None and recipe.text.kind == "words":
        config = replace(config, vocabulary_size=len(known) + 1)  # a row for each word, and one for padding
    torch.manual_seed(recipe.seed)
    net = build(recipe.net, asdict(config))
    assert isinstance(net, nn.Module)
    if init is not None:
        loaded = load(init).net
        assert isinstance(loaded, nn.Module)
        own = net.state_dict()
        fitting = {
            name: value for name, value in loaded.state_dict().items() if name in own and own[name].shape == value.shape
        }
        if 2 * sum(value.numel() for value in fitting.values()) < sum(p.numel() for p in loaded.parameters()):
            raise TrainingError(
                f"{init} holds a net of other sizes: {len(fitting)} of its tensors fit recipe {recipe.name}, less than "
                f"half of its weights. Give another checkpoint, or the net_config it was trained with."
            )
        net.load_state_dict(fitting, strict=False)
    elif recipe.vision_weights is not None:
        weights = Path(recipe.vision_weights)
        if not weights.exists():
            raise TrainingError(
                f"Recipe {recipe.name} starts from pre-trained weights, and there is no file {weights}. Set "
                f"vision_weights to what its network starts from (ImageNet weights of an OSNet x1.0 for AXM-Net, of a "
                f"ResNet-50 for SSAN and MCJA; a folder with FLAVA for MMET), or to none, or train a recipe that needs "
                f"none, such as axm_net_scratch, mcja_synth or mmet_synth."
            )
        net.load_vision_weights(weights)  # type: ignore[operator]
    return net, asdict(config)


def _identity(info: dict[str, Any]) -> str:
    """A hash of what must not change between the start of a run and its resumption."""
    fixed = [info["recipe"], info["data"], info["vocabulary"]]
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()
