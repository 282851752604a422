"""Contrast of thing pixels with the prototypes of all segments (MaX-DeepLab, arXiv 2012.00759, section 3.3).

With f_p the unit feature of pixel p and s(p) its segment, the definition is

    a_i = normalize(mean of f_p over the pixels p of segment i)          (a_i has a gradient as well)
    loss of pixel p = −ln softmax_i(f_p·a_i / T) at i = s(p)             (i: all segments, things and stuff)

for the pixels of things, averaged over an image's non-zero losses, then over the images.

Letters: B batch, C channels, N queries, K classes without void, M segments of an image, P = h·w pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kmax.losses.averages import mean_over_images
from kmax.losses.matching import Match
from kmax.numerics import at_least_float32

_ABSENT = -1e9  # a logit whose softmax is 0; finite, so that gradients stay finite in images without a segment


def prototype_loss(
    pixel_feature: Tensor, match: Match, is_thing: Tensor, segments: int, temperature: float = 0.3
) -> Tensor:
    """Loss `instance_discrimination` after MaX-DeepLab, unweighted.

    Args:
        pixel_feature: (B, C, h, w), of length 1 over channels.
        match: the matching of the prediction; segments left without a query are void.
        is_thing: (K+1,) bool by label, void last.
        segments: M, the largest number of segments of an image in the batch.
        temperature: T.
    """
    features = at_least_float32(pixel_feature).flatten(2)  # (B, C, P)
    owned = match.owner >= 0
    owner = match.owner.clamp(min=0)
    segment = match.segment.gather(1, owner).masked_fill(~owned, segments)  # (B, P), `segments` = void
    thing = owned & is_thing[match.label.gather(1, owner)]
    prototypes, present = _prototypes(features, segment, segments)
    logits = torch.einsum("bcm,bcp->bmp", prototypes, features) / temperature  # (B, M, P)
    logits = logits.masked_fill(~present[..., None], _ABSENT)
    target = segment.masked_fill(~thing, -1)
    return mean_over_images(F.cross_entropy(logits, target, ignore_index=-1, reduction="none"))


def _prototypes(features: Tensor, segment: Tensor, segments: int) -> tuple[Tensor, Tensor]:
    """Unit prototypes (B, C, M) of features (B, C, P) with the `segment` (B, P) of each pixel, and which segments occur
    in each image (B, M)."""
    batch, channels, _ = features.shape
    total = features.new_zeros(batch, channels, segments + 1)
    total = total.scatter_add(2, segment[:, None].expand_as(features), features)[..., :segments]
    count = features.new_zeros(batch, segments + 1).scatter_add_(1, segment, torch.ones_like(features[:, 0]))
    count = count[:, None, :segments]
    return F.normalize(total / count.clamp(min=1), dim=1), count[:, 0] > 0
