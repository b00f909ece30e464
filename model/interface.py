"""The one interface every network fulfils, and the batches that cross it. Nothing inherits from it.

A vector depends neither on its neighbours in the batch nor on the other modality: without that nothing can be
indexed, so it is a test every network passes. The training loop never branches on a network's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """Tokenised texts, padded to one length T.

    ids: (B, T) int64 word-piece ids, 0 where padded.
    mask: (B, T) bool, True on real tokens.
    states: (B, T, C) float frozen token embeddings, zero where padded; None when the net learns its own table.
    """

    ids: Tensor
    mask: Tensor
    states: Tensor | None

    def to(self, device: Any) -> Tokens:
        states = None if self.states is None else self.states.to(device)
        return Tokens(self.ids.to(device), self.mask.to(device), states)


@dataclass(frozen=True)
class Batch:
    """One training batch. ``labels`` are training classes 0..num_ids-1, not raw pids.

    images: (B, 3, H, W) float, normalised. labels: (B,) int64.
    attributes: (B, A) int64 class of each attribute head, -1 where unknown; None without attribute labels.
    weak: for each image a caption of another image of the same person; None where the recipe does not ask for them.
    modalities: (B,) int64, 0 for a visible image and 1 for an infrared or thermal one; None where that is unknown.
    """

    images: Tensor
    tokens: Tokens | None
    labels: Tensor
    attributes: Tensor | None = None
    weak: Tokens | None = None
    modalities: Tensor | None = None


@runtime_checkable
class Net(Protocol):
    """A network whose images become unit vectors."""

    embedding_dim: int

    def encode_image(self, images: Tensor) -> Tensor: ...  # (B, 3, H, W) -> (B, D), unit rows

    def forward(self, batch: Batch, epoch: int) -> dict[str, Tensor]: ...  # named, weighted losses

    def param_groups(self, lr: float) -> list[dict[str, Any]]: ...  # for the current stage

    def begin_stage(self, stage: int) -> None: ...  # freeze and thaw what this training stage asks for


@runtime_checkable
class TextNet(Net, Protocol):
    """A network whose texts live in the same space as its images."""

    def encode_text(self, tokens: Tokens) -> Tensor: ...  # (B, T) -> (B, D), unit rows


@runtime_checkable
class PairNet(TextNet, Protocol):
    """A network that also reads an image and its text together, into the same space as either alone."""

    def encode_pair(self, images: Tensor, tokens: Tokens) -> Tensor: ...  # (B, 3, H, W), (B, T) -> (B, D), unit rows
