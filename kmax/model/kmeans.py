"""Cross-attention as k-means (kMaX-DeepLab, arXiv 2207.04044, section 3.2, equations 5–7), and the ordinary kind.

Letters: B batch, C channels, N queries (clusters), P pixels.
"""

from __future__ import annotations

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


def softmax_update(logits: Tensor, values: Tensor) -> Tensor:
    """Ordinary cross-attention (section 3.1): values (B, C, P) averaged for each query under a softmax over pixels of
    (B, N, P) → (B, C, N), in at least float32."""
    values = at_least_float32(values)
    with without_autocast(values):
        return values @ logits.to(values.dtype).softmax(-1).transpose(1, 2)
