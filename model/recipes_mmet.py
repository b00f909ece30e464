"""The training settings of MMET: as published at FLAVA's size, and small from nothing on rendered people.

Sources: the published code of MMET (arXiv 2304.09498), whose paper we could not read; FLAVA (CVPR 2022).
"""

from __future__ import annotations

from dataclasses import replace

from model.batching import Augmentation
from model.nets.mmet import MMETConfig
from model.preprocess import Preprocessing
from model.recipe import Recipe, Stage
from model.text import TextSpec

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def mmet() -> Recipe:
    """MMET as published, on CUHK-PEDES: FLAVA's size and weights, its image codebook, 224x224.

    Both are local folders that a person supplies. The epochs make the published numbers of steps, 450,000 of 16 pairs
    and 230,000 of 16 people with 4 images each; the rate rises and falls along a cosine.
    """
    augmentation = Augmentation(flip=0.0, erase=0.0, shift_text=False, resized_crop=0.9)
    stage1 = Stage(
        1,
        epochs=106,
        optimizer="adamw",
        lr=2e-4,
        weight_decay=0.01,
        schedule="one_cycle",
        warmup=2_000 / 450_000,
        batch=16,
        sampler="pairs",
        augmentation=augmentation,
    )
    stage2 = replace(
        stage1,
        number=2,
        epochs=335,
        lr=1e-5,
        weight_decay=0.1,
        betas=(0.9, 0.98),
        eps=1e-6,
        warmup=2_000 / 230_000,
        batch=64,
        sampler="identities",
    )
    return Recipe(
        name="mmet",
        net="mmet",
        net_config=MMETConfig(codebook="flava-image-codebook"),
        preprocessing=Preprocessing(224, 224, CLIP_MEAN, CLIP_STD, "bicubic"),
        text=TextSpec("learned", length=75),
        stages=(stage1, stage2),
        dataset="cuhk-pedes",
        vision_weights="flava-full",
        cache_images=False,
    )


def mmet_synth() -> Recipe:
    """Rendered people at 192x64 from nothing: six layers of 128, attributes as a dense signal, k-means for a codebook.

    Every step has all losses. Stage 2 keeps the branches in one space: vectors are re-identified from the contrastive
    projections, triplets are mined across branches, and InfoNCE goes on.
    """
    augmentation = Augmentation(
        flip=0.5, translate=0.06, erase=0.3, erase_area=(0.02, 0.25), brightness=0.25, shift_text=False
    )
    stage1 = Stage(
        1,
        epochs=10,
        optimizer="adamw",
        lr=2e-3,
        weight_decay=0.05,
        betas=(0.9, 0.98),
        schedule="one_cycle",
        warmup=0.1,
        batch=32,
        augmentation=augmentation,
    )
    stage2 = replace(stage1, number=2, epochs=4, lr=5e-4, batch=64, sampler="identities")
    return Recipe(
        name="mmet_synth",
        net="mmet",
        net_config=MMETConfig(
            image_size=(192, 64),
            width=128,
            attention_heads=4,
            hidden=512,
            image_layers=6,
            text_layers=3,
            fusion_layers=2,
            vocabulary_size=4096,  # more than three times the pieces of its captions
            positions=64,
            poolers=False,
            fusion_sees_padding=False,
            image_target="kmeans",
            image_codes=512,
            image_mask=0.4,
            objectives="all",
            contrast_identities=True,
            neck_input="projection",
            triplet_across=True,
            attribute_weight=0.1,  # twenty heads, which would drown the rest
            stage2_contrastive_weight=1.0,
        ),
        preprocessing=Preprocessing(192, 64, CLIP_MEAN, CLIP_STD),
        text=TextSpec("learned", length=56),
        stages=(stage1, stage2),
        average=0.998,
    )


def tiny(recipe: Recipe) -> Recipe:
    """Any of them with narrow, shallow transformers on 64x32 images, from nothing; see `model.recipes.tiny`."""
    assert isinstance(recipe.net_config, MMETConfig) and recipe.text is not None
    config = replace(
        recipe.net_config,
        image_size=(64, 32),
        patch=8,
        width=64,
        attention_heads=4,
        hidden=128,
        image_layers=2,
        text_layers=2,
        fusion_layers=1,
        vocabulary_size=4096,
        positions=48,
        poolers=False,
        image_target="kmeans",
        image_codes=64,
        codebook=None,
    )
    return replace(
        recipe,
        name=f"{recipe.name}_tiny",
        net_config=config,
        preprocessing=replace(recipe.preprocessing, height=64, width=32),
        text=replace(recipe.text, length=40),
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
        epochs=5 if paired else 15,
        lr=5e-4 if paired else 5e-3,
        schedule="one_cycle",
        warmup=0.1,
        batch=8 if paired else 16,
        p=4,
        k=2,
        augmentation=Augmentation(erase=0.0, shift_text=False),
        redraw=False,
    )


ALL = (mmet, mmet_synth)
