"""The training settings of SSAN: as published on two benchmarks and a third, and small from nothing on rendered people.

Sources: SSAN (arXiv 2107.12666) and its published code, from which the optimiser and the schedule are known.
"""

from __future__ import annotations

from dataclasses import replace

from model.batching import Augmentation
from model.nets.ssan import SSANConfig
from model.preprocess import Preprocessing
from model.recipe import Recipe, Stage
from model.text import TextSpec

HALF = (0.5, 0.5, 0.5)  # mean and standard deviation of every channel, instead of those of ImageNet


def ssan_cuhk_pedes() -> Recipe:
    """SSAN as the paper prints it: 384x128, words of the captions, ResNet-50 weights of ImageNet from a file.

    People with a single image are left out, as they have no weak caption: 11,000 remain.
    """
    stage = Stage(
        1,
        epochs=60,
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.0,
        milestones=(20, 40),
        sampler="pairs",
        augmentation=Augmentation(erase=0.0, shift_text=False),
        weak_captions=True,
    )
    return Recipe(
        name="ssan_cuhk_pedes",
        net="ssan",
        net_config=SSANConfig(),
        preprocessing=Preprocessing(384, 128, mean=HALF, std=HALF, interpolation="bicubic"),
        text=TextSpec("words", length=100, dim=512, min_count=2),
        stages=(stage,),
        dataset="cuhk-pedes",
        min_images=2,
        vision_weights="resnet50_imagenet.pth",
        clip_norm=0.0,
        cache_images=False,
    )


def ssan_cuhk_pedes_code() -> Recipe:
    """The same with everything that the authors' published code does otherwise than the paper prints."""
    paper = ssan_cuhk_pedes()
    assert isinstance(paper.net_config, SSANConfig)
    published = replace(
        paper.net_config,
        relation_values="unit",
        max_sees_padding=True,
        weak_negatives="weak",
        fixed_margin_epochs=5,
        absolute_margin=True,
        least_weak_margin=0.16,
    )
    return replace(paper, name="ssan_cuhk_pedes_code", net_config=published)


def ssan_icfg_pedes() -> Recipe:
    """The same on ICFG-PEDES, published without a validation split: 200 of its 3,102 training identities stand in."""
    return replace(ssan_cuhk_pedes(), name="ssan_icfg_pedes", dataset="icfg-pedes", hold_out=200)


def ssan_rstpreid() -> Recipe:
    """The same on RSTPReid."""
    return replace(ssan_cuhk_pedes(), name="ssan_rstpreid", dataset="rstpreid")


def ssan_synth() -> Recipe:
    """Rendered people at 96x32 from nothing: a ResNet-50 of half width, attributes and InfoNCE as a dense signal.

    Stage 0 stands in for ImageNet weights. Stage 1 has the published losses; the dense signal goes on beside them, and
    the ranking loss is averaged, so that it does not outweigh the others.
    """
    augmentation = Augmentation(
        flip=0.5, translate=0.06, erase=0.3, erase_area=(0.02, 0.25), brightness=0.25, shift_text=False
    )
    stage0 = Stage(0, 6, "adamw", 1e-3, weight_decay=5e-4, schedule="one_cycle", warmup=0.15, augmentation=augmentation)
    stage1 = replace(stage0, number=1, epochs=4, lr=5e-4, warmup=0.1, weak_captions=True)
    return Recipe(
        name="ssan_synth",
        net="ssan",
        net_config=SSANConfig(
            width=32,
            last_stride=1,
            encoder_dim=256,
            feature_dim=256,
            relation_dim=128,
            word_dim=128,
            reduction="mean",
            identity_weight=0.1,
            stage1_attribute_weight=1.0,
            stage1_info_nce_weight=1.0,
            backbone_lr_scale=1.0,
        ),
        preprocessing=Preprocessing(96, 32, mean=HALF, std=HALF, interpolation="bicubic"),
        text=TextSpec("words", length=80, dim=128, min_count=2),
        stages=(stage0, stage1),
        average=0.998,
    )


def tiny(recipe: Recipe) -> Recipe:
    """Any of them with a narrow, shallow net on 64x32 images: seconds on a CPU, see `model.recipes.tiny`."""
    assert isinstance(recipe.net_config, SSANConfig) and recipe.text is not None
    config = replace(
        recipe.net_config,
        width=8,
        depths=(1, 1, 1, 1),
        last_stride=1,
        encoder_dim=64,
        parts=4,
        feature_dim=32,
        relation_dim=16,
        word_dim=16,
        dropout=0.0,
    )
    return replace(
        recipe,
        name=f"{recipe.name}_tiny",
        net_config=config,
        preprocessing=replace(recipe.preprocessing, height=64, width=32),
        text=replace(recipe.text, length=40, dim=16),
        stages=tuple(_tiny_stage(stage) for stage in recipe.stages),
        hold_out=min(recipe.hold_out, 4),
        vision_weights=None,
        average=0.0,
        cache_images=True,
    )


def _tiny_stage(stage: Stage) -> Stage:
    return replace(
        stage,
        epochs=10,
        lr=3e-3,
        milestones=(),
        batch=16,
        augmentation=Augmentation(erase=0.0, shift_text=False),
        redraw=False,
    )


ALL = (ssan_cuhk_pedes, ssan_cuhk_pedes_code, ssan_icfg_pedes, ssan_rstpreid, ssan_synth)
