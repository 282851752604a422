"""Auxiliary semantic heads, used in training only.

Letters: B batch, C channels, h×w feature size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kmax.model.layers import Activation, ConvNorm, prediction_conv, resize

DILATIONS = (6, 12, 18)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (DeepLabv3, arXiv 1706.05587, section 3.3): (B, C, h, w) → (B, 256, h, w)."""

    def __init__(self, in_channels: int, channels: int, dropout: float, act: Activation) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [ConvNorm(in_channels, channels, act=act)]
            + [ConvNorm(in_channels, channels, 3, dilation=dilation, act=act) for dilation in DILATIONS]
        )
        self.pool = ConvNorm(in_channels, channels, act=act)
        self.project = ConvNorm(channels * (len(DILATIONS) + 2), channels, act=act)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])  # (B, C', 1, 1) → (B, C', h, w)
        x = self.project(torch.cat([*(branch(x) for branch in self.branches), pooled], 1))
        x = self.dropout(x)
        return x


class AtrousSemanticHead(nn.Module):
    """ASPP on the coarsest of three features, refined with the other two: logits (B, `num_outputs`, h, w) at the
    finest one's stride.

    Args:
        channels: of the features, coarse to fine.
        low: channels to which the two finer features are projected.
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_outputs: int,
        dim: int = 256,
        low: tuple[int, int] = (64, 32),
        act: Activation = nn.GELU,
    ) -> None:
        super().__init__()
        coarsest, *finer = channels
        self.aspp = ASPP(coarsest, dim, 0.1, act)
        self.project = nn.ModuleList(ConvNorm(size, c, act=act) for size, c in zip(finer, low, strict=True))
        self.fuse = nn.ModuleList(
            nn.Sequential(ConvNorm(dim + c, dim + c, 5, depthwise=True, act=act), ConvNorm(dim + c, dim, act=act))
            for c in low
        )
        self.refine = nn.Sequential(ConvNorm(dim, dim, 5, depthwise=True, act=act), ConvNorm(dim, dim, act=act))
        self.logits = prediction_conv(dim, num_outputs, dims=2)

    def forward(self, features: Sequence[Tensor], align_corners: bool) -> Tensor:
        x: Tensor = self.aspp(features[0])
        for feature, project, fuse in zip(features[1:], self.project, self.fuse, strict=True):
            fine = project(feature)
            x = fuse(torch.cat([resize(x, (fine.shape[-2], fine.shape[-1]), align_corners), fine], 1))
        x = self.logits(self.refine(x))
        return x


class PlainSemanticHead(nn.Module):
    """Three convolutions on one feature (B, C, h, w): logits (B, `num_outputs`, h, w)."""

    def __init__(self, in_channels: int, num_outputs: int, dim: int = 256, act: Activation = nn.GELU) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvNorm(in_channels, in_channels, 5, depthwise=True, act=act),
            ConvNorm(in_channels, dim, act=act),
            prediction_conv(dim, num_outputs, dims=2),
        )

    def forward(self, features: Sequence[Tensor], align_corners: bool) -> Tensor:
        logits: Tensor = self.layers(features[0])
        return logits
