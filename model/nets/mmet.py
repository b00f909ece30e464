"""MMET: transformers for images, texts and both together, trained to fill in what was hidden, then to know people.

Stage 1 goes on with FLAVA's pre-training on captioned people: hidden patches and words are named, pairs are told from
mismatches, images are matched with texts. Stage 2 is re-identification by the [CLS] of every branch. A net at FLAVA's
size can start from FLAVA's weights; a small one starts from nothing. Source: MMET (arXiv 2304.09498), whose tables we
could not read: it is a reference of design. This file neither tokenises nor augments.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.distributed import all_rows, rank, world
from model.image_tokens import DVAE, PatchCodebook, normalized_pixels
from model.interface import Batch, Tokens
from model.losses import attribute_loss, identity_loss, info_nce_loss, similarity_matrix
from model.losses_mmet import naming_loss, pixel_loss, soft_triplet_loss
from model.masking import image_masks, mask_text
from model.nets.flava import SPECIAL, FusionTransformer, ImageTransformer, Shape, TextTransformer, flava_tensors
from model.text import continuation_pieces

Branch = Literal["image", "text", "fusion"]
BRANCHES: tuple[Branch, ...] = get_args(Branch)
CLS, SEP = 101, 102  # of the uncased BERT vocabulary
MAX_LOG_SCALE = 4.6052  # a temperature of 0.01


@dataclass(frozen=True)
class MMETConfig:
    """Every switch of MMET; the defaults are the published net, of FLAVA's size. All fields survive JSON.

    num_ids, attributes: training classes, and (name, classes) of each attribute head; without both the net has no
        heads and can only encode.
    image_size, patch: pixels (height, width) of an image, and of the side of a patch; both sides are multiples of it.
    width, attention_heads, hidden: of all three transformers; ``*_layers`` their depths.
    vocabulary_size: rows of the table for the uncased BERT vocabulary; in a small one many pieces share their rows.
    positions: pieces of the longest text, with [CLS] and [SEP].
    poolers: keep FLAVA's linear layer on each [CLS], which nothing here uses or trains, so that its file fits whole.
    fusion_sees_padding: the fusion transformer attends to the padding of a text, as published; FLAVA as transformers
        has it does not.
    image_target: what a hidden patch is named by: codes of the dVAE in the folder ``codebook``, codes of k-means over
        the training patches, or its normalised pixels. image_codes: size of the codebook.
    pixel_mean, pixel_std: how images were normalised; the dVAE reads plain ones.
    image_mask, text_mask: shares of patches and word pieces to hide. wrong_captions: share of pairs torn apart.
    objectives: "drawn" gives each step images alone, texts alone or pairs, as published; "all" gives every step all
        losses, the unimodal ones on the same masked inputs as those of pairs.
    contrast_identities: captions of the same person count as right in InfoNCE, not only the image's own.
    branches: which branches stage 2 trains, each by its own neck and by one classifier for all.
    neck_input: the neck reads the final [CLS], as published, or its contrastive projection (of image and text).
    triplet_across: mine triplets among the vectors of all branches together, not of each alone.
    *_weight: factors of the losses; zero leaves one out. Attributes are learned in both stages, from the projections
        and from the vectors of all branches. stage2_contrastive_weight: InfoNCE of the image's vector with those of
        the other branches.
    """

    num_ids: int = 0
    attributes: tuple[tuple[str, int], ...] = ()
    image_size: tuple[int, int] = (224, 224)
    patch: int = 16
    width: int = 768
    attention_heads: int = 12
    hidden: int = 3072
    image_layers: int = 12
    text_layers: int = 12
    fusion_layers: int = 6
    vocabulary_size: int = 30522
    positions: int = 512
    poolers: bool = True
    fusion_sees_padding: bool = True
    image_target: Literal["dvae", "kmeans", "pixels"] = "dvae"
    image_codes: int = 8192
    codebook: str | None = None
    pixel_mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    pixel_std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    image_mask: float = 75.5 / 196  # 75 patches of 196
    text_mask: float = 0.15
    wrong_captions: float = 0.1
    objectives: Literal["drawn", "all"] = "drawn"
    contrast_identities: bool = False
    branches: tuple[Branch, ...] = BRANCHES
    neck_input: Literal["cls", "projection"] = "cls"
    triplet_across: bool = False
    mim_weight: float = 1.0
    mlm_weight: float = 1.0
    mmm_weight: float = 1.0
    itm_weight: float = 1.0
    contrastive_weight: float = 1.0
    attribute_weight: float = 0.0
    identity_weight: float = 1.0
    triplet_weight: float = 1.0
    stage2_contrastive_weight: float = 0.0

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                choices = ", ".join(map(str, get_args(hint)))
                raise ValueError(f"{name} must be one of {choices}, not {getattr(self, name)!r}.")
        if not self.branches or not set(self.branches) <= set(BRANCHES):
            raise ValueError(f"branches must be some of {', '.join(BRANCHES)}, not {self.branches!r}.")
        if any(side % self.patch for side in self.image_size):
            raise ValueError(f"image_size {self.image_size} does not divide into patches of {self.patch} pixels.")
        if self.vocabulary_size <= SPECIAL:
            raise ValueError(f"vocabulary_size must be more than {SPECIAL}, the special pieces of BERT's vocabulary.")
        if self.width % self.attention_heads:
            raise ValueError(f"A width of {self.width} does not divide among {self.attention_heads} attention heads.")
        for name in ("image_mask", "text_mask", "wrong_captions"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is a share in [0, 1), not {getattr(self, name)}.")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch, self.image_size[1] // self.patch


def naming_head(width: int, classes: int) -> nn.Sequential:
    """The head of every masked objective: (..., D) -> (..., classes)."""
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, classes))


class Heads(nn.Module):
    """What only training needs. The unimodal and the multimodal naming heads are not shared."""

    def __init__(self, config: MMETConfig) -> None:
        super().__init__()
        c = config
        # Serving leaves out every tensor whose name starts with "heads."
        patch_classes = 3 * c.patch**2 if c.image_target == "pixels" else c.image_codes
        self.mim, self.mmm_image = naming_head(c.width, patch_classes), naming_head(c.width, patch_classes)
        self.mlm, self.mmm_text = naming_head(c.width, c.vocabulary_size), naming_head(c.width, c.vocabulary_size)
        self.itm = nn.Sequential(nn.Linear(c.width, c.width), nn.Tanh(), nn.Linear(c.width, 2))
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.codebook = PatchCodebook(c.image_codes) if c.image_target == "kmeans" else None
        self.identity = nn.Linear(c.width, c.num_ids, bias=False) if c.num_ids else None
        self.sizes = [classes for _, classes in c.attributes] if c.attribute_weight else []
        self.attributes = nn.Linear(c.width, sum(self.sizes)) if self.sizes else None

    def scale(self) -> Tensor:
        """Inverse temperature between 1 and 100."""
        return self.log_scale.clamp(0, MAX_LOG_SCALE).exp()


class MMET(nn.Module):
    """MMET as configured; starts in stage 1. Images of exactly ``image_size``, texts as word pieces alone."""

    def __init__(self, config: MMETConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding_dim = config.width
        shape = Shape(config.width, config.attention_heads, config.hidden, config.poolers)
        self.image = ImageTransformer(shape, config.image_layers, config.image_size, config.patch)
        self.text = TextTransformer(shape, config.text_layers, config.vocabulary_size, config.positions)
        self.fusion = FusionTransformer(shape, config.fusion_layers, config.fusion_sees_padding)
        self.image_projection = nn.Linear(config.width, config.width)
        self.text_projection = nn.Linear(config.width, config.width)
        self.necks = nn.ModuleDict({branch: nn.BatchNorm1d(config.width) for branch in BRANCHES})
        self.heads = Heads(config) if config.num_ids or config.attributes else None
        # The last stage begun, kept with the weights: vectors come from the projections of stage 1 or from the necks.
        self.stage: Tensor
        self.register_buffer("stage", torch.tensor(1))
        self._dvae: DVAE | None = None  # read when first needed, and no part of the net's own weights

        initialise(self)
        self.begin_stage(1)

    # --- features ---------------------------------------------------------------------------------------------

    def encode_image(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D) unit rows."""
        return F.normalize(self._vectors(("image",), images, None)["image"], dim=1)

    def encode_text(self, tokens: Tokens) -> Tensor:
        """Tokens (B, T) -> (B, D) unit rows."""
        return F.normalize(self._vectors(("text",), None, tokens)["text"], dim=1)

    def encode_pair(self, images: Tensor, tokens: Tokens) -> Tensor:
        """(B, 3, H, W) and (B, T) -> (B, D) unit rows, in the space of the images.

        The fusion branch gets its place in that space in stage 2. Until then, and where stage 2 does not train it, a
        pair lies halfway between its image and its text.
        """
        if self.stage == 2 and "fusion" in self.config.branches:
            return F.normalize(self._vectors(("fusion",), images, tokens)["fusion"], dim=1)
        return F.normalize(self.encode_image(images) + self.encode_text(tokens), dim=1)

    def branch_states(
        self, branches: Collection[str], images: Tensor | None, tokens: Tokens | None
    ) -> dict[str, Tensor]:
        """The states of the branches after their last norm, each (B, S, D) with the branch's [CLS] first."""
        states: dict[str, Tensor] = {}
        image = text = mask = None
        if images is not None and not {"image", "fusion"}.isdisjoint(branches):
            image = self.image.embed(images)
        if tokens is not None and not {"text", "fusion"}.isdisjoint(branches):
            ids, mask = self._pieces(tokens)
            text = self.text.embed(ids, mask)
        if "image" in branches and image is not None:
            states["image"] = self.image.norm(image)
        if "text" in branches and text is not None:
            states["text"] = self.text.norm(text)
        if "fusion" in branches and image is not None and text is not None and mask is not None:
            states["fusion"] = self.fusion.norm(self.fusion.embed(image, text, mask))
        return states

    def _vectors(self, branches: Collection[str], images: Tensor | None, tokens: Tokens | None) -> dict[str, Tensor]:
        """(B, D) of each branch, not normalised: projections in stage 1, necks of re-identification in stage 2."""
        vectors = {name: states[:, 0] for name, states in self.branch_states(branches, images, tokens).items()}
        identify = bool(self.stage == 2)
        if not identify or self.config.neck_input == "projection":
            projections: dict[str, nn.Module] = {"image": self.image_projection, "text": self.text_projection}
            vectors = {name: projections[name](v) if name in projections else v for name, v in vectors.items()}
        return {name: self.necks[name](v) for name, v in vectors.items()} if identify else vectors

    def _pieces(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """(B, T) -> ids and mask (B, T + 2): [CLS] before the text, [SEP] right after its last piece."""
        batch, length = tokens.ids.shape
        if length + 2 > self.config.positions:
            raise ValueError(f"Texts of {length} pieces are too long for {self.config.positions} positions.")
        place = torch.arange(length, device=tokens.ids.device)
        end = torch.where(tokens.mask, place + 1, 0).amax(dim=1)  # (B,) how far each text reaches
        ids = F.pad(tokens.ids * tokens.mask, (1, 1))
        mask = F.pad(tokens.mask, (1, 1))
        rows = torch.arange(batch, device=ids.device)
        ids[:, 0], mask[:, 0] = CLS, True
        ids[rows, 1 + end], mask[rows, 1 + end] = SEP, True
        return ids, mask

    # --- training ---------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Named, weighted losses of the current stage on a batch of image-text pairs, in float32."""
        del epoch  # every loss is the same in all epochs of a stage
        if self.heads is None or batch.tokens is None:
            raise ValueError("Training needs a net built with num_ids or attributes, and a batch with texts.")
        if self.stage == 2:
            return self._identify(batch, batch.tokens, self.heads)
        # Every process draws for the whole batch and keeps what is for its own rows, so that all draw alike.
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        kind = "pairs" if self.config.objectives == "all" else ("images", "texts", "pairs")[rng.integers(3)]
        if kind == "images":
            return self._learn_images(batch.images, self.heads, rng)
        if kind == "texts":
            return self._learn_texts(batch.tokens, self.heads, rng)
        return self._learn_pairs(batch, batch.tokens, self.heads, rng)

    def _learn_images(self, images: Tensor, heads: Heads, rng: np.random.Generator) -> dict[str, Tensor]:
        """Hidden patches are named from what is left of the image: L_MIM."""
        hidden = self._hide_patches(images, rng)
        patches = self.image.norm(self.image.embed(images, hidden))[:, 1:]
        loss = self._patch_loss(heads.mim, patches, hidden, self._patch_targets(images, heads))
        return {"mim": self.config.mim_weight * loss}

    def _learn_texts(self, tokens: Tokens, heads: Heads, rng: np.random.Generator) -> dict[str, Tensor]:
        """Hidden pieces are named from the rest of the text: L_MLM."""
        ids, mask = self._pieces(tokens)
        read, hidden = self._hide_pieces(ids, rng, whole_words=False)
        words = self.text.norm(self.text.embed(read, mask))
        return {"mlm": self.config.mlm_weight * self._word_loss(heads.mlm, words, ids, hidden)}

    def _learn_pairs(self, batch: Batch, tokens: Tokens, heads: Heads, rng: np.random.Generator) -> dict[str, Tensor]:
        """L_ITM, L_MMM and L_GC: the first of all pairs, the others only of those that belong together.

        With objectives "all" L_MIM and L_MLM come from the same masked inputs.
        """
        c, images, losses = self.config, batch.images, dict[str, Tensor]()
        tokens, matched = self._tear_pairs(tokens, batch.labels, rng)
        ids, mask = self._pieces(tokens)
        hidden, (read, gone) = self._hide_patches(images, rng), self._hide_pieces(ids, rng, whole_words=True)

        image, text = self.image.embed(images, hidden), self.text.embed(read, mask)
        fused = self.fusion.norm(self.fusion.embed(image, text, mask))  # (B, 1 + 1 + N + T, D)
        patches, words = fused[:, 2 : 1 + image.shape[1]], fused[:, 1 + image.shape[1] :]
        targets, pair = self._patch_targets(images, heads), matched[:, None]
        if c.itm_weight:
            losses["itm"] = c.itm_weight * naming_loss(_in_full(heads.itm, fused[:, 0]), matched.long())
        if c.mmm_weight:
            losses["mmm_image"] = c.mmm_weight * self._patch_loss(heads.mmm_image, patches, hidden & pair, targets)
            losses["mmm_text"] = c.mmm_weight * self._word_loss(heads.mmm_text, words, ids, gone & pair)
        if c.objectives == "all" and c.mim_weight:
            losses["mim"] = c.mim_weight * self._patch_loss(heads.mim, self.image.norm(image)[:, 1:], hidden, targets)
        if c.objectives == "all" and c.mlm_weight:
            losses["mlm"] = c.mlm_weight * self._word_loss(heads.mlm, self.text.norm(text), ids, gone)
        return losses | self._match(batch, tokens, matched, heads)

    def _match(self, batch: Batch, tokens: Tokens, matched: Tensor, heads: Heads) -> dict[str, Tensor]:
        """Global contrastive loss, and attributes where they are learned, on inputs with nothing hidden."""
        c, losses = self.config, dict[str, Tensor]()
        if not c.contrastive_weight and heads.attributes is None:
            return losses
        vectors = self._vectors(("image", "text"), batch.images, tokens)
        with torch.autocast(batch.images.device.type, enabled=False):
            image, text = all_rows(vectors["image"].float()), all_rows(vectors["text"].float())
            labels, pairs = all_rows(batch.labels), all_rows(matched)
            if c.contrastive_weight:
                targets = (
                    labels[pairs] if c.contrast_identities else torch.arange(int(pairs.sum()), device=pairs.device)
                )
                similarity = similarity_matrix(image[pairs], text[pairs])
                loss = info_nce_loss(similarity, targets, heads.scale()) if len(targets) else similarity.sum()
                losses["contrastive"] = c.contrastive_weight * loss
            if heads.attributes is not None:
                known = self._attributes(batch)
                # A caption torn from its image says nothing of that image's person.
                of_text = torch.where(pairs[:, None], known, -1)
                terms = [self._attribute_loss(heads, image, known), self._attribute_loss(heads, text, of_text)]
                losses["attribute"] = c.attribute_weight * torch.stack(terms).mean()
        return losses

    def _identify(self, batch: Batch, tokens: Tokens, heads: Heads) -> dict[str, Tensor]:
        """L_ID + L_T of every branch, on inputs with nothing hidden and every caption with its own image."""
        c, losses = self.config, dict[str, Tensor]()
        if heads.identity is None:
            raise ValueError("The identity loss of stage 2 needs a net built with num_ids.")
        vectors = self._vectors(c.branches, batch.images, tokens)
        with torch.autocast(batch.images.device.type, enabled=False):
            labels = all_rows(batch.labels)
            vectors = {name: all_rows(v.float()) for name, v in vectors.items()}
            rows = list(vectors.values())
            if c.identity_weight:
                terms = [identity_loss(heads.identity(v), labels, smoothing=0.0) for v in rows]
                losses["identity"] = c.identity_weight * torch.stack(terms).sum()
            if c.triplet_weight:
                if c.triplet_across:
                    loss = soft_triplet_loss(torch.cat(rows), labels.repeat(len(rows)))
                else:
                    loss = torch.stack([soft_triplet_loss(v, labels) for v in rows]).sum()
                losses["triplet"] = c.triplet_weight * loss
            if c.stage2_contrastive_weight and "image" in vectors and len(rows) > 1:
                others = [v for name, v in vectors.items() if name != "image"]
                terms = [info_nce_loss(similarity_matrix(vectors["image"], v), labels, heads.scale()) for v in others]
                losses["contrastive"] = c.stage2_contrastive_weight * torch.stack(terms).sum()
            if heads.attributes is not None:
                known = self._attributes(batch)
                terms = [self._attribute_loss(heads, v, known) for v in rows]
                losses["attribute"] = c.attribute_weight * torch.stack(terms).mean()
        return losses

    def begin_stage(self, stage: int) -> None:
        """1: pre-training of all three transformers. 2: re-identification by every branch of ``branches``."""
        if stage not in (1, 2):
            raise ValueError(f"MMET has stages 1 and 2, not {stage}.")
        self.stage.fill_(stage)
        trained = self._trained(stage)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(any(name.startswith(part) for part in trained) and not self._is_fixed(name, stage))

    def _trained(self, stage: int) -> list[str]:
        """Beginnings of the names of what a stage trains."""
        c = self.config
        heads = ["heads.attributes."] * bool(c.attribute_weight)
        if stage == 1:
            heads += [f"heads.{name}" for name in ("mim.", "mlm.", "mmm_image.", "mmm_text.", "itm.", "log_scale")]
            return ["image", "text", "fusion", *heads]  # with image_projection and text_projection
        heads += ["heads.identity."] + ["heads.log_scale"] * bool(c.stage2_contrastive_weight)
        parts = [f"{branch}." for branch in BRANCHES if branch in c.branches or "fusion" in c.branches]
        if c.neck_input == "projection":
            parts += [f"{branch}_projection." for branch in c.branches]
        return [*parts, *(f"necks.{branch}." for branch in c.branches), *heads]

    def _is_fixed(self, name: str, stage: int) -> bool:
        """What no loss of the stage reaches, and the bias of the necks, which stays zero."""
        if ".pooler." in name or (name.startswith("necks.") and name.endswith(".bias")):
            return True
        silent = [f"{branch}.norm." for branch in BRANCHES if branch not in self.config.branches]
        return stage == 2 and (name == "image.mask" or any(name.startswith(norm) for norm in silent))

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Optimizer groups of what the stage trains: all at one rate, and whatever has one dimension or less without
        weight decay."""
        trained = [p for p in self.parameters() if p.requires_grad]
        return [
            {"name": "weights", "params": [p for p in trained if p.dim() > 1], "lr": lr},
            {"name": "weights_no_decay", "params": [p for p in trained if p.dim() <= 1], "lr": lr, "weight_decay": 0.0},
        ]

    # --- what is hidden and what it is named --------------------------------------------------------------------

    def _hide_patches(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """(B, N) bool for the images of this process."""
        masks = image_masks(len(images) * world(), self.config.grid, self.config.image_mask, rng)
        return _own(masks).to(images.device)

    def _hide_pieces(self, ids: Tensor, rng: np.random.Generator, *, whole_words: bool) -> tuple[Tensor, Tensor]:
        """What is read instead of ids (B, T), and where something is hidden."""
        whole = all_rows(ids)
        pieces = (whole != 0) & (whole != CLS) & (whole != SEP)
        continues = continuation_pieces()
        masked = mask_text(
            whole, pieces, self.config.text_mask, len(continues), rng, continues=continues if whole_words else None
        )
        return _own(masked.ids), _own(masked.hidden)

    def _tear_pairs(self, tokens: Tokens, labels: Tensor, rng: np.random.Generator) -> tuple[Tokens, Tensor]:
        """Some captions replaced by those of other people in the batch, and (B,) True where nothing was."""
        ids, mask, people = all_rows(tokens.ids), all_rows(tokens.mask), all_rows(labels)
        others = people[:, None] != people[None, :]
        preference = torch.from_numpy(rng.random(tuple(others.shape))).to(ids.device)
        donor = preference.masked_fill(~others, -1).argmax(dim=1)
        torn = torch.from_numpy(rng.random(len(ids)) < self.config.wrong_captions).to(ids.device) & others.any(dim=1)
        source = torch.where(torn, donor, torch.arange(len(ids), device=ids.device))
        return Tokens(_own(ids[source]), _own(mask[source]), None), _own(~torn)

    def _patch_targets(self, images: Tensor, heads: Heads) -> Tensor:
        """What every patch is to be named: codes (B, N) int64, or pixels (B, N, 3 * patch * patch)."""
        c = self.config
        if c.image_target == "pixels":
            return normalized_pixels(images, c.grid)
        if heads.codebook is not None:
            if self.training:
                heads.codebook.learn(images, c.grid)
            return heads.codebook.codes(images, c.grid)
        if self._dvae is None:
            self._dvae = DVAE(c.codebook or "", c.pixel_mean, c.pixel_std)
        return self._dvae.codes(images, c.grid)

    def _patch_loss(self, head: nn.Module, patches: Tensor, hidden: Tensor, targets: Tensor) -> Tensor:
        """patches: (B, N, D) states. hidden: (B, N) bool, where to look. targets: of `_patch_targets`."""
        predicted = _in_full(head, patches[hidden])  # (M, classes)
        loss = pixel_loss if self.config.image_target == "pixels" else naming_loss
        return loss(predicted, targets[hidden])

    def _word_loss(self, head: nn.Module, words: Tensor, ids: Tensor, hidden: Tensor) -> Tensor:
        """words: (B, T, D) states, named by ids (B, T) where ``hidden`` (B, T)."""
        return naming_loss(_in_full(head, words[hidden]), self.text.fold(ids[hidden]))

    def _attributes(self, batch: Batch) -> Tensor:
        if batch.attributes is None:
            raise ValueError("This net has attribute heads: its batches need attributes, -1 where unknown.")
        return all_rows(batch.attributes)

    def _attribute_loss(self, heads: Heads, features: Tensor, known: Tensor) -> Tensor:
        assert heads.attributes is not None
        return attribute_loss(heads.attributes(features).split(heads.sizes, dim=1), known)

    # --- weights ------------------------------------------------------------------------------------------------

    def load_vision_weights(self, path: str | Path) -> None:
        """Start all three transformers from FLAVA: a folder as transformers saves a FlavaModel or a
        FlavaForPreTraining, or its weights file. Positions of another grid are interpolated.

        Heads are taken where the file has them and they fit. Raises ValueError with a sentence when anything else is
        missing or has another shape; the net is then unchanged.
        """
        taken = flava_tensors(Path(path), self.state_dict(), self.config.grid)
        self.load_state_dict(taken, strict=False)


def initialise(net: MMET) -> None:
    """Weights and tokens truncated normal (0.02), biases zero; the identity classifier and necks as in re-ID."""
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                nn.init.zeros_(module.weight[module.padding_idx])
            elif not isinstance(module, nn.Embedding) and module.bias is not None:
                nn.init.zeros_(module.bias)
    for token in (net.image.cls, net.image.mask, net.image.positions, net.fusion.cls):
        nn.init.trunc_normal_(token, std=0.02)
    if net.heads is not None and net.heads.identity is not None:
        nn.init.normal_(net.heads.identity.weight, std=0.001)


def _own(whole: Tensor) -> Tensor:
    """This process's rows of what was drawn for the whole batch."""
    return whole.chunk(world())[rank()]


def _in_full(head: nn.Module, states: Tensor) -> Tensor:
    """The output of a head in float32: half precision would cost a softmax over thousands its last digits."""
    with torch.autocast(states.device.type, enabled=False):
        out: Tensor = head(states.float())
        return out
