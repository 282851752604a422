"""Pixels drawn without replacement, those of small segments more often.

Letters: B batch, C channels, P = h·w pixels, S drawn pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kmax.geometry import align_corners
from kmax.numerics import at_least_float32

_VOID_RARITY = -1e4  # below every pixel of a segment, yet within half precision


def log_rarity(segment_map: Tensor, segments: int) -> Tensor:
    """ln(P / area of the pixel's segment) for values −1 (void) … `segments` − 1 of `segment_map` (B, P).

    Void is far below 0.
    """
    labeled = segment_map >= 0
    index = segment_map.clamp(min=0)
    area = torch.zeros(len(segment_map), segments, device=segment_map.device).scatter_add_(1, index, labeled.float())
    rarity = (segment_map.shape[1] / area.gather(1, index).clamp(min=1)).log()
    return rarity.masked_fill(~labeled, _VOID_RARITY)


def draw_pixels(rarity: Tensor, temperature: float, samples: int) -> Tensor:
    """Indices (B, S) of pixels, by Gumbel top-k on `temperature` · `rarity` (B, P); S ≤ P; void comes last.

    `rarity` may have more leading dimensions than one: every row is drawn from by itself.
    """
    gumbel = -torch.empty_like(rarity).exponential_().log()
    return (temperature * rarity + gumbel).topk(min(samples, rarity.shape[-1]), sorted=False).indices


def gather_pixels(values: Tensor, index: Tensor) -> Tensor:
    """`values` (B, C, P) at the pixels `index` (B, S): (B, C, S)."""
    return values.gather(2, index[:, None].expand(-1, values.shape[1], -1))


def sample_feature(feature: Tensor, index: Tensor, size: tuple[int, int]) -> Tensor:
    """A `feature` map (B, C, h', w') at the pixels `index` (B, S) of a map of `size` (h, w): (B, C, S).

    A coarser feature is interpolated bilinearly, at these pixels only; the result is that of resizing all of it first.
    Corners are aligned if w is odd: what the model does too, for images of 32k + 1 pixels (odd w) and of 32k (even w).
    """
    height, width = size
    if feature.shape[2:] == size:
        return gather_pixels(feature.flatten(2), index)
    feature, aligned = at_least_float32(feature), align_corners(width)
    x, y = (index % width).to(feature.dtype), (index // width).to(feature.dtype)
    if aligned:  # grid_sample counts from −1 to 1
        grid = torch.stack((2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1), 2)
    else:
        grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), 2)
    if torch.are_deterministic_algorithms_enabled():  # which the gradient of grid_sample is not on a GPU
        return _interpolate(feature, grid, aligned)
    sampled = functional.grid_sample(feature, grid[:, None], padding_mode="border", align_corners=aligned)
    return sampled[:, :, 0]


def _interpolate(feature: Tensor, grid: Tensor, aligned: bool) -> Tensor:
    """What `grid_sample` computes with borders: `feature` (B, C, h', w') at places `grid` (B, S, 2), (x, y) from −1 to
    1 → (B, C, S)."""
    height, width = feature.shape[2:]
    size = grid.new_tensor([width, height])
    place = (grid + 1) / 2 * (size - 1) if aligned else ((grid + 1) * size - 1) / 2
    place = place.clamp(min=0).minimum(size - 1)  # (B, S, 2)
    low = place.floor()
    high, part = (low + 1).minimum(size - 1).long(), (place - low).unsqueeze(1)  # (B, 1, S, 2)
    low = low.long()
    flat = feature.flatten(2)

    def row(y: Tensor) -> Tensor:
        left, right = (gather_pixels(flat, y * width + x) for x in (low[..., 0], high[..., 0]))
        return torch.lerp(left, right, part[..., 0].expand_as(left))

    return torch.lerp(row(low[..., 1]), row(high[..., 1]), part[..., 1].expand(-1, flat.shape[1], -1))
