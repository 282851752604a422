"""The residual blocks of the pixel decoder, of the MaX-S backbone and of MaX-DeepLab.

Letters: B batch, C channels, h×w feature size; c is the width of a block, whose output has 4c channels.
"""

from __future__ import annotations

from collections.abc import Sequence

from timm.layers import DropPath
from torch import Tensor, nn

from kmax.model.axial_attention import AxialAttention
from kmax.model.layers import Activation, ConvNorm

EXPANSION = 4


class Block(nn.Module):
    """Pre-activation residual block, bottleneck or axial: (B, `in_channels`, h, w) → (B, 4·`width`, ⌈h/stride⌉,
    ⌈w/stride⌉).

    Args:
        axial: axial attention in place of the 3×3 convolution.
        axial_expansion: channels of the axial attention, in widths.
    """

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
        act: Activation = nn.GELU,
        axial_expansion: int = 2,
    ) -> None:
        super().__init__()
        out_channels, inner = EXPANSION * width, axial_expansion * width if axial else width
        self.act = act()
        self.shortcut = _shortcut(in_channels, out_channels, stride)
        self.reduce = ConvNorm(in_channels, inner, act=act)
        self.spatial: nn.Module = (
            nn.Sequential(AxialAttention(inner, inner // 2, inner, heads, stride), act())
            if axial
            else ConvNorm(inner, width, 3, dilation=dilation, stride=stride, act=act)
        )
        self.expand = ConvNorm(inner, out_channels, scale=0.0)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(x)
        y: Tensor = self.shortcut(x) + self.drop_path(self.expand(self.spatial(self.reduce(x))))
        return y


class BasicBlock(nn.Module):
    """Pre-activation residual block of two 3×3 convolutions: (B, `in_channels`, h, w) → (B, 4·`width`, ⌈h/stride⌉,
    ⌈w/stride⌉)."""

    def __init__(
        self, in_channels: int, width: int, *, stride: int = 1, drop_path: float = 0.0, act: Activation = nn.GELU
    ) -> None:
        super().__init__()
        out_channels = EXPANSION * width
        self.act = act()
        self.shortcut = _shortcut(in_channels, out_channels, stride)
        self.spatial = ConvNorm(in_channels, out_channels, 3, stride=stride, act=act)
        self.expand = ConvNorm(out_channels, out_channels, 3, scale=0.0)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(x)
        y: Tensor = self.shortcut(x) + self.drop_path(self.expand(self.spatial(x)))
        return y


def stem(channels: Sequence[int], act: Activation) -> nn.Sequential:
    """3×3 convolutions with norms, the first of stride 2, all but the last with an activation: (B, 3, H, W) →
    (B, `channels[-1]`, ⌈H/2⌉, ⌈W/2⌉)."""
    pairs = zip((3, *channels), channels, strict=False)
    last = len(channels) - 1
    return nn.Sequential(
        *(
            ConvNorm(before, after, 3, stride=1 if i else 2, act=None if i == last else act)
            for i, (before, after) in enumerate(pairs)
        )
    )


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The identity where shapes agree, otherwise a 1×1 convolution and its norm."""
    fits = in_channels == out_channels and stride == 1
    return nn.Identity() if fits else ConvNorm(in_channels, out_channels, stride=stride)
