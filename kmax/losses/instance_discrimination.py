"""Contrast of drawn pixels: those of one segment attract, all others repel each other.

With f the features of S drawn pixels, logits L_kj = f_k·f_j / T, and the target of column j spread evenly over
the pixels of j's segment, the cross-entropy of column j is ln Σ_k exp L_kj − f_j·(mean of f over j's segment) / T. Its
second term needs no S×S matrix. The first is symmetric in k and j: with E = exp L, Z its sums, γ_j the weight of
column j in the loss and r = γ / Z,

    ∂/∂f_k Σ_j γ_j ln Z_j = Σ_j E_kj (r_k + r_j) f_j / T,

so one triangle of E suffices. The weights do not depend on what arrives from behind: the forward pass computes
the gradient as well, one image after the other, while E is there.

Letters: B batch, C channels, S drawn pixels, N queries.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from kmax.losses.common import at_least_float32
from kmax.losses.matching import Match
from kmax.losses.sampling import sample_feature

_WIDTH = {"cpu": 256}  # columns of a block of E: of memory that is soon used again
_LARGE_WIDTH = 1024  # elsewhere few large kernels are faster


def _by_convolution(a: Tensor) -> bool:
    """Whether to have products with `a` computed as 1×1 convolutions: on a CPU, oneDNN, which computes those, uses the
    widest vectors of every make; MKL's products do not (on AMD they take twice the time)."""
    return a.device.type == "cpu" and a.dtype == torch.float32 and len(a) > 0


def _pixels(a: Tensor) -> Tensor:
    """Rows as the pixels of an image, (n, k) → (1, k, n, 1); nothing is copied."""
    return a.contiguous().view(1, len(a), 1, -1).permute(0, 3, 1, 2)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """(n, k), (m, k) → `a @ b.T`, (n, m)."""
    if not _by_convolution(a):
        return a @ b.T
    return F.conv2d(_pixels(a), b.reshape(*b.shape, 1, 1))[0, :, :, 0].T


def _product_over_rows(a: Tensor, b: Tensor) -> Tensor:
    """(n, k), (n, m) → `a.T @ b`, (k, m)."""
    if not _by_convolution(a):
        return a.T @ b
    return conv2d_weight(_pixels(b), (a.shape[1], b.shape[1], 1, 1), _pixels(a))[:, :, 0, 0]


class _Triangle:
    """The lower triangle of `exp(f_k·f_j / T)` for `features` (S, C), no longer than about 1: in blocks of columns."""

    def __init__(self, features: Tensor, temperature: float) -> None:
        self.features = features
        count, width = len(features), _WIDTH.get(features.device.type, _LARGE_WIDTH)
        scaled = features / temperature
        self.blocks = []
        for start in range(0, count, width):
            stop = min(start + width, count)
            self.blocks.append((start, stop, _product(features[start:], scaled[start:stop]).exp_()))

    def sums(self) -> Tensor:
        """Those of the rows of the whole matrix, (S,)."""
        total = self.features.new_zeros(len(self.features))
        for start, stop, block in self.blocks:
            total[start:stop] += block.sum(0)
            total[stop:] += block[stop - start :].sum(1)
        return total

    def gradient(self, ratio: Tensor) -> Tensor:
        """Σ_j E_kj (r_k + r_j) f_j, (S, C), for r (S,). Uses up the blocks."""
        features, result = self.features, torch.zeros_like(self.features)
        while self.blocks:
            start, stop, block = self.blocks.pop()
            block *= ratio[start:, None] + ratio[start:stop]
            result[start:stop] += _product_over_rows(block, features[start:])
            result[stop:] += _product(block[stop - start :], features[start:stop].T)
        return result


class MeanContrast(torch.autograd.Function):
    """(features (B, S, C), attraction (B, S), counted (B, S), T) → the mean of `ln Σ_k exp(f_k·f_j / T) − attraction`
    over the counted pixels j of an image that are not 0 (at least 1), then over the images."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, attraction: Tensor, counted: Tensor, temperature: float) -> Tensor:
        needed = ctx.needs_input_grad[0]
        weight, gradient = torch.zeros_like(attraction), torch.zeros_like(features) if needed else None
        losses = []
        for i in range(len(features)):
            triangle = _Triangle(features[i], temperature)
            total = triangle.sums()
            values = (total.log() - attraction[i]) * counted[i]
            weight[i] = counted[i] / ((values != 0).sum().clamp(min=1) * len(features))
            losses.append((values * weight[i]).sum())
            if gradient is not None:
                gradient[i] = triangle.gradient(weight[i] / total) / temperature
        ctx.save_for_backward(gradient, weight)
        return torch.stack(losses).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        gradient, weight = ctx.saved_tensors
        return None if gradient is None else grad * gradient, -grad * weight, None, None


def instance_discrimination_loss(
    pixel_feature: Tensor, match: Match, index: Tensor, size: tuple[int, int], temperature: float = 0.3
) -> Tensor:
    """Loss `instance_discrimination` of one prediction, unweighted.

    Args:
        pixel_feature: (B, C, h, w), of length 1 over channels or shorter, or a coarser map, which is interpolated.
        match: of the final prediction; its owners are the segments.
        index: (B, S) the drawn pixels; those on void only repel.
        size: (h, w).
        temperature: T, which divides the dot products; far enough from 0 for `exp(1 / T)`.
    """
    features = at_least_float32(sample_feature(pixel_feature, index, size)).transpose(1, 2).contiguous()
    owner = match.owner.gather(1, index)
    mean = _mean_per_group(features, owner + 1, match.segment.shape[1] + 1)
    attraction = (features * mean).sum(2) / temperature
    return MeanContrast.apply(features, attraction, owner >= 0, temperature)


def _mean_per_group(features: Tensor, group: Tensor, groups: int) -> Tensor:
    """For every feature (B, S, C) the mean over those of the same `group` (B, S)."""
    batch, _, channels = features.shape
    index = group[..., None].expand_as(features)
    total = features.new_zeros(batch, groups, channels).scatter_add(1, index, features)
    count = features.new_zeros(batch, groups).scatter_add_(1, group, torch.ones_like(features[..., 0]))
    return (total / count.clamp(min=1)[..., None]).gather(1, index)
