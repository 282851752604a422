"""Instance discrimination against its definition with an S×S target."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kmax.losses import match_queries
from kmax.losses.instance_discrimination import contrast as definition
from kmax.losses.instance_discrimination import instance_discrimination_loss
from kmax.losses.kernels import contrast, products
from kmax.losses.kernels.contrast import Contrast
from kmax.losses.matching import Match
from kmax.structures import Target


def some_match(segments: int, size: tuple[int, int]) -> Match:
    targets = [Target(torch.randint(-1, segments, size), torch.zeros(segments).long()) for _ in range(2)]
    return match_queries(torch.randn(2, 6, 3), torch.randn(2, 6, *size), targets)


@pytest.mark.parametrize("budget", [0, 2**14, 2**30], ids=["one by one", "some", "all at once"])
@pytest.mark.parametrize("width", [1, 7, 16, 256])
@pytest.mark.parametrize("segments", [0, 1, 4])
def test_loss_and_gradient_are_those_of_the_definition(
    budget: int, width: int, segments: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(contrast._WIDTH, "cpu", width)
    monkeypatch.setitem(contrast._BUDGET, "cpu", budget)
    torch.manual_seed(segments)
    matched = some_match(segments, (8, 9))
    shape = (2, 5, 8, 9)
    features = [
        torch.nn.functional.normalize(torch.randn(shape, dtype=torch.float64), dim=1).requires_grad_() for _ in range(2)
    ]
    index = torch.stack([torch.stack([torch.randperm(72)[:40] for _ in range(2)]) for _ in range(2)])
    loss = instance_discrimination_loss(features, matched, index, (8, 9), 0.3)

    def dense(prediction: int, image: int) -> Tensor:
        drawn = index[prediction, image]
        return definition(features[prediction][image].flatten(1)[:, drawn].T, matched.owner[image, drawn] + 1, 0.3)

    expected = torch.stack([(dense(prediction, 0) + dense(prediction, 1)) / 2 for prediction in range(2)])
    torch.testing.assert_close(loss, expected)
    ours, reference = (
        torch.autograd.grad(value @ torch.tensor([1.0, 2.0]).double(), features) for value in (loss, expected)
    )
    torch.testing.assert_close(ours, reference)


def test_gradient_is_that_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(contrast._WIDTH, "cpu", 3)
    torch.manual_seed(0)
    features = torch.randn(2, 7, 4, dtype=torch.float64, requires_grad=True)
    group = torch.randint(0, 3, (2, 7))
    assert torch.autograd.gradcheck(lambda x: Contrast.apply(x, group, 3, 0.3), (features,))


def test_a_scaled_loss_has_a_scaled_gradient() -> None:
    features = torch.nn.functional.normalize(torch.randn(1, 20, 4), dim=2).requires_grad_()
    loss = Contrast.apply(features, torch.ones(1, 20, dtype=torch.long), 2, 0.3).sum()
    plain, scaled = (torch.autograd.grad(loss * factor, features, retain_graph=True)[0] for factor in (1, 1024))
    torch.testing.assert_close(scaled, 1024 * plain)


@pytest.mark.parametrize("pixels", [1, 7, 300])
@pytest.mark.parametrize("images", [1, 3])
def test_products_by_convolution_are_products(pixels: int, images: int) -> None:
    a, b = torch.randn(images, pixels, 5), torch.randn(images, 3, 5)
    torch.testing.assert_close(products.product(a, b), a @ b.transpose(1, 2))
