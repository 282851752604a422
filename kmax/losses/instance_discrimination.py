"""Contrast of drawn pixels: those of one segment attract, all others repel each other (MaX-DeepLab, section 3.3).

Letters: L predictions, B batch, C channels, S drawn pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kmax.losses.kernels.contrast import Contrast
from kmax.losses.matching import Match
from kmax.losses.sampling import sample_feature
from kmax.numerics import at_least_float32


def contrast(features: Tensor, group: Tensor, temperature: float) -> Tensor:
    """The definition, for one image: features (S, C), group (S,), of which 0 is void → ()."""
    logits = features @ features.T / temperature  # (S, S): column j is a softmax over all pixels k
    same = (group[:, None] == group) & (group > 0)
    target = same / same.sum(0).clamp(min=1)  # spread evenly over the pixels of j's segment
    loss = -(target * logits.log_softmax(0)).sum(0)  # (S,)
    return loss.sum() / (loss != 0).sum().clamp(min=1)


def instance_discrimination_loss(
    pixel_features: Sequence[Tensor], match: Match, index: Tensor, size: tuple[int, int], temperature: float = 0.3
) -> Tensor:
    """Loss `instance_discrimination` of L predictions, unweighted: (L,).

    Args:
        pixel_features: L times (B, C, h, w), of length 1 over channels or shorter, or coarser maps, which are
            interpolated.
        match: the matching of the final prediction; pixels with the same owner are one segment.
        index: (L, B, S), the drawn pixels; those on void only repel.
        size: (h, w).
        temperature: T, which divides the dot products; large enough that `exp(1 / T)` is finite.
    """
    sampled = [
        at_least_float32(sample_feature(feature, drawn, size))
        for feature, drawn in zip(pixel_features, index, strict=True)
    ]
    features = torch.stack(sampled).transpose(2, 3).flatten(0, 1).contiguous()  # (L·B, S, C)
    group = match.owner.expand(len(index), -1, -1).gather(2, index).flatten(0, 1) + 1  # (L·B, S)
    groups = match.segment.shape[1] + 1
    per_image: Tensor = Contrast.apply(features, group, groups, temperature).unflatten(0, index.shape[:2])  # (L, B)
    return per_image.mean(1)
