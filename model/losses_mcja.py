"""The losses of MCJA as plain functions: cross-modality retrieval (CMR) in closed form, and the soft rank behind it.

CMR asks that the soft ranks of the right images of the other modality be 1. At its published strength of 0.5 the soft
rank is an affine function of the similarity, and the loss a contrast of mean similarities; a smaller strength makes it
aware of ranks, and is then not the published loss. Source: MCJA (TCSVT 2024) and its public code; soft rank: Blondel
et al. 2020. Identity loss: model.losses.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.losses import similarity_matrix

STRENGTH = 0.5  # of the soft rank, as published


def cmr_loss(z: Tensor, labels: Tensor, modalities: Tensor, strength: float = STRENGTH) -> Tensor:
    """Every image is a query among all images of the other modality in the batch: mean |soft rank - target|.

    z: (B, D) features, made unit here. labels: (B,). modalities: (B,) 0 visible, 1 infrared. The target is rank 1 for
    images of the query's person and n, the size of the gallery, for all others. A query with no right or no wrong
    image is left out; the loss is the mean over modalities that have a query left, and 0 without any.
    """
    means: list[Tensor] = []
    for modality in (0, 1):
        own, other = modalities == modality, modalities != modality
        match = labels[own, None] == labels[None, other]  # (Q, n)
        valid = match.any(dim=1) & ~match.all(dim=1)
        if valid.any():
            similarity = similarity_matrix(z[own][valid], z[other])
            means.append(rank_deviation(similarity, match[valid], strength).mean())
    return torch.stack(means).mean() if means else 0 * z.sum()


def rank_deviation(similarity: Tensor, match: Tensor, strength: float) -> Tensor:
    """(Q,) mean over the gallery of |soft rank - target|; similarity, match: (Q, n), each row with both kinds.

    With distances (1 - cos) / 2 over the strength, which span at most 1 / strength, the soft rank pools everything into
    one block as soon as n >= 2 / strength, and all ranks lie strictly between 1 and n for n > 2 / strength. Then no
    rank need be computed: see `contrast`.
    """
    n = similarity.shape[1]
    if n * strength > 2:
        return contrast(similarity, match, strength)
    ranks = soft_rank((1 - similarity) / 2, strength)
    return torch.where(match, ranks - 1, n - ranks).abs().mean(dim=1)


def contrast(similarity: Tensor, match: Tensor, strength: float = STRENGTH) -> Tensor:
    """`rank_deviation` where one block and ranks inside (1, n) are certain: (Q, n) -> (Q,).

    With p right and m wrong images: (n - 1) / 2 + p m / (n^2 strength) (mean cos of the wrong - mean cos of the right).
    """
    n = similarity.shape[1]
    p = match.sum(dim=1)
    m = n - p
    right = (similarity * match).sum(dim=1) / p
    wrong = (similarity * ~match).sum(dim=1) / m
    pairs = (p * m).to(similarity.dtype)
    return (n - 1) / 2 + pairs / (n * n * strength) * (wrong - right)


def soft_rank(values: Tensor, strength: float) -> Tensor:
    """(Q, n) -> (Q, n) differentiable ascending ranks: about 1 for the least value of a row, n for the largest.

    The projection of values / strength onto the permutahedron of (1, ..., n), by isotonic regression. As the strength
    goes to 0 these are the ordinary ranks; as it grows, (n + 1) / 2 plus what the value differs from the row's mean.
    Within a pooled block the gradient is what comes in minus its mean.
    """
    if strength <= 0:
        raise ValueError(f"The strength of a soft rank must be positive, not {strength}.")
    theta, order = (values / strength).sort(dim=1, descending=True, stable=True)
    n = values.shape[1]
    excess = theta - torch.arange(n, 0, -1, dtype=theta.dtype, device=theta.device)  # (Q, n)
    blocks = torch.tensor([_pooled_blocks(row) for row in excess.tolist()], device=theta.device)  # (Q, n)
    count = torch.zeros_like(theta).scatter_add(1, blocks, torch.ones_like(theta))
    mean = torch.zeros_like(theta).scatter_add(1, blocks, excess) / count.clamp(min=1)
    ranks = theta - mean.gather(1, blocks)
    return torch.empty_like(ranks).scatter(1, order, ranks)


def _pooled_blocks(values: list[float]) -> list[int]:
    """The block of each position once adjacent violators of a non-increasing order are pooled."""
    sums: list[float] = []
    counts: list[int] = []
    for value in values:
        total, count = value, 1
        while sums and sums[-1] * count < total * counts[-1]:  # the block before has the smaller mean
            total, count = total + sums.pop(), count + counts.pop()
        sums.append(total)
        counts.append(count)
    return [block for block, count in enumerate(counts) for _ in range(count)]
