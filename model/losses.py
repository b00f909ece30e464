"""The losses of AXM-Net as plain functions of logits, or of one cosine similarity matrix and its labels.

A similarity matrix S is (B, B): rows are images, columns are texts, S[i, i] is the pair. Every function returns an
unweighted scalar; weights belong to the net that calls it. Formulas: AXM-Net (AAAI 2022), eq. 6 to 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Negatives = Literal["hardest", "random", "semi_hard"]
Positives = Literal["paired", "hardest"]
AffinityMean = Literal["separate", "plain"]


def similarity_matrix(rows: Tensor, columns: Tensor) -> Tensor:
    """(B, D), (N, D) -> (B, N) cosine similarities in [-1, 1]."""
    return F.normalize(rows, dim=1) @ F.normalize(columns, dim=1).T


def identity_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.1) -> Tensor:
    """Cross-entropy of (B, N) logits with label smoothing, mean over the batch."""
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def triplet_loss(
    similarity: Tensor,
    labels: Tensor,
    *,
    margin: float = 0.5,
    negatives: Negatives = "hardest",
    positives: Positives = "paired",
) -> Tensor:
    """Two-sided hinge [margin - S(a, +) + S(a, -)]_+ : images as anchors plus texts as anchors, mean over anchors.

    negatives: the hardest item of another identity in the batch; one at random; or one at random among the
    semi-hard, which violate the margin without being more similar than the positive (0 < S- - S+ + margin < margin).
    positives: the paired item, or the least similar item of the same identity.
    An anchor without a candidate adds zero. The paper does not print its mining; "hardest" is our default.
    """
    same = labels[:, None] == labels[None, :]  # (B, B), symmetric
    directions = []
    for s in (similarity, similarity.T):
        paired, hardest = s.diagonal(), s.masked_fill(~same, torch.inf).amin(dim=1)
        directions.append(hinge(s, paired if positives == "paired" else hardest, same, margin, negatives).mean())
    return torch.stack(directions).sum()


def hinge(similarity: Tensor, positive: Tensor, same: Tensor, margin: Tensor | float, negatives: Negatives) -> Tensor:
    """(B,) [margin - positive + negative]_+ where every row of ``similarity`` (B, B) is an anchor.

    positive: (B,) similarity of each anchor to its positive. same: (B, B) bool, True where an item is no negative.
    margin: one for all anchors, or (B,). An anchor without a candidate gets zero.
    """
    candidates = ~same
    if negatives == "semi_hard":
        bound = positive.detach()
        candidates = candidates & (similarity > (bound - margin)[:, None]) & (similarity < bound[:, None])
    # Negatives are drawn by index, so that an anchor without candidates brings no infinity into the gradient.
    preference = similarity.detach() if negatives == "hardest" else torch.rand_like(similarity)
    chosen = preference.masked_fill(~candidates, -torch.inf).argmax(dim=1, keepdim=True)
    negative = similarity.gather(1, chosen).squeeze(1)
    return F.relu(margin - positive + negative) * candidates.any(dim=1)


def affinity_loss(similarity: Tensor, labels: Tensor, *, mean: AffinityMean = "separate") -> Tensor:
    """Logistic loss on every pair of the batch: softplus(-S) for a match, softplus(S - 1) otherwise.

    The negative term is -log sigmoid(1 - S) as printed (eq. 8), not -log(1 - sigmoid(S)).
    mean: "separate" adds the mean over matches and the mean over non-matches; "plain" averages all B * B pairs,
    which lets the non-matches dominate.
    """
    same = labels[:, None] == labels[None, :]  # (B, B)
    match, other = F.softplus(-similarity), F.softplus(similarity - 1.0)
    if mean == "plain":
        return torch.where(same, match, other).mean()
    different = ~same
    return (match * same).sum() / same.sum() + (other * different).sum() / different.sum().clamp(min=1)


def info_nce_loss(similarity: Tensor, labels: Tensor, scale: Tensor | float) -> Tensor:
    """Symmetric InfoNCE; the target of an anchor is spread evenly over all items of its identity.

    similarity: (B, B). scale: inverse temperature. Mean of the image-to-text and text-to-image cross-entropies.
    """
    same = (labels[:, None] == labels[None, :]).to(similarity.dtype)
    target = same / same.sum(dim=1, keepdim=True)  # rows sum to one; symmetric in the two directions
    logits = similarity * scale
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def attribute_loss(logits: Sequence[Tensor], targets: Tensor) -> Tensor:
    """Cross-entropy of every attribute head, mean over the samples where it is known, summed over the heads.

    logits: A tensors (B, classes). targets: (B, A) int64, -1 where unknown. A head unknown everywhere adds zero.
    """
    if len(logits) != targets.shape[1]:
        raise ValueError(f"The net has {len(logits)} attribute heads but the batch labels {targets.shape[1]}.")
    total = targets.new_zeros((), dtype=torch.float32)
    for head, target in zip(logits, targets.unbind(dim=1), strict=True):
        known = (target >= 0).sum().clamp(min=1)
        total = total + F.cross_entropy(head, target, ignore_index=-1, reduction="sum") / known
    return total
