"""The supervised contrastive loss against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ketfit.bodies.body import Body
from ketfit.bodies.contrastive_losses import SupervisedContrastiveLoss, supervised_contrastive_loss
from ketfit.bodies.finetuned import tokenize

TEXTS = ["good film", "the good fine film , not dull .", "dull", "bad the bad film " * 9] * 9


def loss_by_definition(embeddings: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Return equation 2 of arXiv 2004.11362, term by term."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    losses = []
    for i in range(len(unit)):
        positives = [p for p in range(len(unit)) if p != i and labels[p] == labels[i]]
        total = sum(math.exp(unit[i] @ unit[a] / temperature) for a in range(len(unit)) if a != i)
        terms = [math.log(math.exp(unit[i] @ unit[p] / temperature) / total) for p in positives]
        if positives:
            losses.append(-sum(terms) / len(positives))
    return float(np.mean(losses))


class TestSupervisedContrastiveLoss:
    @pytest.mark.parametrize("temperature", [0.07, 0.5, 2.0])
    def test_loss_equals_its_definition(self, temperature: float) -> None:
        rng = np.random.default_rng(0)
        embeddings, labels = rng.normal(size=(12, 5)).astype(np.float32), np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 0, 1, 3])
        loss = supervised_contrastive_loss(torch.from_numpy(embeddings), torch.from_numpy(labels), temperature)
        assert loss.item() == pytest.approx(loss_by_definition(embeddings, labels, temperature), rel=1e-5)

    def test_loss_gradient_equals_finite_differences(self) -> None:
        generator = torch.Generator().manual_seed(0)
        embeddings = torch.randn(6, 4, generator=generator)
        labels = torch.tensor([0, 1, 0, 1, 1, 2])
        embeddings.requires_grad_()
        supervised_contrastive_loss(embeddings, labels, 0.5).backward()  # type: ignore[no-untyped-call]
        assert embeddings.grad is not None
        values, step = embeddings.detach().numpy(), 1e-3
        for row, column in [(0, 0), (3, 2), (5, 1)]:
            shifted = [values.copy(), values.copy()]
            shifted[0][row, column] += step
            shifted[1][row, column] -= step
            above, below = (loss_by_definition(array.astype(np.float64), labels.numpy(), 0.5) for array in shifted)
            assert embeddings.grad[row, column].item() == pytest.approx((above - below) / (2 * step), abs=2e-4)

    def test_loss_cross_entropy_term_is_added(self, tiny_body: Body) -> None:
        features = tokenize(tiny_body.transformer, TEXTS[:8])
        labels = torch.tensor([0, 1] * 4)
        plain = SupervisedContrastiveLoss(tiny_body.transformer, 0.1)
        linear = torch.nn.Linear(16, 2)
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
        both = SupervisedContrastiveLoss(tiny_body.transformer, 0.1, linear, cross_entropy=0.5)
        difference = both([features], labels) - plain([features], labels)
        assert difference.item() == pytest.approx(0.5 * math.log(2), abs=1e-5)
