"""One function per training setting: a frozen value that decides all of a run but the data and the machine.

A variant is `replace(base(), ...)` in a function, or `override` with dotted names from the command line. Sources:
AXM-Net (AAAI 2022) where a value is printed, Dual-Path and TIPCB for the schedule of stage 2, which is not.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

from model.batching import Augmentation
from model.nets.axm_net import AXMNetConfig
from model.preprocess import Preprocessing
from model.text import MINILM_SHA256, TextSpec

Schedule = Literal["constant", "step", "one_cycle"]
Sampler = Literal["images", "pairs", "identities", "groups", "twins"]
Dataset = Literal["cuhk-pedes", "icfg-pedes", "rstpreid", "synth", "synth-infrared", "sysu-mm01", "regdb"]

MINILM = TextSpec("minilm", sha256=MINILM_SHA256)


@dataclass(frozen=True)
class Stage:
    """One training stage; ``number`` tells the net what to freeze and which losses to give.

    sampler: "images" draws every image once an epoch with one of its captions, "pairs" every image-caption pair,
    "identities" P x K (then ``batch`` is p * k), "groups" P x K too, until fewer than P identities have K images left,
    "twins" every image, each batch made of groups of k people who look
    alike. weak_positives: share of images that get a caption of another image of the same person instead of their
    own. redraw: captions are written anew every epoch, in more words than the listed ones; only for rendered people,
    whose looks are known. milestones: epochs after which "step" multiplies the rate by gamma.
    warmup: epochs of linear warm-up; "one_cycle" spends this share of the stage's steps rising instead.
    """

    number: int
    epochs: int
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.01
    weight_decay: float = 5e-4
    momentum: float = 0.9
    schedule: Schedule = "step"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    warmup: float = 0.0
    batch: int = 64
    sampler: Sampler = "images"
    p: int = 16
    k: int = 4
    augmentation: Augmentation = field(default_factory=Augmentation)
    weak_positives: float = 0.0
    redraw: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2 or self.lr <= 0:
            raise ValueError(f"Stage {self.number} needs at least one epoch, a batch of two and a positive lr.")
        if self.sampler in ("identities", "groups") and self.batch != self.p * self.k:
            raise ValueError(f"Stage {self.number}: with identities drawn, batch must be p * k = {self.p * self.k}.")
        if self.sampler == "twins" and self.batch % self.k:
            raise ValueError(f"Stage {self.number}: a batch of {self.batch} does not divide into groups of {self.k}.")
        if not 0 <= self.weak_positives <= 1:
            raise ValueError(f"weak_positives is a share in 0..1, not {self.weak_positives}.")


@dataclass(frozen=True)
class Recipe:
    """A whole training run. ``net_config`` lacks the number of identities and attributes: the data decides them.

    text: how the net reads, None for one without a text branch. dataset: format of the data; "synth" is for rendered
    people and for labelled images of one's own, "synth-infrared" for those seen in two modalities. train_split: what
    is trained on; RegDB has "train_1" to "train_10". hold_out: validate on so many training identities, which are then
    not trained on; 0 validates on the split val. caption_noise: share of the training captions that stand beside a
    wrong image; 0.2, 0.5 and 0.8 in the literature. vision_weights: what the vision tower starts from: a file of
    ImageNet weights of the net's backbone, or a checkpoint of this net, of which only the vision tower (and, of
    AXM-Net, its gates) is taken. average: decay of the running mean of the weights that is validated
    and kept, 0 for none. validate_every: epochs between validations; the last epoch of a stage always is. cache_images:
    keep all training images in memory at network size.
    """

    name: str
    net: str
    net_config: Any  # of the class that model.nets.CONFIGS has for ``net``
    preprocessing: Preprocessing
    text: TextSpec | None
    stages: tuple[Stage, ...]
    dataset: Dataset = "synth"
    train_split: str = "train"
    hold_out: int = 0
    caption_noise: float = 0.0
    seed: int = 0
    vision_weights: str | None = None
    average: float = 0.0
    clip_norm: float = 5.0
    validate_every: int = 1
    cache_images: bool = True

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError(f"Recipe {self.name} has no stages.")
        if self.text is None and (self.caption_noise or any(s.redraw or s.weak_positives for s in self.stages)):
            raise ValueError(f"{self.net} reads no captions: caption_noise, redraw and weak_positives are not for it.")
        if not 0 <= self.average < 1:
            raise ValueError(f"average is a decay in [0, 1), not {self.average}.")
        if self.hold_out < 0:
            raise ValueError(f"hold_out is a number of identities, 0 for none, not {self.hold_out}.")
        if not 0 <= self.caption_noise <= 1:
            raise ValueError(f"caption_noise is a share in 0..1, not {self.caption_noise}.")
        if self.caption_noise and any(stage.redraw for stage in self.stages):
            raise ValueError("caption_noise misplaces listed captions; a stage with redraw writes its own, all right.")


def axm_net_cuhk_pedes() -> Recipe:
    """AXM-Net as published: 384x128, BERT, ImageNet OSNet weights from a file, identity loss first, then all losses."""
    stage1 = Stage(1, epochs=60, milestones=(30, 50), sampler="pairs")
    stage2 = Stage(2, epochs=70, milestones=(40, 60), warmup=5, sampler="identities")
    return Recipe(
        name="axm_net_cuhk_pedes",
        net="axm_net",
        net_config=AXMNetConfig(),
        preprocessing=Preprocessing(384, 128),
        text=TextSpec("bert", "bert-base-uncased"),
        stages=(stage1, stage2),
        dataset="cuhk-pedes",
        vision_weights="osnet_x1_0_imagenet.pth",
        cache_images=False,
    )


def axm_net_icfg_pedes() -> Recipe:
    """The same on ICFG-PEDES, published without a validation split: 200 of its 3,102 training identities stand in."""
    return replace(axm_net_cuhk_pedes(), name="axm_net_icfg_pedes", dataset="icfg-pedes", hold_out=200)


def axm_net_rstpreid() -> Recipe:
    """The same on RSTPReid."""
    return replace(axm_net_cuhk_pedes(), name="axm_net_rstpreid", dataset="rstpreid")


def axm_net_scratch() -> Recipe:
    """As published, but stage 0 stands in for ImageNet weights. Its numbers do not compare to the paper's."""
    paper = axm_net_cuhk_pedes()
    stage0 = Stage(0, epochs=30, optimizer="adamw", lr=1e-3, schedule="one_cycle", warmup=0.15)
    return replace(paper, name="axm_net_scratch", text=MINILM, stages=(stage0, *paper.stages), vision_weights=None)


