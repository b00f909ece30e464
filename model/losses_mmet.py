"""The losses of MMET that are not those of other networks: naming what was hidden, and the soft-margin triplet.

All return an unweighted scalar. With several processes every one of them sees the values of all. Source: MMET
(arXiv 2304.09498), which trains FLAVA (CVPR 2022) further; InfoNCE, identity and attribute losses are in model.losses.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from model.distributed import all_rows


def naming_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy (N, classes), (N,) int64, mean over the N of all processes; zero where there are none.

    Names hidden patches by their code (MIM), hidden pieces by their id (MLM), both of a pair (MMM), and pairs by
    whether image and text belong together (ITM).
    """
    return _mean(F.cross_entropy(logits, targets, reduction="none"))


def pixel_loss(predicted: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error (N, C) against (N, C), mean over the N of all processes: MIM without a codebook."""
    return _mean((predicted - targets).square().mean(dim=1))


def soft_triplet_loss(features: Tensor, labels: Tensor) -> Tensor:
    """Batch-hard triplets with a soft margin: mean over anchors of log(1 + exp(d_ap - d_an)).

    features: (N, D), not normalised; d is their Euclidean distance: to the farthest other row of the same label, and
    to the nearest row of another label. An anchor that lacks either is left out.
    """
    same = labels[:, None] == labels[None, :]  # (N, N)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    valid = (same & ~itself).any(dim=1) & (~same).any(dim=1)
    distance = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    farthest = distance.masked_fill(~same | itself, -torch.inf).amax(dim=1)
    nearest = distance.masked_fill(same, torch.inf).amin(dim=1)
    # Anchors are picked before subtracting: infinity minus infinity would poison the gradient.
    terms = F.softplus(farthest[valid] - nearest[valid])
    return terms.sum() / valid.sum().clamp(min=1)


def _mean(values: Tensor) -> Tensor:
    """Mean of the values (N,) of all processes, each with an N of its own; zero for none at all."""
    count = values.new_tensor([values.numel()])
    return all_rows(values.sum()[None]).sum() / all_rows(count).sum().clamp(min=1)
