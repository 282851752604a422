"""The residual block of the pixel decoder and of the MaX-S backbone.

Letters: B batch, C channels, h×w feature size; c is the width of a block, whose output has 4c channels.
"""

from __future__ import annotations

from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from kmax.model.axial_attention import AxialAttention
from kmax.model.layers import ConvNorm

EXPANSION = 4


class Block(nn.Module):
    """Pre-activation residual block: (B, `in_channels`, h, w) → (B, 4·`width`, ⌈h/stride⌉, ⌈w/stride⌉)."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        axial: bool,
        *,
        heads: int = 8,
        dilation: int = 1,
        stride: int = 1,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        out_channels, inner = EXPANSION * width, 2 * width if axial else width
        fits = in_channels == out_channels and stride == 1
        self.shortcut = nn.Identity() if fits else ConvNorm(in_channels, out_channels, stride=stride)
        self.reduce = ConvNorm(in_channels, inner, act=True)
        self.spatial: nn.Module = (
            nn.Sequential(AxialAttention(inner, width, 2 * width, heads, stride), nn.GELU())
            if axial
            else ConvNorm(inner, width, 3, dilation=dilation, stride=stride, act=True)
        )
        self.expand = ConvNorm(inner, out_channels, scale=0.0)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(x)
        y: Tensor = self.shortcut(x) + self.drop_path(self.expand(self.spatial(self.reduce(x))))
        return y
