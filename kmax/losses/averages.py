"""Weights and means that several losses share (MaX-DeepLab, arXiv 2012.00759, section 3.2)."""

from __future__ import annotations

from torch import Tensor

MATCHED_WEIGHT, UNMATCHED_WEIGHT = 0.75, 0.25
"""Class balance: weights of queries with a segment and of the others, which are far more numerous."""
LEAST_WEIGHT = 1e-5
"""Smallest weight, that of a query whose mask or class does not fit its segment at all."""


def mean_over_images(values: Tensor) -> Tensor:
    """`values` (…, B, n) averaged per image over the non-zero entries (at least 1), then over the batch: (…)."""
    return (values.sum(-1) / (values != 0).sum(-1).clamp(min=1)).mean(-1)
