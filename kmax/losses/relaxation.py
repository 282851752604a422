"""ReMaX: masks and classes relaxed in training (arXiv 2306.17319, sections 3.2 and 3.3); inference does not use it.

With m the mask logits of a coarse prediction, p its class logits, s the logits of the auxiliary semantic head on the
same pixels, and σ the sigmoid, the definitions are

    ReMask    m_nj ← m_nj + m_nj · Σ_c σ(p_nc) σ(s_cj)                  (no gradient through either σ)
    ReClass   y_nc ← η w_nc + (1 − η w_nc) y_nc,   w_nc = Σ_j σ(m_nj) [pixel j is of class c] / pixels of class c

where y_n is the class target of query n, one-hot, and c runs over the classes without void, which has no pixel. We are
not sure how the paper scales `m · …`.

Letters: B batch, N queries, K classes without void, h×w mask logits, P = h·w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from kmax.geometry import align_corners
from kmax.losses.matching import stack_targets
from kmax.numerics import at_least_float32
from kmax.structures import VOID, Prediction, Target


def remask(prediction: Prediction, semantic_logits: Tensor) -> Tensor:
    """Mask logits (B, N, h, w), relaxed by semantic logits (B, K+1, h', w'), void last."""
    masks = at_least_float32(prediction.mask_logits)
    size = (masks.shape[2], masks.shape[3])
    semantic = at_least_float32(semantic_logits.detach())[:, :-1].sigmoid()
    semantic = F.interpolate(semantic, size, mode="bilinear", align_corners=align_corners(size[1]))  # (B, K, h, w)
    classes = at_least_float32(prediction.class_logits.detach())[..., :-1].sigmoid()  # (B, N, K)
    return masks + masks * torch.einsum("bnk,bkhw->bnhw", classes, semantic)


@torch.no_grad()
def class_overlap(mask_logits: Tensor, targets: Sequence[Target], num_classes: int) -> Tensor:
    """w (B, N, K+1): the fraction of each class's pixels that the masks (B, N, h, w) cover; 0 for void and for classes
    that do not occur."""
    segment_map, labels = stack_targets(targets, mask_logits.shape[0], mask_logits.shape[2:])
    label = labels.gather(1, segment_map.clamp(min=0)).masked_fill(segment_map == VOID, num_classes)  # (B, P)
    masks = at_least_float32(mask_logits).flatten(2).sigmoid()  # (B, N, P)
    index = label[:, None].expand_as(masks)
    covered = masks.new_zeros(*masks.shape[:2], num_classes + 1).scatter_add_(2, index, masks)
    count = masks.new_zeros(len(masks), num_classes + 1).scatter_add_(1, label, torch.ones_like(masks[:, 0]))
    share = covered / count.clamp(min=1)[:, None]
    share[..., -1:] = 0
    return share


def reclass(label: Tensor, overlap: Tensor, rate: float) -> Tensor:
    """Soft class targets (B, N, K+1) of the queries' `label` (B, N), void last; `rate` is η."""
    one_hot = F.one_hot(label, overlap.shape[2]).to(overlap.dtype)
    return rate * overlap + (1 - rate * overlap) * one_hot
