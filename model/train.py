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
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from model import batching, distributed
from model.calibration import bands
from model.checkpoint import load, save, write_atomically
from model.datasets import fingerprint
from model.encoder import pick_device
from model.errors import TrainingError as TrainingError
from model.interface import Batch, Net
from model.nets import build
from model.preprocess import normalize
from model.recipes import Recipe, Stage, to_dict
from model.runlog import RunLog, Screen
from model.text import load_text
from model.training_data import Data, draw_epoch, make_batch, prepare, read_splits, redrawn, vocabulary
from model.validation import embed, validate

Precision = Literal["fp32", "bf16"]
BEST, STATE = "best.safetensors", "state.pt"


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
        self.seconds = 0.0  # spent on what is saved
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
        now = time.monotonic()
        self.seconds, self.saved_at = self.seconds + now - self.saved_at, now
        state = {
            "run": _identity(self.info),
            "position": asdict(self.position),
            "seconds": self.seconds,
            "net": self.net.state_dict(),
            "average": self.average.state_dict() if self.average is not self.net else None,
            "optimizer": self.optimizer.state_dict() if self.optimizer is not None else None,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.out / STATE, buffer.getvalue())

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
        self.seconds = state.get("seconds", 0.0)  # which older states do not have
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
                data = training
                if stage.redraw:
                    # Read in the precision of the run: twice as fast in bfloat16, and no epoch reads them again.
                    with torch.autocast(place.type, torch.bfloat16, enabled=precision == "bf16"):
                        data = redrawn(training, text, recipe.seed, run.position.epoch, screen)
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
    people = data.labels.tolist()
    samples, captions = draw_epoch(stage, data.counts, people, data.attributes, rng)
    donors = batching.swap_captions(samples, people, stage.weak_positives, rng)
    weak = batching.draw_weak(samples, data.counts, people, rng) if stage.weak_captions else None
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
