"""FLAVA's three transformers, and how to start them from the weights that transformers keeps of it.

Images become patches, texts word pieces, and a third transformer reads the states of both. Losses, masks and training
are MMET's. Source: FLAVA (CVPR 2022); pre-norm layers as in ViT.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.nets.backbones import read_weights

EPSILON = 1e-12  # of every norm but those of the naming heads
SPECIAL = 999  # numbers before this one are special or unused in the uncased BERT vocabulary
HEADS = ("mim", "mlm", "mmm_image", "mmm_text", "itm")


@dataclass(frozen=True)
class Shape:
    """What the three transformers share. poolers: keep FLAVA's linear layer on each [CLS], which nothing here uses."""

    width: int
    attention_heads: int
    hidden: int
    poolers: bool


class Block(nn.Module):
    """Pre-norm transformer layer: (B, S, D) -> (B, S, D)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, hidden = shape.width, shape.hidden
        self.attention_heads = shape.attention_heads
        self.norm1 = nn.LayerNorm(width, eps=EPSILON)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)
        self.expand = nn.Linear(width, hidden)
        self.reduce = nn.Linear(hidden, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """mask: (B, S) bool, True where a position may be looked at; None for everywhere."""
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.attention_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, S, D / heads)
        seen = None if mask is None else mask[:, None, None, :]
        attended = attend(query, key, value, seen).transpose(1, 2)
        x = x + self.out(attended.reshape(batch, length, width))
        out: Tensor = x + self.reduce(F.gelu(self.expand(self.norm2(x))))
        return out


def attend(query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None) -> Tensor:
    """Scaled dot-product attention, (B, heads, S, d) each. On a CPU torch's fused kernel is five times slower in
    bfloat16 than in float32, so there it leaves autocast."""
    if query.device.type != "cpu" or query.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(query, key, value, seen)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(query.float(), key.float(), value.float(), seen)


class Transformer(nn.Module):
    """A stack of blocks and the norm after them, which the caller applies: FLAVA goes on from the states before it."""

    def __init__(self, shape: Shape, layers: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(shape) for _ in range(layers))
        self.norm = nn.LayerNorm(shape.width, eps=EPSILON)
        self.pooler = nn.Linear(shape.width, shape.width) if shape.poolers else None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, S, D) -> (B, S, D), before the norm."""
        for block in self.blocks:
            x = block(x, mask)
        return x


