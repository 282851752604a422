"""Contrast of drawn pixels, computed from one triangle of their similarity matrix.

With f the features of S pixels and L_kj = f_k·f_j / T, the cross-entropy of column j against a target spread evenly
over the pixels of j's group is ln Σ_k exp L_kj − f_j·(mean of f over j's group) / T. Its second term needs no S×S
matrix. The first is symmetric in k and j: with E = exp L, Z its sums, γ_j the weight of column j in the loss and
r = γ / Z,

    ∂/∂f_k Σ_j γ_j ln Z_j = Σ_j E_kj (r_k + r_j) f_j / T,

so one triangle of E suffices. The weights do not depend on the incoming gradient: the forward pass also computes
the gradient, while it holds E, for as many images at once as a memory budget allows.

Letters: n images, S pixels of each, C channels, G groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kmax.losses.kernels.products import product
from kmax.losses.kernels.strips import LOG2_E

_WIDTH = {"cpu": 384}  # columns of a block of E, so small that its memory stays in the cache
_LARGE_WIDTH = 1024  # elsewhere few large kernels are faster
_BUDGET = {"cpu": 0}  # bytes of E at once; at least one image
_LARGE_BUDGET = 2**29  # twelve images of 4096 pixels


class Contrast(torch.autograd.Function):
    """(features (n, S, C), no longer than about 1; group (n, S) below `groups`; T) → the loss of each image, (n,): the
    mean over its pixels of the cross-entropy above. Values of 0 and pixels of group 0 do not count; the latter
    repel."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, group: Tensor, groups: int, temperature: float) -> Tensor:
        parts = [
            _losses(features[images], group[images], groups, temperature, ctx.needs_input_grad[0])
            for images in _within_budget(features)
        ]
        losses, gradients = zip(*parts, strict=True)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(torch.cat(gradients) if len(gradients) > 1 else gradients[0])
        return torch.cat(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return grad[:, None, None] * gradient, None, None, None


def _within_budget(features: Tensor) -> Iterator[slice]:
    images, pixels, _ = features.shape
    device = features.device.type
    width = min(_WIDTH.get(device, _LARGE_WIDTH), pixels)
    triangle = max(pixels * (pixels + width) // 2 * features.element_size(), 1)
    step = max(_BUDGET.get(device, _LARGE_BUDGET) // triangle, 1)
    for start in range(0, images, step):
        yield slice(start, start + step)


def _losses(
    features: Tensor, group: Tensor, groups: int, temperature: float, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """The loss of each image, (n,), and its gradient (n, S, C), which is empty without `with_gradient`."""
    triangle = _Triangle(features, temperature)
    total, mean = triangle.sums(), _mean_of_group(features, group, groups)  # (n, S), (n, S, C)
    counts = group > 0
    values = (total.log() - (features * mean).sum(2) / temperature) * counts
    weight = counts / (values != 0).sum(1, keepdim=True).clamp(min=1)  # (n, S)
    loss = (values * weight).sum(1)
    if not with_gradient:
        return loss, features.new_empty(0)
    column = weight[..., None].to(features.dtype)
    pull = column * mean + _mean_of_group(column * features, group, groups)
    return loss, (triangle.gradient(weight / total) - pull) / temperature


def _mean_of_group(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """For each row of `values` (n, S, C) the mean of the rows of its image that share its `group` (n, S)."""
    images = len(values)
    first = torch.arange(0, images * groups, groups, device=group.device)
    row = (group + first[:, None]).flatten()  # groups are numbered consecutively over all images
    total = values.new_zeros(images * groups, values.shape[2]).index_add_(0, row, values.flatten(0, 1))
    count = values.new_zeros(images * groups).index_add_(0, row, values.new_ones(len(row)))
    return (total / count.clamp(min=1)[:, None])[row].view_as(values)


class _Triangle:
    """The lower triangle of `exp(f_k·f_j / T)` for `features` (n, S, C): in blocks of columns."""

    def __init__(self, features: Tensor, temperature: float) -> None:
        self.features = features
        count, width = features.shape[1], _WIDTH.get(features.device.type, _LARGE_WIDTH)
        scaled = features * (LOG2_E / temperature)
        self.blocks = []
        for start in range(0, count, width):
            stop = min(start + width, count)
            self.blocks.append((start, stop, product(features[:, start:], scaled[:, start:stop]).exp2_()))

    def sums(self) -> Tensor:
        """The sums of the rows of the whole matrix, (n, S)."""
        total = self.features.new_zeros(self.features.shape[:2])
        for start, stop, block in self.blocks:
            total[:, start:stop].add_(block.sum(1))
            if stop < total.shape[1]:
                total[:, stop:].add_(block[:, stop - start :].sum(2))
        return total

    def gradient(self, ratio: Tensor) -> Tensor:
        """Σ_j E_kj (r_k + r_j) f_j, (n, S, C), for r (n, S). Consumes the blocks."""
        features, result = self.features, torch.zeros_like(self.features)
        while self.blocks:
            start, stop, block = self.blocks.pop()
            block *= ratio[:, start:, None] + ratio[:, None, start:stop]
            result[:, start:stop].add_(block.transpose(1, 2) @ features[:, start:])
            if stop < features.shape[1]:
                result[:, stop:].add_(product(block[:, stop - start :], features[:, start:stop].transpose(1, 2)))
        return result
