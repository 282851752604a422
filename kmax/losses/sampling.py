"""Pixels drawn without replacement, those of small segments more often.

Letters: B batch, P = h·w pixels, S drawn pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

_VOID_RARITY = -1e4  # below every pixel of a segment, yet within half precision


def log_rarity(segment_map: Tensor, segments: int) -> Tensor:
    """ln(P / area of the pixel's segment) for values −1 (void) … `segments` − 1 of `segment_map` (B, P).

    Void is far below 0.
    """
    labelled = segment_map >= 0
    index = segment_map.clamp(min=0)
    area = torch.zeros(len(segment_map), segments, device=segment_map.device).scatter_add_(1, index, labelled.float())
    rarity = (segment_map.shape[1] / area.gather(1, index).clamp(min=1)).log()
    return rarity.masked_fill(~labelled, _VOID_RARITY)


def draw_pixels(rarity: Tensor, temperature: float, samples: int) -> Tensor:
    """Indices (B, S) of pixels, by Gumbel top-k on `temperature` · `rarity` (B, P); S ≤ P; void comes last.

    `rarity` may have more leading dimensions than one: every row is drawn from by itself.
    """
    gumbel = -torch.empty_like(rarity).exponential_().log()
    return (temperature * rarity + gumbel).topk(min(samples, rarity.shape[-1]), sorted=False).indices


def gather_pixels(values: Tensor, index: Tensor) -> Tensor:
    """`values` (B, C, P) at the pixels `index` (B, S): (B, C, S)."""
    return values.gather(2, index[:, None].expand(-1, values.shape[1], -1))
