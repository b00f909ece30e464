"""AXM-Net: images and descriptions of people in one space, aligned by channel gates that both modalities share.

Two convolutional towers (vision: OSNet x1.0), each followed by its branches: global and part features V_G and V_P
for an image, a self-attended feature T for a text. Everything the paper ablates is a field of ``AXMNetConfig``.
Source: AXM-Net (AAAI 2022), reconstructed; where it is silent the choice is named where it is made. This file
neither tokenises nor augments: the random circular shift of texts belongs to batching.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.distributed import all_rows
from model.interface import Batch, Tokens
from model.losses import (
    AffinityMean,
    Negatives,
    Positives,
    affinity_loss,
    attribute_loss,
    identity_loss,
    info_nce_loss,
    similarity_matrix,
    triplet_loss,
)
from model.nets.backbones import (
    BLOCKS,
    ChannelGate,
    MultiScaleBlock,
    Tower,
    block_sizes,
    conv_norm,
    copy_osnet,
    image_stem,
    initialise,
    lite_conv,
    read_weights,
)

Align = Literal["none", "separate", "shared", "joint"]
Pooling = Literal["max", "avg"]


@dataclass(frozen=True)
class AXMNetConfig:
    """Every switch of AXM-Net; the defaults are the proposed model. All fields survive JSON.

    num_ids, attributes: training classes, and (name, classes) of each attribute head; without both the net has no
        heads and can only encode.
    widths, feature_dim: channels after the stem and of the three block stages; width of V_G, V_P and T.
    align: who gates the streams of a block: nobody, each modality its own gate, one gate for both (the paper), or
        ``joint``: one gate that sees both modalities of a pair, a diagnostic that no index can hold. One value
        for all six blocks, or six values; six booleans mean shared / none.
    parts: horizontal strips of the part branch; they differ by at most one row where the map height is no multiple.
    vfc: channel scaling of each strip; without it the part branch is a plain 1x1 convolution and pooling.
    vfc_mlp: one scaling network for all strips, or one each.
    vfc_fuse: strips put back into one map, or pooled one by one and concatenated.
    strip_pooling, part_pooling, global_pooling: what the scaling of a strip, V_P and V_G are computed from.
    feature_drop: zero a random block or strip of the part map in training.
    global_branch: False is the ablation "only part branch": V = V_P. part_branch: False leaves V = V_G.
    tsa, tsa_scaled: self-attention over the words: non-local, global context, off; divide its logits by sqrt(d).
    fc_layers: "proposed" is two in the global branch and one elsewhere; "one" and "two" are the same everywhere.
    unified_visual: losses act on V = V_G + V_P instead of on V_G and V_P separately (our reading of that ablation).
    text_input: "frozen" token states of ``text_dim`` channels from outside, or an embedding table "learned" here
        of ``vocabulary_size`` rows; ids beyond it are folded onto it, so a small table shares its rows.
    text_tower: convolutions, or "bag": the mean of the token vectors, blind to their order. With ``part_branch`` off
        it is the plain baseline that results are compared with.
    margin, negatives, positives, affinity_mean: see ``model.losses``.
    *_weight: factors of the losses: stage 0 uses attribute and info_nce, stage 1 identity plus the stage1_* ones,
        stage 2 identity, triplet and affinity, plus the stage2_* ones. Zero leaves a loss out.
    backbone_lr_scale: factor on the learning rate of the vision tower and its gates in stage 2.
    """

    num_ids: int = 0
    attributes: tuple[tuple[str, int], ...] = ()
    widths: tuple[int, int, int, int] = (64, 256, 384, 512)
    feature_dim: int = 512
    align: Align | tuple[Align | bool, ...] = "shared"
    parts: int = 6
    vfc: bool = True
    vfc_mlp: Literal["shared", "separate"] = "shared"
    vfc_fuse: Literal["map", "vector"] = "map"
    strip_pooling: Pooling = "max"
    part_pooling: Pooling = "max"
    global_pooling: Pooling = "avg"
    feature_drop: Literal["none", "block", "strip"] = "none"
    global_branch: bool = True
    part_branch: bool = True
    tsa: Literal["nonlocal", "gc", "off"] = "nonlocal"
    tsa_scaled: bool = False
    fc_layers: Literal["proposed", "one", "two"] = "proposed"
    unified_visual: bool = False
    text_input: Literal["frozen", "learned"] = "frozen"
    text_dim: int = 768
    vocabulary_size: int = 30522
    text_tower: Literal["conv", "bag"] = "conv"
    text_stem: Literal["standard", "separable"] = "standard"
    label_smoothing: float = 0.1
    margin: float = 0.5
    negatives: Negatives = "hardest"
    positives: Positives = "paired"
    affinity_mean: AffinityMean = "separate"
    identity_weight: float = 1.0
    triplet_weight: float = 1.0
    affinity_weight: float = 1.0
    attribute_weight: float = 1.0
    info_nce_weight: float = 1.0
    stage1_attribute_weight: float = 0.0
    stage1_info_nce_weight: float = 0.0
    stage2_attribute_weight: float = 0.0
    stage2_info_nce_weight: float = 0.0
    backbone_lr_scale: float = 0.1

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                choices = ", ".join(map(str, get_args(hint)))
                raise ValueError(f"{name} must be one of {choices}, not {getattr(self, name)!r}.")
        if len(self.align_modes) != BLOCKS or not set(self.align_modes) <= set(get_args(Align)):
            raise ValueError(f"align must be one or {BLOCKS} of {', '.join(get_args(Align))}, not {self.align!r}.")
        if not self.global_branch and not self.part_branch:
            raise ValueError("An image needs the global branch, the part branch, or both.")
        if self.text_tower == "bag" and not set(self.align_modes) <= {"none", "separate"}:
            raise ValueError(
                'A bag of words has no blocks to align: text_tower="bag" goes with align none or separate.'
            )
        if self.parts < 1:
            raise ValueError(f"parts must be at least 1, not {self.parts}.")
        if len(self.widths) != 4 or min(self.widths[1:]) < 4:
            raise ValueError(f"widths must be four channel counts, not {self.widths!r}.")

    @property
    def align_modes(self) -> tuple[str, ...]:
        """The mode of each of the six blocks."""
        if isinstance(self.align, str):
            return (self.align,) * BLOCKS
        return tuple(("shared" if mode else "none") if isinstance(mode, bool) else mode for mode in self.align)


def projection(cin: int, cout: int, layers: int) -> nn.Sequential:
    """FC layers, each with batch norm, ReLU between them: the last is linear so that cosines can be negative."""
    modules: list[nn.Module] = []
    for index in range(layers):
        modules += [nn.Linear(cout if index else cin, cout, bias=False), nn.BatchNorm1d(cout)]
        if index < layers - 1:
            modules.append(nn.ReLU(inplace=True))
    return nn.Sequential(*modules)


def pool(x: Tensor, how: Pooling) -> Tensor:
    """(B, C, *S) -> (B, C)."""
    space = tuple(range(2, x.dim()))
    return x.amax(dim=space) if how == "max" else x.mean(dim=space)


class PartBranch(nn.Module):
    """Visual feature calibration: scale the channels of each horizontal strip by what the strip shows (eq. 3 to 5).

    (B, C, H, W) with H >= parts -> V_P (B, D).
    """

    def __init__(self, config: AXMNetConfig, channels: int, fc_layers: int) -> None:
        super().__init__()
        self.parts, self.fuse_how, self.drop = config.parts, config.vfc_fuse, config.feature_drop
        self.strip_pooling: Pooling = config.strip_pooling
        self.part_pooling: Pooling = config.part_pooling
        count = 0 if not config.vfc else (1 if config.vfc_mlp == "shared" else config.parts)
        self.scale_mlps = nn.ModuleList(ChannelGate(channels) for _ in range(count))
        if config.vfc_fuse == "map":
            self.fuse = conv_norm(2, channels, channels)
            self.project = projection(channels, config.feature_dim, fc_layers)
        else:
            self.project = projection(channels * config.parts, config.feature_dim, fc_layers)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] < self.parts:
            raise ValueError(
                f"The feature map has {x.shape[2]} rows, too few for {self.parts} strips: use images at least "
                f"{16 * self.parts} pixels high, or fewer parts."
            )
        if self.scale_mlps:
            x = x * self.scalings(x)
        if self.training and self.drop != "none":
            x = x * self.random_keep(x)
        if self.fuse_how == "map":
            pooled = pool(self.fuse(x), self.part_pooling)
        else:
            strips = x.tensor_split(self.parts, dim=2)
            pooled = torch.cat([pool(strip, self.part_pooling) for strip in strips], dim=1)  # (B, K*C)
        projected: Tensor = self.project(pooled)
        return projected

    def scalings(self, x: Tensor) -> Tensor:
        """p_k of every strip, repeated over its rows: (B, C, H, W) -> (B, C, H, 1), inside (0, 1)."""
        strips = x.tensor_split(self.parts, dim=2)
        pooled = torch.stack([pool(strip, self.strip_pooling) for strip in strips], dim=1)  # (B, K, C)
        if len(self.scale_mlps) == 1:
            scaling: Tensor = self.scale_mlps[0](pooled)
        else:
            scaling = torch.stack([mlp(pooled[:, k]) for k, mlp in enumerate(self.scale_mlps)], dim=1)
        rows = torch.tensor([strip.shape[2] for strip in strips], device=x.device)
        return scaling.repeat_interleave(rows, dim=1, output_size=x.shape[2]).transpose(1, 2).unsqueeze(3)

    def random_keep(self, x: Tensor) -> Tensor:
        """A mask per sample, zero on one random strip, or on a random block: a third of the height, half the width."""
        batch, _, height, width = x.shape
        row = torch.arange(height, device=x.device)
        column = torch.arange(width, device=x.device)
        if self.drop == "strip":
            strip_of_row = torch.repeat_interleave(
                torch.arange(self.parts, device=x.device),
                torch.tensor([len(part) for part in row.tensor_split(self.parts)], device=x.device),
            )
            chosen = torch.randint(self.parts, (batch, 1), device=x.device)
            return (strip_of_row != chosen)[:, None, :, None].to(x.dtype)  # (B, 1, H, 1)
        tall, wide = math.ceil(height / 3), math.ceil(width / 2)
        top = torch.randint(height - tall + 1, (batch, 1), device=x.device)
        left = torch.randint(width - wide + 1, (batch, 1), device=x.device)
        inside_rows = (row >= top) & (row < top + tall)  # (B, H)
        inside_columns = (column >= left) & (column < left + wide)  # (B, W)
        return (~(inside_rows[:, :, None] & inside_columns[:, None, :]))[:, None].to(x.dtype)  # (B, 1, H, W)


class NonLocal(nn.Module):
    """Embedded-Gaussian non-local block over the positions of a text: (B, C, T) -> (B, C, T).

    Its last norm starts at scale zero, so it starts as the identity. ``scaled`` divides the logits by sqrt(C/2).
    """

    def __init__(self, channels: int, scaled: bool) -> None:
        super().__init__()
        inner = channels // 2
        self.query = nn.Conv1d(channels, inner, 1)
        self.key = nn.Conv1d(channels, inner, 1)
        self.value = nn.Conv1d(channels, inner, 1)
        self.out = nn.Conv1d(inner, channels, 1, bias=False)
        self.norm = nn.BatchNorm1d(channels)
        self.factor = inner**-0.5 if scaled else 1.0

    def start(self) -> None:
        """Small random weights: Kaiming-normal ones would saturate the unscaled softmax from the first step on."""
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        affinity = torch.softmax(self.query(x).transpose(1, 2) @ self.key(x) * self.factor, dim=2)  # (B, T, T)
        attended = self.value(x) @ affinity.transpose(1, 2)  # (B, C/2, T)
        out: Tensor = x + self.norm(self.out(attended))
        return out


class GlobalContext(nn.Module):
    """Global-context block: one attention map for all positions, its summary added to each: (B, C, T) -> (B, C, T)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.attention = nn.Conv1d(channels, 1, 1)
        self.reduce = nn.Linear(channels, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.expand = nn.Linear(hidden, channels)

    def start(self) -> None:
        """The last layer starts at zero, so that the block starts as the identity."""
        nn.init.zeros_(self.expand.weight)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(self.attention(x), dim=2)  # (B, 1, T)
        context = (x * weights).sum(dim=2)  # (B, C)
        added: Tensor = self.expand(torch.relu(self.norm(self.reduce(context))))
        return x + added[:, :, None]


class Heads(nn.Module):
    """What only training needs: classifiers shared by V_G, V_P and T, and the temperature of InfoNCE."""

    def __init__(self, config: AXMNetConfig) -> None:
        super().__init__()
        self.sizes = [classes for _, classes in config.attributes]
        # Serving leaves out every tensor whose name starts with "heads."
        self.identity = nn.Linear(config.feature_dim, config.num_ids, bias=False) if config.num_ids else None
        self.attributes = nn.Linear(config.feature_dim, sum(self.sizes)) if self.sizes else None
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def scale(self) -> Tensor:
        """Inverse temperature, at most 100."""
        return self.log_scale.exp().clamp(max=100.0)


class AXMNet(nn.Module):
    """AXM-Net as configured; starts in stage 0. Images of any size whose height / 16 is at least ``parts``."""

    def __init__(self, config: AXMNetConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding_dim = config.feature_dim
        self.stage = 0
        widths, channels = config.widths, config.widths[-1]
        two = config.fc_layers == "two"

        self.vision = Tower(2, image_stem(widths[0]), widths)
        if config.text_input == "learned":
            self.text_table = nn.Embedding(config.vocabulary_size, config.text_dim, padding_idx=0)
        self.text: Tower | None = None
        if config.text_tower == "conv":
            standard = config.text_stem == "standard"
            stem = (
                conv_norm(1, config.text_dim, widths[0], kernel=3)
                if standard
                else lite_conv(1, config.text_dim, widths[0])
            )
            self.text = Tower(1, stem, widths)
        # Gates belong to neither tower: the same object serves both, and appears once among the parameters.
        self.gates, self.text_gates = nn.ModuleDict(), nn.ModuleDict()
        for index, (mode, (_, cout)) in enumerate(zip(config.align_modes, block_sizes(widths), strict=True)):
            middle = cout // 4
            if mode != "none":
                self.gates[str(index)] = ChannelGate(middle if mode != "joint" else 2 * middle)
            if mode == "separate" and self.text is not None:
                self.text_gates[str(index)] = ChannelGate(middle)

        if config.global_branch:
            self.global_project = projection(channels, config.feature_dim, 1 if config.fc_layers == "one" else 2)
        self.part_branch = PartBranch(config, channels, 2 if two else 1) if config.part_branch else None
        self.attention: NonLocal | GlobalContext | nn.Identity = nn.Identity()
        if self.text is not None and config.tsa != "off":
            self.attention = (
                NonLocal(channels, config.tsa_scaled) if config.tsa == "nonlocal" else GlobalContext(channels)
            )
        text_channels = channels if self.text is not None else config.text_dim
        self.text_project = projection(text_channels, config.feature_dim, 2 if two else 1)
        self.heads = Heads(config) if config.num_ids or config.attributes else None

        initialise(self)
        if not isinstance(self.attention, nn.Identity):
            self.attention.start()

    # --- features ---------------------------------------------------------------------------------------------

    def encode_image(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D) unit rows: V = V_G + V_P, summed before normalising. ValueError in joint mode."""
        self._refuse_joint("encode_image")
        return F.normalize(torch.stack(self._image_features(self._vision_map(images))).sum(dim=0), dim=1)

    def encode_text(self, tokens: Tokens) -> Tensor:
        """Tokens (B, T) -> (B, D) unit rows. ValueError in joint mode."""
        self._refuse_joint("encode_text")
        return F.normalize(self._text_feature(self._text_map(tokens), tokens), dim=1)

    def pair_similarity(self, images: Tensor, tokens: Tokens) -> Tensor:
        """Cosine similarity (B,) of image i with text i: in joint mode the only one there is, since the vectors of
        a pair depend on each other; otherwise the inner product of the two encodings."""
        visual, text = self.pair_features(images, tokens)
        return F.cosine_similarity(torch.stack(visual).sum(dim=0), text, dim=1)

    def pair_features(self, images: Tensor, tokens: Tokens) -> tuple[list[Tensor], Tensor]:
        """[V_G, V_P], or the one that the net has, and T; each (B, D), not normalised."""
        if "joint" in self.config.align_modes:
            vision_map, text_map = self._joint_maps(images, tokens)
        else:
            vision_map, text_map = self._vision_map(images), self._text_map(tokens)
        return self._image_features(vision_map), self._text_feature(text_map, tokens)

    def vision_gates(self) -> list[ChannelGate | None]:
        """The gate of each of the six vision blocks, None where that block has none."""
        gates: dict[str, Any] = dict(self.gates.items())
        return [gates.get(str(index)) for index in range(BLOCKS)]

    def caption_gates(self) -> list[ChannelGate | None]:
        """The gate of each of the six text blocks: the very objects of ``vision_gates`` where they are shared."""
        own: dict[str, Any] = dict(self.text_gates.items())
        return [own.get(str(index), gate) for index, gate in enumerate(self.vision_gates())]

    def _vision_map(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H/16, W/16)."""
        images = images.contiguous(memory_format=torch.channels_last)  # depth-wise convolutions are faster so
        vision_map: Tensor = self.vision(images, self.vision_gates())
        return vision_map

    def _text_map(self, tokens: Tokens) -> Tensor:
        """(B, T) -> (B, C, T/4); without a tower the token vectors as they are, (B, text_dim, T)."""
        if self.text is None:
            return self._text_input(tokens)
        text_map: Tensor = self.text(self._text_input(tokens), self.caption_gates())
        return text_map

    def _text_input(self, tokens: Tokens) -> Tensor:
        """(B, T) -> (B, text_dim, T), zero after the end of each text."""
        if self.config.text_input == "learned":
            rows = self.text_table.num_embeddings - 1
            folded = torch.where(tokens.ids > 0, 1 + (tokens.ids - 1) % rows, 0)
            states: Tensor = self.text_table(folded)
        elif tokens.states is None:
            raise ValueError('These tokens carry no states: this net was configured with text_input="frozen".')
        else:
            states = tokens.states.to(self.text_project[0].weight.dtype)  # type: ignore[arg-type]
        if states.shape[2] != self.config.text_dim:
            raise ValueError(f"Token states have {states.shape[2]} channels; this net reads {self.config.text_dim}.")
        return states.transpose(1, 2)

    def _joint_maps(self, images: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Both towers in step: a joint gate sees the pooled streams of an image and of its text side by side."""
        image = self.vision.stem(images.contiguous(memory_format=torch.channels_last))
        assert self.text is not None  # joint alignment is refused without a tower
        text = self.text.stem(self._text_input(tokens))
        gates = zip(self.config.align_modes, self.vision_gates(), self.caption_gates(), strict=True)
        for index, (mode, gate, caption_gate) in enumerate(gates):
            image_block, text_block = self.vision.blocks[index], self.text.blocks[index]
            assert isinstance(image_block, MultiScaleBlock) and isinstance(text_block, MultiScaleBlock)
            if mode == "joint":
                assert gate is not None
                image_streams, image_pooled = image_block.streams(image)
                text_streams, text_pooled = text_block.streams(text)
                scaling = gate(torch.cat([image_pooled, text_pooled], dim=2))  # (B, 4, 2c)
                image_scaling, text_scaling = scaling.chunk(2, dim=2)
                image = image_block.merge(image, image_streams, image_scaling)
                text = text_block.merge(text, text_streams, text_scaling)
            else:
                image, text = image_block(image, gate), text_block(text, caption_gate)
            image, text = self.vision.transitions[index](image), self.text.transitions[index](text)
        return self.vision.final(image), self.text.final(text)

    def _image_features(self, vision_map: Tensor) -> list[Tensor]:
        """(B, C, h, w) -> [V_G, V_P], or the one that the net has; each (B, D)."""
        features: list[Tensor] = []
        if self.config.global_branch:
            features.append(self.global_project(pool(vision_map, self.config.global_pooling)))
        if self.part_branch is not None:
            features.append(self.part_branch(vision_map))
        return features

    def _text_feature(self, text_map: Tensor, tokens: Tokens) -> Tensor:
        """(B, C, t) -> T (B, D)."""
        if self.text is None:
            pooled = text_map.sum(dim=2) / tokens.mask.sum(dim=1, keepdim=True).clamp(min=1)
        else:
            pooled = pool(self.attention(text_map), "max")
        text: Tensor = self.text_project(pooled)
        return text

    def _refuse_joint(self, name: str) -> None:
        if "joint" in self.config.align_modes:
            raise ValueError(
                f'{name} is impossible with align="joint": each vector would depend on the item it is compared with, '
                "so nothing could be indexed. Score pairs with pair_similarity(images, tokens)."
            )

    # --- training ---------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Named, weighted losses of the current stage on a batch of image-text pairs, in float32; of a batch without
        texts those of the vision tower alone.

        With align="joint" image i and text i have seen each other before they are compared with the rest of the batch.
        """
        del epoch  # every loss is the same in all epochs of a stage
        if self.heads is None:
            raise ValueError("Training needs a net built with num_ids or attributes.")
        if batch.tokens is None:
            visual, texts = self._image_features(self._vision_map(batch.images)), []
        else:
            visual, text = self.pair_features(batch.images, batch.tokens)
            texts = [text]
        # Half precision would cost the similarities their last digits: the losses leave autocast.
        with torch.autocast(batch.images.device.type, enabled=False):
            visual = [feature.float() for feature in visual]
            if self.config.unified_visual:
                visual = [torch.stack(visual).sum(dim=0)]
            # Losses compare every row with every other, those of other processes included.
            attributes = None if batch.attributes is None else all_rows(batch.attributes)
            whole = replace(batch, labels=all_rows(batch.labels), attributes=attributes)
            rows = [all_rows(v) for v in visual]
            return self._losses(rows, [all_rows(t.float()) for t in texts], whole, self.heads)

    def _losses(self, visual: list[Tensor], texts: list[Tensor], batch: Batch, heads: Heads) -> dict[str, Tensor]:
        """visual: V_G and V_P, or the one vector that stands for both, (B, D) each. texts: T (B, D), or nothing."""
        c, losses = self.config, dict[str, Tensor]()
        weights = self._weights()
        features, labels = [*visual, *texts], batch.labels
        if weights["identity"]:
            if heads.identity is None:
                raise ValueError("The identity loss needs a net built with num_ids; set identity_weight=0 without.")
            terms = [identity_loss(heads.identity(feature), labels, c.label_smoothing) for feature in features]
            losses["identity"] = weights["identity"] * torch.stack(terms).sum()
        if weights["attribute"] and heads.attributes is not None:
            if batch.attributes is None:
                raise ValueError("This net has attribute heads: its batches need attributes, -1 where unknown.")
            split = [heads.attributes(feature).split(heads.sizes, dim=1) for feature in features]
            terms = [attribute_loss(logits, batch.attributes) for logits in split]
            losses["attribute"] = weights["attribute"] * torch.stack(terms).mean()
        if weights["triplet"] or weights["affinity"] or weights["info_nce"]:
            if not texts:
                raise ValueError("Triplet, affinity and InfoNCE losses need texts: set their weights to 0 without.")
            pairs = [similarity_matrix(v, *texts) for v in visual]
            if weights["triplet"]:
                options: dict[str, Any] = {"margin": c.margin, "negatives": c.negatives, "positives": c.positives}
                terms = [triplet_loss(s, labels, **options) for s in pairs]
                losses["triplet"] = weights["triplet"] * torch.stack(terms).sum()
            if weights["affinity"]:
                terms = [affinity_loss(s, labels, mean=c.affinity_mean) for s in pairs]
                losses["affinity"] = weights["affinity"] * torch.stack(terms).sum()
            if weights["info_nce"]:
                terms = [info_nce_loss(s, labels, heads.scale()) for s in pairs]
                losses["info_nce"] = weights["info_nce"] * torch.stack(terms).sum()
        return losses

    def _weights(self) -> dict[str, float]:
        """The factor of every loss in the current stage."""
        c = self.config
        weights = dict.fromkeys(("identity", "triplet", "affinity", "attribute", "info_nce"), 0.0)
        if self.stage == 0:
            weights |= {"attribute": c.attribute_weight, "info_nce": c.info_nce_weight}
        elif self.stage == 1:
            weights |= {"identity": c.identity_weight}
            weights |= {"attribute": c.stage1_attribute_weight, "info_nce": c.stage1_info_nce_weight}
        else:
            weights |= {"identity": c.identity_weight, "triplet": c.triplet_weight, "affinity": c.affinity_weight}
            weights |= {"attribute": c.stage2_attribute_weight, "info_nce": c.stage2_info_nce_weight}
        return weights

    def begin_stage(self, stage: int) -> None:
        """0: everything, attributes and InfoNCE, where no pre-trained vision weights exist. 1: vision tower and its
        gates frozen, identity loss. 2: everything, the full loss. A recipe without stage 1 is "single stage"."""
        if stage not in (0, 1, 2):
            raise ValueError(f"AXM-Net has stages 0, 1 and 2, not {stage}.")
        self.stage = stage
        for parameter in [*self.vision.parameters(), *self.gates.parameters()]:
            parameter.requires_grad_(stage != 1)
        self.train(self.training)

    def train(self, mode: bool = True) -> AXMNet:
        """As usual, but a frozen vision tower stays in eval mode: its batch statistics are frozen as well."""
        super().train(mode)
        if self.stage == 1:
            self.vision.eval()
        return self

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Optimizer groups of what the stage trains: the vision backbone apart, and norms, biases and the
        temperature (everything of one dimension or less) without weight decay."""
        backbone = {id(p) for p in [*self.vision.parameters(), *self.gates.parameters()]}
        scale = self.config.backbone_lr_scale if self.stage == 2 else 1.0
        groups: dict[str, list[nn.Parameter]] = {}
        for parameter in self.parameters():
            if parameter.requires_grad:
                name = "backbone" if id(parameter) in backbone else "branches"
                groups.setdefault(name if parameter.dim() > 1 else f"{name}_no_decay", []).append(parameter)
        return [
            {"name": name, "params": parameters, "lr": lr * scale if name.startswith("backbone") else lr}
            | ({"weight_decay": 0.0} if name.endswith("no_decay") else {})
            for name, parameters in groups.items()
        ]

    def load_vision_weights(self, path: str | Path) -> None:
        """Start the vision tower, and its gates where its blocks have them, from a file a person supplies.

        The file is an OSNet under torchreid's public names, or a checkpoint of an AXM-Net, whose missing gates are
        left as they are here. Everything else in it is left aside. Raises ValueError with a sentence when a tensor is
        missing or has another shape; the net is then unchanged.
        """
        state = read_weights(Path(path))
        if not any(name.startswith("vision.") for name in state):
            joint = [f"gates.{index}" for index, mode in enumerate(self.config.align_modes) if mode == "joint"]
            copy_osnet(self, state, path, leave=joint)
            return
        own = self.state_dict()
        gates = {name for name in own if name.startswith("gates.")} & state.keys()
        wanted = {name for name in own if name.startswith("vision.")} | gates
        for name in sorted(wanted):
            if name not in state or state[name].shape != own[name].shape:
                theirs = f"of shape {tuple(state[name].shape)}" if name in state else "missing"
                raise ValueError(f"{path}: {name} is {theirs}, but this net needs {tuple(own[name].shape)}.")
        self.load_state_dict({name: state[name] for name in wanted}, strict=False)
