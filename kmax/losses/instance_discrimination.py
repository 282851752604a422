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

from kmax.losses.matching import Match
from kmax.losses.sampling import sample_feature
from kmax.numerics import at_least_float32

_WIDTH = {"cpu": 256}  # columns of a block of E: of memory that is soon used again
_LARGE_WIDTH = 1024  # elsewhere few large kernels are faster


def _by_convolution(a: Tensor) -> bool:
    """Whether to have products with `a` computed as 1×1 convolutions: on a CPU, oneDNN, which computes those, uses the
    widest vectors of every make; MKL's products do not (on AMD they take twice the time). A dilation, which means
    nothing to 1×1, keeps PyTorch from handing them to MKL where there is one thread only."""
    return a.device.type == "cpu" and a.dtype == torch.float32 and len(a) > 0


def _pixels(a: Tensor) -> Tensor:
    """Rows as the pixels of an image, (n, k) → (1, k, n, 1); nothing is copied."""
    return a.contiguous().view(1, len(a), 1, -1).permute(0, 3, 1, 2)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """(n, k), (m, k) → `a @ b.T`, (n, m)."""
    if not _by_convolution(a):
        return a @ b.T
    return F.conv2d(_pixels(a), b.reshape(*b.shape, 1, 1), dilation=2)[0, :, :, 0].T


def _product_over_rows(a: Tensor, b: Tensor) -> Tensor:
    """(n, k), (n, m) → `a.T @ b`, (k, m)."""
    if not _by_convolution(a):
        return a.T @ b
    shape = (a.shape[1], b.shape[1], 1, 1)
    return conv2d_weight(_pixels(b), shape, _pixels(a), dilation=2)[:, :, 0, 0]


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
    """(features (B, S, C), group (B, S) below `groups`, T) → the mean of `ln Σ_k exp(f_k·f_j / T) − f_j·m_j / T` over
    the pixels j of an image, where m_j is the mean feature of j's group, and then over the images. Values of 0 and
    pixels of group 0 do not count; the latter repel all the same."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, group: Tensor, groups: int, temperature: float) -> Tensor:
        gradient = torch.zeros_like(features) if ctx.needs_input_grad[0] else None
        loss = features.new_zeros(())
        for i, (f, g) in enumerate(zip(features, group, strict=True)):
            triangle = _Triangle(f, temperature)
            total, mean = triangle.sums(), _mean_per_group(f, g, groups)[g]
            values = (total.log() - (f * mean).sum(1) / temperature) * (g > 0)
            weight = (g > 0) / ((values != 0).sum().clamp(min=1) * len(features)).to(f.dtype)
            loss += values @ weight
            if gradient is not None:
                pull = weight[:, None] * mean + _mean_per_group(weight[:, None] * f, g, groups)[g]
                gradient[i] = (triangle.gradient(weight / total) - pull) / temperature
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return grad * gradient, None, None, None


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
    group = match.owner.gather(1, index) + 1
    return MeanContrast.apply(features, group, match.segment.shape[1] + 1, temperature)


def _mean_per_group(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """The means (`groups`, C) of the rows of `values` (S, C) that share a `group` (S,)."""
    total = values.new_zeros(groups, values.shape[1]).index_add_(0, group, values)
    count = values.new_zeros(groups).index_add_(0, group, torch.ones_like(values[:, 0]))
    return total / count.clamp(min=1)[:, None]
