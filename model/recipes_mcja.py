"""The training settings of MCJA: as published on SYSU-MM01 and RegDB, and from nothing on rendered people.

The published code picks the epoch that does best on the test set;
here training identities are held out for that, so honest numbers come out a little lower. Source: the public code of
MCJA (TCSVT 2024).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from model.batching import Augmentation
from model.nets.mcja import MCJAConfig
from model.preprocess import Preprocessing
from model.recipe import Recipe, Stage
from model.spectrum import Spectrum

IMAGENET_GRAY = (124, 116, 104)  # zero once normalised
PUBLISHED = Augmentation(
    flip=0.5,
    crop=10,
    erase=0.5,
    erase_area=(0.02, 0.3),
    erase_color=IMAGENET_GRAY,
    spectrum=Spectrum(),
    shift_text=False,
)


def mcja_sysu_mm01() -> Recipe:
    """MCJA as published on SYSU-MM01: 384x192, ImageNet ResNet-50 from a file; 20 of 395 training people validate."""
    stage = Stage(
        1,
        epochs=140,
        optimizer="adam",
        lr=3.5e-4,
        weight_decay=5e-4,
        milestones=(80, 120),
        batch=128,
        sampler="groups",
        p=8,
        k=16,
        augmentation=PUBLISHED,
    )
    return Recipe(
        name="mcja_sysu_mm01",
        net="mcja",
        net_config=MCJAConfig(),
        preprocessing=Preprocessing(384, 192),
        text=None,
        stages=(stage,),
        dataset="sysu-mm01",
        hold_out=20,
        seed=8,
        vision_weights="resnet50_imagenet.pth",
        clip_norm=0.0,
        cache_images=False,
    )


def mcja_regdb() -> Recipe:
    """MCJA as published on RegDB, split 1: constant rate, P 4 x K 32; 16 of 206 training people validate."""
    sysu = mcja_sysu_mm01()
    stage = replace(sysu.stages[0], epochs=300, schedule="constant", milestones=(), p=4, k=32)
    return replace(sysu, name="mcja_regdb", stages=(stage,), dataset="regdb", train_split="train_1", hold_out=16)


def mcja_synth() -> Recipe:
    """Rendered people by day and by night at 144x48, from nothing: a shallow, narrow ResNet, attributes beside.

    From nothing neither the identity loss nor CMR gets going. Stage 0 is attributes for the most part: images at random
    seldom show one person twice, so that CMR has little to say. Its batches are small, which are more steps for as many
    images. Stage 1 brings the two lights together. Visible images lose their colours, wholly or in part. What
    else was tried is in docs/training.md.
    """
    augmentation = replace(
        PUBLISHED, crop=4, erase=0.2, spectrum=Spectrum(1.0, operations=("grayscale", "cutmix", "jitter"))
    )
    start = Stage(
        0,
        epochs=56,
        optimizer="adamw",
        lr=1e-3,
        schedule="one_cycle",
        warmup=0.15,
        batch=16,
        sampler="images",
        augmentation=augmentation,
    )
    stage = replace(start, number=1, epochs=8, lr=3e-4, batch=32, sampler="groups", p=8, k=4)
    return Recipe(
        name="mcja_synth",
        net="mcja",
        net_config=MCJAConfig(
            width=16,
            depths=(2, 2, 2, 2),
            last_stride=1,
            identity_weight=0.1,
            cmr_weight=5.0,
            attribute_weight=1.0,
        ),
        preprocessing=Preprocessing(144, 48),
        text=None,
        stages=(start, stage),
        dataset="synth-infrared",
        hold_out=40,
        average=0.998,
        validate_every=8,
    )


def tiny(recipe: Recipe) -> Recipe:
    """The same recipe with a narrow, shallow net on small images, from nothing; see model.recipes.tiny."""
    assert isinstance(recipe.net_config, MCJAConfig)
    depths = (1, 4, 6, 1) if recipe.net_config.mda_masks else (1, 1, 1, 1)
    return replace(
        recipe,
        name=f"{recipe.name}_tiny",
        net_config=replace(recipe.net_config, width=8, depths=depths),
        preprocessing=Preprocessing(64, 32),
        stages=tuple(
            replace(
                stage,
                epochs=15 if stage.number else 8,
                lr=3e-3,
                milestones=(),
                batch=16,
                p=4,
                k=4,
                augmentation=replace(stage.augmentation, crop=2, erase=0.0),
            )
            for stage in recipe.stages
        ),
        hold_out=min(recipe.hold_out, 4),
        vision_weights=None,
        average=0.0,
        cache_images=True,
    )


ALL: tuple[Callable[[], Recipe], ...] = (mcja_sysu_mm01, mcja_regdb, mcja_synth)
