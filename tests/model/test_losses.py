"""Every loss against a naive double loop, and against values worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from model.losses import (
    affinity_loss,
    attribute_loss,
    identity_loss,
    info_nce_loss,
    similarity_matrix,
    triplet_loss,
)

LABELS = torch.tensor([0, 0, 1, 1, 2, 3, 2])


def random_similarity(seed: int, n: int = len(LABELS)) -> torch.Tensor:
    return torch.rand(n, n, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def naive_softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


def test_similarity_matrix_is_the_cosine_of_every_pair() -> None:
    a, b = torch.randn(3, 8), torch.randn(5, 8)
    s = similarity_matrix(a, b)
    for i in range(3):
        for j in range(5):
            expected = float(a[i] @ b[j]) / (float(a[i].norm()) * float(b[j].norm()))
            assert float(s[i, j]) == pytest.approx(expected, abs=1e-6)


def test_identity_loss_smooths_labels() -> None:
    logits, labels = torch.randn(4, 5), torch.tensor([0, 3, 1, 4])
    expected = 0.0
    for i, label in enumerate(labels.tolist()):
        log_p = torch.log(torch.exp(logits[i]) / torch.exp(logits[i]).sum())
        target = [0.1 / 5 + (0.9 if k == label else 0.0) for k in range(5)]
        expected -= sum(t * float(lp) for t, lp in zip(target, log_p, strict=True)) / 4
    assert float(identity_loss(logits, labels)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("positives", ["paired", "hardest"])
@pytest.mark.parametrize("seed", range(5))
def test_triplet_with_hardest_negatives_equals_a_double_loop(positives: str, seed: int) -> None:
    s, n = random_similarity(seed), len(LABELS)
    expected = 0.0
    for rows in (s, s.T):
        for i in range(n):
            same = [float(rows[i, j]) for j in range(n) if LABELS[i] == LABELS[j]]
            other = [float(rows[i, j]) for j in range(n) if LABELS[i] != LABELS[j]]
            positive = float(rows[i, i]) if positives == "paired" else min(same)
            expected += max(0.0, 0.5 - positive + max(other)) / n
    assert float(triplet_loss(s, LABELS, positives=positives)) == pytest.approx(expected, abs=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("negatives", ["random", "semi_hard"])
def test_drawn_negatives_stay_among_their_candidates(negatives: str) -> None:
    """The mean of many draws is the mean over the candidates, each anchor's own; semi-hard ones violate the margin
    without exceeding the positive, and an anchor without any adds nothing."""
    torch.manual_seed(0)
    s, n = random_similarity(3), len(LABELS)
    low, high, mean = 0.0, 0.0, 0.0
    for rows in (s, s.T):
        for i in range(n):
            positive = float(rows[i, i])
            other = [float(rows[i, j]) for j in range(n) if LABELS[i] != LABELS[j]]
            if negatives == "semi_hard":
                other = [o for o in other if 0 < o - positive + 0.5 < 0.5]
            hinges = [max(0.0, 0.5 - positive + o) for o in other] or [0.0]
            low, high, mean = low + min(hinges) / n, high + max(hinges) / n, mean + sum(hinges) / len(hinges) / n
    assert low < high
    draws = torch.stack([triplet_loss(s, LABELS, negatives=negatives) for _ in range(400)])  # type: ignore[arg-type]
    assert low - 1e-6 <= float(draws.min()) < float(draws.max()) <= high + 1e-6
    assert float(draws.mean()) == pytest.approx(mean, abs=4 * float(draws.std()) / math.sqrt(400))


@pytest.mark.parametrize("negatives", ["hardest", "random", "semi_hard"])
def test_triplet_without_any_negative_is_zero_with_finite_gradient(negatives: str) -> None:
    s = random_similarity(1, 3).requires_grad_()
    loss = triplet_loss(s, torch.zeros(3, dtype=torch.long), negatives=negatives)  # type: ignore[arg-type]
    loss.backward()
    assert loss.item() == 0.0
    assert s.grad is not None and not s.grad.any()


def test_acceptance_7_triplet_is_zero_from_the_margin_on() -> None:
    labels = torch.arange(4)
    at_margin = torch.full((4, 4), 0.25).fill_diagonal_(0.75)
    assert float(triplet_loss(at_margin, labels)) == 0.0
    inside = torch.full((4, 4), 0.25).fill_diagonal_(0.7)
    assert float(triplet_loss(inside, labels)) == pytest.approx(2 * 0.05, abs=1e-6)


@pytest.mark.parametrize(
    ("similarity", "match", "other"), [(-1.0, 1.313, 0.127), (0.0, 0.693, 0.313), (1.0, 0.313, 0.693)]
)
def test_acceptance_7_affinity_values(similarity: float, match: float, other: float) -> None:
    """Two samples of one identity have only matches; of two identities, half of the pairs are non-matches."""
    s = torch.full((2, 2), similarity)
    assert float(affinity_loss(s, torch.tensor([0, 0]))) == pytest.approx(match, abs=5e-4)
    assert float(affinity_loss(s, torch.tensor([0, 1]))) == pytest.approx(match + other, abs=1e-3)


@pytest.mark.parametrize("mean", ["separate", "plain"])
def test_affinity_equals_a_double_loop(mean: str) -> None:
    s, n = random_similarity(5), len(LABELS)
    matches, others = [], []
    for i in range(n):
        for j in range(n):
            if LABELS[i] == LABELS[j]:
                matches.append(naive_softplus(-float(s[i, j])))
            else:
                others.append(naive_softplus(float(s[i, j]) - 1))
    if mean == "plain":
        expected = (sum(matches) + sum(others)) / n**2
    else:
        expected = sum(matches) / len(matches) + sum(others) / len(others)
    assert float(affinity_loss(s, LABELS, mean=mean)) == pytest.approx(expected, abs=1e-6)  # type: ignore[arg-type]


def test_info_nce_equals_a_double_loop_over_all_positives() -> None:
    s, scale, n = random_similarity(7), 9.0, len(LABELS)
    expected = 0.0
    for rows in (s, s.T):
        for i in range(n):
            total = sum(math.exp(scale * float(rows[i, j])) for j in range(n))
            positives = [j for j in range(n) if LABELS[i] == LABELS[j]]
            expected -= sum(math.log(math.exp(scale * float(rows[i, j])) / total) for j in positives) / len(positives)
    assert float(info_nce_loss(s, LABELS, scale)) == pytest.approx(expected / n / 2, abs=1e-5)


def test_attribute_loss_ignores_the_unknown() -> None:
    logits = [torch.randn(4, 3), torch.randn(4, 2), torch.randn(4, 5)]
    targets = torch.tensor([[0, -1, -1], [2, 1, -1], [-1, 0, -1], [1, -1, -1]])
    expected = 0.0
    for a, head in enumerate(logits):
        known = [-float(F.log_softmax(head[i], 0)[targets[i, a]]) for i in range(4) if targets[i, a] >= 0]
        expected += sum(known) / len(known) if known else 0.0
    assert float(attribute_loss(logits, targets)) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="2 attribute heads but the batch labels 3"):
        attribute_loss(logits[:2], targets)
