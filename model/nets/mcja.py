"""MCJA: visible and infrared images of people in one space, by one ResNet-50 that is not told which is which.

GeM pooling, a batch-norm neck, an identity classifier and the cross-modality retrieval loss; both losses and the search
use the feature after the neck. The modality-aware data augmentation that the method rests on is in model.spectrum.
Sources: MCJA (arXiv 2307.08316) is the default here; the mask-guided attention of the journal version (TCSVT 2024) is
``mda_masks``. There is no text branch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.distributed import all_rows
from model.interface import Batch
from model.losses import attribute_loss, identity_loss
from model.losses_mcja import STRENGTH, cmr_loss
from model.nets.resnet import DEPTHS, EXPANSION, ResNet

# Attention stands behind these blocks of layer 2 and of layer 3 (from 0), where AGW has its non-local blocks.
MDA_AFTER = {"layer2": (2, 3), "layer3": (3, 4, 5)}


@dataclass(frozen=True)
class MCJAConfig:
    """Every switch of MCJA; the defaults are the first version. All fields survive JSON.

    num_ids, attributes: training classes, and (name, classes) of each attribute head; without identities the net has
        no heads and can only encode.
    width, depths, last_stride: of the ResNet; the feature has 32 * width channels. Published are those of ResNet-50.
    gem_power, gem_eps: of the generalised-mean pooling; the power is not learned.
    mda_masks: masks of each of the five attention blocks, 0 for no attention. Published are 2 for SYSU-MM01 and 12 for
        RegDB.
    cmr_strength: of the soft rank; at 0.5, as published, no rank has any influence (see model.losses_mcja), about 0.02
        makes the loss aware of ranks.
    identity_weight, cmr_weight: factors of the losses. attribute_weight: of attribute heads on the feature before the
        neck (behind it, where means are zero, biases alone could learn how frequent a class is), an addition of ours
        for rendered people and trainings from nothing.
    """

    num_ids: int = 0
    attributes: tuple[tuple[str, int], ...] = ()
    width: int = 64
    depths: tuple[int, int, int, int] = DEPTHS
    last_stride: Literal[1, 2] = 2
    gem_power: float = 3.0
    gem_eps: float = 1e-12
    mda_masks: int = 0
    cmr_strength: float = STRENGTH
    identity_weight: float = 1.0
    cmr_weight: float = 1.0
    attribute_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.gem_power <= 0 or self.gem_eps <= 0 or self.cmr_strength <= 0:
            raise ValueError("gem_power, gem_eps and cmr_strength must be positive.")
        if self.mda_masks < 0:
            raise ValueError(f"mda_masks is a number of masks, 0 for no attention, not {self.mda_masks}.")
        if self.mda_masks and (self.depths[1] < 4 or self.depths[2] < 6):
            raise ValueError(f"Attention stands behind blocks that depths {self.depths} do not have; see MDA_AFTER.")


class GeM(nn.Module):
    """Generalised mean over positions, (mean x^p + eps)^(1/p): (B, C, H, W) of x >= 0 -> (B, C), in float32."""

    def __init__(self, power: float, eps: float) -> None:
        super().__init__()
        self.power, self.eps = power, eps

    def forward(self, x: Tensor) -> Tensor:
        return (x.float().pow(self.power).mean(dim=(2, 3)) + self.eps).pow(1 / self.power)


class MDA(nn.Module):
    """Channel attention from M spatial masks: (B, C, H, W) -> (B, C, H, W). Starts as the identity.

    Each mask averages the map to a descriptor; a weighting of the M descriptors, own to every channel, becomes its
    gate in (0, 1). The modality does not enter.
    """

    def __init__(self, channels: int, masks: int) -> None:
        super().__init__()
        self.masks = nn.Conv2d(channels, masks, 1)
        self.aggregate = nn.Parameter(torch.empty(channels, masks))  # a depth-wise convolution over the masks
        self.gate_norm = nn.BatchNorm1d(channels)
        self.norm = nn.BatchNorm2d(channels)

    def start(self) -> None:
        """Masks of small logits, that is nearly even ones; a mean of descriptors; nothing added to the map."""
        nn.init.normal_(self.masks.weight, std=0.01)
        nn.init.zeros_(self.masks.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.aggregate, 1 / self.aggregate.shape[1])
        nn.init.zeros_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        masks = torch.softmax(self.masks(x).flatten(2), dim=2)  # (B, M, HW)
        descriptors = x.flatten(2) @ masks.transpose(1, 2)  # (B, C, M)
        gate = torch.sigmoid(self.gate_norm((descriptors * self.aggregate).sum(dim=2)))  # (B, C)
        out: Tensor = x + self.norm(gate[:, :, None, None] * x)
        return out


class Heads(nn.Module):
    """What only training needs; serving leaves out every tensor whose name starts with "heads."."""

    def __init__(self, config: MCJAConfig, channels: int) -> None:
        super().__init__()
        self.identity = nn.Linear(channels, config.num_ids, bias=False)
        nn.init.normal_(self.identity.weight, std=0.001)
        self.sizes = [classes for _, classes in config.attributes]
        wanted = self.sizes and config.attribute_weight
        self.attributes = nn.Linear(channels, sum(self.sizes)) if wanted else None


class MCJA(nn.Module):
    """MCJA as configured. Images of any size of at least 32 x 32 pixels."""

    def __init__(self, config: MCJAConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = ResNet(config.width, config.depths, config.last_stride)
        channels = self.embedding_dim = self.vision.channels
        self.attention = nn.ModuleDict()
        if config.mda_masks:
            for (layer, blocks), middle in zip(MDA_AFTER.items(), (2 * config.width, 4 * config.width), strict=True):
                for block in blocks:
                    self.attention[f"{layer}_{block}"] = MDA(EXPANSION * middle, config.mda_masks)
        self.pool = GeM(config.gem_power, config.gem_eps)
        self.neck = nn.BatchNorm1d(channels)
        self.neck.bias.requires_grad_(False)
        self.heads = Heads(config, channels) if config.num_ids else None
        for module in self.attention.values():
            assert isinstance(module, MDA)
            module.start()

    # --- features ---------------------------------------------------------------------------------------------

    def encode_image(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D) unit rows, of visible and infrared images alike."""
        return F.normalize(self.features(images), dim=1)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> z (B, D), after the neck and not normalised."""
        z: Tensor = self.neck(self.pool(self.feature_map(images)))
        return z

    def feature_map(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D, H / 32, W / 32)."""
        vision = self.vision
        x = vision.stem(images.contiguous(memory_format=torch.channels_last))
        for name in ("layer1", "layer2", "layer3", "layer4"):
            for index, block in enumerate(vision.get_submodule(name).children()):
                x = block(x)
                if f"{name}_{index}" in self.attention:
                    x = self.attention[f"{name}_{index}"](x)
        return x

    # --- training ---------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Named, weighted losses on a batch of images of both modalities, in float32."""
        del epoch  # the losses are the same throughout
        if self.heads is None or batch.modalities is None:
            raise ValueError("Training needs a net built with num_ids, and a batch that knows its images' modalities.")
        pooled = self.pool(self.feature_map(batch.images))
        z: Tensor = self.neck(pooled)
        # Half precision would cost the similarities their last digits: the losses leave autocast.
        with torch.autocast(z.device.type, enabled=False):
            c, losses = self.config, dict[str, Tensor]()
            # Losses compare every row with every other, those of other processes included.
            z, labels, modalities = all_rows(z.float()), all_rows(batch.labels), all_rows(batch.modalities)
            if c.identity_weight:
                losses["identity"] = c.identity_weight * identity_loss(self.heads.identity(z), labels, smoothing=0.0)
            if c.cmr_weight:
                losses["cmr"] = c.cmr_weight * cmr_loss(z, labels, modalities, c.cmr_strength)
            if self.heads.attributes is not None:
                if batch.attributes is None:
                    raise ValueError("This net has attribute heads: its batches need attributes, -1 where unknown.")
                logits = self.heads.attributes(all_rows(pooled.float())).split(self.heads.sizes, dim=1)
                losses["attribute"] = c.attribute_weight * attribute_loss(logits, all_rows(batch.attributes))
            return losses

    def begin_stage(self, stage: int) -> None:
        """In both stages everything is trained but the bias of the neck. 1 is the published one; 0, an addition of
        ours, is for images at random, whose attributes stand in for ImageNet weights."""
        if stage not in (0, 1):
            raise ValueError(f"MCJA has stages 0 and 1, not {stage}.")

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """One optimizer group of all that is trained: as published, weight decay acts on norms and biases as well."""
        return [{"name": "all", "params": [p for p in self.parameters() if p.requires_grad], "lr": lr}]

    def load_vision_weights(self, path: str | Path) -> None:
        """Start the ResNet from a file of ImageNet weights; see `ResNet.load_weights`."""
        self.vision.load_weights(path)
