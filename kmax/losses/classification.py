"""Cross-entropy of the class of every query, weighted by how well its mask fits.

Letters: L predictions, B batch, N queries, K classes without void.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kmax.losses.averages import LEAST_WEIGHT, MATCHED_WEIGHT, UNMATCHED_WEIGHT, mean_over_images
from kmax.losses.matching import Match
from kmax.numerics import at_least_float32


def classification_loss(class_logits: Tensor, match: Match, soft_target: Tensor | None = None) -> Tensor:
    """Loss `class` of each prediction, unweighted: (L,), or () for one without a leading axis.

    Args:
        class_logits: (L, B, N, K+1) or (B, N, K+1), void last.
        match: the matching of the final prediction.
        soft_target: (L, B, N, K+1) or (B, N, K+1) like the logits; replaces the matched labels.
    """
    log_probability = at_least_float32(class_logits).log_softmax(-1)
    if soft_target is None:
        label = match.label[..., None].expand(*class_logits.shape[:-1], 1)  # (B, N) → (L, B, N, 1)
        entropy = -log_probability.gather(-1, label)[..., 0]  # (L, B, N)
    else:
        entropy = -(soft_target * log_probability).sum(-1)
    balance = torch.where(match.segment >= 0, MATCHED_WEIGHT, UNMATCHED_WEIGHT)  # (B, N)
    return mean_over_images(entropy * (balance * match.mask_similarity.clamp(min=LEAST_WEIGHT)))
