"""Cross-entropy of the class of every query, weighted by how well its mask fits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kmax.losses.common import mean_over_images
from kmax.losses.matching import Match
from kmax.numerics import at_least_float32


def classification_loss(class_logits: Tensor, match: Match, soft_target: Tensor | None = None) -> Tensor:
    """Loss `class` of one prediction, unweighted.

    Args:
        class_logits: (B, N, K+1), void last.
        match: of the final prediction.
        soft_target: (B, N, K+1) in place of the matched labels.
    """
    target = match.label if soft_target is None else soft_target.transpose(1, 2)
    entropy = functional.cross_entropy(at_least_float32(class_logits).transpose(1, 2), target, reduction="none")
    balance = torch.where(match.segment >= 0, 0.75, 0.25)
    return mean_over_images(entropy * balance * match.mask_similarity.clamp(min=1e-5))
