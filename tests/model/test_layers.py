"""Layers that compute in a way of their own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kmax.model.layers import AtrousConv2d


@pytest.mark.parametrize("size", [(1, 1), (5, 6), (9, 4), (11, 11), (12, 12), (30, 5)])
@pytest.mark.parametrize("dilation", [3, 6])
def test_an_atrous_convolution_by_taps_is_the_same_one(size: tuple[int, int], dilation: int) -> None:
    torch.manual_seed(0)
    ours = AtrousConv2d(3, 4, 3, padding=dilation, dilation=dilation, bias=False).double()
    plain = nn.Conv2d(3, 4, 3, padding=dilation, dilation=dilation, bias=False).double()
    plain.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    results = [ours(images), plain(images)]
    torch.testing.assert_close(*results)
    factor = torch.randn_like(results[0])
    gradients = [
        torch.autograd.grad(result, (images, module.weight), factor)
        for result, module in zip(results, (ours, plain), strict=True)
    ]
    torch.testing.assert_close(*gradients)


def test_taps_are_for_small_maps_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    convolution = AtrousConv2d(2, 2, 3, padding=6, dilation=6, bias=False)
    used = []

    def by_taps(self: AtrousConv2d, x: torch.Tensor) -> torch.Tensor:
        used.append(tuple(x.shape))
        return F.relu(x)

    monkeypatch.setattr(AtrousConv2d, "_by_taps", by_taps)
    for size in (11, 12):
        convolution(torch.zeros(1, 2, size, size))
    convolution.eval()(torch.zeros(1, 2, 11, 11))
    assert used == [(1, 2, 11, 11)]
