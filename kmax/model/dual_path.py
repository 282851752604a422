"""The dual-path transformer block (MaX-DeepLab, arXiv 2012.00759, section 3.4, figure 3): a memory of slots reads from
pixels and slots, and pixels read from the slots.

Letters: B batch, C pixel channels, M memory channels, N slots, h×w feature size, P = h·w; f is the width of the block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from kmax.model.attention import NormalizedAttention
from kmax.model.layers import Activation, ConvNorm


@dataclass(frozen=True)
class MemoryOptions:
    """The memory path of all dual-path blocks: `dim` M, hidden channels of the feed-forward network, attention
    heads."""

    dim: int = 256
    ffn_dim: int = 2048
    heads: int = 8


class DualPathBlock(nn.Module):
    """Memory-to-pixel, memory-to-memory and pixel-to-memory attention, then a feed-forward network on the memory.

    The slots attend to pixels and slots under one softmax; the pixels read the keys and values that the slots had
    before. Attention from pixel to pixel happens in the axial block before this one.

    Args:
        pixel_channels: C of the feature, which has no activation yet, neither as input nor as output.
        width: f; queries and keys have f channels, values 2f.
        drop_path: rate of each of the three residual branches.
    """

    def __init__(
        self, pixel_channels: int, width: int, memory: MemoryOptions, drop_path: float = 0.0, act: Activation = nn.ReLU
    ) -> None:
        super().__init__()
        inner, dim = 2 * width, memory.dim
        self.qkv_channels = (width, width, inner)
        self.memory_in = ConvNorm(dim, inner, dims=1, act=act)
        self.memory_qkv = ConvNorm(inner, 2 * inner, dims=1, std=inner**-0.5)
        self.pixel_in = ConvNorm(pixel_channels, inner, act=act)
        self.pixel_qkv = ConvNorm(inner, 2 * inner, std=inner**-0.5)
        self.memory_attention = NormalizedAttention(inner, memory.heads, act)
        self.memory_out = ConvNorm(inner, dim, dims=1, scale=0.0)
        self.ffn_in = ConvNorm(dim, memory.ffn_dim, dims=1, act=act)
        self.ffn_out = ConvNorm(memory.ffn_dim, dim, dims=1, scale=0.0)
        self.pixel_attention = NormalizedAttention(inner, memory.heads, act)
        self.pixel_out = ConvNorm(inner, pixel_channels, scale=0.0)
        self.act = act()
        self.drop_path = DropPath(drop_path)

    def forward(self, pixels: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (B, C, h, w), not activated, and memory (B, M, N) → both, updated."""
        (qm, km, vm), (qp, kp, vp) = self._project(memory, pixels)
        read = self.memory_attention(qm, torch.cat([kp, km], 2), torch.cat([vp, vm], 2))  # (B, 2f, N)
        memory = self.act(memory + self.drop_path(self.memory_out(read)))
        memory = self.act(memory + self.drop_path(self.ffn_out(self.ffn_in(memory))))
        written = self.pixel_attention(qp, km, vm).unflatten(2, pixels.shape[2:])  # (B, 2f, P) → (B, 2f, h, w)
        return pixels + self.drop_path(self.pixel_out(written)), memory

    def reading(self, pixels: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """The attention of each pixel to each slot, averaged over the heads, (B, N, h, w), which sums to 1 over the
        slots; and the pixels' queries (B, f, h, w). Inputs as for `forward`."""
        (_, key, _), (query, _, _) = self._project(memory, pixels)
        weight = self.pixel_attention.weights(query, key).mean(1).transpose(1, 2)  # (B, P, N) → (B, N, P)
        return weight.unflatten(2, pixels.shape[2:]), query.unflatten(2, pixels.shape[2:])  # (…, P) → (…, h, w)

    def _project(self, memory: Tensor, pixels: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Query, key and value of the slots, (B, f or 2f, N), and of the pixels, (B, f or 2f, P)."""
        of_memory = self.memory_qkv(self.memory_in(memory))
        of_pixels = self.pixel_qkv(self.pixel_in(self.act(pixels))).flatten(2)  # (B, 4f, h, w) → (B, 4f, P)
        return of_memory.split(self.qkv_channels, 1), of_pixels.split(self.qkv_channels, 1)
