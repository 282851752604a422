"""The small building blocks of the whole network.

Letters: B batch, C channels, h×w feature size, N queries.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kmax.model.atrous_conv import AtrousConv2d
from kmax.numerics import at_least_float32, without_autocast

NORM_EPS = 1e-3
NORM_MOMENTUM = 0.01
STD_OF_CUT_NORMAL = 0.87962566103423978
"""Standard deviation of a standard normal distribution cut at ±2."""
Activation = type[nn.Module]
"""`nn.GELU` throughout kMaX-DeepLab, `nn.ReLU` throughout MaX-DeepLab."""


def resize(x: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Bilinear resizing of (B, C, h, w) to `size`; the same tensor if it has that size already."""
    if x.shape[-2:] == torch.Size(size):
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=align_corners)


def batch_norm(channels: int, dims: int, scale: float = 1.0) -> nn.Module:
    """Batch norm of the decoders over `channels` of a (B, C, …) tensor with `dims` further axes."""
    kind = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}[dims]
    norm = kind(channels, eps=NORM_EPS, momentum=NORM_MOMENTUM)
    nn.init.constant_(norm.weight, scale)
    return norm


class ConvNorm(nn.Module):
    """Convolution, batch norm and optionally an activation, of (B, C, h, w), or of (B, C, N) with `dims=1`.

    Args:
        act: `nn.GELU` (exact) in kMaX-DeepLab, `nn.ReLU` in MaX-DeepLab.
        depthwise: one filter per channel (Xavier uniform); otherwise truncated normal, cut at ±2σ.
        std: σ; the default is √(2 / in_channels).
        scale: initial scale of the norm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        dims: int = 2,
        dilation: int = 1,
        stride: int = 1,
        depthwise: bool = False,
        bias: bool = False,
        act: Activation | None = None,
        std: float | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.conv = {1: nn.Conv1d, 2: AtrousConv2d if dilation > 1 else nn.Conv2d}[dims](
            in_channels,
            out_channels,
            kernel,
            stride,
            padding=dilation * (kernel // 2),
            dilation=dilation,
            groups=in_channels if depthwise else 1,
            bias=bias,
        )
        self.norm = batch_norm(out_channels, dims, scale)
        self.act = act() if act else nn.Identity()
        if depthwise:
            nn.init.xavier_uniform_(self.conv.weight)
        else:
            init_truncated_normal(self.conv.weight, std)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.conv(x)))
        return x


def init_truncated_normal(weight: Tensor, std: float | None = None) -> None:
    """Fill (out, in, …) `weight` from a normal distribution cut at ±2σ; σ = √(2 / in) unless given."""
    std = math.sqrt(2 / weight.shape[1]) if std is None else std
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def init_he_normal(weight: Tensor) -> None:
    """Fill (out, in, …) `weight` from a normal distribution cut at ±2σ whose standard deviation *after* the cut is
    √(2 / fan-in) (TensorFlow's `he_normal`)."""
    fan_in = weight[0].numel()
    std = math.sqrt(2 / fan_in) / STD_OF_CUT_NORMAL
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def prediction_conv(in_channels: int, out_channels: int, dims: int) -> nn.Module:
    """The 1×1 convolution with bias that ends a head; σ = 0.01."""
    conv = {1: nn.Conv1d, 2: nn.Conv2d}[dims](in_channels, out_channels, 1)
    init_truncated_normal(conv.weight, 0.01)
    assert conv.bias is not None, "a convolution has a bias by default"
    nn.init.zeros_(conv.bias)
    return conv


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, h, w), eps 1e-6, in at least float32."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        with without_autocast(x):
            y = at_least_float32(x).permute(0, 2, 3, 1)  # (B, h, w, C)
            weight, bias = self.weight.to(y.dtype), self.bias.to(y.dtype)
            y = F.layer_norm(y, self.normalized_shape, weight, bias, self.eps).permute(0, 3, 1, 2)
            return y.to(self.weight.dtype)
