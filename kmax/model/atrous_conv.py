"""Dilated convolutions on small maps, computed the way that is fastest in training on a CPU.

Letters: B batch, C channels, h×w feature size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AtrousConv2d(nn.Conv2d):
    """A dilated convolution. Where the map is so small that the outer taps see little but padding, training on a CPU
    adds up the nine taps one by one, each over the pixels that it sees: the same numbers in a fraction of the time."""

    def forward(self, x: Tensor) -> Tensor:
        small = max(x.shape[-2:]) < 2 * self.dilation[0]
        plain = self.stride == (1, 1) and self.groups == 1 and self.bias is None and self.kernel_size == (3, 3)
        slow = self.training and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        return self._by_taps(x) if small and plain and slow else super().forward(x)

    def _by_taps(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        pixels = x.permute(0, 2, 3, 1)  # (B, C, h, w) → (B, h, w, C)
        taps = self.weight.flatten(2).permute(2, 0, 1).unbind(0)  # nine of (out, in), row by row
        result = pixels @ taps[4].T  # (B, h, w, out): the center tap sees every pixel
        for i, tap in enumerate(taps):
            down, right = ((k - 1) * self.dilation[0] for k in divmod(i, 3))
            if i != 4 and abs(down) < height and abs(right) < width:
                (rows, seen_rows), (columns, seen_columns) = _overlap(down, height), _overlap(right, width)
                result[:, rows, columns] += pixels[:, seen_rows, seen_columns] @ tap.T
        return result.permute(0, 3, 1, 2)  # (B, out, h, w)


def _overlap(shift: int, length: int) -> tuple[slice, slice]:
    """Which cells of an axis have a neighbor at distance `shift` on that axis, and which cells those neighbors are."""
    return slice(max(0, -shift), min(length, length - shift)), slice(max(0, shift), min(length, length + shift))
