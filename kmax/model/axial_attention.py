"""Axial attention with learned relative positions (Axial-DeepLab, arXiv 2003.07853, section 3.2).

Letters: B batch, C channels, H×W feature size, L length of an axis, h heads, d depth of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kmax.model.layers import batch_norm, init_truncated_normal
from kmax.numerics import at_least_float32

MAX_DISTANCE = 254
"""Farthest relative position that a table holds, in cells."""


class RelativePosition(nn.Module):
    """A table of one vector per relative position −254 … 254, shared by the heads."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(2 * MAX_DISTANCE + 1, depth))

    def forward(self, length: int) -> Tensor:
        """r (L, L, d), where r[l, m] is the vector of the relative position m − l.

        Raises:
            ValueError: `length` exceeds what the table covers.
        """
        if length > MAX_DISTANCE + 1:
            raise ValueError(
                f"A feature axis of {length} cells exceeds the {MAX_DISTANCE + 1} that relative positions cover: "
                "use a smaller input."
            )
        steps = torch.arange(length, device=self.table.device)
        return self.table[steps[None, :] - steps[:, None] + MAX_DISTANCE]


class AxisAttention(nn.Module):
    """Self-attention along the last axis of (B, C, L) → (B, `value_depth`, L).

    The logits are content `q·k` plus `q·r^q` plus `k·r^k`, each normalized per head; there is no 1/√d.
    """

    def __init__(self, in_channels: int, key_depth: int, value_depth: int, heads: int) -> None:
        super().__init__()
        self.key_depth, self.value_depth, self.heads = key_depth, value_depth, heads
        self.qkv = nn.Conv1d(in_channels, 2 * key_depth + value_depth, 1, bias=False)
        init_truncated_normal(self.qkv.weight, in_channels**-0.5)
        self.qkv_norm = batch_norm(2 * key_depth + value_depth, 1)
        self.query_position = RelativePosition(key_depth // heads)
        self.key_position = RelativePosition(key_depth // heads)
        self.value_position = RelativePosition(value_depth // heads)
        self.logit_norm = batch_norm(3 * heads, 2)
        self.output_norm = batch_norm(2 * value_depth, 1)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[-1]
        query, key, value = self._split(x)
        weight = self._weights(query, key, length).to(value.dtype)
        content = value @ weight.transpose(-1, -2)  # (B, h, d', L)
        position = torch.einsum("bhlm,lmd->bhdl", weight, self.value_position(length).to(weight.dtype))
        # Heads are joined, (B, h, d', L) → (B, h·d', L), and both parts are normalized together: (B, 2·h·d', L).
        both: Tensor = self.output_norm(torch.cat([content.flatten(1, 2), position.flatten(1, 2)], 1))
        return both[:, : self.value_depth] + both[:, self.value_depth :]

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        """q, k (B, h, d, L) and v (B, h, d', L)."""
        mixed: Tensor = self.qkv_norm(self.qkv(x))  # (B, C, L) → (B, q + k + v channels, L)
        parts = mixed.split([self.key_depth, self.key_depth, self.value_depth], 1)
        return tuple(part.unflatten(1, (self.heads, -1)) for part in parts)

    def _weights(self, query: Tensor, key: Tensor, length: int) -> Tensor:
        """Attention weights (B, h, L, L), in at least float32."""
        content = query.transpose(-1, -2) @ key  # (B, h, L, L)
        of_query = torch.einsum("bhdl,lmd->bhlm", query, self.query_position(length).to(query.dtype))
        of_key = torch.einsum("bhdm,lmd->bhlm", key, self.key_position(length).to(key.dtype))
        logits = self.logit_norm(torch.cat([content, of_query, of_key], 1))  # (B, 3h, L, L)
        terms: Tensor = at_least_float32(logits).unflatten(1, (3, self.heads))  # (B, 3, h, L, L)
        return terms.sum(1).softmax(-1)  # the sum of the three, over keys: (B, h, L, L)


class AxialAttention(nn.Module):
    """Attention along the height axis, then along the width axis: (B, C, H, W) → (B, `value_depth`, H', W').

    With a stride s, the first attention keeps every s-th row and the second every s-th column, from the first one on.
    """

    def __init__(self, in_channels: int, key_depth: int, value_depth: int, heads: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.height = AxisAttention(in_channels, key_depth, value_depth, heads)
        self.width = AxisAttention(value_depth, key_depth, value_depth, heads)

    def forward(self, x: Tensor) -> Tensor:
        batch, width = x.shape[0], x.shape[3]
        x = self.height(x.permute(0, 3, 1, 2).flatten(0, 1)).unflatten(0, (batch, width))  # (B, W, C, H)
        x = x.permute(0, 3, 2, 1)[:, :: self.stride]  # (B, H', C, W)
        height = x.shape[1]
        x = self.width(x.flatten(0, 1)).unflatten(0, (batch, height))  # (B, H', C, W)
        return x[..., :: self.stride].permute(0, 2, 1, 3)  # (B, C, H', W')
