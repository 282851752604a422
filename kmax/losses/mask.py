"""Per-pixel cross-entropy over queries, and dice.

Letters: B batch, N queries, P = h·w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from kmax.losses.averages import LEAST_WEIGHT, MATCHED_WEIGHT, mean_over_images
from kmax.losses.kernels.owned_softmax import OwnedSoftmax
from kmax.losses.matching import Match


def owned_softmax(logits: Tensor, owner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The definition: logits (B, N, P), owner (B, P) or −1 → cross-entropy (B, P); intersection and mass (B, N)."""
    owned = owner >= 0
    mask = F.one_hot(owner.clamp(min=0), logits.shape[1]).transpose(1, 2) * owned[:, None]  # (B, N, P)
    probability = logits.softmax(1)  # over queries: those of a pixel sum to 1
    cross_entropy = -(logits.log_softmax(1) * mask).sum(1)
    return cross_entropy, (probability * mask).sum(2), (probability * owned[:, None]).sum(2)


def mask_losses(mask_logits: Sequence[Tensor], match: Match) -> tuple[Tensor, Tensor]:
    """Losses `mask` and `dice` of L predictions, unweighted: two times (L,).

    Args:
        mask_logits: L times (B, N, h, w).
        match: the matching of the final prediction.
    """
    terms = [OwnedSoftmax.apply(logits.flatten(2), match.owner) for logits in mask_logits]
    # Over L predictions: (L, B, P), (L, B, N), (L, B, N).
    cross_entropy, intersection, mass = (torch.stack(parts) for parts in zip(*terms, strict=True))
    owned = (match.owner >= 0).to(mass.dtype)
    area = torch.zeros_like(mass[0]).scatter_add_(1, match.owner.clamp(min=0), owned)  # (B, N)
    dice = 1 - (2 * intersection + 1) / (mass + area + 1)  # (L, B, N)
    weight = match.class_similarity.clamp(min=LEAST_WEIGHT) * (match.segment >= 0)  # (B, N)
    return mean_over_images(cross_entropy), (dice * weight).sum(2).mean(1) * MATCHED_WEIGHT / mass.shape[2]
