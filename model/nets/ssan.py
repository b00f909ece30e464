"""SSAN: images and descriptions of people meet in shared projections, as wholes, as parts, and as related parts.

A ResNet-50 and a bidirectional LSTM, each followed by the very same layers: whatever comes after the two encoders is
shared by the modalities, and that is all that aligns them. Which words speak of which body part is learned without
labels. Source: SSAN (arXiv 2107.12666). Where the paper prints a formula it is the default; where it is silent, its
published code is followed; where that code does something else, a field of ``SSANConfig`` named there says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.distributed import all_rows
from model.interface import Batch, Tokens
from model.losses import Negatives, attribute_loss, identity_loss, info_nce_loss, similarity_matrix
from model.losses_ssan import Reduction, WeakNegatives, adaptive_margin, compound_ranking_loss
from model.nets.resnet import ResNet

SLOPE = 0.25  # of every LeakyReLU


@dataclass(frozen=True)
class SSANConfig:
    """Every switch of SSAN; the defaults are the paper's. All fields survive JSON.

    num_ids, attributes: training classes, and (name, classes) of each attribute head; without both the net has no
        heads and can only encode.
    width, depths, last_stride: of the ResNet; the defaults are ResNet-50.
    encoder_dim: channels of what both encoders give; None is what the ResNet gives, as published. Another number, for
        small trainings, puts a 1x1 convolution behind the ResNet and lets the LSTM be as narrow.
    parts: horizontal strips of an image, and as many looks at a text.
    feature_dim, relation_dim: width of the whole and of every part; of every related part.
    vocabulary_size, word_dim: rows of the two word tables, that of the padding included, and their width. Training
        sets the rows to the words it finds.
    dropout: of the embedded words.
    relation_norm: batch norm and LeakyReLU behind the third matrix of the relation block. The formula prints a bare
        matrix; the published size counts them.
    relation_values: what a part takes from the others: their projections as in the formula ("plain"), or made unit
        vectors first ("unit"), as in the published code.
    max_sees_padding: the published code's maximum over the words of the whole text runs over the zeros after its end.
    margin, negatives, reduction, weak_negatives: see ``model.losses_ssan``; its published form of the weak negatives
        is "weak".
    weak_weight: factor of the terms of weak captions; 0 needs no weak captions in a batch.
    fixed_margin_epochs, absolute_margin, least_weak_margin: the published code keeps the margin of weak captions at its
        least for 5 epochs, later takes similarities without their signs, and drops margins below 0.16. The formula
        does none of it.
    label_smoothing: of the identity loss.
    part_weight: factor of a loss on parts and on related parts beside that on the whole.
    *_weight: factors of the losses: stage 0 uses attribute and info_nce, stage 1 identity and ranking, plus the
        stage1_* ones. Zero leaves a loss out.
    backbone_lr_scale: factor on the learning rate of the ResNet in stage 1.
    """

    num_ids: int = 0
    attributes: tuple[tuple[str, int], ...] = ()
    width: int = 64
    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    last_stride: Literal[1, 2] = 2
    encoder_dim: int | None = None
    parts: int = 6
    feature_dim: int = 1024
    relation_dim: int = 512
    vocabulary_size: int = 5000
    word_dim: int = 512
    dropout: float = 0.3
    relation_norm: bool = True
    relation_values: Literal["plain", "unit"] = "plain"
    max_sees_padding: bool = False
    margin: float = 0.2
    negatives: Negatives = "semi_hard"
    reduction: Reduction = "sum"
    weak_negatives: WeakNegatives = "captions"
    weak_weight: float = 0.1
    fixed_margin_epochs: int = 0
    absolute_margin: bool = False
    least_weak_margin: float = 0.0
    label_smoothing: float = 0.0
    part_weight: float = 0.5
    identity_weight: float = 1.0
    ranking_weight: float = 1.0
    attribute_weight: float = 1.0
    info_nce_weight: float = 1.0
    stage1_attribute_weight: float = 0.0
    stage1_info_nce_weight: float = 0.0
    backbone_lr_scale: float = 0.1

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                choices = ", ".join(map(str, get_args(hint)))
                raise ValueError(f"{name} must be one of {choices}, not {getattr(self, name)!r}.")
        if self.parts < 2:
            raise ValueError(f"parts must be at least 2, for parts to relate to others, not {self.parts}.")
        if self.vocabulary_size < 2:
            raise ValueError(
                f"vocabulary_size must leave room for a word beside the padding, not {self.vocabulary_size}."
            )

    @property
    def level_dims(self) -> tuple[int, int, int]:
        """Numbers of the whole, of all parts, and of all related parts."""
        return self.feature_dim, self.parts * self.feature_dim, self.parts * self.relation_dim


class Features(NamedTuple):
    """What is compared of an image or a text, each level by a cosine of its own.

    whole: (B, D). parts: (B, K, D). related: (B, K, R). None is normalised.
    """

    whole: Tensor
    parts: Tensor
    related: Tensor

    def flat(self) -> list[Tensor]:
        """(B, D), (B, K*D), (B, K*R): the parts of one item are compared as one vector."""
        return [self.whole, self.parts.flatten(1), self.related.flatten(1)]


class PartLinear(nn.Module):
    """A linear layer for each part: (B, K, cin) -> (B, K, cout)."""

    def __init__(self, parts: int, cin: int, cout: int, *, bias: bool = False, std: float | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(parts, cin, cout))
        self.bias = nn.Parameter(torch.zeros(parts, cout)) if bias else None
        nn.init.normal_(self.weight, std=math.sqrt(2 / cout) if std is None else std)  # Kaiming, fan out

    def forward(self, x: Tensor) -> Tensor:
        out = torch.einsum("bki,kio->bko", x, self.weight)
        return out if self.bias is None else out + self.bias


class TextEncoder(nn.Module):
    """Two word tables read by one bidirectional LSTM, whose directions are averaged.

    ids (B, T) -> states for the whole and states for the parts, (B, t, C) each with t the longest of the B lengths,
    and the mask (B, t) of their words. A text without words counts as one word that is all zeros.
    """

    def __init__(self, config: SSANConfig, channels: int) -> None:
        super().__init__()
        self.words_of_whole = nn.Embedding(config.vocabulary_size, config.word_dim, padding_idx=0)
        self.words_of_parts = nn.Embedding(config.vocabulary_size, config.word_dim, padding_idx=0)
        self.dropout = nn.Dropout(config.dropout)
        self.lstm = nn.LSTM(config.word_dim, channels, bias=False, batch_first=True, bidirectional=True)

    def forward(self, tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
        # Texts may have been shifted, so that their end stands before their beginning: words first, padding last.
        front = tokens.mask.int().argsort(dim=1, descending=True, stable=True)
        ids, lengths = tokens.ids.gather(1, front), tokens.mask.sum(dim=1).clamp(min=1)
        if int(ids.max()) >= self.words_of_whole.num_embeddings:
            raise ValueError(
                f"A text has word {int(ids.max())}, but this net knows {self.words_of_whole.num_embeddings} words: it "
                f"reads texts by a vocabulary of its own (a text input of kind words)."
            )
        longest = int(lengths.max())
        both = self.dropout(torch.cat([self.words_of_whole(ids), self.words_of_parts(ids)]))  # (2B, T, word_dim)
        # Without bias terms the state stays zero over padding, which is zero: the backward direction starts afresh at
        # the last word of each text, and nothing need be packed. In float32 also under autocast: rounding adds up over
        # the steps of a recurrence.
        with torch.autocast(both.device.type, enabled=False):
            states, _ = self.lstm(both[:, :longest].float())  # (2B, t, 2C)
        forward, backward = states.chunk(2, dim=2)
        whole, parts = ((forward + backward) / 2).chunk(2)  # (B, t, C) each
        return whole, parts, torch.arange(longest, device=ids.device) < lengths[:, None]


class RelationBlock(nn.Module):
    """Multi-view non-local network: every part takes from the other parts what resembles it (B, K, D) -> (B, K, R).

    For part k among the others i, with a matrix of its own for each part and each role:
        w_ki = softmax over i of cos(query_k(x_k), key_i(x_i)),
        n_k = out_k(x_k + gather_k(sum over i of w_ki key_i(x_i))).
    """

    def __init__(self, config: SSANConfig) -> None:
        super().__init__()
        k, d, r = config.parts, config.feature_dim, config.relation_dim
        self.unit_values = config.relation_values == "unit"
        self.query, self.key = PartLinear(k, d, r), PartLinear(k, d, r)
        self.gather = PartLinear(k, r, d)
        # One norm for the channels of all parts is a norm for each part. Images, captions and weak captions come one
        # after the other, each with the statistics of its own batch, as published.
        self.norm = nn.BatchNorm1d(k * d) if config.relation_norm else None
        self.out = PartLinear(k, d, r)

    def weights(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, K, R) twice -> (B, K, K): how much part k takes from each part; nothing from itself, one in all."""
        cosines = F.normalize(query, dim=2) @ F.normalize(key, dim=2).transpose(1, 2)  # (B, K, K)
        itself = torch.eye(cosines.shape[1], dtype=torch.bool, device=cosines.device)
        return cosines.masked_fill(itself, -torch.inf).softmax(dim=2)

    def forward(self, x: Tensor) -> Tensor:
        key = leaky(self.key(x))  # (B, K, R)
        weights = self.weights(leaky(self.query(x)), key)
        context = self.gather(weights @ (F.normalize(key, dim=2) if self.unit_values else key))  # (B, K, D)
        if self.norm is not None:
            context = leaky(self.norm(context.flatten(1)).reshape(context.shape))
        out: Tensor = self.out(x + context)
        return out


def leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)


class Heads(nn.Module):
    """What only training needs: classifiers shared by images and texts, one for each slot of each level, attribute
    classifiers on each level, and the temperature of InfoNCE."""

    def __init__(self, config: SSANConfig) -> None:
        super().__init__()
        # Serving leaves out every tensor whose name starts with "heads."
        self.sizes = [classes for _, classes in config.attributes]
        self.identity: nn.ModuleList | None = None
        if config.num_ids:
            slots = ((1, config.feature_dim), (config.parts, config.feature_dim), (config.parts, config.relation_dim))
            self.identity = nn.ModuleList(PartLinear(k, d, config.num_ids, bias=True, std=0.001) for k, d in slots)
        self.attributes: nn.ModuleList | None = None
        if self.sizes:
            self.attributes = nn.ModuleList(nn.Linear(dim, sum(self.sizes)) for dim in config.level_dims)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def scale(self) -> Tensor:
        """Inverse temperature, at most 100."""
        return self.log_scale.exp().clamp(max=100.0)


class SSAN(nn.Module):
    """SSAN as configured; starts in stage 1. Images whose height / stride of the ResNet is at least ``parts``."""

    def __init__(self, config: SSANConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding_dim = sum(config.level_dims)
        self.stage = 1
        self.vision = ResNet(config.width, config.depths, config.last_stride)
        channels = config.encoder_dim or self.vision.channels
        self.narrow: nn.Module = nn.Identity()
        if config.encoder_dim is not None:
            convolution = nn.Conv2d(self.vision.channels, channels, 1, bias=False)
            self.narrow = nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        self.text = TextEncoder(config, channels)
        # From here on everything serves both modalities, but for the attention over words.
        self.word_attention = nn.Linear(channels, config.parts, bias=False)
        self.whole = nn.Linear(channels, config.feature_dim, bias=False)
        self.parts = PartLinear(config.parts, channels, config.feature_dim)
        self.relation = RelationBlock(config)
        for layer in (self.word_attention, self.whole):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")
        self.heads = Heads(config) if config.num_ids or config.attributes else None

    # --- features ---------------------------------------------------------------------------------------------

    def encode_image(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D) unit rows: the three levels as unit vectors side by side, and unit again. Inner
        products are a third of the sum of the three cosines."""
        return joined(self.image_features(images))

    def encode_text(self, tokens: Tokens) -> Tensor:
        """Tokens (B, T) -> (B, D) unit rows, as of images. All texts without words have one vector."""
        return joined(self.text_features(tokens))

    def image_features(self, images: Tensor) -> Features:
        feature_map = self.narrow(self.vision(images.contiguous(memory_format=torch.channels_last)))  # (B, C, h, w)
        rows, parts = feature_map.shape[2], self.config.parts
        if rows < parts:
            raise ValueError(
                f"The feature map has {rows} rows, too few for {parts} parts: use images at least "
                f"{self.vision.stride * parts} pixels high, or fewer parts."
            )
        whole = feature_map.amax(dim=(2, 3))  # (B, C)
        strips = F.adaptive_max_pool2d(feature_map, (parts, 1)).squeeze(3).transpose(1, 2)  # (B, K, C)
        return self._projected(whole, strips)

    def text_features(self, tokens: Tokens) -> Features:
        of_whole, of_parts, mask = self.text(tokens)  # (B, t, C) twice, (B, t)
        whole = of_whole.masked_fill(~mask[:, :, None], -torch.inf).amax(dim=1)  # (B, C)
        if self.config.max_sees_padding:
            shorter = mask.sum(dim=1) < tokens.mask.shape[1]
            whole = torch.where(shorter[:, None], whole.clamp(min=0), whole)
        looks = torch.sigmoid(self.word_attention(of_parts))  # (B, t, K)
        seen = [
            (of_parts * look[:, :, None]).masked_fill(~mask[:, :, None], -torch.inf).amax(dim=1)
            for look in looks.unbind(dim=2)
        ]
        return self._projected(whole, torch.stack(seen, dim=1))

    def attention(self, tokens: Tokens) -> Tensor:
        """(B, T) -> (B, T, K) in 0..1: how much each part looks at each word, 0 where there is none. A word may serve
        several parts, or none. For texts that are not shifted."""
        _, of_parts, _ = self.text(tokens)
        looks = torch.sigmoid(self.word_attention(of_parts))  # (B, t, K)
        return F.pad(looks, (0, 0, 0, tokens.mask.shape[1] - looks.shape[1])) * tokens.mask[:, :, None]

    def _projected(self, whole: Tensor, strips: Tensor) -> Features:
        """The layers that both modalities share: (B, C) and (B, K, C) -> the three levels."""
        parts = leaky(self.parts(strips))  # (B, K, D); compared and classified after the LeakyReLU, as published
        return Features(self.whole(whole), parts, self.relation(parts))

    # --- training ---------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Named, weighted losses of the current stage on a batch of image-text pairs, in float32."""
        if self.heads is None or batch.tokens is None:
            raise ValueError("Training needs a net built with num_ids or attributes, and a batch with texts.")
        ranked = self.stage == 1 and self.config.ranking_weight > 0
        features = [self.image_features(batch.images), self.text_features(batch.tokens)]
        if ranked and self.config.weak_weight:
            if batch.weak is None:
                raise ValueError(
                    "The ranking loss compares with captions of other images of the same people: set weak_captions in "
                    "the stage of the recipe, or leave them out with weak_weight=0."
                )
            features.append(self.text_features(batch.weak))
        # Half precision would cost the similarities their last digits: the losses leave autocast.
        with torch.autocast(batch.images.device.type, enabled=False):
            # Losses compare every row with every other, those of other processes included.
            whole = [Features(*(all_rows(level.float()) for level in one)) for one in features]
            attributes = None if batch.attributes is None else all_rows(batch.attributes)
            gathered = replace(batch, labels=all_rows(batch.labels), attributes=attributes)
            return self._losses(whole, gathered, self.heads, epoch, ranked)

    def _losses(
        self, features: list[Features], batch: Batch, heads: Heads, epoch: int, ranked: bool
    ) -> dict[str, Tensor]:
        """features: of the images, of their captions and, where weak ones are asked for, of those."""
        c, losses, labels = self.config, dict[str, Tensor](), batch.labels
        first = self.stage == 0
        identity_weight = 0.0 if first else c.identity_weight
        attribute_weight = c.attribute_weight if first else c.stage1_attribute_weight
        info_nce_weight = c.info_nce_weight if first else c.stage1_info_nce_weight
        image, text = features[:2]
        if identity_weight:
            if heads.identity is None:
                raise ValueError("The identity loss needs a net built with num_ids; set identity_weight=0 without.")
            terms = [self._identity(heads.identity, one, labels) for one in (image, text)]
            losses["identity"] = identity_weight * torch.stack(terms).sum()
        if attribute_weight and heads.attributes is not None:
            if batch.attributes is None:
                raise ValueError("This net has attribute heads: its batches need attributes, -1 where unknown.")
            terms = [
                attribute_loss(head(level).split(heads.sizes, dim=1), batch.attributes)
                for one in (image, text)
                for head, level in zip(heads.attributes, one.flat(), strict=True)
            ]
            losses["attribute"] = attribute_weight * torch.stack(terms).mean()
        if ranked or info_nce_weight:
            pairs = [similarity_matrix(a, b) for a, b in zip(image.flat(), text.flat(), strict=True)]
            if ranked:
                # Without a weak caption its terms weigh nothing, and any text will do.
                other = features[-1].flat()
                weak = [similarity_matrix(a, b) for a, b in zip(image.flat(), other, strict=True)]
                terms = [self._ranking(s, w, labels, epoch) for s, w in zip(pairs, weak, strict=True)]
                losses["ranking"] = c.ranking_weight * self._over_levels(terms)
            if info_nce_weight:
                terms = [info_nce_loss(s, labels, heads.scale()) for s in pairs]
                losses["info_nce"] = info_nce_weight * torch.stack(terms).sum()
        return losses

    def _identity(self, heads: nn.ModuleList, one: Features, labels: Tensor) -> Tensor:
        """Cross-entropy of one modality: the mean over the slots of a level, added up over the levels."""
        levels = (one.whole[:, None], one.parts, one.related)  # (B, slots, ...) each
        means = []
        for head, slots in zip(heads, levels, strict=True):
            logits = head(slots)  # (B, slots, N)
            repeated = labels[:, None].expand(logits.shape[:2]).flatten()
            means.append(identity_loss(logits.flatten(0, 1), repeated, self.config.label_smoothing))
        return self._over_levels(means)

    def _ranking(self, similarity: Tensor, weak: Tensor, labels: Tensor, epoch: int) -> Tensor:
        c = self.config
        fixed = epoch < c.fixed_margin_epochs
        weak_margin = adaptive_margin(similarity, weak, c.margin, absolute=c.absolute_margin)
        return compound_ranking_loss(
            similarity,
            weak,
            labels,
            margin=c.margin,
            weak_weight=c.weak_weight,
            weak_margin=torch.full_like(weak_margin, c.margin / 2) if fixed else weak_margin,
            least_margin=0.0 if fixed else c.least_weak_margin,
            negatives=c.negatives,
            weak_negatives=c.weak_negatives,
            reduction=c.reduction,
        )

    def _over_levels(self, terms: list[Tensor]) -> Tensor:
        whole, parts, related = terms
        return whole + self.config.part_weight * (parts + related)

    def begin_stage(self, stage: int) -> None:
        """0: attributes and InfoNCE, where no pre-trained vision weights exist. 1: the published losses."""
        if stage not in (0, 1):
            raise ValueError(f"SSAN has stages 0 and 1, not {stage}.")
        self.stage = stage

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Optimizer groups: the ResNet apart, and norms, biases and the temperature (everything of one dimension or
        less) without weight decay."""
        backbone = {id(p) for p in self.vision.parameters()}
        scale = self.config.backbone_lr_scale if self.stage == 1 else 1.0
        groups: dict[str, list[nn.Parameter]] = {}
        for parameter in self.parameters():
            name = "backbone" if id(parameter) in backbone else "branches"
            groups.setdefault(name if parameter.dim() > 1 else f"{name}_no_decay", []).append(parameter)
        return [
            {"name": name, "params": parameters, "lr": lr * scale if name.startswith("backbone") else lr}
            | ({"weight_decay": 0.0} if name.endswith("no_decay") else {})
            for name, parameters in groups.items()
        ]

    def load_vision_weights(self, path: str | Path) -> None:
        """Start the ResNet from a file a person supplies, see ``ResNet.load_weights``."""
        self.vision.load_weights(path)


def joined(features: Features) -> Tensor:
    """Three levels -> (B, D) unit rows. A level that is zero says nothing, and becomes the same for all that do."""
    levels = [torch.where((x == 0).all(dim=1, keepdim=True), 1.0, x.float()) for x in features.flat()]
    return F.normalize(torch.cat([F.normalize(level, dim=1) for level in levels], dim=1), dim=1)
