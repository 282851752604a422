"""Cross-attention as clustering: the equations of k-means (kMaX-DeepLab, arXiv 2207.04044, section 3.2, eq. 5–7), of
ordinary cross-attention, and of soft clustering (CMT-DeepLab, arXiv 2206.08948, section 3.3).

Letters: B batch, C channels, N queries (clusters), P pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kmax.numerics import at_least_float32, without_autocast


def assign(mask_logits: Tensor) -> Tensor:
    """k-means assignment: the cluster (B, P) that each pixel is nearest to, from (B, N, P) affinities."""
    return mask_logits.argmax(1)


def update(assignment: Tensor, values: Tensor, num_queries: int) -> Tensor:
    """k-means update: the sum (B, C, N) of the values (B, C, P) of each cluster's pixels, in at least float32."""
    values = at_least_float32(values)
    with without_autocast(values):
        return values @ F.one_hot(assignment, num_queries).to(values.dtype)


def mean_update(assignment: Tensor, values: Tensor, num_queries: int) -> Tensor:
    """Like `update`, but the mean instead of the sum: (B, C, N), 0 for a cluster without a pixel."""
    count = F.one_hot(assignment, num_queries).sum(1, keepdim=True)  # (B, 1, N)
    return update(assignment, values, num_queries) / count.clamp(min=1)


def softmax_update(logits: Tensor, values: Tensor) -> Tensor:
    """Ordinary cross-attention (section 3.1): values (B, C, P) averaged for each query under a softmax over pixels of
    (B, N, P) → (B, C, N), in at least float32."""
    values = at_least_float32(values)
    with without_autocast(values):
        return values @ logits.to(values.dtype).softmax(-1).transpose(1, 2)


def soft_assign(mask_logits: Tensor) -> Tensor:
    """Soft assignment Z: a softmax over clusters of (B, N, P), in at least float32."""
    return at_least_float32(mask_logits).softmax(1)


def soft_update(assignment: Tensor, values: Tensor) -> Tensor:
    """Clustering update: for each cluster the sum of the values (B, C, P), weighted by the assignment (B, N, P) →
    (B, C, N), in at least float32."""
    values = at_least_float32(values)
    with without_autocast(values):
        return values @ assignment.to(values.dtype).transpose(1, 2)


def pixel_update(assignment: Tensor, values: Tensor) -> Tensor:
    """For each pixel the sum of the clusters' values (B, C, N), weighted by the assignment (B, N, P) → (B, C, P)."""
    values = at_least_float32(values)
    with without_autocast(values):
        return values @ assignment.to(values.dtype)


def coordinates(feature: Tensor) -> Tensor:
    """Coordinates (B, 2, h, w) of the pixels of (B, C, h, w): x, then y, each from −1 to 1."""
    height, width = feature.shape[-2:]
    y = torch.linspace(-1, 1, height, dtype=feature.dtype, device=feature.device)
    x = torch.linspace(-1, 1, width, dtype=feature.dtype, device=feature.device)
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)]).expand(feature.shape[0], -1, -1, -1)
