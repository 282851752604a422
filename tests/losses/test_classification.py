"""The weights of the class loss."""

from __future__ import annotations

import torch

from kmax.losses.classification import classification_loss
from kmax.losses.matching import Match


def test_queries_are_weighted_by_match_and_similarity() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 5, dtype=torch.float64, requires_grad=True)
    similarity = torch.tensor([[0.6, 0.3, 0.0]], dtype=torch.float64)  # the last counts with 1e-5
    matched = Match(
        segment=torch.tensor([[2, -1, -1]]),
        label=torch.tensor([[1, 4, 4]]),
        owner=torch.zeros(1, 1).long(),
        mask_similarity=similarity,
        class_similarity=similarity,
    )
    log_p = logits.log_softmax(2)[0]
    expected = -(0.75 * 0.6 * log_p[0, 1] + 0.25 * 0.3 * log_p[1, 4] + 0.25 * 1e-5 * log_p[2, 4]) / 3
    torch.testing.assert_close(classification_loss(logits, matched), expected)
