"""The losses of MMET against naive double loops."""

from __future__ import annotations

import math

import pytest
import torch

from model.losses_mmet import naming_loss, pixel_loss, soft_triplet_loss


def test_naming_equals_a_double_loop() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(7, 5, dtype=torch.float64), torch.randint(0, 5, (7,))
    total = 0.0
    for row in range(7):
        denominator = sum(math.exp(logits[row, k]) for k in range(5))
        total -= math.log(math.exp(logits[row, targets[row]]) / denominator)
    assert naming_loss(logits, targets).item() == pytest.approx(total / 7)


def test_pixels_equal_a_double_loop() -> None:
    torch.manual_seed(1)
    predicted, targets = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    total = sum((predicted[n, k] - targets[n, k]).item() ** 2 for n in range(3) for k in range(4))
    assert pixel_loss(predicted, targets).item() == pytest.approx(total / 12)


def test_where_nothing_is_hidden_nothing_is_lost() -> None:
    logits = torch.zeros(0, 5, requires_grad=True)
    for loss in (naming_loss(logits, torch.zeros(0, dtype=torch.long)), pixel_loss(logits, torch.zeros(0, 5))):
        assert loss.item() == 0
        loss.backward()


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 2, 2], [3, 1, 3, 3, 1, 1]])
def test_soft_triplets_equal_a_double_loop(labels: list[int]) -> None:
    torch.manual_seed(2)
    features = torch.randn(6, 3, dtype=torch.float64)
    terms = []
    for a in range(6):
        positives, negatives = [], []
        for b in range(6):
            distance = math.sqrt(sum((features[a, k] - features[b, k]).item() ** 2 for k in range(3)))
            if labels[a] != labels[b]:
                negatives.append(distance)
            elif a != b:
                positives.append(distance)
        if positives and negatives:
            terms.append(math.log(1 + math.exp(max(positives) - min(negatives))))
    found = soft_triplet_loss(features, torch.tensor(labels))
    assert found.item() == pytest.approx(sum(terms) / len(terms))


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [0, 0, 0, 0]])
def test_without_a_triplet_there_is_no_loss(labels: list[int]) -> None:
    features = torch.randn(4, 3, requires_grad=True)
    loss = soft_triplet_loss(features, torch.tensor(labels))
    loss.backward()
    assert loss.item() == 0 and features.grad is not None and not features.grad.any()


def test_equal_vectors_have_a_finite_gradient() -> None:
    features = torch.ones(4, 3, requires_grad=True)
    loss = soft_triplet_loss(features, torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2)) and features.grad is not None
    assert torch.isfinite(features.grad).all()
