"""One-to-one matching of queries and segments (MaX-DeepLab, arXiv 2012.00759, section 3.2).

Letters: B batch, N queries, K classes without void, M segments of an image, P = h·w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from kmax.losses.kernels.strips import mass_per_segment
from kmax.numerics import at_least_float32
from kmax.structures import VOID, Target

_EPS = 1e-5


@dataclass(frozen=True)
class Match:
    """The assignment of queries to segments; carries no gradient.

    `segment` (B, N) int64: the query's segment, −1 if it has none; `label` (B, N) int64: that segment's label, K
    (void) if there is none; `owner` (B, P) int64: the query that each pixel belongs to, −1 on void and on segments
    left without a query. `mask_similarity` (B, N): dice of the query's mask with its segment, or, for a query without
    one, the share of its mask that lies on void; `class_similarity` (B, N): probability of the label, 0 without a
    segment.
    """

    segment: Tensor
    label: Tensor
    owner: Tensor
    mask_similarity: Tensor
    class_similarity: Tensor


def dice_and_void(mask_logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """The definition: mask logits (N, P) and disjoint masks (M, P), 0 or 1 → dice of each query with each segment
    (N, M), and the share of each query's mask that lies on void (N,)."""
    probability, void = mask_logits.softmax(0), 1 - masks.sum(0)
    on_segments, on_void = probability @ masks.T, probability @ void
    dice = on_segments / ((on_segments.sum(1, keepdim=True) + masks.sum(1)) / 2 + _EPS)
    return dice, on_void / (probability.sum(1) + _EPS)


@torch.no_grad()
def match_queries(class_logits: Tensor, mask_logits: Tensor, targets: Sequence[Target]) -> Match:
    """Match queries and segments of every image, maximizing the sum of dice · probability of the label.

    Args:
        class_logits: (B, N, K+1), void last.
        mask_logits: (B, N, h, w).
        targets: B targets with segment maps (h, w); an image may have no segment, or more than N. Crowd
            that a target names counts in the size of a mask; crowd that is void does not.

    A similarity that is not finite counts as 0, so that one overflow in half precision does not end the training: the
    losses then are not finite either, and the gradient scaler skips the step.

    Raises:
        ValueError: targets and predictions differ in number or size.
    """
    segment_map, labels = stack_targets(targets, mask_logits.shape[0], mask_logits.shape[2:])
    void_label, segments = class_logits.shape[2] - 1, labels.shape[1]
    crowd = stack_crowd(targets, segment_map)
    segment_map = segment_map.masked_fill(segment_map == VOID, segments).masked_fill(crowd >= 0, segments + 1)
    mass = mass_per_segment(mask_logits.flatten(2), segment_map, segments + 1)  # (B, N, M+2), the last two void, crowd
    area = torch.zeros_like(mass[:, 0]).scatter_add_(1, segment_map, torch.ones_like(segment_map, dtype=mass.dtype))
    on_segments, on_void, on_crowd = mass.split([segments, 1, 1], 2)  # (B, N, M), (B, N, 1), (B, N, 1)
    counted = on_segments.sum(2, keepdim=True) + on_crowd
    dice = on_segments / ((counted + area[:, None, :segments]) / 2 + _EPS)  # (B, N, M)
    void_share = on_void[..., 0] / (mass.sum(2) + _EPS)
    # (B, N, K+1) → (B, N, M): the probability of each segment's label
    probability = at_least_float32(class_logits).softmax(2).gather(2, labels[:, None].expand_as(dice))

    query, segment = _assign(dice * probability, [len(target.labels) for target in targets])
    matched = segment >= 0
    index = segment.clamp(min=0)
    label = labels.gather(1, index).masked_fill(~matched, void_label)
    mask_similarity = torch.where(matched, dice.gather(2, index[..., None])[..., 0], void_share)
    class_similarity = probability.gather(2, index[..., None])[..., 0] * matched
    return Match(segment, label, query.gather(1, segment_map), mask_similarity, class_similarity)


def stack_targets(targets: Sequence[Target], batch: int, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Segment maps (B, P) with −1 = void, and labels (B, M), padded with 0 to the largest M, which is at least 1.

    Raises:
        ValueError: not `batch` targets, or one of another `size` (h, w).
    """
    if len(targets) != batch:
        raise ValueError(f"{len(targets)} targets for a batch of {batch} predictions: give one target per image.")
    for target in targets:
        if tuple(target.segment_map.shape) != tuple(size):
            raise ValueError(
                f"A target of {tuple(target.segment_map.shape)} pixels for mask logits of {tuple(size)}: make targets "
                "at the mask logits' stride (4), from images as large as the model's input."
            )
    segment_map = torch.stack([target.segment_map.flatten() for target in targets]).long()  # B × (h, w) → (B, P)
    longest = max(len(target.labels) for target in targets)
    labels = segment_map.new_zeros(batch, max(longest, 1))
    for row, target in zip(labels, targets, strict=True):
        row[: len(target.labels)] = target.labels
    return segment_map, labels


def stack_crowd(targets: Sequence[Target], segment_map: Tensor) -> Tensor:
    """The label (B, P) of every crowd pixel that has no segment in `segment_map` (B, P), −1 elsewhere."""
    none = torch.full_like(segment_map[0], VOID)
    maps = [none if target.crowd is None else target.crowd.flatten() for target in targets]
    return torch.stack(maps).long().masked_fill(segment_map != VOID, VOID)


def _assign(similarity: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The best assignment: query of each segment (B, M+2), the last two void and crowd, and segment of each query
    (B, N); −1 = none.

    This is the only point of a training step at which the host waits for the device: one copy there, one back.
    """
    batch, queries, segments = similarity.shape
    scores = similarity.nan_to_num(0.0, 0.0, 0.0).cpu().numpy()
    query = np.full((batch, segments + 2), -1)
    segment = np.full((batch, queries), -1)
    for image, count in enumerate(counts):
        rows, columns = linear_sum_assignment(scores[image, :, :count], maximize=True)
        query[image, columns], segment[image, rows] = rows, columns
    both = torch.from_numpy(np.concatenate((query, segment), 1)).to(similarity.device)  # one copy for both
    return both[:, : segments + 2], both[:, segments + 2 :]