class ImageTransformer(Transformer):
    """Patches with a [CLS] before them: (B, 3, H, W) -> (B, 1 + rows * columns, D)."""

    def __init__(self, shape: Shape, layers: int, image_size: tuple[int, int], patch: int) -> None:
        super().__init__(shape, layers)
        self.size = image_size
        self.grid = (image_size[0] // patch, image_size[1] // patch)
        self.patches = nn.Conv2d(3, shape.width, patch, patch)
        self.cls = nn.Parameter(torch.empty(shape.width))
        self.mask = nn.Parameter(torch.empty(shape.width))  # stands where a patch is hidden
        self.positions = nn.Parameter(torch.empty(1 + self.grid[0] * self.grid[1], shape.width))

    def embed(self, images: Tensor, hidden: Tensor | None = None) -> Tensor:
        """hidden: (B, rows * columns) bool, True at the patches that the net must not see."""
        if images.shape[2:] != self.size:
            height, width = self.size
            raise ValueError(f"This MMET reads images of {height} x {width} pixels, not {tuple(images.shape[2:])}.")
        x = self.patches(images).flatten(2).transpose(1, 2)  # (B, N, D)
        if hidden is not None:
            x = torch.where(hidden[:, :, None], self.mask.to(x.dtype), x)
        x = torch.cat([self.cls.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
        return self(x + self.positions)  # type: ignore[no-any-return]


class TextTransformer(Transformer):
    """Word pieces between [CLS] and [SEP]: (B, T) -> (B, T, D); padding is not looked at.

    Pieces beyond a small vocabulary share rows with others: those of BERT's first thousand numbers stay their own.
    """

    def __init__(self, shape: Shape, layers: int, vocabulary_size: int, positions: int) -> None:
        super().__init__(shape, layers)
        self.words = nn.Embedding(vocabulary_size, shape.width, padding_idx=0)
        self.positions = nn.Embedding(positions, shape.width)
        self.types = nn.Embedding(2, shape.width)  # of two sentences; there is only ever the first
        self.words_norm = nn.LayerNorm(shape.width, eps=EPSILON)

    def fold(self, ids: Tensor) -> Tensor:
        """Ids of any piece -> rows of the table."""
        rows = self.words.num_embeddings
        return torch.where(ids < rows, ids, SPECIAL + (ids - SPECIAL) % (rows - SPECIAL))

    def embed(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.words(self.fold(ids)) + self.types.weight[0] + self.positions.weight[: ids.shape[1]]
        return self(self.words_norm(x), mask)  # type: ignore[no-any-return]


class FusionTransformer(Transformer):
    """A [CLS], then the states of an image, then those of a text: (B, 1 + S + T, D). ``sees_padding`` as published."""

    def __init__(self, shape: Shape, layers: int, sees_padding: bool) -> None:
        super().__init__(shape, layers)
        self.sees_padding = sees_padding
        self.from_image = nn.Linear(shape.width, shape.width)
        self.from_text = nn.Linear(shape.width, shape.width)
        self.cls = nn.Parameter(torch.empty(shape.width))

    def embed(self, image: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """image: (B, S, D), text: (B, T, D), both before their last norm. mask: (B, T) bool, False at padding."""
        x = torch.cat([self.from_image(image), self.from_text(text)], dim=1)
        x = torch.cat([self.cls.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
        if self.sees_padding:
            return self(x)  # type: ignore[no-any-return]
        seen = F.pad(mask, (1 + image.shape[1], 0), value=True)
        return self(x, seen)  # type: ignore[no-any-return]


# --- weights --------------------------------------------------------------------------------------------------------


def flava_tensors(path: Path, own: Mapping[str, Tensor], grid: tuple[int, int]) -> dict[str, Tensor]:
    """What the tensors ``own`` become when they start from FLAVA, by our names.

    path: a folder as transformers saves a FlavaModel or a FlavaForPreTraining, or its weights file. Positions of
    another ``grid`` are interpolated, those of longer texts cut off. A head is taken where all of it is there and fits.
    Raises ValueError with a sentence when anything else is missing or has another shape.
    """
    if path.is_dir():
        names = ("model.safetensors", "pytorch_model.bin")
        path = next((path / name for name in names if (path / name).is_file()), path / names[0])
    state = {name.removeprefix("flava."): tensor for name, tensor in read_weights(path).items()}
    taken: dict[str, Tensor] = {}
    for name, sources in flava_names(own).items():
        found = [state[source] for source in sources if source in state]
        theirs = None
        if len(found) == len(sources):
            theirs = _as_ours(torch.cat(found) if len(found) > 1 else found[0], name, own[name], grid)
        if theirs is not None and theirs.shape == own[name].shape:
            taken[name] = theirs
        elif not name.startswith("heads."):
            what = "missing" if theirs is None else f"of shape {tuple(theirs.shape)}"
            raise ValueError(f"{path}: {sources[0]} is {what}, but this net needs {tuple(own[name].shape)}.")
    broken = [f"heads.{head}." for head in HEADS]
    broken = [head for head in broken if any(name.startswith(head) and name not in taken for name in own)]
    return {name: tensor for name, tensor in taken.items() if not any(name.startswith(head) for head in broken)}


def flava_names(own: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Our tensor name -> the names in transformers' FLAVA of what it is made of, laid end to end."""
    of_block = {
        "norm1": ["layernorm_before"],
        "qkv": [f"attention.attention.{part}" for part in ("query", "key", "value")],
        "out": ["attention.output.dense"],
        "norm2": ["layernorm_after"],
        "expand": ["intermediate.dense"],
        "reduce": ["output.dense"],
    }
    of_head = {"0": "transform.dense", "2": "transform.LayerNorm", "3": "decoder"}
    modules = {
        "image.cls": "image_model.embeddings.cls_token",
        "image.mask": "image_model.embeddings.mask_token",
        "image.positions": "image_model.embeddings.position_embeddings",
        "image.patches": "image_model.embeddings.patch_embeddings.projection",
        "text.words": "text_model.embeddings.word_embeddings",
        "text.positions": "text_model.embeddings.position_embeddings",
        "text.types": "text_model.embeddings.token_type_embeddings",
        "text.words_norm": "text_model.embeddings.LayerNorm",
        "fusion.cls": "multimodal_model.cls_token",
        "fusion.from_image": "image_to_mm_projection",
        "fusion.from_text": "text_to_mm_projection",
        "image_projection": "image_projection",
        "text_projection": "text_projection",
        "heads.log_scale": "logit_scale",
        "heads.itm.0": "itm_head.pooler.dense",
        "heads.itm.2": "itm_head.seq_relationship",
    }
    models = {"image": "image_model", "text": "text_model", "fusion": "multimodal_model"}
    for ours, theirs in models.items():
        modules |= {f"{ours}.norm": f"{theirs}.layernorm", f"{ours}.pooler": f"{theirs}.pooler.dense"}
    for head in ("mim", "mlm", "mmm_image", "mmm_text"):
        modules |= {f"heads.{head}.{layer}": f"{head}_head.{name}" for layer, name in of_head.items()}
    found: dict[str, list[str]] = {}
    for name in own:
        module, _, leaf = name.rpartition(".")
        parts = module.split(".")
        if name in modules:
            found[name] = [modules[name]]
        elif module in modules:
            found[name] = [f"{modules[module]}.{leaf}"]
        elif len(parts) == 4 and parts[1] == "blocks":
            layer = f"{models[parts[0]]}.encoder.layer.{parts[2]}"
            found[name] = [f"{layer}.{source}.{leaf}" for source in of_block[parts[3]]]
    return found


def _as_ours(theirs: Tensor, name: str, ours: Tensor, grid: tuple[int, int]) -> Tensor:
    """FLAVA's tensor as ours has it: tokens without leading ones, positions for our grid and our longest text."""
    if name == "image.positions":
        cls, patches = theirs[0, :1], theirs[0, 1:]  # (1, D), (N, D)
        side = math.isqrt(len(patches))
        if (side, side) != grid and side**2 == len(patches):
            square = patches.T.reshape(1, -1, side, side)
            patches = F.interpolate(square, grid, mode="bicubic", align_corners=False)[0].flatten(1).T
        return torch.cat([cls, patches])
    if name == "text.positions.weight":
        return theirs[: len(ours)]
    return theirs.reshape(-1) if ours.dim() == 1 else theirs
