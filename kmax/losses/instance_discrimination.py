"""Contrast of drawn pixels: those of one segment attract, all others repel each other.

With f the features of S drawn pixels, logits L_kj = f_k·f_j / T, and the target of column j spread evenly over
the pixels of j's segment, the cross-entropy of column j is ln Σ_k exp L_kj − f_j·(mean of f over j's segment) / T. Its
second term needs no S×S matrix. The first is symmetric in k and j: with E = exp L, Z its sums and r = γ / Z for the
arriving gradient γ,

    ∂/∂f_k Σ_j γ_j ln Z_j = Σ_j E_kj (r_k + r_j) f_j / T,

so both passes compute the upper triangle of E only, a few rows at a time, and store nothing of size S×S.

Letters: B batch, C channels, S drawn pixels, N queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kmax.losses.common import at_least_float32, mean_over_images
from kmax.losses.matching import Match
from kmax.losses.sampling import sample_feature

_ROWS = {"cpu": 256}  # rows of the similarity matrix that exist at a time: about what the cache holds
_MANY_ROWS = 1024  # elsewhere few large kernels are faster


def _row_blocks(features: Tensor, temperature: float, shift: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """start, stop and `exp(L − shift)` (B, stop − start, S − start), the upper triangle of rows start … stop."""
    columns = features.transpose(1, 2) / temperature
    rows = _ROWS.get(features.device.type, _MANY_ROWS)
    for start in range(0, features.shape[1], rows):
        stop = min(start + rows, features.shape[1])
        yield start, stop, (features[:, start:stop] @ columns[:, :, start:] - shift).exp_()


class SelfSimilarity(torch.autograd.Function):
    """(features (B, S, C), T) → ln Σ_k exp(f_k·f_j / T) (B, S), for features about as long as 1 or shorter."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, temperature: float) -> Tensor:
        shift = features.square().sum(2).amax(1)[:, None, None] / temperature  # no logit is larger
        total = features.new_zeros(features.shape[:2])
        for start, stop, exp in _row_blocks(features, temperature, shift):
            total[:, start:stop] += exp.sum(2)
            total[:, stop:] += exp[:, :, stop - start :].sum(1)
        ctx.save_for_backward(features, shift, total)
        ctx.temperature = temperature
        return total.log() + shift[..., 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        features, shift, total = ctx.saved_tensors
        with torch.autocast(features.device.type, enabled=False):
            ratio = grad / total
            result = torch.zeros_like(features)
            for start, stop, exp in _row_blocks(features, ctx.temperature, shift):
                exp.mul_(ratio[:, start:stop, None] + ratio[:, None, start:])
                result[:, start:stop] += exp @ features[:, start:]
                result[:, stop:] += exp[:, :, stop - start :].transpose(1, 2) @ features[:, start:stop]
        return result / ctx.temperature, None


def instance_discrimination_loss(
    pixel_feature: Tensor, match: Match, index: Tensor, size: tuple[int, int], temperature: float = 0.3
) -> Tensor:
    """Loss `instance_discrimination` of one prediction, unweighted.

    Args:
        pixel_feature: (B, C, h, w), of length 1 over channels or shorter, or a coarser map, which is interpolated.
        match: of the final prediction; its owners are the segments.
        index: (B, S) the drawn pixels; those on void only repel.
        size: (h, w).
        temperature: T, which divides the dot products.
    """
    features = at_least_float32(sample_feature(pixel_feature, index, size)).transpose(1, 2).contiguous()
    owner = match.owner.gather(1, index)
    mean = _mean_per_group(features, owner + 1, match.segment.shape[1] + 1)
    attraction = (features * mean).sum(2) / temperature
    loss = SelfSimilarity.apply(features, temperature) - attraction
    return mean_over_images(loss.masked_fill(owner < 0, 0))


def _mean_per_group(features: Tensor, group: Tensor, groups: int) -> Tensor:
    """For every feature (B, S, C) the mean over those of the same `group` (B, S)."""
    batch, _, channels = features.shape
    index = group[..., None].expand_as(features)
    total = features.new_zeros(batch, groups, channels).scatter_add(1, index, features)
    count = features.new_zeros(batch, groups).scatter_add_(1, group, torch.ones_like(features[..., 0]))
    return (total / count.clamp(min=1)[..., None]).gather(1, index)
