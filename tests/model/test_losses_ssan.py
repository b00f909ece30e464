"""The compound ranking loss against a naive double loop for every option, and margins worked by hand."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from model.losses_ssan import adaptive_margin, compound_ranking_loss

LABELS = torch.tensor([0, 0, 1, 1, 2, 3, 2])
N = len(LABELS)


def matrices(seed: int) -> tuple[Tensor, Tensor]:
    """Similarities of images with captions and with weak captions; pairs are a little more similar than others."""
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.rand(N, N, generator=generator) - 0.3 for _ in range(2))
    return first + 0.3 * torch.eye(N), second + 0.2 * torch.eye(N)


def naive(
    s: Tensor,
    w: Tensor,
    *,
    negatives: str,
    weak_negatives: str,
    reduction: str,
    least: float = 0.0,
    margin: float = 0.2,
    draws: list[Tensor] | None = None,
) -> float:
    """The formula, pair by pair. draws: (N, N) random numbers of each of the four terms; the largest wins."""
    total = 0.0
    for p in range(N):
        ratio = min(float(w[p, p]) / float(s[p, p]), 1.0)
        weak_margin = (max(ratio, 0.0) + 1) * margin / 2
        for term in range(4):
            of_images = s if term < 2 or weak_negatives == "captions" else w
            rows = of_images[p] if term in (0, 2) else (s if term == 1 else w)[:, p]  # D_n beside I_p, or I_n
            positive, alpha = (float(s[p, p]), margin) if term < 2 else (float(w[p, p]), weak_margin)
            found = []
            for n in range(N):
                if LABELS[n] == LABELS[p]:
                    continue
                loss = alpha - positive + float(rows[n])
                if negatives == "hardest":
                    found.append((float(rows[n]), loss))
                elif 0 < loss < alpha:
                    assert draws is not None
                    # Those of a transposed matrix are drawn in the order of its memory.
                    found.append((float(draws[term][(n, p) if term % 2 else (p, n)]), loss))
            if found and not (term >= 2 and weak_margin < least):
                total += (1.0 if term < 2 else 0.1) * max(0.0, max(found)[1])
    return total if reduction == "sum" else total / N


OPTIONS = list(itertools.product(("hardest", "semi_hard"), ("captions", "weak"), ("sum", "mean"), (0.0, 0.16)))


@pytest.mark.parametrize(("negatives", "weak_negatives", "reduction", "least"), OPTIONS)
@pytest.mark.parametrize("seed", range(4))
def test_it_equals_a_double_loop(negatives: str, weak_negatives: str, reduction: str, least: float, seed: int) -> None:
    s, w = matrices(seed)
    draws = None
    if negatives == "semi_hard":
        torch.manual_seed(seed)
        draws = [torch.rand(N, N) for _ in range(4)]
    expected = naive(
        s, w, negatives=negatives, weak_negatives=weak_negatives, reduction=reduction, least=least, draws=draws
    )
    torch.manual_seed(seed)
    loss = compound_ranking_loss(
        s,
        w,
        LABELS,
        negatives=negatives,  # type: ignore[arg-type]
        weak_negatives=weak_negatives,  # type: ignore[arg-type]
        reduction=reduction,  # type: ignore[arg-type]
        least_margin=least,
    )
    assert expected > 0.05
    assert float(loss) == pytest.approx(expected, abs=1e-5)


def test_margins_by_hand() -> None:
    """As good as the true caption, half as good, better, not similar, and beside a pair that is not similar itself."""
    s = torch.diag(torch.tensor([0.8, 0.8, 0.5, 0.5, -0.2, -0.2]))
    w = torch.diag(torch.tensor([0.8, 0.4, 0.9, -0.1, 0.3, -0.4]))
    expected = torch.tensor([0.2, 0.15, 0.2, 0.1, 0.2, 0.1])
    torch.testing.assert_close(adaptive_margin(s, w, 0.2), expected)
    by_size = torch.tensor([0.2, 0.15, 0.2, 0.12, 0.2, 0.2])
    torch.testing.assert_close(adaptive_margin(s, w, 0.2, absolute=True), by_size)


def test_margins_are_constant_for_the_gradient() -> None:
    s, w = (x.clone().requires_grad_() for x in matrices(0))
    margins = adaptive_margin(s, w)
    assert not margins.requires_grad
    for given in (None, margins):
        s.grad = w.grad = None
        compound_ranking_loss(s, w, LABELS, weak_margin=given, negatives="hardest").backward()
        assert s.grad is not None and w.grad is not None
        # Hinges have slopes of one: every weak pair that takes part is pulled by both of its terms.
        pulled = w.grad.diagonal()
        assert set(torch.round(-pulled * 10).int().tolist()) <= {0, 1, 2}
        assert pulled.min() < 0


def test_semi_hard_negatives_are_never_above_the_positive() -> None:
    s = torch.tensor([[0.5, 0.9, 0.45], [0.1, 0.5, 0.1], [0.1, 0.1, 0.5]])
    labels = torch.arange(3)
    for seed in range(5):
        torch.manual_seed(seed)
        loss = compound_ranking_loss(s, s, labels, weak_weight=0.0)
        # Image 0 with caption 2, and caption 2 with image 0. Caption 1 is above the pair of image 0.
        assert float(loss) == pytest.approx(2 * 0.15, abs=1e-6)
    hardest = compound_ranking_loss(s, s, labels, weak_weight=0.0, negatives="hardest")
    assert float(hardest) == pytest.approx(0.6 + 0.6 + 0.15, abs=1e-6)


def test_without_negatives_the_loss_is_zero_and_so_is_its_gradient() -> None:
    s = matrices(1)[0].requires_grad_()
    loss = compound_ranking_loss(s, s, torch.zeros(N, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0.0
    assert s.grad is not None and not s.grad.any()
