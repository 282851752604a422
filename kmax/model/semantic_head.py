"""Auxiliary semantic heads, used in training only.

Letters: B batch, C channels, h×w feature size.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kmax.model.layers import ConvNorm, prediction_conv, resize

DILATIONS = (6, 12, 18)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (DeepLabv3, arXiv 1706.05587, section 3.3): (B, C, h, w) → (B, 256, h, w)."""

    def __init__(self, in_channels: int, channels: int, dropout: float) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [ConvNorm(in_channels, channels, act=True)]
            + [ConvNorm(in_channels, channels, 3, dilation=dilation, act=True) for dilation in DILATIONS]
        )
        self.pool = ConvNorm(in_channels, channels, act=True)
        self.project = ConvNorm(channels * (len(DILATIONS) + 2), channels, act=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        x = self.project(torch.cat([*(branch(x) for branch in self.branches), pooled], 1))
        x = self.dropout(x)
        return x


class AtrousSemanticHead(nn.Module):
    """ASPP on stride 32, refined with strides 8 and 4: logits (B, `num_outputs`, h, w) at stride 4."""

    def __init__(
        self, channels: Mapping[int, int], num_outputs: int, dim: int = 256, low: tuple[int, int] = (64, 32)
    ) -> None:
        super().__init__()
        self.aspp = ASPP(channels[32], dim, dropout=0.1)
        self.project = nn.ModuleList(ConvNorm(channels[s], c, act=True) for s, c in zip((8, 4), low, strict=True))
        self.fuse = nn.ModuleList(
            nn.Sequential(ConvNorm(dim + c, dim + c, 5, depthwise=True, act=True), ConvNorm(dim + c, dim, act=True))
            for c in low
        )
        self.refine = nn.Sequential(ConvNorm(dim, dim, 5, depthwise=True, act=True), ConvNorm(dim, dim, act=True))
        self.logits = prediction_conv(dim, num_outputs, dims=2)

    def forward(self, features: Mapping[int, Tensor], align_corners: bool) -> Tensor:
        x: Tensor = self.aspp(features[32])
        for stride, project, fuse in zip((8, 4), self.project, self.fuse, strict=True):
            fine = project(features[stride])
            x = fuse(torch.cat([resize(x, (fine.shape[-2], fine.shape[-1]), align_corners), fine], 1))
        x = self.logits(self.refine(x))
        return x


class PlainSemanticHead(nn.Module):
    """Two convolutions on stride 32: logits (B, `num_outputs`, h, w) at stride 32."""

    def __init__(self, channels: Mapping[int, int], num_outputs: int, dim: int = 256) -> None:
        super().__init__()
        c = channels[32]
        self.layers = nn.Sequential(
            ConvNorm(c, c, 5, depthwise=True, act=True),
            ConvNorm(c, dim, act=True),
            prediction_conv(dim, num_outputs, dims=2),
        )

    def forward(self, features: Mapping[int, Tensor], align_corners: bool) -> Tensor:
        logits: Tensor = self.layers(features[32])
        return logits
