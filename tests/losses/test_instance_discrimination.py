"""Instance discrimination against the plain formulation with an S×S target."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kmax.losses import instance_discrimination, match
from kmax.losses.instance_discrimination import MeanContrast, instance_discrimination_loss
from kmax.losses.matching import Match
from kmax.structures import Target


def dense(features: Tensor, owner: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of every column of the (S, S) logits, of one image; (S, C) features."""
    logits = features @ features.T / temperature
    target = ((owner[:, None] == owner[None]) & (owner >= 0)[None]).to(features.dtype)
    target = target / target.sum(0).clamp(min=1)
    loss = -(target * logits.log_softmax(0)).sum(0)
    return loss.sum() / (loss != 0).sum().clamp(min=1)


def some_match(segments: int, size: tuple[int, int]) -> Match:
    targets = [Target(torch.randint(-1, segments, size), torch.zeros(segments).long()) for _ in range(2)]
    return match(torch.randn(2, 6, 3), torch.randn(2, 6, *size), targets)


@pytest.mark.parametrize("width", [1, 7, 16, 256])
@pytest.mark.parametrize("segments", [0, 1, 4])
def test_loss_and_gradient_are_those_of_the_dense_formulation(
    width: int, segments: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(instance_discrimination._WIDTH, "cpu", width)
    torch.manual_seed(segments)
    matched = some_match(segments, (8, 9))
    feature = torch.nn.functional.normalize(torch.randn(2, 5, 8, 9, dtype=torch.float64), dim=1).requires_grad_()
    index = torch.stack([torch.randperm(72)[:40] for _ in range(2)])
    loss = instance_discrimination_loss(feature, matched, index, (8, 9), 0.3)
    expected = torch.stack(
        [dense(feature[i].flatten(1)[:, index[i]].T, matched.owner[i, index[i]], 0.3) for i in range(2)]
    ).mean()
    torch.testing.assert_close(loss, expected)
    ours, reference = (torch.autograd.grad(value, feature)[0] for value in (loss, expected))
    torch.testing.assert_close(ours, reference)


def test_gradient_is_that_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(instance_discrimination._WIDTH, "cpu", 3)
    torch.manual_seed(0)
    features = torch.randn(2, 7, 4, dtype=torch.float64, requires_grad=True)
    group = torch.randint(0, 3, (2, 7))
    assert torch.autograd.gradcheck(lambda x: MeanContrast.apply(x, group, 3, 0.3), (features,))


def test_a_scaled_loss_has_a_scaled_gradient() -> None:
    features = torch.nn.functional.normalize(torch.randn(1, 20, 4), dim=2).requires_grad_()
    loss = MeanContrast.apply(features, torch.ones(1, 20, dtype=torch.long), 2, 0.3)
    plain, scaled = (torch.autograd.grad(loss * factor, features, retain_graph=True)[0] for factor in (1, 1024))
    torch.testing.assert_close(scaled, 1024 * plain)


@pytest.mark.parametrize("pixels", [1, 7, 300])
def test_products_by_convolution_are_products(pixels: int) -> None:
    a, b, c = torch.randn(pixels, 5), torch.randn(3, 5), torch.randn(pixels, 4)
    torch.testing.assert_close(instance_discrimination._product(a, b), a @ b.T)
    torch.testing.assert_close(instance_discrimination._product_over_rows(a, c), a.T @ c)
