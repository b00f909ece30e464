"""The ranking loss of SSAN as plain functions of cosine similarity matrices and their labels.

Rows are images, columns are captions, and the diagonal holds the pairs. A weak pair is an image with a caption that was
written for another image of the same person. Formula: SSAN (arXiv 2107.12666); what its published code does beyond or
against the formula is an option. Weights of levels and of whole losses belong to the net that calls.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from model.losses import Negatives, hinge

Reduction = Literal["sum", "mean"]
WeakNegatives = Literal["captions", "weak"]


def compound_ranking_loss(
    similarity: Tensor,
    weak: Tensor,
    labels: Tensor,
    *,
    margin: float = 0.2,
    weak_weight: float = 0.1,
    weak_margin: Tensor | None = None,
    least_margin: float = 0.0,
    negatives: Negatives = "semi_hard",
    weak_negatives: WeakNegatives = "captions",
    reduction: Reduction = "sum",
) -> Tensor:
    """Hinges of the pairs with ``margin`` and, times ``weak_weight``, of the weak pairs with a margin of their own.

    Args:
        similarity, weak: (B, B), of the images with their captions and with their weak captions.
        labels: (B,) identities; only items of another one are negatives.
        weak_margin: (B,) margin of each weak pair; None is ``adaptive_margin`` of the two matrices.
        least_margin: weak pairs whose margin is below it are left out; 0 keeps all.
        negatives: how the negative of an anchor is drawn, see ``losses.triplet_loss``. The formula does not say; the
            published code draws one at random among the semi-hard.
        weak_negatives: what an image is compared with in the weak term: "captions" as in the formula, or the "weak"
            captions of the other images, as in the published code.
        reduction: over anchors, added up as in the published code, or averaged. Anchors without a negative add zero.
    """
    same = labels[:, None] == labels[None, :]  # (B, B), symmetric
    if weak_margin is None:
        weak_margin = adaptive_margin(similarity, weak, margin)
    pair, weak_pair = similarity.diagonal(), weak.diagonal()
    strong = hinge(similarity, pair, same, margin, negatives) + hinge(similarity.T, pair, same, margin, negatives)
    others = similarity if weak_negatives == "captions" else weak
    images = hinge(others, weak_pair, same, weak_margin, negatives)
    captions = hinge(weak.T, weak_pair, same, weak_margin, negatives)
    kept = weak_margin >= least_margin
    terms = strong + weak_weight * (images + captions) * kept  # (B,)
    return terms.sum() if reduction == "sum" else terms.mean()


@torch.no_grad()
def adaptive_margin(similarity: Tensor, weak: Tensor, margin: float = 0.2, *, absolute: bool = False) -> Tensor:
    """(B,) margin of each weak pair, constant for the gradient: (ratio + 1) * margin / 2.

    ratio is the similarity of the weak pair over that of the pair, within 0 and 1: a weak caption that fits the image
    as well as its own keeps as far from the negatives, one that hardly fits half as far. Where even the pair is not
    similar, it is 1 for a weak pair that is, and else 0. ``absolute`` takes both without their signs, as the published
    code does.
    """
    pair, weak_pair = similarity.diagonal(), weak.diagonal()
    if absolute:
        pair, weak_pair = pair.abs(), weak_pair.abs()
    ratio = (weak_pair / pair.clamp(min=1e-6)).clamp(0.0, 1.0)
    return (ratio + 1) * margin / 2