def axm_net_synth_start() -> Recipe:
    """The first half of the shipped checkpoint: rendered people at 192x64, attributes and InfoNCE as a dense signal.

    Identity loss from scratch does not get going on a few images per person; attribute losses shared by both
    modalities do. Captions are those of the manifest.
    """
    augmentation = Augmentation(flip=0.5, translate=0.06, erase=0.3, erase_area=(0.02, 0.25), brightness=0.25)
    stage0 = Stage(
        0,
        epochs=8,
        optimizer="adamw",
        lr=1e-3,
        schedule="one_cycle",
        warmup=0.15,
        augmentation=augmentation,
    )
    return Recipe(
        name="axm_net_synth_start",
        net="axm_net",
        net_config=AXMNetConfig(),
        preprocessing=Preprocessing(192, 64),
        text=MINILM,
        stages=(stage0,),
        average=0.998,
    )


def axm_net_synth() -> Recipe:
    """The shipped checkpoint: goes on from `axm_net_synth_start` (--init), with captions written anew every epoch."""
    start = axm_net_synth_start()
    again = replace(start.stages[0], epochs=5, lr=7e-4, warmup=0.1, redraw=True)
    return replace(start, name="axm_net_synth", stages=(again,))


def axm_net_tiny() -> Recipe:
    """A narrow net on small images with its own word table: seconds to train, for tests and first steps."""
    plain = Augmentation(erase=0.0, shift_text=False)  # in so few steps augmentation only gets in the way
    return Recipe(
        name="axm_net_tiny",
        net="axm_net",
        net_config=AXMNetConfig(widths=(8, 16, 24, 32), feature_dim=64, parts=2, text_input="learned", text_dim=16),
        preprocessing=Preprocessing(64, 32),
        text=TextSpec("learned", length=32, dim=16),
        stages=(
            Stage(0, 15, "adamw", 1e-2, schedule="one_cycle", warmup=0.15, batch=16, augmentation=plain),
            Stage(
                2, 1, "adamw", 1e-4, schedule="constant", sampler="identities", batch=8, p=4, k=2, augmentation=plain
            ),
        ),
    )


def tiny(recipe: Recipe) -> Recipe:
    """The same recipe in small: the same stages, losses and samplers, in a minute or two on a CPU.

    It starts from nothing and reads the listed captions. What it learns says that a recipe runs, and no more.
    """
    return TINY[recipe.net](recipe)


