"""What a training setting is: a frozen value that decides all of a run but the data and the machine.

A variant is `replace(base(), ...)` in a function, or `override` with dotted names from the command line. The recipes
themselves are in model.recipes and in one file for each further network.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

from model.batching import Augmentation
from model.nets import NetConfig
from model.preprocess import Preprocessing
from model.text import TextSpec

Schedule = Literal["constant", "step", "one_cycle"]
Sampler = Literal["images", "pairs", "identities", "groups", "twins"]
Dataset = Literal["cuhk-pedes", "icfg-pedes", "rstpreid", "synth", "synth-infrared", "sysu-mm01", "regdb"]


@dataclass(frozen=True)
class Stage:
    """One training stage; ``number`` tells the net what to freeze and which losses to give.

    sampler: "images" draws every image once an epoch with one of its captions, "pairs" every image-caption pair,
    "identities" P x K (then ``batch`` is p * k), "groups" P x K too, until fewer than P identities have K images left,
    "twins" every image, each batch made of groups of k people who look alike. weak_positives: share of images that get
    a caption of another image of the same person instead of their own. redraw: captions are written anew every epoch,
    in more words than the listed ones; only for rendered people, whose looks are known. weak_captions: each pair comes
    with a caption of another image of the same person beside its own, for losses that ask for it. milestones: epochs
    after which "step" multiplies the rate by gamma. warmup: epochs of linear warm-up; "one_cycle" spends this share of
    the stage's steps rising instead. betas, eps: of adam and adamw.
    """

    number: int
    epochs: int
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.01
    weight_decay: float = 5e-4
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
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
    weak_captions: bool = False

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
    not trained on; 0 validates on the split val. cameras: train on the images of these alone, to test on others; empty
    for all. min_images: training identities with fewer images are left out. caption_noise: share of the training
    captions that stand beside a wrong image; 0.2, 0.5 and 0.8 in the literature. vision_weights: what the net starts
    from: ImageNet weights in the form its vision tower knows, of MMET a folder with all of FLAVA, or a checkpoint of
    this net, of which only the vision tower (and the gates of AXM-Net) are taken. average: decay of the running mean of
    the weights that is validated and kept, 0 for none. clip_norm: largest norm of a gradient, 0 for any.
    validate_every: epochs between validations; the last epoch of a stage always is. cache_images: keep all training
    images in memory at network size.
    """

    name: str
    net: str
    net_config: NetConfig
    preprocessing: Preprocessing
    text: TextSpec | None
    stages: tuple[Stage, ...]
    dataset: Dataset = "synth"
    train_split: str = "train"
    hold_out: int = 0
    cameras: tuple[str, ...] = ()
    min_images: int = 1
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
        if self.text is None and (
            self.caption_noise or any(s.redraw or s.weak_positives or s.weak_captions for s in self.stages)
        ):
            raise ValueError(
                f"{self.net} reads no captions: caption_noise, redraw, weak_positives and weak_captions are not for it."
            )
        if not 0 <= self.average < 1:
            raise ValueError(f"average is a decay in [0, 1), not {self.average}.")
        if self.hold_out < 0:
            raise ValueError(f"hold_out is a number of identities, 0 for none, not {self.hold_out}.")
        if not 0 <= self.caption_noise <= 1:
            raise ValueError(f"caption_noise is a share in 0..1, not {self.caption_noise}.")
        if self.caption_noise and any(stage.redraw for stage in self.stages):
            raise ValueError("caption_noise misplaces listed captions; a stage with redraw writes its own, all right.")


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain JSON values."""
    return asdict(recipe)


def override(recipe: Recipe, **values: Any) -> Recipe:
    """A copy with settings replaced by dotted names: ``override(recipe, **{"stages.0.epochs": 3, "seed": 1})``.

    Values may be text, as a command line gives them; they are read by the type of the setting, and all take effect
    together. ValueError for a name that does not exist, a value of another type, and settings that do not agree.
    """
    return typing.cast(Recipe, _changed(recipe, [(name, name.split("."), value) for name, value in values.items()]))


_Change = tuple[str, list[str], Any]  # the setting's whole name, the way to it from here, its value


def _changed(node: Any, changes: Sequence[_Change]) -> Any:
    """All changes within a node at once: settings that must agree, such as batch, p and k, may change together."""
    inside: dict[str, list[_Change]] = {}
    for name, (key, *rest), value in changes:
        if isinstance(node, tuple):
            if not key.isdigit() or int(key) >= len(node):
                raise ValueError(f"{name}: {key} is not one of the positions 0 to {len(node) - 1}.")
        elif key not in (known := [f.name for f in fields(node)] if is_dataclass(node) else []):
            has = f"it has {', '.join(known)}" if known else "it has no settings of its own"
            raise ValueError(f"There is no setting {name}: {type(node).__name__} does not know {key!r}; {has}.")
        inside.setdefault(key, []).append((name, rest, value))
    if isinstance(node, tuple):
        return tuple(_child(item, type(item), inside.get(str(n), [])) for n, item in enumerate(node))
    kinds = typing.get_type_hints(type(node))
    return replace(node, **{key: _child(getattr(node, key), kinds[key], own) for key, own in inside.items()})


def _child(value: Any, kind: Any, changes: Sequence[_Change]) -> Any:
    """A setting with its own changes: first that of the whole, then those of what it consists of."""
    for name, rest, new in changes:
        if not rest:
            value = _parsed(new, kind, name)
    within = [change for change in changes if change[1]]
    return _changed(value, within) if within else value


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
