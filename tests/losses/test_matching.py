"""Matching against all possible assignments."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor

from kmax.losses import match_queries
from kmax.losses.matching import dice_and_void
from kmax.structures import Target


def similarity(class_logits: Tensor, mask_logits: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """Dice · probability of the label of every query and segment, (N, M), and the share on void, from dense masks."""
    ids = torch.arange(len(target.labels))[:, None]
    dice, void = dice_and_void(mask_logits.flatten(1), (target.segment_map.flatten() == ids).to(mask_logits.dtype))
    return dice * class_logits.softmax(1)[:, target.labels], void


@pytest.mark.parametrize(("queries", "segments"), [(5, 3), (4, 4), (3, 5), (1, 1)])
@pytest.mark.parametrize("seed", range(4))
def test_match_is_the_best_of_all_assignments(queries: int, segments: int, seed: int) -> None:
    torch.manual_seed(seed)
    class_logits = 2 * torch.randn(2, queries, 6, dtype=torch.float64)
    mask_logits = 3 * torch.randn(2, queries, 7, 6, dtype=torch.float64)
    targets = [Target(torch.randint(-1, m, (7, 6)), torch.randint(5, (m,))) for m in (segments, max(segments - 1, 1))]
    matched = match_queries(class_logits, mask_logits, targets)
    for image, target in enumerate(targets):
        scores, _ = similarity(class_logits[image], mask_logits[image], target)
        scores = scores if len(scores) >= scores.shape[1] else scores.T
        best = max(
            sum(scores[row, column].item() for column, row in enumerate(rows))
            for rows in permutations(range(len(scores)), scores.shape[1])
        )
        chosen = matched.segment[image] >= 0
        total = (matched.mask_similarity * matched.class_similarity)[image][chosen].sum().item()
        assert total == pytest.approx(best, rel=1e-9)
        assert chosen.sum() == min(queries, len(target.labels))


def test_pixels_belong_to_the_query_of_their_segment() -> None:
    torch.manual_seed(0)
    segment_map = torch.randint(-1, 5, (2, 9, 9))
    targets = [Target(segment_map[0], torch.arange(5)), Target(segment_map[1] * 0 - 1, torch.zeros(0).long())]
    matched = match_queries(torch.randn(2, 3, 8), torch.randn(2, 3, 9, 9), targets)
    assert (matched.owner[1] == -1).all()
    assert (matched.segment[1] == -1).all()
    assert (matched.label[1] == 7).all()
    for query in range(3):
        segment = matched.segment[0, query]
        assert torch.equal(matched.owner[0] == query, segment_map[0].flatten() == segment)
        assert matched.label[0, query] == targets[0].labels[segment]
    left_out = ~torch.isin(segment_map[0].flatten(), matched.segment[0])
    assert (matched.owner[0][left_out] == -1).all()


def test_unmatched_queries_carry_the_share_of_their_mask_on_void() -> None:
    torch.manual_seed(0)
    segment_map = torch.randint(-1, 2, (8, 8))
    mask_logits = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    matched = match_queries(torch.randn(1, 4, 3), mask_logits, [Target(segment_map, torch.tensor([0, 1]))])
    _, share = similarity(torch.randn(4, 3), mask_logits[0], Target(segment_map, torch.tensor([0, 1])))
    unmatched = matched.segment[0] < 0
    assert unmatched.sum() == 2
    torch.testing.assert_close(matched.mask_similarity[0][unmatched], share[unmatched])


def test_invalid_similarities_do_not_stop_the_assignment() -> None:
    mask_logits = torch.randn(1, 3, 4, 4)
    mask_logits[0, 1, 0, 0] = torch.nan
    matched = match_queries(
        torch.full((1, 3, 4), torch.inf), mask_logits, [Target(torch.zeros(4, 4).long(), torch.tensor([1]))]
    )
    assert (matched.segment >= 0).sum() == 1