def tiny_axm_net(recipe: Recipe) -> Recipe:
    """At the size of `axm_net_tiny`."""
    small = axm_net_tiny()
    sizes = {name: getattr(small.net_config, name) for name in ("widths", "feature_dim", "text_input", "text_dim")}
    return replace(
        recipe,
        name=f"{recipe.name}_tiny",
        net_config=replace(recipe.net_config, **sizes, parts=min(recipe.net_config.parts, small.net_config.parts)),
        preprocessing=small.preprocessing,
        text=small.text,
        stages=tuple(_tiny_stage(stage) for stage in recipe.stages),
        hold_out=min(recipe.hold_out, 4),
        vision_weights=None,
        average=0.0,
        cache_images=True,
    )


def _tiny_stage(stage: Stage) -> Stage:
    paired = stage.sampler == "identities"
    return replace(
        stage,
        epochs=15 if stage.number == 0 else min(stage.epochs, 2),
        lr=1e-2,
        milestones=(),
        warmup=min(stage.warmup, 1.0),
        batch=8 if paired else 16,
        p=4,
        k=2,
        augmentation=Augmentation(erase=0.0, shift_text=False),
        redraw=False,
    )


# Each of these files takes Recipe and Stage from here, so it can only be read now.
from model import recipes_mcja  # noqa: E402

TINY: dict[str, Callable[[Recipe], Recipe]] = {"axm_net": tiny_axm_net, "mcja": recipes_mcja.tiny}
PRESETS: dict[str, Callable[[Recipe], Recipe]] = {"tiny": tiny}
RECIPES: dict[str, Callable[[], Recipe]] = {
    make.__name__: make
    for make in (
        axm_net_cuhk_pedes,
        axm_net_icfg_pedes,
        axm_net_rstpreid,
        axm_net_scratch,
        axm_net_synth_start,
        axm_net_synth,
        axm_net_tiny,
        *recipes_mcja.RECIPES,
    )
}


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain JSON values."""
    return asdict(recipe)


def override(recipe: Recipe, **values: Any) -> Recipe:
    """A copy with settings replaced by dotted names: ``override(recipe, **{"stages.0.epochs": 3, "seed": 1})``.

    Values may be text, as a command line gives them; they are read by the type of the setting. ValueError for a name
    that does not exist and for a value of another type.
    """
    for name, value in values.items():
        recipe = _replaced(recipe, name.split("."), value, name)
    return recipe


def _replaced(node: Any, path: list[str], value: Any, name: str) -> Any:
    key, rest = path[0], path[1:]
    if isinstance(node, tuple):
        if not key.isdigit() or int(key) >= len(node):
            raise ValueError(f"{name}: {key} is not one of the positions 0 to {len(node) - 1}.")
        position = int(key)
        return (*node[:position], _replaced(node[position], rest, value, name), *node[position + 1 :])
    known = [f.name for f in fields(node)] if is_dataclass(node) else []
    if key not in known:
        has = f"it has {', '.join(known)}" if known else "it has no settings of its own"
        raise ValueError(f"There is no setting {name}: {type(node).__name__} does not know {key!r}; {has}.")
    if rest:
        return replace(node, **{key: _replaced(getattr(node, key), rest, value, name)})
    return replace(node, **{key: _parsed(value, typing.get_type_hints(type(node))[key], name)})


def _parsed(value: Any, kind: Any, name: str) -> Any:
    """``value`` as the annotated type, converting text; ValueError where it is something else."""
    options = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if origin is Literal:
        if value in options:
            return value
        raise ValueError(f"{name} is one of {', '.join(map(str, options))}, not {value!r}.")
    if origin in (typing.Union, types.UnionType):
        for option in sorted(options, key=lambda one: one is not type(None)):  # so that "none" is None, not a text
            try:
                return _parsed(value, option, name)
            except ValueError:
                continue
    elif kind is type(None):
        if value is None or value in ("none", "null", ""):
            return None
    elif kind is bool:
        if isinstance(value, bool) or value in ("true", "false"):
            return value is True or value == "true"
    elif kind is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lstrip("-").isdecimal():
            return int(value)
    elif kind is float:
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            with suppress(ValueError):
                return float(value)
    elif kind is str:
        if isinstance(value, str):
            return value
    elif origin is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if isinstance(items, list | tuple):
            inner = [options[0]] * len(items) if options[-1] is Ellipsis else options
            if len(inner) == len(items):
                return tuple(_parsed(item, one, name) for item, one in zip(items, inner, strict=True))
    elif is_dataclass(kind) and isinstance(value, typing.cast(type, kind)):
        return value
    raise ValueError(f"{name} cannot be {value!r}; it is of type {getattr(kind, '__name__', kind)}.")
