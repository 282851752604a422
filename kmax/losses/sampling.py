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

    `rarity` may have further leading dimensions: pixels are drawn from each row independently.
    """
    gumbel = -torch.empty_like(rarity).exponential_().log()
    return (temperature * rarity + gumbel).topk(min(samples, rarity.shape[-1]), sorted=False).indices


def gather_pixels(values: Tensor, index: Tensor) -> Tensor:
    """`values` (B, C, P) at the pixels `index` (B, S): (B, C, S)."""
    return values.gather(2, index[:, None].expand(-1, values.shape[1], -1))


def sample_feature(feature: Tensor, index: Tensor, size: tuple[int, int]) -> Tensor:
    """A `feature` map (B, C, h', w') at the pixels `index` (B, S) of a map of `size` (h, w): (B, C, S).

    A coarser feature is interpolated bilinearly at these pixels only; the result equals resizing the whole map first.
    As in the model, corners are aligned if w is odd: for images of 32k + 1 pixels w is odd, for 32k it is even.
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
    if torch.are_deterministic_algorithms_enabled():  # on a GPU, the gradient of grid_sample is not deterministic
        return _interpolate(feature, grid, aligned)
    sampled = functional.grid_sample(feature, grid[:, None], padding_mode="border", align_corners=aligned)
    return sampled[:, :, 0]  # (B, C, 1, S) → (B, C, S)


def _interpolate(feature: Tensor, grid: Tensor, aligned: bool) -> Tensor:
    """The same as `grid_sample` with border padding: `feature` (B, C, h', w') at the positions `grid` (B, S, 2), (x, y)
    from −1 to 1 → (B, C, S)."""
    height, width = feature.shape[2:]
    size = grid.new_tensor([width, height])
    position = (grid + 1) / 2 * (size - 1) if aligned else ((grid + 1) * size - 1) / 2
    position = position.clamp(min=0).minimum(size - 1)  # (B, S, 2)
    low = position.floor()
    high, part = (low + 1).minimum(size - 1).long(), (position - low).unsqueeze(1)  # (B, 1, S, 2)
    low = low.long()
    flat = feature.flatten(2)

    def row(y: Tensor) -> Tensor:
        left, right = (gather_pixels(flat, y * width + x) for x in (low[..., 0], high[..., 0]))
        return torch.lerp(left, right, part[..., 0].expand_as(left))

    return torch.lerp(row(low[..., 1]), row(high[..., 1]), part[..., 1].expand(-1, flat.shape[1], -1))
