"""One function per training setting, by name: those of AXM-Net here, those of other networks in files of their own.

Sources: AXM-Net (AAAI 2022) where a value is printed, Dual-Path and TIPCB for the schedule of stage 2, which is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from model import recipes_mcja, recipes_mmet, recipes_ssan
from model.batching import Augmentation
from model.nets.axm_net import AXMNetConfig
from model.preprocess import Preprocessing
from model.recipe import Dataset as Dataset  # whoever takes a recipe from here finds what it is made of here too
from model.recipe import Recipe as Recipe
from model.recipe import Stage as Stage
from model.recipe import override as override
from model.recipe import to_dict as to_dict
from model.text import MINILM_SHA256, TextSpec

MINILM = TextSpec("minilm", sha256=MINILM_SHA256)


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
    """The same recipe in small: the same stages, losses and samplers, in a minute on a CPU.

    It starts from nothing and reads the listed captions. What it learns says that a recipe runs, and no more.
    """
    return TINY[recipe.net](recipe)


def _tiny_axm_net(recipe: Recipe) -> Recipe:
    """At the size of `axm_net_tiny`."""
    small = axm_net_tiny()
    assert isinstance(recipe.net_config, AXMNetConfig) and isinstance(small.net_config, AXMNetConfig)
    sizes = {name: getattr(small.net_config, name) for name in ("widths", "feature_dim", "text_input", "text_dim")}
    return replace(
        recipe,
        name=f"{recipe.name}_tiny",
        net_config=replace(recipe.net_config, **sizes, parts=min(recipe.net_config.parts, small.net_config.parts)),
        preprocessing=small.preprocessing,
        text=None if recipe.text is None else small.text,
        stages=tuple(_tiny_stage(stage) for stage in recipe.stages),
        hold_out=min(recipe.hold_out, 4),
        vision_weights=None,
        average=0.0,
        cache_images=True,
    )


def _tiny_stage(stage: Stage) -> Stage:
    paired = stage.sampler in ("identities", "groups")
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


TINY: dict[str, Callable[[Recipe], Recipe]] = {
    "axm_net": _tiny_axm_net,
    "ssan": recipes_ssan.tiny,
    "mcja": recipes_mcja.tiny,
    "mmet": recipes_mmet.tiny,
}
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
        *recipes_ssan.ALL,
        *recipes_mcja.ALL,
        *recipes_mmet.ALL,
    )
}
